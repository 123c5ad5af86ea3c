"""Blobs To Masks and Blobs To Boxes: a layout as other nodes take it."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io

from ..kernels.blob_layout import LARGEST_SIDE, MOST_FRAMES, BlobLayout
from ..kernels.blob_results import MASK_KINDS, boxes_to_json, layout_masks
from .sockets import CATEGORY_BLOBS, PnBlobs, check_blobs, check_choice, check_range


def size_inputs(what: str) -> list[io.Int.Input]:
    """The optional size; 0 = the layout's own."""
    return [
        io.Int.Input(
            name,
            default=0,
            min=0,
            max=LARGEST_SIDE,
            tooltip=f"Pixels {where} {what}. 0 = as the layout. Only the proportions of the two change where things "
            "stand.",
        )
        for name, where in (("width", "across"), ("height", "down"))
    ]


def size_of(layout: BlobLayout, width: int, height: int) -> tuple[int, int]:
    """Width and height, where 0 is the layout's own."""
    check_range(width, "width", 0, LARGEST_SIDE)
    check_range(height, "height", 0, LARGEST_SIDE)
    return width or layout.width, height or layout.height


def frame_input() -> io.Int.Input:
    """Which frame; -1 = all."""
    return io.Int.Input(
        "frame", default=-1, min=-1, max=MOST_FRAMES - 1, tooltip="Which frame, counted from 0; -1 = all of them."
    )


def check_frame(layout: BlobLayout, frame: int) -> int:
    """A frame of the layout.

    Raises:
        ValueError: beyond its last one.
    """
    if not 0 <= frame < layout.frames:
        raise ValueError(
            f"'frame' is {frame}, but the layout has {layout.frames} frame{'s' * (layout.frames != 1)}; expected 0 to "
            f"{layout.frames - 1}."
        )
    return frame


def chosen_frames(layout: BlobLayout, frame: int) -> list[int]:
    """The frames that are meant."""
    return list(range(layout.frames)) if frame == -1 else [check_frame(layout, frame)]


class BlobsToMasks(io.ComfyNode):
    """A mask for each blob of each frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobsToMasks",
            display_name="Blobs To Masks",
            category=CATEGORY_BLOBS,
            description=(
                "Draws a blob layout as masks, one for each blob and frame, for any node that takes a MASK: "
                "regional prompts, inpainting, masked samplers."
            ),
            inputs=[
                PnBlobs.Input("blobs", tooltip="The layout."),
                io.Combo.Input(
                    "kind",
                    options=list(MASK_KINDS),
                    default=MASK_KINDS[0],
                    tooltip=(
                        "hard: white inside, black outside. soft: the edge fades. composited: soft, and less what the "
                        "blobs above hide, so that no two share a pixel fully."
                    ),
                ),
                frame_input(),
                *size_inputs("of the masks"),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks",
                    tooltip=(
                        "All blobs of the first frame, from the bottom to the top, then all of the next; black where "
                        "a blob is not there."
                    ),
                )
            ],
        )

    @classmethod
    def execute(cls, blobs: BlobLayout, kind: str, frame: int, width: int, height: int) -> io.NodeOutput:
        layout = check_blobs(blobs)
        check_choice(kind, "kind", MASK_KINDS)
        width, height = size_of(layout, width, height)
        frames = chosen_frames(layout, frame)
        if not layout.blobs:
            raise ValueError("'blobs' has no blobs, so there are no masks. Draw one in Blob Layout.")
        device = comfy.model_management.get_torch_device()
        masks = layout_masks(layout, kind, frames, height, width, device)
        return io.NodeOutput(masks.to(comfy.model_management.intermediate_device()))


class BlobsToBoxes(io.ComfyNode):
    """The boxes around blobs as JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobsToBoxes",
            display_name="Blobs To Boxes",
            category=CATEGORY_BLOBS,
            description=(
                "The upright boxes around a layout's blobs with their captions, as JSON, for nodes and programs that "
                "take boxes."
            ),
            inputs=[
                PnBlobs.Input("blobs", tooltip="The layout."),
                io.Boolean.Input(
                    "clipped",
                    default=True,
                    tooltip=(
                        "Cut boxes at the picture's borders, and leave out those outside. Off: whole boxes, which may "
                        "reach beyond the picture."
                    ),
                ),
                frame_input(),
                *size_inputs("of the picture that boxes are for"),
            ],
            outputs=[io.String.Output(display_name="boxes", tooltip="JSON; the help page has the format.")],
        )

    @classmethod
    def execute(cls, blobs: BlobLayout, clipped: bool, frame: int, width: int, height: int) -> io.NodeOutput:
        layout = check_blobs(blobs)
        width, height = size_of(layout, width, height)
        return io.NodeOutput(boxes_to_json(layout, chosen_frames(layout, frame), width, height, clipped))


NODES = [BlobsToMasks, BlobsToBoxes]
