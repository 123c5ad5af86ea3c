"""Cubemap Convert, Rotate Panorama, Panorama Seam: panoramas in other layouts, turned, and with their seam in reach."""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.camera_angles import undoing_angles
from ..kernels.cubemap import (
    FACES,
    LAYOUTS,
    PICTURES,
    arrange_faces,
    faces_to_panorama,
    panorama_to_faces,
    separate_faces,
)
from ..kernels.panorama import MODES, rotate_panorama
from ..kernels.panorama_seam import seam_mask, seam_to_edges, seam_to_middle
from ..kernels.schedule import Schedule
from .sockets import CATEGORY_PANORAMA, check_choice, check_mask, check_panorama, check_pictures, check_range

TO_FACES, TO_PANORAMA = "panorama to faces", "faces to panorama"
TO_MIDDLE, TO_EDGES = "seam to the middle", "seam back to the edges"
LARGEST_SIZE, MOST_FRAMES, TURNS = 8192, 4096, 36000.0
AT_ONCE = 1 << 24
"""Pixels of panoramas that are read together."""


def interpolation_input() -> io.Combo.Input:
    """How pixels in between are read."""
    return io.Combo.Input(
        "interpolation",
        options=list(MODES),
        default=MODES[0],
        tooltip="bilinear: smooth. bicubic: sharper, slower. nearest: only colours that are there, for labels.",
    )


class CubemapConvert(io.ComfyNode):
    """A panorama as six square pictures, and back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_CubemapConvert",
            display_name="Cubemap Convert",
            category=CATEGORY_PANORAMA,
            description="Turns a panorama into the six faces of a cube, each an ordinary picture, or faces into one.",
            inputs=[
                io.Image.Input("image", tooltip="Panoramas twice as wide as high, or faces in the chosen layout."),
                io.Combo.Input(
                    "direction",
                    options=[TO_FACES, TO_PANORAMA],
                    default=TO_FACES,
                    tooltip="What is made of what.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default=LAYOUTS[0],
                    tooltip=(
                        "cross: up, left front right back, down, on one picture. strip: front right back left up down "
                        "in a row. six pictures: those as a batch, for nodes that work on pictures."
                    ),
                ),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=LARGEST_SIZE,
                    tooltip="Pixels: of a face's edge, or of the panorama's height. 0: as fine as what comes in.",
                ),
                interpolation_input(),
                io.Mask.Input("mask", optional=True, tooltip="Converted in the same way; of the image's size."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Faces in the layout, or panoramas."),
                io.Mask.Output(display_name="mask", tooltip="The mask in the same form; black without one."),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, direction: str, layout: str, size: int, interpolation: str, mask: Tensor | None = None
    ) -> io.NodeOutput:
        check_choice(direction, "direction", (TO_FACES, TO_PANORAMA))
        check_choice(layout, "layout", LAYOUTS)
        check_choice(interpolation, "interpolation", MODES)
        check_range(size, "size", 0, LARGEST_SIZE)
        pictures = _with_mask(image, mask)
        if direction == TO_FACES:
            check_panorama(image, "image")
            edge = size or max(1, round(pictures.shape[3] / 4))

            def convert(some: Tensor) -> Tensor:
                return arrange_faces(panorama_to_faces(some, edge, mode=interpolation), layout)

            return _in_parts(pictures, convert, interpolation)
        try:
            height = size or 2 * separate_faces(pictures, layout).shape[-1]
        except ValueError as error:
            raise ValueError(f"'image': {error} Or choose another 'layout' or 'direction'.") from None

        def convert_back(some: Tensor) -> Tensor:
            return faces_to_panorama(separate_faces(some, layout), height, 2 * height, mode=interpolation)

        return _in_parts(pictures, convert_back, interpolation, len(FACES) if layout == PICTURES else 1)


class RotatePanorama(io.ComfyNode):
    """A panorama as a camera sees it that has turned."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_RotatePanorama",
            display_name="Rotate Panorama",
            category=CATEGORY_PANORAMA,
            description="Turns the camera in the middle of a panorama: what it then looks at comes to the middle.",
            inputs=[
                io.Image.Input(
                    "image", tooltip="One panorama, or the frames of a video of one; twice as wide as high."
                ),
                io.String.Input(
                    "yaw",
                    default="0",
                    tooltip=(
                        "Degrees the camera turns to the right, over frames: a number, or keys such as "
                        '"0:0, 23:360". Whole columns are moved bit for bit.'
                    ),
                ),
                io.String.Input("pitch", default="0", tooltip="Degrees it then looks up, over frames."),
                io.String.Input(
                    "roll",
                    default="0",
                    tooltip="Degrees it then turns clockwise, seen from behind; its picture turns the other way.",
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="How many pictures come of one panorama. 0: as many as go in.",
                ),
                io.Boolean.Input(
                    "undo",
                    default=False,
                    tooltip="Turns back by these angles: after a node with the same ones all stands where it stood.",
                ),
                interpolation_input(),
                io.Mask.Input("mask", optional=True, tooltip="Turned in the same way; of the image's size."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The turned panoramas."),
                io.Mask.Output(display_name="mask", tooltip="The turned mask; black without one."),
            ],
        )

    @classmethod
    def validate_inputs(cls, yaw: str, pitch: str, roll: str) -> bool | str:
        """Says before anything runs that a schedule cannot be read; linked ones are not known yet."""
        try:
            for name, text in (("yaw", yaw), ("pitch", pitch), ("roll", roll)):
                if text is not None:
                    angle_schedule_of(text, name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        image: Tensor,
        yaw: str,
        pitch: str,
        roll: str,
        frames: int,
        undo: bool,
        interpolation: str,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        check_choice(interpolation, "interpolation", MODES)
        check_range(frames, "frames", 0, MOST_FRAMES)
        pictures = _with_mask(image, mask)
        check_panorama(image, "image")
        if frames and len(pictures) not in (1, frames):
            raise ValueError(
                f"'image' holds {len(pictures)} pictures and 'frames' is {frames}; expected one picture, or as many. 0 "
                "takes as many as there are."
            )
        count = frames or len(pictures)
        angles = [
            angle_schedule_of(text, name).at(count) for text, name in ((yaw, "yaw"), (pitch, "pitch"), (roll, "roll"))
        ]
        if undo:
            angles = undoing_angles(*angles)
        turns = torch.stack([angle.double().remainder(360.0) for angle in angles], 1)
        numbers = torch.arange(count) if len(pictures) > 1 else torch.zeros(count, dtype=torch.long)

        def turn(some: Tensor, first: int) -> Tensor:
            return rotate_panorama(some, *turns[first : first + len(some)].unbind(1), mode=interpolation)

        return _in_parts(pictures, turn, interpolation, numbers=numbers)


class PanoramaSeam(io.ComfyNode):
    """The seam of a panorama in its middle, with a mask over it; and back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PanoramaSeam",
            display_name="Panorama Seam",
            category=CATEGORY_PANORAMA,
            description=(
                "Rolls a panorama by half its width, so that where its edges meet lies in the middle under a mask, "
                "ready to be painted anew; and back, bit for bit."
            ),
            inputs=[
                io.Image.Input("image", tooltip="Panoramas, or other pictures whose left and right edge meet."),
                io.Combo.Input(
                    "direction",
                    options=[TO_MIDDLE, TO_EDGES],
                    default=TO_MIDDLE,
                    tooltip="To the middle before it is repaired, back to the edges afterwards.",
                ),
                io.Float.Input(
                    "degrees",
                    default=30.0,
                    min=0.0,
                    max=360.0,
                    step=1.0,
                    round=False,
                    tooltip="How wide the mask is, of the 360 degrees that the picture shows. 0: no mask.",
                ),
                io.Float.Input(
                    "feather",
                    default=10.0,
                    min=0.0,
                    max=180.0,
                    step=1.0,
                    round=False,
                    tooltip="Degrees on each side over which the mask goes from white to black.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="A mask of your own, rolled with the image and added to the seam's."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The rolled pictures."),
                io.Mask.Output(display_name="mask", tooltip="White over the seam."),
            ],
        )

    @classmethod
    def execute(
        cls, image: Tensor, direction: str, degrees: float, feather: float, mask: Tensor | None = None
    ) -> io.NodeOutput:
        check_choice(direction, "direction", (TO_MIDDLE, TO_EDGES))
        check_range(degrees, "degrees", 0.0, 360.0)
        check_range(feather, "feather", 0.0, 180.0)
        pictures = _with_mask(image, mask)
        height, width = pictures.shape[2:]
        if width < 2:
            raise ValueError(
                f"'image' is {width}x{height} pixels; expected at least two columns, whose edges can meet."
            )
        rolled = (seam_to_middle if direction == TO_MIDDLE else seam_to_edges)(pictures)
        over = seam_mask(height, width, degrees, feather, middle=direction == TO_MIDDLE).to(rolled)
        return _out(rolled[:, :3], torch.maximum(rolled[:, 3], over))


def angle_schedule_of(text: str, name: str) -> Schedule:
    """The schedule of an angle, degrees.

    Raises:
        ValueError: names the input and what in it cannot be read.
    """
    return Schedule.parse(text, name, minimum=-TURNS, maximum=TURNS)


def _with_mask(image: Tensor, mask: Tensor | None) -> Tensor:
    """float32 [B, 4, H, W]: an IMAGE and its mask, or black, as a fourth channel."""
    pictures = check_pictures(image, "image")
    mask = check_mask(mask, pictures, "image")
    mask = pictures.new_zeros(pictures.shape[:3]) if mask is None else mask
    return torch.cat((pictures.movedim(-1, 1), mask[:, None]), 1)


def _in_parts(
    pictures: Tensor,
    convert: Callable[..., Tensor],
    interpolation: str,
    together: int = 1,
    numbers: Tensor | None = None,
) -> io.NodeOutput:
    """IMAGE and MASK of pictures [B, 4, H, W], a few at a time on the device.

    ``together`` pictures belong together. With ``numbers``, the pictures of the frames, convert is also told the first.
    """
    device = comfy.model_management.get_torch_device()
    count = len(pictures) if numbers is None else len(numbers)
    step = together * max(1, AT_ONCE // (together * pictures.shape[2] * pictures.shape[3]))
    step = min(step, 16 * together)
    progress, found = comfy.utils.ProgressBar(count), []
    for first in range(0, count, step):
        comfy.model_management.throw_exception_if_processing_interrupted()
        chosen = slice(first, first + step) if numbers is None else numbers[first : first + step]
        some = pictures[chosen].to(device)
        made = convert(some) if numbers is None else convert(some, first)
        if interpolation == "bicubic":  # it goes beyond what is there
            low, high = (limit.view(1, -1, 1, 1) for limit in (some.amin((0, 2, 3)), some.amax((0, 2, 3))))
            made = made.clamp(low, high)
        found.append(made.to(comfy.model_management.intermediate_device()))
        progress.update(len(some))
    made = torch.cat(found)
    return _out(made[:, :3], made[:, 3])


def _out(pictures: Tensor, mask: Tensor) -> io.NodeOutput:
    home = comfy.model_management.intermediate_device()
    return io.NodeOutput(pictures.movedim(1, -1).contiguous().to(home), mask.contiguous().to(home))


NODES = [CubemapConvert, RotatePanorama, PanoramaSeam]
