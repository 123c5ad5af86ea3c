"""Elevation Track: how a camera is tilted over a clip, seen in its pictures or typed, as schedules."""

from __future__ import annotations

import comfy.model_management
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.elevation import FITS, LINEAR, angle_schedule, fit_angles
from ..kernels.elevation_picture import draw_elevations
from ..kernels.horizon import NOTHING, Tilt, find_tilt
from ..kernels.schedule import Schedule
from .motion import each_frame
from .sockets import CATEGORY_PANORAMA, check_choice, check_pictures, check_range

PICTURE, ELSE_TYPED, TYPED = "picture", "picture, else typed", "typed"
METHODS = (PICTURE, ELSE_TYPED, TYPED)
SMALLEST = 32
LEAST_SHARE = 0.25
"""Of the frames that were looked at, those in which something must have been found."""


class ElevationTrack(io.ComfyNode):
    """Pitch and roll of a camera over the frames of a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ElevationTrack",
            display_name="Elevation Track",
            category=CATEGORY_PANORAMA,
            description=(
                "How far a camera looks up or down and is rolled, frame by frame, from upright and level lines or the "
                "horizon, without weights; or as you type it. A line is fitted over the frames."
            ),
            inputs=[
                io.Image.Input("video", tooltip="An ordinary clip or picture, not a panorama."),
                io.Combo.Input(
                    "method",
                    options=list(METHODS),
                    default=PICTURE,
                    tooltip=(
                        "picture: looked for in the frames; an error where nothing is found. picture, else typed: then "
                        "pitch and roll below. typed: these alone."
                    ),
                ),
                io.Float.Input(
                    "fov",
                    default=90.0,
                    min=1.0,
                    max=179.0,
                    step=1.0,
                    round=False,
                    tooltip="Degrees that the camera sees across. A wrong one makes pitch wrong in about that ratio.",
                ),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default=LINEAR,
                    tooltip=(
                        "linear: least squares, as Imagine360 does. robust: single wrong frames hardly move it. "
                        "constant: the median. each frame: as found."
                    ),
                ),
                io.Int.Input(
                    "every", default=1, min=1, max=1000, tooltip="Only each so many frames are looked at; faster."
                ),
                io.String.Input(
                    "pitch", default="0", tooltip='Typed: degrees up, over frames: a number, or "0:0, 31:12".'
                ),
                io.String.Input(
                    "roll", default="0", tooltip="Typed: degrees clockwise, seen from behind the camera, over frames."
                ),
            ],
            outputs=[
                io.String.Output(display_name="pitch", tooltip="A schedule in degrees, above 0 looks up."),
                io.String.Output(
                    display_name="roll", tooltip="A schedule in degrees, above 0 the camera is turned clockwise."
                ),
                io.Image.Output(
                    display_name="preview",
                    tooltip="The frames with the fitted horizon, green where the frame itself was read, else orange.",
                ),
                io.String.Output(display_name="report", tooltip="What was found in each frame, and by what."),
            ],
        )

    @classmethod
    def validate_inputs(cls, pitch: str, roll: str) -> bool | str:
        """Says before anything runs that a schedule cannot be read; linked ones are not known yet."""
        try:
            for name, text in (("pitch", pitch), ("roll", roll)):
                if text is not None:
                    _typed(text, name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, video: Tensor, method: str, fov: float, fit: str, every: int, pitch: str, roll: str
    ) -> io.NodeOutput:
        check_choice(method, "method", METHODS)
        check_choice(fit, "fit", FITS)
        check_range(fov, "fov", 1.0, 179.0)
        check_range(every, "every", 1, 1000)
        frames = check_pictures(video, "video")
        count, (height, width) = len(frames), frames.shape[1:3]
        typed = [_typed(text, name).at(count).double() for text, name in ((pitch, "pitch"), (roll, "roll"))]
        lines, known = [], torch.ones(count, dtype=torch.bool)
        if method == TYPED:
            angles = typed
        else:
            if min(height, width) < SMALLEST:
                raise ValueError(f"'video' is {width}x{height} pixels; a tilt is seen from {SMALLEST}x{SMALLEST} on.")
            seen = _seen(frames, fov, every)
            known = torch.tensor([number in seen and seen[number].found_by != NOTHING for number in range(count)])
            lines = [_line(number, tilt) for number, tilt in seen.items()]
            angles = [
                torch.tensor([getattr(seen[n], name) if n in seen else 0.0 for n in range(count)])
                for name in ("pitch", "roll")
            ]
            if int(known.sum()) < max(1, LEAST_SHARE * len(seen)):
                if method == PICTURE:
                    raise ValueError(_nothing_found(int(known.sum()), len(seen)))
                lines.append(
                    f"Too little was found ({int(known.sum())} of {len(seen)} frames): pitch and roll as typed."
                )
                angles, known = typed, torch.ones_like(known)
        fitted = [fit_angles(some, known, fit) for some in angles]
        texts = [angle_schedule(some, fit, name).format() for some, name in zip(fitted, ("pitch", "roll"), strict=True)]
        lines += [f"{name} ({fit}): {text}" for name, text in zip(("pitch", "roll"), texts, strict=True)]
        device = comfy.model_management.get_torch_device()
        preview = draw_elevations(frames.to(device), *fitted, fov, known)
        preview = preview.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(*texts, preview, "\n".join(lines))


def _seen(frames: Tensor, fov: float, every: int) -> dict[int, Tilt]:
    """The tilt of each so many frames and of the last."""
    numbers = sorted({*range(0, len(frames), every), len(frames) - 1})
    on_frame, found = each_frame(len(numbers)), {}
    for index, number in enumerate(numbers):
        on_frame(index, len(numbers))
        found[number] = find_tilt(frames[number], fov)
    return found


def _line(number: int, tilt: Tilt) -> str:
    if tilt.found_by == NOTHING:
        return f"frame {number}: nothing found"
    return f"frame {number}: pitch {tilt.pitch:.2f}, roll {tilt.roll:.2f}, by {tilt.found_by} ({tilt.sure:.2f})"


def _nothing_found(known: int, looked_at: int) -> str:
    return (
        f"'video': lines or a horizon show how the camera is tilted in {known} of the {looked_at} frames that were "
        f"looked at; at least a quarter must. Set 'method' to '{TYPED}' or '{ELSE_TYPED}' and write 'pitch' and 'roll' "
        "in degrees (0 = level)."
    )


def _typed(text: str, name: str) -> Schedule:
    most = 90.0 if name == "pitch" else 180.0
    return Schedule.parse(text, name, minimum=-most, maximum=most)


NODES = [ElevationTrack]
