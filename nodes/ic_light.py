"""IC-Light on any SD1.5 MODEL: its file, what lies beside the noise, its second pass and its noise levels."""

from __future__ import annotations

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..kernels.pixel_coding import CODINGS, coded, on_grey
from ..networks.ic_light import ICLightFileError, read_offsets
from ..patches.ic_light import apply_offsets, check_base, with_latents
from ..patches.linear_noise import karras_sigmas, with_linear_levels
from .demo_adapters import LIGHTS, misfit
from .sockets import (
    CATEGORY_LIGHT,
    alike,
    check_choice,
    check_mask,
    check_pictures,
    check_range,
    check_sides,
)
from .weight_files import find_weights, read_weights

MODEL_FOLDER = "diffusion_models"
SOURCE = "https://huggingface.co/lllyasviel/ic-light"
PUBLISHED = tuple(f"iclight_sd15_{kind}.safetensors" for kind in ("fc", "fcon", "fbc"))
NATIVE, EXACT = "native", "demo-exact"
MOST_STEPS = 1000
SCALE_STEP = 64
"""Pixels that the second pass's sides are multiples of."""


def list_light_files() -> list[str]:
    """Files of models/diffusion_models (and models/unet), those that are called like IC-Light's first.

    Where none is called so, the published ones' names, so that a workflow can say what it lacks; then the pack's own
    for Demo Checkpoint.
    """
    names = folder_paths.get_filename_list(MODEL_FOLDER)
    likely = [name for name in names if "iclight" in name.lower().replace("-", "").replace("_", "")]
    return (likely or list(PUBLISHED)) + list(LIGHTS) + [name for name in names if name not in likely]


class ICLightModel(io.ComfyNode):
    """An SD1.5 that relights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ICLightModel",
            display_name="IC-Light Model",
            category=CATEGORY_LIGHT,
            description="Makes any SD1.5 model relight: adds the offsets of an IC-Light file to its weights.",
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 checkpoint or fine-tune. LoRAs may come before or after."),
                io.Combo.Input(
                    "ic_light_file",
                    options=list_light_files(),
                    tooltip=(
                        "In models/diffusion_models or models/unet. fc and fcon relight by words and a map of light, "
                        "fbc by a background. papernodes_demo_...: for Demo Checkpoint, come with the pack."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    round=False,
                    tooltip="Of the offsets. 1: as trained. 0: the model itself, whatever the conditioning holds.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For a sampler; needs IC-Light Conditioning.")],
        )

    @classmethod
    def execute(cls, model: object, ic_light_file: str, strength: float) -> io.NodeOutput:
        check_range(strength, "strength", 0.0, 2.0)
        check_base(model)
        weights = model.model.diffusion_model.state_dict()
        wanted = f"{' or '.join(PUBLISHED)} from {SOURCE}"
        path = find_weights(MODEL_FOLDER, ic_light_file, "ic_light_file", wanted, LIGHTS)
        state = read_weights(path, ic_light_file, "ic_light_file", SOURCE)
        try:
            offsets = read_offsets(ic_light_file, state, weights, model.model.model_config.unet_config)
        except ICLightFileError as error:
            other = misfit(ic_light_file, model, LIGHTS, wanted)
            raise ValueError(f"'ic_light_file': {error}{other}") from None
        return io.NodeOutput(apply_offsets(model, offsets, strength))


def conditioning_inputs() -> list:
    """What is relit, and how it is written for the VAE."""
    return [
        io.Conditioning.Input("positive", tooltip="What is to be seen, and the light in words."),
        io.Conditioning.Input("negative", tooltip="What is not."),
        io.Vae.Input("vae", tooltip="The checkpoint's."),
    ]


def picture_inputs() -> list:
    """What lies beside the noise."""
    return [
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip=(
                "White where the foreground is; grey is put round it, as the files were trained. Without a mask the "
                "picture must be on grey (127) already."
            ),
        ),
        io.Image.Input(
            "background",
            optional=True,
            tooltip="For the fbc file only: the background whose light is taken. One, or one for each foreground.",
        ),
        io.Combo.Input(
            "pixel_coding",
            options=list(CODINGS),
            default=CODINGS[0],
            optional=True,
            tooltip="official: x / 127 - 1, so that the grey is exactly 0. comfy: x / 127.5 - 1, as VAE Encode does.",
        ),
    ]


class ICLightConditioning(io.ComfyNode):
    """The foreground, and the background, beside the noise."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ICLightConditioning",
            display_name="IC-Light Conditioning",
            category=CATEGORY_LIGHT,
            description="Tells IC-Light what to relight: a foreground, cut out by a mask, and for fbc a background.",
            inputs=[
                *conditioning_inputs(),
                io.Image.Input("foreground", tooltip="What is to be relit; sides are multiples of 8."),
                *picture_inputs(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="With the pictures, for the sampler."),
                io.Conditioning.Output(display_name="negative", tooltip="With the same pictures, for the sampler."),
                io.Latent.Output(
                    display_name="latent", tooltip="Empty, of the foreground's size; or start from Light Source's."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: list,
        negative: list,
        vae: object,
        foreground: Tensor,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        pixel_coding: str = CODINGS[0],
    ) -> io.NodeOutput:
        shown, behind = prepared(foreground, mask, background, pixel_coding)
        latents = encoded(vae, shown, behind, pixel_coding)
        return io.NodeOutput(with_latents(positive, latents), with_latents(negative, latents), empty_latent(latents))


def prepared(
    foreground: Tensor, mask: Tensor | None, background: Tensor | None, pixel_coding: str
) -> tuple[Tensor, Tensor | None]:
    """Foregrounds on grey and backgrounds, float32 [B, H, W, 3], 0..1; as many of either.

    Raises:
        ValueError: sizes or numbers that do not fit, sides that are no multiples of 8.
    """
    check_choice(pixel_coding, "pixel_coding", CODINGS)
    shown = check_pictures(foreground, "foreground")
    behind = None
    if background is not None:
        behind = check_pictures(background, "background").to(shown.device)
        if shown.shape[0] == 1:
            shown = shown.expand(behind.shape[0], *shown.shape[1:])
        behind = alike(behind, "background", shown, "foreground")
    check_sides(shown, "foreground")
    return on_grey(shown, check_mask(mask, shown, "foreground")), behind


def encoded(vae: object, shown: Tensor, behind: Tensor | None, pixel_coding: str) -> Tensor:
    """Latents of foregrounds, and of backgrounds behind them, as the UNet is given them: [B, 4 or 8, h, w]."""
    pictures = [shown] if behind is None else [shown, behind]
    latents = torch.cat([vae.encode(coded(some, pixel_coding)) for some in pictures], 1)
    parts = latents.split(4, 1)
    return torch.cat([comfy.latent_formats.SD15().process_in(part) for part in parts], 1)


def empty_latent(latents: Tensor) -> dict[str, Tensor]:
    """A LATENT to begin from where latents [B, C, h, w] lie beside the noise."""
    size = latents.shape[0], 4, *latents.shape[2:]
    return {"samples": torch.zeros(size, device=comfy.model_management.intermediate_device())}


class ICLightHires(io.ComfyNode):
    """The demonstration's second pass, larger."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ICLightHires",
            display_name="IC-Light Hires",
            category=CATEGORY_LIGHT,
            description="The second, larger pass of IC-Light's demonstration: what it begins from, what lies beside.",
            inputs=[
                *conditioning_inputs(),
                io.Image.Input("relit", tooltip="What the first pass made, decoded."),
                io.Image.Input("foreground", tooltip="The same as in IC-Light Conditioning, as large as there is."),
                io.Float.Input(
                    "scale",
                    default=1.5,
                    min=1.0,
                    max=4.0,
                    step=0.05,
                    round=False,
                    tooltip="How much larger than the first pass; sides become multiples of 64.",
                ),
                *picture_inputs(),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="With the larger pictures."),
                io.Conditioning.Output(display_name="negative", tooltip="With the larger pictures."),
                io.Latent.Output(display_name="latent", tooltip="The relit picture, larger; denoise 0.5."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive: list,
        negative: list,
        vae: object,
        relit: Tensor,
        foreground: Tensor,
        scale: float,
        mask: Tensor | None = None,
        background: Tensor | None = None,
        pixel_coding: str = CODINGS[0],
    ) -> io.NodeOutput:
        check_range(scale, "scale", 1.0, 4.0)
        first = check_pictures(relit, "relit")
        pictures = check_pictures(foreground, "foreground")
        cut = check_mask(mask, pictures, "foreground")
        size = larger(first.shape[1], first.shape[2], scale)
        resized = [
            None if some is None else lanczos(some, size)
            for some in (pictures, cut, None if background is None else check_pictures(background, "background"))
        ]
        shown, behind = prepared(resized[0], resized[1], resized[2], pixel_coding)
        if shown.shape[0] not in (1, first.shape[0]):
            raise ValueError(
                f"'foreground' holds {shown.shape[0]} pictures and 'relit' {first.shape[0]}; expected one, or as many."
            )
        latents = encoded(vae, shown, behind, pixel_coding)
        start = vae.encode(lanczos(first, size))
        return io.NodeOutput(with_latents(positive, latents), with_latents(negative, latents), {"samples": start})


def larger(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of the second pass: round(side * scale / 64) * 64, at least 64."""
    return tuple(max(round(side * scale / SCALE_STEP), 1) * SCALE_STEP for side in (height, width))


def lanczos(pictures: Tensor, size: tuple[int, int]) -> Tensor:
    """Pictures [B, H, W, 3] or masks [B, H, W] in 8 bit, cropped in the middle to the shape of ``size``, resized."""
    height, width = size
    masks = pictures.ndim == 3
    shown = pictures[..., None].expand(-1, -1, -1, 3) if masks else pictures
    found = comfy.utils.common_upscale(shown.movedim(-1, 1), width, height, "lanczos", "center").movedim(1, -1)
    return found[..., 0] if masks else found


class ICLightSchedule(io.ComfyNode):
    """Noise levels as IC-Light's demonstration has them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_ICLightSchedule",
            display_name="IC-Light Schedule",
            category=CATEGORY_LIGHT,
            description="Karras' noise levels for relighting, on the model's own schedule or on the demonstration's.",
            inputs=[
                io.Model.Input("model", tooltip="From IC-Light Model."),
                io.Int.Input("steps", default=25, min=1, max=MOST_STEPS, tooltip="Steps that are done."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    round=False,
                    tooltip="Below 1 more are planned and the first left out: 0.9 from a map of light, 0.5 in Hires.",
                ),
                io.Combo.Input(
                    "levels",
                    options=[NATIVE, EXACT],
                    default=NATIVE,
                    tooltip=(
                        "native: the levels that SD1.5 was trained on. demo-exact: the linear ones on which the "
                        "authors' program samples, from more noise; the model that comes out knows them."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the guider; connect it, not the one that came in."),
                io.Sigmas.Output(display_name="sigmas", tooltip="For SamplerCustomAdvanced; sampler dpmpp_2m_sde."),
            ],
        )

    @classmethod
    def execute(cls, model: object, steps: int, denoise: float, levels: str) -> io.NodeOutput:
        check_range(steps, "steps", 1, MOST_STEPS)
        check_range(denoise, "denoise", 0.01, 1.0)
        check_choice(levels, "levels", (NATIVE, EXACT))
        try:
            changed = with_linear_levels(model) if levels == EXACT else model
            sigmas = karras_sigmas(changed.get_model_object("model_sampling"), steps, denoise)
        except ValueError as error:
            raise ValueError(f"'model': {error}") from None
        return io.NodeOutput(changed, sigmas)


NODES = [ICLightModel, ICLightConditioning, ICLightHires, ICLightSchedule]
