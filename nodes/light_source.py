"""Light Source: light drawn by hand, as the picture and the latent that IC-Light starts from."""

from __future__ import annotations

import comfy.model_management
from comfy_api.latest import io, ui
from torch import Tensor

from ..kernels.light_source import STYLES, light_maps, parse_lights
from ..kernels.pixel_coding import coded
from .sockets import CATEGORY_LIGHT, NothingThere, check_choice, check_pictures, check_range

MOST_FRAMES = 1000
LARGEST_SIDE = 8192
LATENT_STEP = 8
"""Pixels of SD1.5's VAE to a side of one latent pixel."""

FROM_THE_LEFT = '{"version": 1, "lights": [{"kind": "side", "angle": 180}]}'

NO_VAE = (
    "The output 'latent' of Light Source is used, but nothing is connected to its input 'vae'. Connect the VAE of the "
    "checkpoint that samples, or disconnect this output."
)


class LightSource(io.ComfyNode):
    """Lights put up by hand, drawn as IC-Light's light maps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_LightSource",
            display_name="Light Source",
            category=CATEGORY_LIGHT,
            description=(
                "Light from the sides and from points, put up by hand, in colour and moving: the light map that "
                "IC-Light starts from, as a picture and as a latent."
            ),
            inputs=[
                io.String.Input(
                    "lights",
                    multiline=True,
                    default=FROM_THE_LEFT,
                    tooltip=(
                        "What the editor draws: lights and key frames as JSON. Empty = dark. The help page has the "
                        "format."
                    ),
                ),
                *(
                    io.Int.Input(
                        name,
                        default=512,
                        min=LATENT_STEP,
                        max=LARGEST_SIDE,
                        step=LATENT_STEP,
                        tooltip=f"Pixels {where}. With a VAE a multiple of {LATENT_STEP}.",
                    )
                    for name, where in (("width", "across"), ("height", "down"))
                ),
                io.Int.Input(
                    "frames",
                    default=1,
                    min=1,
                    max=MOST_FRAMES,
                    tooltip="Pictures of light. With more than one, lights may have key frames and move.",
                ),
                io.Combo.Input(
                    "style",
                    options=list(STYLES),
                    default=next(iter(STYLES)),
                    tooltip=(
                        "fc: black to white, the first picture for iclight_sd15_fc and fcon: connect latent to the "
                        "sampler, denoise 0.9. fbc: dark grey to light grey, the background for iclight_sd15_fbc."
                    ),
                ),
                io.Image.Input(
                    "background",
                    optional=True,
                    tooltip="A picture to see behind the lights while editing. What comes out does not depend on it.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="Makes the latent. Only that output needs it."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The light, one picture a frame."),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The same through the VAE, in IC-Light's coding. Using it without a VAE is an error.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, lights: str, frames: int) -> bool | str:
        """Says before anything runs that lights cannot be read; linked inputs are not known yet."""
        try:
            if frames is not None:
                check_range(frames, "frames", 1, MOST_FRAMES)
            if lights is not None:
                parse_lights(lights, MOST_FRAMES if frames is None else frames)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        lights: str,
        width: int,
        height: int,
        frames: int,
        style: str,
        background: Tensor | None = None,
        vae: object | None = None,
    ) -> io.NodeOutput:
        check_range(frames, "frames", 1, MOST_FRAMES)
        check_choice(style, "style", STYLES)
        for name, side in (("width", width), ("height", height)):
            check_range(side, name, 1, LARGEST_SIDE)
            if vae is not None and side % LATENT_STEP:
                raise ValueError(
                    f"'{name}' is {side}; with a VAE connected it must be a multiple of {LATENT_STEP}, such as "
                    f"{max(round(side / LATENT_STEP), 1) * LATENT_STEP}."
                )
        shown = None
        if background is not None:
            # What the editor shows when the picture comes from no file. Under "images" the page would show it, too.
            seen = check_pictures(background, "background")[:1]
            shown = {"background": ui.PreviewImage(seen).as_dict()["images"]}
        maps = light_maps(parse_lights(lights, frames), frames, height, width, style)
        latent = NothingThere(NO_VAE) if vae is None else {"samples": vae.encode(coded(maps, "official"))}
        return io.NodeOutput(maps.to(comfy.model_management.intermediate_device()), latent, ui=shown)


NODES = [LightSource]
