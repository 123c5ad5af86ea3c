"""MangaNinja: line art coloured after a reference picture, by matched points if there are any."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from comfy_api.latest import io
from torch import Tensor

from ..kernels.matched_points import MatchedPoints
from ..networks.manga_ninja import (
    SOURCE,
    MangaNinja,
    MangaNinjaFileError,
    points_patcher,
    read_point_net,
    read_reference_unet,
)
from ..patches.manga_ninja import (
    check_fit,
    dual_guidance,
    has_reference,
    reference_bank,
    roles_of,
    tagged,
    text_width,
    with_reference,
)
from ..patches.reference_attention import NO_REFERENCE, REFERENCE, WITH_POINTS
from .demo_adapters import MANGA_POINTS, MANGA_REFERENCES
from .sockets import (
    CATEGORY_COLOUR,
    PnMangaNinja,
    PnPoints,
    check_pictures,
    check_points,
    check_range,
    check_sides,
    encoded,
)
from .weight_files import find_weights, list_weights, read_weights

MODEL_FOLDERS = ("manganinja", "diffusion_models")
REFERENCE_UNET, POINT_NET = "reference_unet.pth", "point_net.pth"
"""The published files."""

MOST_GUIDANCE = 100.0

_told: set[str] = set()


def list_files(published: str, word: str, ours: Mapping[str, str]) -> list[str]:
    """Files of models/manganinja, models/diffusion_models and models/unet, those whose name has a word first.

    Where none has it, the published one's name, so that a workflow can say what it lacks; then the pack's own for Demo
    Checkpoint.
    """
    names = list_weights(MODEL_FOLDERS)
    likely = [name for name in names if word in os.path.basename(name).lower()]
    return (likely or [published]) + list(ours) + [name for name in names if name not in likely]


class MangaNinjaLoader(io.ComfyNode):
    """MangaNinja's two networks that ComfyUI has no loader for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MangaNinjaLoader",
            display_name="MangaNinja Loader",
            category=CATEGORY_COLOUR,
            description="Loads MangaNinja's reference UNet and point net; the other two files have stock loaders.",
            inputs=[
                io.Combo.Input(
                    "reference_unet",
                    options=list_files(REFERENCE_UNET, "reference", MANGA_REFERENCES),
                    tooltip=(
                        "Sees the reference picture. In models/manganinja, models/diffusion_models or models/unet. "
                        "papernodes_demo_...: for Demo Checkpoint, comes with the pack."
                    ),
                ),
                io.Combo.Input(
                    "point_net",
                    options=list_files(POINT_NET, "point", MANGA_POINTS),
                    tooltip="Reads matched points. In the same folders; of the same model as the reference UNet.",
                ),
            ],
            outputs=[PnMangaNinja.Output(display_name="manga_ninja", tooltip="For MangaNinja Apply.")],
        )

    @classmethod
    def execute(cls, reference_unet: str, point_net: str) -> io.NodeOutput:
        chosen = (
            ("reference_unet", reference_unet, REFERENCE_UNET, MANGA_REFERENCES),
            ("point_net", point_net, POINT_NET, MANGA_POINTS),
        )
        # Both are looked for before time is spent on the first.
        paths = [find_weights(MODEL_FOLDERS, name, widget, f"{file} from {SOURCE}", ours)
                 for widget, name, file, ours in chosen]  # fmt: skip
        states = [read_weights(path, name, widget, SOURCE)
                  for path, (widget, name, *_) in reversed(list(zip(paths, chosen, strict=True)))]  # fmt: skip
        try:
            points = points_patcher(read_point_net(point_net, states[0]))
        except MangaNinjaFileError as error:
            raise ValueError(f"'point_net': {error}") from None
        try:
            reference = read_reference_unet(reference_unet, states[1])
        except MangaNinjaFileError as error:
            raise ValueError(f"'reference_unet': {error}") from None
        for _, name, _, ours in chosen:
            if name not in ours and name not in _told:
                _told.add(name)
                logging.info("PaperNodes: %s is licensed CC BY-NC 4.0, for non-commercial use.", name)
        return io.NodeOutput(MangaNinja(reference, points))


class MangaNinjaApply(io.ComfyNode):
    """A MODEL that sees a reference, and the three conditionings that it is guided by."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MangaNinjaApply",
            display_name="MangaNinja Apply",
            category=CATEGORY_COLOUR,
            description="Lets a model colour after a reference picture, and by points matched between the two.",
            inputs=[
                io.Model.Input("model", tooltip="MangaNinja's denoising_unet, or Demo Checkpoint's model."),
                PnMangaNinja.Input("manga_ninja", tooltip="From MangaNinja Loader."),
                io.Vae.Input("vae", tooltip="SD1.5's, or Demo Checkpoint's; encodes the reference."),
                io.Image.Input("reference", tooltip="The picture whose colours are taken; sides are multiples of 8."),
                io.ClipVisionOutput.Input(
                    "clip_vision_output",
                    tooltip="CLIP Vision Encode of the same picture, by CLIP ViT-L/14 (224 pixels, with projection).",
                ),
                io.Clip.Input("clip", tooltip="SD1.5's text encoder: what is drawn without reference has no words."),
                PnPoints.Input(
                    "points", optional=True, tooltip="From Match Points: which place has whose colours. None: by look."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=False,
                    optional=True,
                    tooltip="How much the reference counts. 1: as trained. 0: the model without it.",
                ),
                *(
                    io.Float.Input(
                        name,
                        default=default,
                        min=0.0,
                        max=1.0,
                        step=0.01,
                        round=False,
                        optional=True,
                        tooltip=f"Where in the sampling the reference {verb} to count.",
                    )
                    for name, default, verb in (("start_percent", 0.0, "begins"), ("end_percent", 1.0, "ceases"))
                ),
                io.ControlNet.Input(
                    "control_net",
                    optional=True,
                    tooltip="MangaNinja's controlnet: keeps to the lines. Here for all three conditionings at once.",
                ),
                io.Image.Input(
                    "control_hint", optional=True, tooltip="Line Art's control_hint: lines from -1 to 1, one or a clip."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For MangaNinja Guider, and for the scheduler."),
                io.Conditioning.Output(display_name="positive", tooltip="Sees the reference and the points."),
                io.Conditioning.Output(display_name="middle", tooltip="Sees the reference."),
                io.Conditioning.Output(display_name="negative", tooltip="Sees neither."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        manga_ninja: MangaNinja,
        vae: object,
        reference: Tensor,
        clip_vision_output: object,
        clip: object,
        points: MatchedPoints | None = None,
        strength: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        control_net: object | None = None,
        control_hint: Tensor | None = None,
    ) -> io.NodeOutput:
        if not isinstance(manga_ninja, MangaNinja):
            raise ValueError(
                f"'manga_ninja' holds a {type(manga_ninja).__name__}; connect the output of MangaNinja Loader."
            )
        check_range(strength, "strength", 0.0, 2.0)
        check_range(start_percent, "start_percent", 0.0, 1.0)
        check_range(end_percent, "end_percent", start_percent, 1.0)
        points = None if points is None else check_points(points)
        check_fit(model, manga_ninja)
        picture = checked_reference(reference)
        hint = checked_hint(control_net, control_hint)
        shown = image_token(clip_vision_output, text_width(model))
        nothing = empty_prompt_token(clip, text_width(model))
        latents = encoded(vae, picture, model)
        bank = reference_bank(manga_ninja.reference, latents, shown)
        size = picture.shape[1], picture.shape[2]
        coloured = with_reference(model, bank, size, manga_ninja.points, points, strength, start_percent, end_percent)
        positive, middle, negative = [[shown, {}]], [[shown, {}]], [[nothing, {}]]
        if hint is not None:
            # One object for the three: the host puts rows of several into several calls of the network.
            control = control_net.copy().set_cond_hint(hint.movedim(-1, 1), 1.0, (0.0, 1.0), vae=vae)
            for conditioning in (positive, middle, negative):
                conditioning[0][1].update(control=control, control_apply_to_uncond=False)
        return io.NodeOutput(coloured, tagged(positive, WITH_POINTS), tagged(middle, REFERENCE), negative)


def checked_reference(reference: Tensor) -> Tensor:
    """The reference picture, float32 [1, H, W, 3], 0..1.

    Raises:
        ValueError: no picture, several, or sides that are no multiples of 8.
    """
    picture = check_pictures(reference, "reference")
    if picture.shape[0] != 1:
        raise ValueError(
            f"'reference' holds {picture.shape[0]} pictures; expected one, after which the whole batch or clip is "
            "coloured. Put ImageFromBatch between."
        )
    check_sides(picture, "reference")
    return picture


def checked_hint(control_net: object | None, control_hint: Tensor | None) -> Tensor | None:
    """The picture for the ControlNet, float32 [B, H, W, 3], -1..1; None without one.

    Raises:
        ValueError: one of the two without the other, or a picture from 0 to 1, such as line art's preview.
    """
    if control_net is None and control_hint is None:
        return None
    if control_net is None or control_hint is None:
        there, missing = ("control_net", "control_hint") if control_hint is None else ("control_hint", "control_net")
        raise ValueError(
            f"'{there}' is connected and '{missing}' is not. Connect both (Load ControlNet Model, and the control_hint "
            "output of Line Art) or neither."
        )
    if not hasattr(control_net, "set_cond_hint"):
        raise ValueError(f"'control_net' holds a {type(control_net).__name__}; connect Load ControlNet Model.")
    hint = check_pictures(control_hint, "control_hint")
    low, high = float(hint.min()), float(hint.max())
    if low >= 0 or low < -1 or high > 1:
        raise ValueError(
            f"'control_hint' goes from {low:g} to {high:g}; MangaNinja's ControlNet wants lines at 1 on a ground of "
            "-1. Connect the control_hint output of Line Art, not line_art and no plain picture."
        )
    return hint


def image_token(output: object, width: int) -> Tensor:
    """What the cross attentions see of the reference, [1, 1, width].

    Args:
        output: a CLIP_VISION_OUTPUT.
        width: of the text that the UNet was trained with.

    Raises:
        ValueError: no embedding of an image, one of another width, of several pictures, or one that says nothing.
    """
    expected = (
        "Use CLIP Vision Encode with CLIP ViT-L/14 of 224 pixels with its projection (openai/clip-vit-large-patch14, "
        "768 wide)"
        if width == 768
        else "Use CLIP Vision Encode with the clip_vision output of Demo Checkpoint"
    )
    embedding = getattr(output, "image_embeds", None)
    if not isinstance(embedding, Tensor):
        raise ValueError(
            f"'clip_vision_output' holds no embedding of an image ({type(output).__name__}): a text encoder has none, "
            f"and neither has a vision model without projection. {expected}."
        )
    if embedding.ndim != 2 or embedding.shape[-1] != width:
        raise ValueError(
            f"'clip_vision_output' has an embedding of shape {list(embedding.shape)}; expected [1, {width}]. ViT-H is "
            "1024 and ViT-g 1280 wide; SigLIP and DINO give no such embedding, and a vision model without projection "
            f"none of this width. {expected}."
        )
    if embedding.shape[0] != 1:
        raise ValueError(
            f"'clip_vision_output' is of {embedding.shape[0]} pictures; expected the one that 'reference' is."
        )
    if not bool(embedding.isfinite().all()) or bool((embedding == embedding[:, :1]).all()):
        raise ValueError(
            "'clip_vision_output' has an embedding of equal, NaN or infinite numbers, which say nothing of a picture: "
            f"weights of the vision model are missing, as in a file of a text encoder. {expected}."
        )
    return embedding[:, None].float()


def empty_prompt_token(clip: object, width: int) -> Tensor:
    """The first token of the empty prompt, [1, 1, width]; CLIP's first token does not depend on the others.

    Raises:
        ValueError: no CLIP, or one of another width.
    """
    expected = "Connect SD1.5's text encoder (clip_l)" if width == 768 else "Connect the clip output of Demo Checkpoint"
    if not hasattr(clip, "encode_from_tokens"):
        raise ValueError(f"'clip' holds a {type(clip).__name__}; expected a text encoder. {expected}.")
    text = clip.encode_from_tokens(clip.tokenize(""))
    if not isinstance(text, Tensor) or text.ndim != 3 or text.shape[-1] != width:
        came = list(text.shape) if isinstance(text, Tensor) else type(text).__name__
        raise ValueError(
            f"'clip' gives text of shape {came}; expected [1, tokens, {width}]. SD2's is 1024 and SDXL's 2048 wide. "
            f"{expected}."
        )
    return text[:1, :1].float()


class MangaNinjaGuider(io.ComfyNode):
    """The stock guider of three conditionings, with MangaNinja's scales."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_MangaNinjaGuider",
            display_name="MangaNinja Guider",
            category=CATEGORY_COLOUR,
            description="Guides by reference and by points, each with its own scale, as MangaNinja does.",
            inputs=[
                io.Model.Input("model", tooltip="From MangaNinja Apply; LoRAs may come after it."),
                io.Conditioning.Input("positive", tooltip="MangaNinja Apply's: reference and points."),
                io.Conditioning.Input("middle", tooltip="MangaNinja Apply's: reference."),
                io.Conditioning.Input("negative", tooltip="MangaNinja Apply's: neither."),
                *(
                    io.Float.Input(
                        name,
                        default=default,
                        min=0.0,
                        max=MOST_GUIDANCE,
                        step=0.1,
                        round=False,
                        tooltip=tooltip,
                    )
                    for name, default, tooltip in (
                        ("reference_scale", 9.0, "How far towards the reference. More: its colours, harder."),
                        ("point_scale", 15.0, "How far towards the points. More: they decide against the look."),
                    )
                ),
            ],
            outputs=[io.Guider.Output(display_name="guider", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(
        cls,
        model: object,
        positive: list,
        middle: list,
        negative: list,
        reference_scale: float,
        point_scale: float,
    ) -> io.NodeOutput:
        # Imported here, because it is no part of what a pack may count on to be there.
        from comfy_extras.nodes_custom_sampler import Guider_DualCFG

        check_range(reference_scale, "reference_scale", 0.0, MOST_GUIDANCE)
        check_range(point_scale, "point_scale", 0.0, MOST_GUIDANCE)
        if not has_reference(model):
            raise ValueError("'model' sees no reference. Connect the model output of MangaNinja Apply.")
        for name, conditioning, role in (
            ("positive", positive, WITH_POINTS),
            ("middle", middle, REFERENCE),
            ("negative", negative, NO_REFERENCE),
        ):
            if roles_of(conditioning) != {role}:
                raise ValueError(
                    f"'{name}' is not what MangaNinja Apply gives as {name}. Connect its outputs positive, middle and "
                    "negative to the inputs of the same names."
                )
        guider = Guider_DualCFG(model)
        guider.set_conds(positive, middle, negative)
        # By place: the parameters' names have changed between versions of the host, their order has not.
        guider.set_cfg(*dual_guidance(reference_scale, point_scale))
        return io.NodeOutput(guider)


NODES = [MangaNinjaLoader, MangaNinjaApply, MangaNinjaGuider]
