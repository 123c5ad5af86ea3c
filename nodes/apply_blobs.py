"""Apply Blobs and Blob Text Schedule: what stands where, obeyed by the attention of a model."""

from __future__ import annotations

from comfy_api.latest import io

from ..kernels.blob_layout import BlobLayout
from ..kernels.schedule import WAYS
from ..patches.blob_captions import (
    LERP,
    MOST_ROWS,
    SCHEDULED,
    SLERP,
    encode_captions,
    frame_texts,
    schedule_captions,
)
from ..patches.blobs import KEY, RULES, BlobSettings, add_blobs, with_blobs
from ..patches.regional import CROSS, UNET, family_of
from .sockets import CATEGORY_BLOBS, PnBlobs, check_blobs, check_choice, check_range

MOST_BLOBS, MOST_SHARED = 60, 28
"""Blobs that a model's attention can tell apart: beside text, and where text and picture share one attention."""


class ApplyBlobs(io.ComfyNode):
    """Lets a model draw what a layout says, where it says."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ApplyBlobs",
            display_name="Apply Blobs",
            category=CATEGORY_BLOBS,
            description=(
                "Each blob's caption is seen where the blob stands, in every frame. Without training; for UNets, "
                "SD3, Flux, Chroma, Qwen-Image, Wan, LTXV and HunyuanVideo."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model that will be sampled; LoRAs and other patches may follow."),
                io.Clip.Input("clip", tooltip="The text encoder that made the positive; it encodes the captions."),
                io.Conditioning.Input(
                    "positive", tooltip="The prompt of the whole picture: the scene, and best all things in it."
                ),
                PnBlobs.Input("blobs", tooltip="From Blob Layout, Blobs From Masks or Plan Blobs."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=False,
                    tooltip="1: in a blob only its caption counts. Lower: the whole prompt counts there, too. 0: off.",
                ),
                io.Float.Input(
                    "start_percent", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="From here: 0 is the first step."
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="To here: 1 is the last step. Layout is settled early; 0.5 blends things better.",
                ),
                io.Combo.Input(
                    "rules",
                    options=list(RULES),
                    default=RULES[0],
                    tooltip=(
                        "masked: BlobGEN's. 3dis: the beginning is stricter, and later the whole prompt is seen in "
                        "blobs, too. none: blobs are only for Blob Adapter and for self_attention."
                    ),
                ),
                io.Boolean.Input(
                    "self_attention",
                    default=False,
                    tooltip=(
                        "Places attend only to places of the same blob, over all frames of a video at once (masked 3-D "
                        "attention): things keep their colours and do not mix."
                    ),
                ),
                io.Int.Input(
                    "first_blocks",
                    default=10,
                    min=0,
                    max=1000,
                    tooltip="In how many of the model's blocks self_attention and 3dis hold places apart. 0: in all.",
                ),
                io.Float.Input(
                    "self_end",
                    default=0.3,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Until where in the sampling self_attention and the strict part of 3dis hold.",
                ),
                io.Conditioning.Input(
                    "schedule",
                    optional=True,
                    tooltip="From Blob Text Schedule: captions change smoothly. Without it they change at once.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="Obeys the blobs; sample with both outputs."),
                io.Conditioning.Output(display_name="positive", tooltip="The prompt with the blobs' captions."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        clip: object,
        positive: list,
        blobs: BlobLayout,
        strength: float,
        start_percent: float,
        end_percent: float,
        rules: str,
        self_attention: bool,
        first_blocks: int,
        self_end: float,
        schedule: list | None = None,
    ) -> io.NodeOutput:
        check_blobs(blobs)
        check_choice(rules, "rules", RULES)
        for name, value in (
            ("strength", strength),
            ("start_percent", start_percent),
            ("end_percent", end_percent),
            ("self_end", self_end),
        ):
            check_range(value, name, 0.0, 1.0)
        check_range(first_blocks, "first_blocks", 0, 1000)
        if start_percent >= end_percent:
            raise ValueError(
                f"'start_percent' is {start_percent:g} and 'end_percent' is {end_percent:g}; the end must come later."
            )
        try:
            family = family_of(model)
        except ValueError as error:
            raise ValueError(f"Apply Blobs: {error}") from None
        _check_number(blobs, family not in (UNET, CROSS))
        if strength == 0 or not blobs.blobs:
            return io.NodeOutput(model, positive)
        captions = encode_captions(clip, blobs) if schedule is None else _scheduled(schedule, blobs)
        _check_text(positive, captions, rules)
        settings = BlobSettings(rules, strength, self_attention, first_blocks, self_end)
        changed = [
            one
            for entry in positive
            for one in with_blobs(entry, captions, blobs, settings, start_percent, end_percent, family=family)
        ]
        return io.NodeOutput(add_blobs(model), changed)


def _check_number(blobs: BlobLayout, joint: bool) -> None:
    most = MOST_SHARED if joint else MOST_BLOBS
    if len(blobs.blobs) > most:
        raise ValueError(
            f"'blobs' holds {len(blobs.blobs)} blobs; this model's attention can tell at most {most} apart. Take some "
            "out of the layout."
        )


def _scheduled(schedule: list, blobs: BlobLayout) -> list:
    """The captions of a CONDITIONING of Blob Text Schedule."""
    captions = schedule[0][1].get(SCHEDULED) if schedule else None
    if captions is None:
        raise ValueError("'schedule' is not from Blob Text Schedule; connect its output, or nothing.")
    if len(captions) != len(blobs.blobs):
        raise ValueError(
            f"'schedule' has the captions of {len(captions)} blobs and 'blobs' holds {len(blobs.blobs)}. Connect the "
            "same layout to both nodes."
        )
    return captions


def _check_text(positive: list, captions: list, rules: str) -> None:
    """Raises ValueError where captions cannot stand behind a prompt."""
    if not positive:
        raise ValueError("'positive' is empty; connect CLIP Text Encode.")
    every = [states for anchors in captions for _, states in anchors]
    if rules != "none" and not every:
        raise ValueError("'blobs' has no captions; write what each blob is, or set 'rules' to none.")
    rows = sum(states.shape[0] for states in every)
    for text, options in positive:
        if KEY in options:
            raise ValueError("'positive' has blobs already; connect the conditioning from before Apply Blobs.")
        if rules == "none":
            continue
        if text.shape[0] != 1:
            raise ValueError(
                f"'positive' holds {text.shape[0]} texts in one; connect one prompt, and Blob Text Schedule to "
                "'schedule' if captions are to change."
            )
        if every[0].shape[1] != text.shape[2]:
            raise ValueError(
                f"'clip' gives {every[0].shape[1]} numbers for each token and 'positive' has {text.shape[2]}. Connect "
                "the CLIP that made the positive."
            )
        if text.shape[1] + rows > MOST_ROWS:
            raise ValueError(
                f"the captions have {rows} tokens, with the prompt {text.shape[1] + rows}; at most {MOST_ROWS} can be "
                "seen. Shorten them, or raise 'every' of Blob Text Schedule."
            )


class BlobTextSchedule(io.ComfyNode):
    """Captions that change smoothly from frame to frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobTextSchedule",
            display_name="Blob Text Schedule",
            category=CATEGORY_BLOBS,
            description="What blobs are at anchor frames, and smoothly in between: texts for every few frames.",
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the model that will be sampled."),
                PnBlobs.Input("blobs", tooltip="A layout whose blobs have captions at several frames."),
                io.Combo.Input(
                    "interpolation",
                    options=[SLERP, LERP],
                    default=SLERP,
                    tooltip="How each token goes from one caption's to the next one's: on the arc, or straight.",
                ),
                io.Combo.Input(
                    "way", options=list(WAYS), default=WAYS[0], tooltip="How time bends between two anchor frames."
                ),
                io.Int.Input(
                    "every",
                    default=4,
                    min=1,
                    max=1000,
                    tooltip=(
                        "Frames from one text to the next: 4 for Wan, 8 for LTXV, whose latent frames stand for so "
                        "many; 1 for image models."
                    ),
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning",
                    tooltip="For Apply Blobs' schedule. With motion modules also a prompt by itself: a text a frame.",
                )
            ],
        )

    @classmethod
    def execute(cls, clip: object, blobs: BlobLayout, interpolation: str, way: str, every: int) -> io.NodeOutput:
        check_blobs(blobs)
        check_choice(interpolation, "interpolation", (SLERP, LERP))
        check_choice(way, "way", WAYS)
        check_range(every, "every", 1, 1000)
        captions = schedule_captions(clip, blobs, interpolation, way, every)
        if not any(captions):
            raise ValueError("'blobs' has no captions; write in Blob Layout what each blob is.")
        first = next(blob.anchors()[0].text for blob, own in zip(blobs.blobs, captions, strict=True) if own)
        # What a model takes beside the text (SDXL's and Flux's pooled output) is the first caption's.
        options = dict(clip.encode_from_tokens_scheduled(clip.tokenize(first))[0][1])
        options.pop("attention_mask", None)
        return io.NodeOutput([[frame_texts(captions, blobs.frames), {**options, SCHEDULED: captions}]])


NODES = [ApplyBlobs, BlobTextSchedule]
