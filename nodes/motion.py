"""Camera Flow and Cut And Drag: motion made by hand, from one picture, as a flow that Warp Noise can follow."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
from comfy_api.latest import io, ui
from torch import Tensor

from ..kernels.camera_flow import CONVENTIONS, CameraClip, relative_depth
from ..kernels.camera_flow import HOLES as CAMERA_HOLES
from ..kernels.cut_and_drag import HOLES
from ..kernels.cut_and_drag import CutAndDrag as DragClip
from ..kernels.drag_motion import parse_motion
from ..kernels.flow import Flow
from ..kernels.schedule import Schedule
from .sockets import CATEGORY_FLOW, PnFlow, check_choice, check_range

MOST_FRAMES = 1000
# name -> lowest and highest value, what it starts as, and what the person at the graph reads.
MOVES = {
    "pan_x": (-10.0, 10.0, "0", "The camera goes to the right by this part of the picture's width: 0.5 is half of it."),
    "pan_y": (-10.0, 10.0, "0", "The camera goes down by this part of the picture's height."),
    "zoom": (0.01, 100.0, "1", "How much larger things are seen: 1 = as they are, 2 = twice as large."),
    "roll": (-36000.0, 36000.0, "0", "The camera turns clockwise by this many degrees."),
    "orbit": (
        -180.0,
        180.0,
        "0",
        "The camera goes round the point in the middle, to the right, by this many degrees. Needs a depth.",
    ),
    "dolly": (
        -100.0,
        100.0,
        "0",
        "The camera goes ahead by this part of the way to the point in the middle: 0.5 is half of it. Needs a depth.",
    ),
}
NEEDS_DEPTH = ("orbit", "dolly")
LARGEST_RATIO = 1000.0
FIELDS_OF_VIEW = (5.0, 150.0)


class CameraFlow(io.ComfyNode):
    """A camera that moves before a still picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        schedule = "A number, or key frames such as '0:{0}, 24:{1} ease'; only the change from the first frame counts."
        examples = {"pan_x": ("0", "0.2"), "pan_y": ("0", "0.2"), "zoom": ("1", "1.5"), "dolly": ("0", "0.3")}
        return io.Schema(
            node_id="PaperNodes_CameraFlow",
            display_name="Camera Flow",
            category=CATEGORY_FLOW,
            description=(
                "A camera moves before a still picture: its flow for Warp Noise, a preview of the clip, and masks of "
                "what the picture does not hold."
            ),
            inputs=[
                io.Image.Input("first_frame", tooltip="One picture: the clip's first frame."),
                frames_input(),
                *(
                    io.String.Input(
                        name, default=start, tooltip=f"{text} {schedule.format(*examples.get(name, ('0', '15')))}"
                    )
                    for name, (_, _, start, text) in MOVES.items()
                ),
                io.Combo.Input(
                    "hole",
                    options=list(CAMERA_HOLES),
                    default=CAMERA_HOLES[0],
                    tooltip=(
                        "What the preview shows where the picture holds nothing: fill = its surroundings, smoothly "
                        "continued; grey = grey."
                    ),
                ),
                io.MultiType.Input(
                    "depth",
                    types=[io.Image, io.Mask],
                    optional=True,
                    tooltip=(
                        "A grey depth picture or mask of the first frame. With it near things move farther than far "
                        "ones, and orbit and dolly work. Another size is resampled."
                    ),
                ),
                io.Combo.Input(
                    "depth_convention",
                    options=list(CONVENTIONS),
                    default=CONVENTIONS[0],
                    optional=True,
                    tooltip=(
                        "near is white: inverse depth, as Depth Anything, MiDaS and most depth nodes give it. far is "
                        "white: distance itself, as renderers give it."
                    ),
                ),
                io.Float.Input(
                    "depth_ratio",
                    default=4.0,
                    min=1.0,
                    max=LARGEST_RATIO,
                    step=0.1,
                    optional=True,
                    tooltip=(
                        "How many times farther the depth picture's farthest point is than its nearest. Larger gives "
                        "more parallax; 1 is a flat picture."
                    ),
                ),
                io.Float.Input(
                    "field_of_view",
                    default=50.0,
                    min=FIELDS_OF_VIEW[0],
                    max=FIELDS_OF_VIEW[1],
                    step=1.0,
                    optional=True,
                    tooltip="How wide the picture was taken, degrees from its left to its right. Only with a depth.",
                ),
            ],
            outputs=[
                PnFlow.Output(display_name="flow", tooltip="For Warp Noise, Save Flow and Flow To Image."),
                io.Mask.Output(
                    display_name="revealed",
                    tooltip="One mask for each frame: white where the camera sees what the picture does not hold.",
                ),
                io.Image.Output(display_name="preview", tooltip="The clip as the camera sees it, one image a frame."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, frames: int, pan_x: str, pan_y: str, zoom: str, roll: str, orbit: str, dolly: str
    ) -> bool | str:
        """Says before anything runs that a schedule cannot be read; linked inputs are not known yet."""
        try:
            length = check_frames(frames)
            texts = {"pan_x": pan_x, "pan_y": pan_y, "zoom": zoom, "roll": roll, "orbit": orbit, "dolly": dolly}
            read_moves({name: text for name, text in texts.items() if text is not None}, length)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        first_frame: Tensor,
        frames: int,
        pan_x: str,
        pan_y: str,
        zoom: str,
        roll: str,
        orbit: str,
        dolly: str,
        hole: str,
        depth: Tensor | None = None,
        depth_convention: str = CONVENTIONS[0],
        depth_ratio: float = 4.0,
        field_of_view: float = 50.0,
    ) -> io.NodeOutput:
        picture = check_picture(first_frame, "first_frame")
        check_frames(frames)
        check_choice(hole, "hole", CAMERA_HOLES)
        check_choice(depth_convention, "depth_convention", CONVENTIONS)
        check_range(depth_ratio, "depth_ratio", 1.0, LARGEST_RATIO)
        check_range(field_of_view, "field_of_view", *FIELDS_OF_VIEW)
        texts = {"pan_x": pan_x, "pan_y": pan_y, "zoom": zoom, "roll": roll, "orbit": orbit, "dolly": dolly}
        moves = read_moves(texts, frames)
        if depth is None:
            for name in NEEDS_DEPTH:
                if bool((moves[name] != moves[name][0]).any()):
                    raise ValueError(
                        f"'{name}' changes over the clip, which needs a depth. Connect a depth picture of the first "
                        f"frame to 'depth', or set '{name}' to 0; pan and zoom work without."
                    )
        else:
            depth = relative_depth(check_depth(depth), depth_convention, depth_ratio, tuple(picture.shape[:2]))
        clip = CameraClip(
            picture,
            moves,
            depth=depth,
            field_of_view=field_of_view,
            hole=hole,
            device=comfy.model_management.get_torch_device(),
        )
        made = clip.render(device=comfy.model_management.intermediate_device(), on_frame=each_frame(frames))
        return io.NodeOutput(Flow(made.vectors, occlusion=made.occlusion), made.revealed, made.previews)


class CutAndDrag(io.ComfyNode):
    """Parts of a still picture that are dragged over it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_CutAndDrag",
            display_name="Cut And Drag",
            category=CATEGORY_FLOW,
            description=(
                "Parts of a picture, cut out by polygons, move over it along key frames: their exact flow for Warp "
                "Noise, the clip as it looks when they are simply pasted, and a mask of every part."
            ),
            inputs=[
                io.Image.Input("first_frame", tooltip="One picture: the clip's first frame."),
                frames_input(),
                io.String.Input(
                    "motion",
                    multiline=True,
                    default="",
                    tooltip=(
                        "What the editor draws: outlines and key frames as JSON. Empty = nothing moves. The help page "
                        "has the format."
                    ),
                ),
                io.Combo.Input(
                    "hole",
                    options=list(HOLES),
                    default=HOLES[0],
                    tooltip=(
                        "What lies where a part was cut out: fill = its surroundings, smoothly continued; keep = the "
                        "picture as it is, so that the part is seen twice."
                    ),
                ),
            ],
            outputs=[
                PnFlow.Output(
                    display_name="flow",
                    tooltip="For Warp Noise, Save Flow and Flow To Image; 0 on everything that is not cut out.",
                ),
                io.Image.Output(display_name="composite", tooltip="The clip, one image a frame."),
                io.Mask.Output(
                    display_name="masks",
                    tooltip=(
                        "All frames of the rearmost part, then all frames of the next, and so on: mask number part * "
                        "frames + frame. Parts are whole, even where others lie in front. Nothing cut out: one black "
                        "mask a frame."
                    ),
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, frames: int, motion: str) -> bool | str:
        """Says before anything runs that a motion cannot be read; linked inputs are not known yet."""
        try:
            length = check_frames(frames)
            if motion is not None:
                parse_motion(motion, length)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, first_frame: Tensor, frames: int, motion: str, hole: str) -> io.NodeOutput:
        picture = check_picture(first_frame, "first_frame")
        check_frames(frames)
        check_choice(hole, "hole", HOLES)
        clip = DragClip(
            picture,
            parse_motion(motion, frames),
            frames,
            hole=hole,
            device=comfy.model_management.get_torch_device(),
        )
        made = clip.render(device=comfy.model_management.intermediate_device(), on_frame=each_frame(frames))
        return io.NodeOutput(
            Flow(made.vectors, occlusion=made.occlusion),
            made.composites,
            made.masks,
            # What the editor draws on when the picture comes from no file. Under "images" the page would show it, too.
            ui={"first_frame": ui.PreviewImage(picture[None]).as_dict()["images"]},
        )


def frames_input() -> io.Int.Input:
    """How long the clip is."""
    return io.Int.Input(
        "frames",
        default=49,
        min=2,
        max=MOST_FRAMES,
        tooltip="Length of the clip. 49 frames fit 13 latent frames of CogVideoX, Wan and HunyuanVideo.",
    )


def each_frame(frames: int):
    """What runs before each frame: the stop button and the progress bar."""
    progress = comfy.utils.ProgressBar(frames)

    def on_frame(index: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        progress.update_absolute(index + 1, total)

    return on_frame


def check_frames(frames: int | None) -> int:
    """The length of the clip; where it is linked and not known yet, the longest.

    Raises:
        ValueError: fewer than 2 frames, or too many.
    """
    if frames is None:
        return MOST_FRAMES
    if frames < 2:
        raise ValueError(f"'frames' is {frames}; flow leads from a frame to the next, so at least 2 are needed.")
    check_range(frames, "frames", 2, MOST_FRAMES)
    return frames


def check_picture(images: Tensor, name: str) -> Tensor:
    """The one picture of an IMAGE, [H, W, 3].

    Raises:
        ValueError: another shape, several pictures, NaN or infinite pixels.
    """
    shape = list(images.shape)
    if images.ndim != 4 or images.shape[-1] < 3 or 0 in shape:
        raise ValueError(f"'{name}' has shape {shape}; expected one image [1, height, width, 3].")
    if shape[0] > 1:
        raise ValueError(f"'{name}' holds {shape[0]} images; one picture is moved. Choose one with ImageFromBatch.")
    if not bool(images.isfinite().all()):
        raise ValueError(f"'{name}' holds NaN or infinite pixels. Check the node that made this image.")
    return images[0, ..., :3]


def check_depth(depth: Tensor) -> Tensor:
    """The one depth picture of an IMAGE [H, W, C] or of a MASK [H, W].

    Raises:
        ValueError: another shape, several pictures, NaN or infinite pixels.
    """
    shape = list(depth.shape)
    if depth.ndim not in (3, 4) or 0 in shape:
        raise ValueError(f"'depth' has shape {shape}; expected one image [1, height, width, 3] or mask [1, h, w].")
    if shape[0] > 1:
        raise ValueError(
            f"'depth' holds {shape[0]} pictures; expected one, of the first frame. Choose one with ImageFromBatch."
        )
    if not bool(depth.isfinite().all()):
        raise ValueError("'depth' holds NaN or infinite values. Check the node that made it.")
    return depth[0]


def read_moves(texts: dict[str, str], frames: int) -> dict[str, Tensor]:
    """Move -> its value at every frame, float32 [frames].

    Raises:
        ValueError: a schedule that cannot be read or leaves its range; the message names the input.
    """
    return {
        name: Schedule.parse(text, name, minimum=MOVES[name][0], maximum=MOVES[name][1]).at(frames)
        for name, text in texts.items()
    }


NODES = [CameraFlow, CutAndDrag]
