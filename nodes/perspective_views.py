"""Equirect To Perspective and Perspective To Equirect: cameras in the middle of panoramas, and back."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.panorama import CONVENTIONS, MODES, equirect_to_perspective, perspective_to_equirect
from ..kernels.panorama_views import merge_views
from ..kernels.schedule import Schedule
from .motion import each_frame
from .sockets import (
    CATEGORY_PANORAMA,
    NothingThere,
    check_choice,
    check_mask,
    check_panorama,
    check_pictures,
    check_range,
)

MOST_FRAMES, LARGEST_SIZE = 4096, 8192
NARROWEST, WIDEST = 1.0, 179.0
TURNS = 36000.0
"""Degrees that a schedule may turn a camera by, either way."""

_ROUNDING = 1e-5
EACH, ALL = "a panorama for each", "all in one panorama"
JOINED = (EACH, ALL)

NO_PICTURES = (
    "'image' of {node} came from a mask alone and holds no pictures. Connect its '{name}', or use its mask output."
)


def camera_inputs() -> list[io.Input]:
    """The inputs that say where cameras look, in the order that ``cameras`` takes them."""
    return [
        io.String.Input(
            "field_of_view",
            default="90",
            tooltip=(
                'Degrees that a picture is wide, over frames: a number, or keys such as "0:90, 24:45" to zoom in. 40 '
                "is a portrait's lens, 75 a wide-angle one."
            ),
        ),
        io.String.Input(
            "yaw",
            default="0",
            tooltip='Degrees the camera turns to the right, over frames: a number, or keys such as "0:0, 24:360".',
        ),
        io.String.Input("pitch", default="0", tooltip="Degrees it then looks up, over frames; below 0 down."),
        io.String.Input(
            "roll",
            default="0",
            tooltip="Degrees it then turns clockwise, over frames; its picture turns the other way.",
        ),
    ]


def reading_inputs() -> list[io.Input]:
    """How pictures are read, and what their pixels are."""
    return [
        io.Combo.Input(
            "interpolation",
            options=list(MODES),
            default=MODES[0],
            tooltip="bicubic is sharper, and a little brighter or darker along edges. nearest only copies pixels.",
        ),
        io.Combo.Input(
            "convention",
            options=list(CONVENTIONS),
            default=CONVENTIONS[0],
            tooltip=(
                "pixel centres: an ordinary camera, no seam. Imagine360 exact: the grids of Imagine360's files, half a "
                "pixel off and stretched where pictures are not square; only for its networks."
            ),
        ),
    ]


class EquirectToPerspective(io.ComfyNode):
    """What cameras in the middle of a panorama see."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_EquirectToPerspective",
            display_name="Equirect To Perspective",
            category=CATEGORY_PANORAMA,
            description="Looks into 360-degree pictures: ordinary views of any direction, for each frame another one.",
            inputs=[
                io.Int.Input("width", default=512, min=16, max=LARGEST_SIZE, tooltip="Of the views, pixels."),
                io.Int.Input("height", default=512, min=16, max=LARGEST_SIZE, tooltip="Of the views, pixels."),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    tooltip="Views of one panorama while the camera turns. 0: as many as there are panoramas.",
                ),
                *camera_inputs(),
                *reading_inputs(),
                io.Image.Input(
                    "panorama",
                    optional=True,
                    tooltip="Equirectangular pictures, twice as wide as high: one, or a video's frames.",
                ),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where the panorama is unknown; alone, or with the panorama."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The views, one a frame."),
                io.Mask.Output(display_name="mask", tooltip="White where a view shows what is unknown."),
            ],
        )

    @classmethod
    def validate_inputs(cls, field_of_view: str, yaw: str, pitch: str, roll: str) -> bool | str:
        return unreadable(field_of_view, yaw, pitch, roll) or True

    @classmethod
    def execute(
        cls,
        width: int,
        height: int,
        frames: int,
        field_of_view: str,
        yaw: str,
        pitch: str,
        roll: str,
        interpolation: str,
        convention: str,
        panorama: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        check_reading(interpolation, convention)
        for name, size in (("width", width), ("height", height)):
            check_range(size, name, 16, LARGEST_SIZE)
        check_range(frames, "frames", 0, MOST_FRAMES)
        layers = layers_of(panorama, "panorama", mask, mask is not None)
        check_panorama(layers[..., :1], "mask" if panorama is None else "panorama")
        count = frames_of(len(layers), frames)
        turns = cameras(count, field_of_view, yaw, pitch, roll)
        options = {"mode": interpolation, "convention": convention}
        planes, show = to_device(layers), each_frame(count)
        result = room(count, height, width, layers.shape[-1])
        for frame in range(count):
            show(frame, count)
            one, angles = planes(frame), (turn[frame : frame + 1] for turn in turns)
            result[frame] = equirect_to_perspective(one, *angles, height, width, **options)[0].movedim(0, -1)
        return taken_apart(result, "Equirect To Perspective", "panorama", panorama)


class PerspectiveToEquirect(io.ComfyNode):
    """Pictures of cameras laid into panoramas."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_PerspectiveToEquirect",
            display_name="Perspective To Equirect",
            category=CATEGORY_PANORAMA,
            description="Lays ordinary pictures into 360-degree ones, where their camera looked; the rest is unknown.",
            inputs=[
                io.Int.Input(
                    "height",
                    default=512,
                    min=8,
                    max=LARGEST_SIZE,
                    tooltip="Of the panorama, pixels; it is twice as wide.",
                ),
                io.Combo.Input(
                    "join",
                    options=list(JOINED),
                    default=EACH,
                    tooltip=(
                        "all in one panorama: views of one place, as many as there are, are mixed where they meet. a "
                        "panorama for each: a video."
                    ),
                ),
                *camera_inputs(),
                *reading_inputs(),
                io.Image.Input("image", optional=True, tooltip="Pictures that a camera has taken: one, or a video."),
                io.Mask.Input(
                    "mask", optional=True, tooltip="White where the pictures are unknown; alone, or with the pictures."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The panorama, black where it is unknown."),
                io.Mask.Output(display_name="mask", tooltip="White where no camera looked: for a model to fill."),
            ],
        )

    @classmethod
    def validate_inputs(cls, field_of_view: str, yaw: str, pitch: str, roll: str) -> bool | str:
        return unreadable(field_of_view, yaw, pitch, roll) or True

    @classmethod
    def execute(
        cls,
        height: int,
        join: str,
        field_of_view: str,
        yaw: str,
        pitch: str,
        roll: str,
        interpolation: str,
        convention: str,
        image: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        check_reading(interpolation, convention)
        check_choice(join, "join", JOINED)
        check_range(height, "height", 8, LARGEST_SIZE)
        layers = layers_of(image, "image", mask)
        count = len(layers)
        turns = cameras(count, field_of_view, yaw, pitch, roll)
        options = {"mode": interpolation, "convention": convention}
        planes, show = to_device(layers), each_frame(count)
        if join == ALL:
            result = room(1, height, 2 * height, layers.shape[-1])
            result[0] = merge_views(planes, turns, height, 2 * height, on_frame=show, **options).movedim(0, -1)
            return taken_apart(result, "Perspective To Equirect", "image", image)
        result = room(count, height, 2 * height, layers.shape[-1])
        for frame in range(count):
            show(frame, count)
            one, angles = planes(frame), (turn[frame : frame + 1] for turn in turns)
            laid, known = perspective_to_equirect(one, *angles, height, 2 * height, **options)
            laid[:, -1] += 1 - known  # the mask, which is unknown where no camera looked
            result[frame] = laid[0].movedim(0, -1)
        return taken_apart(result, "Perspective To Equirect", "image", image)


def unreadable(*texts: str | None) -> str:
    """Says before anything runs what schedule cannot be read, else ""; linked ones are not known yet."""
    try:
        for name, text in zip(LIMITS, texts, strict=True):
            if text is not None:
                _schedule(name, text)
    except ValueError as error:
        return str(error)
    return ""


LIMITS = {
    "field_of_view": (NARROWEST, WIDEST), "yaw": (-TURNS, TURNS), "pitch": (-TURNS, TURNS), "roll": (-TURNS, TURNS),
}  # fmt: skip


def _schedule(name: str, text: str) -> Schedule:
    low, high = LIMITS[name]
    return Schedule.parse(text, name, minimum=low, maximum=high)


def cameras(count: int, *texts: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Yaw, pitch, roll and field of view, float32 [count] each, degrees, of the four schedules.

    Raises:
        ValueError: one cannot be read, or a number out of range.
    """
    fov, *turns = (_schedule(name, text).at(count) for name, text in zip(LIMITS, texts, strict=True))
    return *turns, fov


def check_reading(interpolation: str, convention: str) -> None:
    """Raises ValueError for a choice that there is not."""
    check_choice(interpolation, "interpolation", MODES)
    check_choice(convention, "convention", CONVENTIONS)


def layers_of(pictures: Tensor | None, name: str, mask: Tensor | None, masked: bool = True) -> Tensor:
    """float32 [B, H, W, C]: pictures, then what is unknown as their last channel if asked for; or that alone.

    Raises:
        ValueError: neither is connected, or they do not go together.
    """
    if pictures is None and mask is None:
        raise ValueError(f"Neither '{name}' nor 'mask' is connected. Connect one of them, or both.")
    if pictures is None:
        if mask.ndim not in (2, 3):
            raise ValueError(f"'mask' has shape {list(mask.shape)}; expected [batch, height, width].")
        mask = mask[None] if mask.ndim == 2 else mask
        return check_mask(mask, mask, "mask")[..., None]
    pictures = check_pictures(pictures, name)
    if not masked:
        return pictures
    unknown = check_mask(mask, pictures, name)
    unknown = torch.zeros_like(pictures[..., 0]) if unknown is None else unknown
    return torch.cat([pictures, unknown[..., None].to(pictures)], -1)


def frames_of(pictures: int, frames: int) -> int:
    """How many views there will be.

    Raises:
        ValueError: several panoramas, and another number of frames.
    """
    if pictures > 1 and frames not in (0, pictures):
        raise ValueError(
            f"'frames' is {frames} and there are {pictures} panoramas; each gives one view. Set 'frames' to 0, or "
            "choose one panorama with ImageFromBatch."
        )
    return frames or pictures


def to_device(layers: Tensor):
    """A function that gives frame n, the first where there is one, as [1, C, H, W] where it is computed."""
    device, held = comfy.model_management.get_torch_device(), {}

    def frame(number: int) -> Tensor:
        number = min(number, len(layers) - 1)
        if number not in held:
            held.clear()
            held[number] = layers[number : number + 1].to(device).movedim(-1, 1)
        return held[number]

    return frame


def room(count: int, height: int, width: int, channels: int) -> Tensor:
    """An empty float32 [count, height, width, channels] where outputs lie."""
    return torch.empty(count, height, width, channels, device=comfy.model_management.intermediate_device())


def taken_apart(layers: Tensor, node: str, name: str, pictures: Tensor | None) -> io.NodeOutput:
    """Pictures [B, H, W, 3] and the mask of what is unknown, of layers as ``layers_of`` has them."""
    unknown = layers[..., -1] if layers.shape[-1] != 3 else torch.zeros_like(layers[..., 0])
    # Weights add up to one but for rounding, and others ask whether a mask is 0 or 1.
    unknown = torch.where((unknown - unknown.round()).abs() < _ROUNDING, unknown.round(), unknown).clamp(0, 1)
    if pictures is None:
        return io.NodeOutput(NothingThere(NO_PICTURES.format(node=node, name=name)), unknown)
    return io.NodeOutput(layers[..., :3].contiguous(), unknown)


NODES = [EquirectToPerspective, PerspectiveToEquirect]
