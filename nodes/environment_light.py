"""Light from all around: pictures whose numbers go on above white, and what they look like and give."""

from __future__ import annotations

import hashlib

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..kernels.environment_light import (
    CURVES,
    MOST_STOPS,
    dome_normals,
    environment_light_maps,
    from_srgb,
    grey_exposure,
    tone_map,
)
from ..kernels.equirectangular import NARROWEST, WIDEST, background_frames
from ..kernels.hdr_format import SUFFIXES, read_hdr
from ..kernels.normals_from_light import picture_normals
from ..kernels.schedule import Schedule
from .motion import each_frame
from .paths import find_file, list_files
from .sockets import CATEGORY_LIGHT, check_choice, check_pictures, check_range

ENCODINGS = ("linear", "sRGB")
MOST_FRAMES, LARGEST_SIZE = 4096, 8192
TURNS = 36000.0
"""Degrees that a schedule may turn the surroundings by, either way."""


class LoadHDR(io.ComfyNode):
    """Reads a picture in linear light from the input or output folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_LoadHDR",
            display_name="Load HDR",
            category=CATEGORY_LIGHT,
            description="Reads a Radiance .hdr or OpenEXR .exr picture in full colour and linear light.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list_files(SUFFIXES),
                    tooltip=(
                        "A file in ComfyUI's input folder, or in its output folder where the name ends in [output]. "
                        "Put a file there and press R to see it in the list."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="Linear light, for Environment Light; previews cut it."),
                io.Float.Output(
                    display_name="exposure", tooltip="Stops that would show the picture at a middle brightness."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        if file is None:  # linked: not known yet
            return True
        try:
            find_file(file, SUFFIXES)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str) -> str:
        """Changes when the file's content does, so that a file written anew is read anew."""
        path = find_file(file, SUFFIXES)
        state = path.stat()
        return hashlib.sha256(f"{path}:{state.st_mtime_ns}:{state.st_size}".encode()).hexdigest()

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        try:
            light = read_hdr(find_file(file, SUFFIXES))
        except ValueError as error:
            raise ValueError(f"'file': {error}") from None
        return io.NodeOutput(light[None].to(comfy.model_management.intermediate_device()), grey_exposure(light))


class EnvironmentLight(io.ComfyNode):
    """Backgrounds and light maps from an equirectangular picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_EnvironmentLight",
            display_name="Environment Light",
            category=CATEGORY_LIGHT,
            description="Views into a picture of everything around, and the light it throws, while it turns.",
            inputs=[
                io.Image.Input(
                    "environment",
                    tooltip="One equirectangular picture, twice as wide as high: Load HDR or a panorama.",
                ),
                io.Combo.Input(
                    "encoding",
                    options=list(ENCODINGS),
                    default=ENCODINGS[0],
                    tooltip="linear: from Load HDR. sRGB: from Load Image, or a panorama that a model has drawn.",
                ),
                io.Int.Input("width", default=512, min=16, max=LARGEST_SIZE, tooltip="Of the pictures, pixels."),
                io.Int.Input("height", default=512, min=16, max=LARGEST_SIZE, tooltip="Of the pictures, pixels."),
                io.Int.Input("frames", default=1, min=1, max=MOST_FRAMES, tooltip="How many pictures."),
                io.String.Input(
                    "yaw",
                    default="0",
                    tooltip=(
                        "Degrees the surroundings turn to the right, over frames: a number, or keys such as "
                        '"0:0, 15:360" for a light that goes round.'
                    ),
                ),
                io.String.Input(
                    "pitch", default="0", tooltip="Degrees the surroundings turn upwards, over frames, after the yaw."
                ),
                io.Float.Input(
                    "field_of_view",
                    default=75.0,
                    min=NARROWEST,
                    max=WIDEST,
                    step=1.0,
                    round=False,
                    tooltip="Degrees that the backgrounds are wide. The light maps have none.",
                ),
                io.String.Input(
                    "exposure",
                    default="0",
                    tooltip="Stops brighter (or darker, below 0), over frames; added to the automatic exposure.",
                ),
                io.Boolean.Input(
                    "auto_exposure",
                    default=True,
                    tooltip="Shows the surroundings at a middle brightness, whatever unit the file is in.",
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    default=CURVES[0],
                    tooltip="clip: what is brighter than white is white. soft: it only comes near, and all is darker.",
                ),
                io.Image.Input(
                    "normals",
                    optional=True,
                    tooltip=(
                        "A normal map, such as Normals From Light gives: the light maps are the thing itself, matt "
                        "and white. Without it they show a dome. One picture, or one for each frame."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="light_maps", tooltip="How the light falls, one picture a frame."),
                io.Image.Output(display_name="backgrounds", tooltip="What is seen ahead, one picture a frame."),
            ],
        )

    @classmethod
    def validate_inputs(cls, yaw: str, pitch: str, exposure: str) -> bool | str:
        """Says before anything runs that a schedule cannot be read; linked ones are not known yet."""
        try:
            for name, text in (("yaw", yaw), ("pitch", pitch), ("exposure", exposure)):
                if text is not None:
                    _schedule(name, text)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        environment: Tensor,
        encoding: str,
        width: int,
        height: int,
        frames: int,
        yaw: str,
        pitch: str,
        field_of_view: float,
        exposure: str,
        auto_exposure: bool,
        curve: str,
        normals: Tensor | None = None,
    ) -> io.NodeOutput:
        check_choice(encoding, "encoding", ENCODINGS)
        check_choice(curve, "curve", CURVES)
        check_range(frames, "frames", 1, MOST_FRAMES)
        for name, size in (("width", width), ("height", height)):
            check_range(size, name, 16, LARGEST_SIZE)
        check_range(field_of_view, "field_of_view", NARROWEST, WIDEST)
        light = check_environment(environment)
        if encoding == "sRGB":
            light = from_srgb(light)
        turns = [_schedule(name, text).at(frames) for name, text in (("yaw", yaw), ("pitch", pitch))]
        stops = _schedule("exposure", exposure).at(frames)
        if auto_exposure:
            stops = (stops + grey_exposure(light)).clamp(-MOST_STOPS, MOST_STOPS)
        surface = dome_normals(height, width) if normals is None else read_normals(normals, frames)
        device = comfy.model_management.get_torch_device()
        light = light.to(device)
        made = (
            environment_light_maps(light, *turns, surface.to(device), on_frame=each_frame(frames)),
            background_frames(light, *turns, field_of_view, height, width, on_frame=each_frame(frames)),
        )
        shown = [tone_map(some, stops.to(device), curve) for some in made]
        return io.NodeOutput(*(some.to(comfy.model_management.intermediate_device()) for some in shown))


def check_environment(environment: Tensor) -> Tensor:
    """The one equirectangular picture of an IMAGE, [H, W, 3].

    Raises:
        ValueError: several pictures, another shape than twice as wide as high, or values that are no light.
    """
    pictures = check_pictures(environment, "environment")
    if pictures.shape[0] > 1:
        raise ValueError(
            f"'environment' holds {pictures.shape[0]} pictures; one surrounds all. Choose one with ImageFromBatch."
        )
    height, width = pictures.shape[1:3]
    if width != 2 * height:
        raise ValueError(
            f"'environment' is {width}x{height} pixels; an equirectangular picture is twice as wide as high. Connect a "
            "whole panorama (360 by 180 degrees), or scale it."
        )
    if float(pictures.min()) < 0:
        raise ValueError("'environment' holds negative numbers, which are no light. Check the node that made it.")
    return pictures[0]


def read_normals(normals: Tensor, frames: int) -> Tensor:
    """Normal maps 0..1 as vectors of length 1, [h, w, 3] or [frames, h, w, 3]; grey looks at the viewer.

    Raises:
        ValueError: no IMAGE, or neither one picture nor one for each frame.
    """
    pictures = check_pictures(normals, "normals")
    if pictures.shape[0] not in (1, frames):
        raise ValueError(f"'normals' holds {pictures.shape[0]} pictures; expected one, or one for each of {frames}.")
    vectors = picture_normals(pictures)
    return vectors[0] if pictures.shape[0] == 1 else vectors


def _schedule(name: str, text: str) -> Schedule:
    limit = MOST_STOPS if name == "exposure" else TURNS
    return Schedule.parse(text, name, minimum=-limit, maximum=limit)


NODES = [LoadHDR, EnvironmentLight]
