"""Blobs To GLIGEN: a layout's boxes as ComfyUI's own GLIGEN takes them."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..kernels.blob_layout import MOST_FRAMES, BlobLayout
from ..kernels.blob_results import layout_boxes
from .blob_results import check_frame, size_inputs, size_of
from .sockets import CATEGORY_BLOBS, PnBlobs, check_blobs, check_range

LATENT_STEP = 8
"""Pixels to a side of one latent pixel, in which GLIGEN's boxes are counted."""

MOST_THINGS = 30
"""Of GLIGEN's weights; the host fails on more while it samples."""


class BlobsToGligen(io.ComfyNode):
    """Every blob as GLIGENTextBoxApply would add it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobsToGLIGEN",
            display_name="Blobs To GLIGEN",
            category=CATEGORY_BLOBS,
            description=(
                "Grounds SD1.x in a blob layout with GLIGEN's published weights: the box around each blob and its "
                "caption, as a chain of GLIGENTextBoxApply would do it."
            ),
            inputs=[
                io.Conditioning.Input("conditioning_to", tooltip="The positive prompt, of the whole picture."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP, which reads the captions."),
                io.Gligen.Input("gligen_textbox_model", tooltip="From the stock GLIGENLoader, a text box model."),
                PnBlobs.Input("blobs", tooltip="The layout; at most 30 of its blobs can be used."),
                io.Int.Input(
                    "frame",
                    default=0,
                    min=0,
                    max=MOST_FRAMES - 1,
                    tooltip="Which frame of the layout, counted from 0: GLIGEN draws pictures.",
                ),
                *size_inputs("of the picture that is drawn"),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="For the sampler's positive."),
                io.String.Output(display_name="log", tooltip="Which boxes were given, and which blobs left out."),
            ],
        )

    @classmethod
    def execute(
        cls,
        conditioning_to: list,
        clip: object,
        gligen_textbox_model: object,
        blobs: BlobLayout,
        frame: int,
        width: int,
        height: int,
    ) -> io.NodeOutput:
        layout = check_blobs(blobs)
        check_range(frame, "frame", 0, MOST_FRAMES - 1)
        check_frame(layout, frame)
        if clip is None:
            raise ValueError("'clip' holds nothing: the checkpoint has no text encoder. Connect a CLIP of SD1.x.")
        width, height = size_of(layout, width, height)
        things, lines = boxed(layout, frame, width, height)
        before = max((len(options["gligen"][2]) for _, options in conditioning_to if "gligen" in options), default=0)
        if before + len(things) > MOST_THINGS:
            brought = f" and 'conditioning_to' brings {before} boxes" if before else ""
            raise ValueError(
                f"'blobs' has {len(things)} blobs to ground in frame {frame}{brought}; GLIGEN knows at most "
                f"{MOST_THINGS}. Delete some, or give those that matter least a weight of 0."
            )
        read: dict[str, torch.Tensor] = {}
        added = []
        for caption, (left, top, right, bottom) in things:
            if caption not in read:
                read[caption] = clip.encode_from_tokens(clip.tokenize(caption), return_pooled="unprojected")[1]
            added.append((read[caption], bottom - top, right - left, top, left))
        if not added:  # an empty list of boxes is another thing to the model than none
            return io.NodeOutput(conditioning_to, "\n".join(lines))
        result = []
        for embedding, options in conditioning_to:
            options = options.copy()
            earlier = options["gligen"][2] if "gligen" in options else []
            options["gligen"] = ("position", gligen_textbox_model, earlier + added)
            result.append([embedding, options])
        return io.NodeOutput(result, "\n".join(lines))


def boxed(layout: BlobLayout, frame: int, width: int, height: int) -> tuple[list[tuple[str, list[int]]], list[str]]:
    """Captions with boxes in latent pixels (left, top, right, bottom), and a line about each blob.

    Boxes are cut at the picture's borders and rounded to the latent's pixels, of which each has at least one.
    """
    found, there = layout_boxes(layout, width, height, clipped=True)
    across, down = max(width // LATENT_STEP, 1), max(height // LATENT_STEP, 1)
    things, lines = [], []
    for number, blob in enumerate(layout.blobs):
        title, caption = f"{number + 1} ({blob.caption_at(frame) or 'no caption'})", blob.caption_at(frame).strip()
        why = None
        if not bool(layout.presence()[frame, number]):
            why = f"it is not in frame {frame}"
        elif not bool(there[frame, number]):
            why = "it is outside the picture"
        elif not caption:
            why = "it has no caption"
        elif blob.weight == 0:
            why = "its weight is 0"
        if why:
            lines.append(f"{title}: left out, because {why}.")
            continue
        left, right = rounded(*(found[frame, number, [0, 2]] * width).tolist(), across)
        top, bottom = rounded(*(found[frame, number, [1, 3]] * height).tolist(), down)
        things.append((caption, [left, top, right, bottom]))
        size = [LATENT_STEP * value for value in (left, top, right - left, bottom - top)]
        lines.append(f"{title}: x {size[0]}, y {size[1]}, width {size[2]}, height {size[3]}.")
    return things, lines


def rounded(low: float, high: float, most: int) -> tuple[int, int]:
    """An interval of pixels in whole latent pixels, at least one of 0..most."""
    low = min(round(low / LATENT_STEP), most - 1)
    return low, min(max(round(high / LATENT_STEP), low + 1), most)


NODES = [BlobsToGligen]
