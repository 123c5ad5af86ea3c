"""Blob Layout: ellipses with captions drawn by hand, what stands where in a picture or a clip."""

from __future__ import annotations

import dataclasses

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..kernels.blob_layout import LARGEST_SIDE, MOST_BLOBS, MOST_FRAMES, BlobLayout, blobs_to_json, parse_blobs
from ..kernels.blob_picture import BlobPictures, covering
from ..kernels.blob_results import layout_masks
from .sockets import CATEGORY_BLOBS, NothingThere, PnBlobs, check_blobs, check_pictures, check_range

TWO_BLOBS = (
    '{"version": 1, "blobs": ['
    '{"id": "1", "caption": "a red ball", "x": 0.3, "y": 0.62, "a": 0.2, "b": 0.2}, '
    '{"id": "2", "caption": "a green leaf", "x": 0.68, "y": 0.4, "a": 0.25, "b": 0.12, "angle": -30}]}'
)

MOST_MASK_BYTES = 2**32
LONGEST_ID = 100


class BlobLayoutNode(io.ComfyNode):
    """Blobs drawn in an editor."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobLayout",
            display_name="Blob Layout",
            category=CATEGORY_BLOBS,
            description=(
                "Says what stands where: ellipses with captions, drawn by hand over an optional picture, in an order, "
                "and moving by key frames."
            ),
            inputs=[
                io.String.Input(
                    "layout",
                    multiline=True,
                    default=TWO_BLOBS,
                    tooltip=(
                        f"What the editor draws: up to {MOST_BLOBS} blobs and their key frames as JSON. Empty = none. "
                        "The help page has the format."
                    ),
                ),
                *(
                    io.Int.Input(
                        name,
                        default=512,
                        min=8,
                        max=LARGEST_SIDE,
                        step=8,
                        tooltip=f"Pixels {where} of the picture that is laid out.",
                    )
                    for name, where in (("width", "across"), ("height", "down"))
                ),
                io.Int.Input(
                    "frames",
                    default=1,
                    min=1,
                    max=MOST_FRAMES,
                    tooltip="Frames of the clip. With more than one, blobs may have key frames and move.",
                ),
                io.Image.Input(
                    "picture",
                    optional=True,
                    tooltip=(
                        "Seen behind the blobs while editing and in the preview: one picture, or one a frame. blobs "
                        "and masks do not depend on it."
                    ),
                ),
                PnBlobs.Input(
                    "blobs",
                    optional=True,
                    tooltip="Blobs that lie beneath those drawn here, such as a plan, with as many frames.",
                ),
            ],
            outputs=[
                PnBlobs.Output(display_name="blobs", tooltip="The layout: blobs from the bottom to the top."),
                io.Image.Output(
                    display_name="preview", tooltip="Every frame with its ellipses, numbered, with their captions."
                ),
                io.Mask.Output(
                    display_name="masks",
                    tooltip=(
                        "1 inside, 0 outside, not cut by what lies on top: all blobs of the first frame from the "
                        "bottom up, then those of the next one. Without blobs a black one a frame."
                    ),
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, layout: str, width: int, height: int, frames: int) -> bool | str:
        """Says before anything runs that the layout cannot be read; linked inputs are not known yet."""
        try:
            _check_sizes(width, height, frames)
            if layout is not None:
                parse_blobs(layout, width or 1, height or 1, MOST_FRAMES if frames is None else frames)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        layout: str,
        width: int,
        height: int,
        frames: int,
        picture: Tensor | None = None,
        blobs: BlobLayout | None = None,
    ) -> io.NodeOutput:
        _check_sizes(width, height, frames)
        drawn, shown = parse_blobs(layout, width, height, frames), {}
        if blobs is not None:
            drawn = _completed(check_blobs(blobs), drawn)
            shown["beneath"] = [blobs_to_json(blobs)]
        ground = None
        if picture is not None:
            ground = check_pictures(picture, "picture")
            if ground.shape[0] not in (1, frames):
                raise ValueError(
                    f"'picture' holds {ground.shape[0]} pictures and 'frames' is {frames}; expected one picture, or "
                    "one a frame."
                )
            # What the editor shows when the picture comes from no file. Under "images" the page would show it, too.
            shown["picture"] = ui.PreviewImage(ground[:1]).as_dict()["images"]
        preview = _preview(drawn, ground)
        return io.NodeOutput(drawn, preview, _masks(drawn), ui=shown or None)


def _check_sizes(width: int | None, height: int | None, frames: int | None) -> None:
    """Raises ValueError unless each is in its range, or None, which is a linked input that is not known yet."""
    for name, value, most in (
        ("width", width, LARGEST_SIDE),
        ("height", height, LARGEST_SIDE),
        ("frames", frames, MOST_FRAMES),
    ):
        if value is not None:
            check_range(value, name, 1, most)


def _completed(beneath: BlobLayout, drawn: BlobLayout) -> BlobLayout:
    """One layout of two, the second on top; an id of it that the first one has, too, gets a number behind it.

    Raises:
        ValueError: different numbers of frames, or too many blobs.
    """
    if beneath.frames != drawn.frames:
        raise ValueError(
            f"'blobs' lasts {beneath.frames} frames and 'frames' is {drawn.frames}; set frames to {beneath.frames}, or "
            "make both the same."
        )
    total = len(beneath.blobs) + len(drawn.blobs)
    if total > MOST_BLOBS:
        raise ValueError(
            f"'blobs' holds {len(beneath.blobs)} blobs and {len(drawn.blobs)} are drawn here; at most {MOST_BLOBS} can "
            "stand in a layout."
        )
    taken = {blob.id for blob in (*beneath.blobs, *drawn.blobs)}
    names = {blob.id for blob in beneath.blobs}
    own = []
    for blob in drawn.blobs:
        name = blob.id
        if name in names:
            endings = (f"-{number}" for number in range(2, MOST_BLOBS + 2))
            name = next(made for made in (name[: LONGEST_ID - len(end)] + end for end in endings) if made not in taken)
            taken.add(name)
        own.append(dataclasses.replace(blob, id=name))
    return dataclasses.replace(drawn, blobs=(*beneath.blobs, *own))


def _preview(layout: BlobLayout, ground: Tensor | None) -> Tensor:
    pictures = BlobPictures(layout, comfy.model_management.get_torch_device())
    progress, drawn = comfy.utils.ProgressBar(layout.frames), []
    if ground is not None and ground.shape[0] == 1:
        ground = covering(ground, layout.height, layout.width)
    for frame in range(layout.frames):
        comfy.model_management.throw_exception_if_processing_interrupted()
        behind = ground
        if ground is not None:
            behind = ground[0] if len(ground) == 1 else covering(ground[frame, None], layout.height, layout.width)[0]
        drawn.append(pictures.frame(frame, behind))
        progress.update(1)
    return torch.cat(drawn).to(comfy.model_management.intermediate_device())


def _masks(layout: BlobLayout) -> Tensor | NothingThere:
    """float32 [frames * blobs, H, W], 0 or 1, frames first; without blobs [frames, H, W] of zeros."""
    shape = (layout.frames, max(len(layout.blobs), 1), layout.height, layout.width)
    needed = 4 * layout.frames * shape[1] * layout.height * layout.width
    if needed > MOST_MASK_BYTES:
        return NothingThere(
            f"The output 'masks' of Blob Layout would hold {shape[0]} frames x {shape[1]} blobs of {layout.width}x"
            f"{layout.height}, {needed / 2**30:.0f} GiB; at most {MOST_MASK_BYTES / 2**30:.0f} are made. Take fewer "
            "frames or a smaller size."
        )
    device = comfy.model_management.intermediate_device()
    if not layout.blobs:
        return torch.zeros(layout.frames, layout.height, layout.width, device=device)
    frames, where = range(layout.frames), comfy.model_management.get_torch_device()
    return layout_masks(layout, "hard", frames, layout.height, layout.width, where).to(device)


NODES = [BlobLayoutNode]
