"""Imagine360 as a MODEL: the host's samplers, sigmas and guiders denoise a panorama and its views as one packed LATENT.

Tan et al., Imagine360, 2024. What a conditioning tells the network travels in ``model_conds`` of every row, under the
names below; what the method draws at every step comes from a seed and the step's place in the noise schedule, so that
rows in one call or in several, and a sampling in one part or in two, see the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import comfy.supported_models_base
import torch
from torch import Tensor

from ..networks.imagine360 import PART, Condition, Imagine360Network, StepDraws, held_numbers
from ..networks.imagine360_layout import Training

KEY = "papernodes_imagine360"
PANORAMA, VIEWS, CAMERAS, FPS, DRAWS = (
    f"imagine360_{name}" for name in ("panorama", "views", "cameras", "fps", "draws")
)
ANCHOR_FEATURES, FRAME_FEATURES = "imagine360_anchor_features", "imagine360_frame_features"
POSITION, PITCH = "imagine360_position", "imagine360_pitch"
"""Names in a conditioning's model_conds."""

NEEDED = (PANORAMA, VIEWS, CAMERAS)
_TENSORS = {PANORAMA: "panorama", VIEWS: "views", ANCHOR_FEATURES: "anchor_features", FRAME_FEATURES: "frame_features",
            POSITION: "position", PITCH: "pitch"}  # fmt: skip
_SEEDS = 1_000_003  # more than there are steps in a schedule


class Imagine360ModelError(Exception):
    """A latent or a conditioning does not fit Imagine360; the message is for the person at the graph."""


@dataclass(frozen=True)
class Draws:
    """What is drawn anew at every step."""

    seed: int
    antipodal_probability: float = 0.4
    """For each exchange block, that it pairs places with those half a turn further."""

    token_noise: float = 0.1
    """Standard deviation of what is added to the image tokens."""

    def at(self, step: int, network: Imagine360Network) -> StepDraws:
        """What is drawn at a step.

        Args:
            step: its place in the noise schedule, 0 to 999.
            network: which exchange blocks and image tokens there are.
        """
        generator = torch.Generator().manual_seed((self.seed * _SEEDS + step) % (1 << 63))
        # The number is the same whatever the probability, so that the noise does not change with it.
        drawn = torch.rand(len(network.exchange), generator=generator, dtype=torch.float64)
        antipodal = tuple((drawn < self.antipodal_probability).tolist())
        tokens = network.sizes.tokens
        if tokens is None or self.token_noise == 0:
            return StepDraws(antipodal)
        noise = torch.randn(2, tokens.queries, tokens.output, generator=generator) * self.token_noise
        return StepDraws(antipodal, (noise[0], noise[1]))


class PackedFormat(comfy.latent_formats.LatentFormat):
    """Stable Diffusion's latents in a row of numbers, of which no preview can be drawn."""

    scale_factor = 0.18215


class Imagine360Config(comfy.supported_models_base.BASE):
    """What the host wants to know of a model."""

    latent_format = PackedFormat
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]
    unet_extra_config = {}


class Imagine360Model(comfy.model_base.BaseModel):
    """The host's model around the network."""

    def __init__(self, config: Imagine360Config, network: Imagine360Network, prediction: str, device=None) -> None:
        kinds = comfy.model_base.ModelType
        kind = kinds.V_PREDICTION if prediction == "v" else kinds.EPS
        super().__init__(config, kind, device=device)
        self.diffusion_model = network

    def extra_conds(self, **kwargs) -> dict:
        """Beside the text how the packed latent is to be taken apart."""
        found = super().extra_conds(**kwargs)
        found["latent_shapes"] = comfy.conds.CONDConstant(kwargs["latent_shapes"])
        return found

    def _apply_model(
        self, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs
    ) -> Tensor:
        network = self.diffusion_model
        if "latent_shapes" not in kwargs or any(name not in kwargs for name in NEEDED):
            raise Imagine360ModelError("Imagine360 was called without what Imagine360 Conditioning tells it.")
        dtype = self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype
        told = {ours: comfy.model_base.convert_tensor(kwargs.pop(name), dtype, x.device)
                for name, ours in _TENSORS.items() if name in kwargs}  # fmt: skip
        fps = kwargs.pop(FPS, Condition.fps)
        condition = Condition(cameras=tuple(kwargs.pop(CAMERAS)), fps=float(fps), **told)
        draws = kwargs.pop(DRAWS, None)
        step = int(self.model_sampling.timestep(t).max())
        return super()._apply_model(
            x,
            t,
            c_concat,
            c_crossattn,
            control,
            {} if transformer_options is None else transformer_options,
            condition=condition,
            draws=None if draws is None else draws.at(step, network),
            latent_shapes=kwargs["latent_shapes"],
        )

    def memory_required(self, input_shape, cond_shapes=None) -> float:
        """Bytes beside the weights: what the blocks keep of every row, and what a part of a layer needs.

        Args:
            input_shape: of the packed latent, rows first.
            cond_shapes: the host's; they are small beside that.
        """
        dtype = self.get_dtype() if self.manual_cast_dtype is None else self.manual_cast_dtype
        network = self.diffusion_model
        places = math.prod(input_shape) / network.sizes.unet["out_channels"]
        size = comfy.model_management.dtype_size(dtype)
        return float(size * held_numbers(network.sizes.unet, places, network.limit))


def model_of(network: Imagine360Network, training: Training | None = None) -> comfy.model_patcher.ModelPatcher:
    """A MODEL.

    Args:
        network: from imagine360_files.read_network, with ``operations_for`` its dtype.
        training: its noise schedule and what it predicts; the published network's where left out.

    Returns:
        A ModelPatcher that checks, before it samples, what it is given.
    """
    training = training or Training()
    config = Imagine360Config({**network.sizes.unet, "disable_unet_model_creation": True, "dtype": network.dtype})
    config.sampling_settings = {
        "beta_schedule": training.schedule,
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "zsnr": training.zero_terminal,
    }
    management = comfy.model_management
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    config.manual_cast_dtype = management.unet_manual_cast(
        network.dtype, load_device, config.supported_inference_dtypes
    )
    network.limit = PART
    model = Imagine360Model(config, network, training.prediction, device=offload_device).to(offload_device)
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, _checked)
    patcher.add_callback_with_key(comfy.patcher_extension.CallbacksMP.ON_CLEANUP, KEY, _forget)
    return patcher


def weight_dtype(parameters: int) -> torch.dtype:
    """What a network's weights are best held in on the host's device.

    Args:
        parameters: how many weights there are.
    """
    return comfy.model_management.unet_dtype(
        model_params=parameters,
        supported_dtypes=Imagine360Config.supported_inference_dtypes,
        weight_dtype=torch.bfloat16,
    )


def operations_for(dtype: torch.dtype) -> type:
    """ComfyUI's namespace of layers for weights of a dtype on the host's device."""
    device = comfy.model_management.get_torch_device()
    cast = comfy.model_management.unet_manual_cast(dtype, device, Imagine360Config.supported_inference_dtypes)
    return comfy.ops.pick_operations(dtype, cast)


def is_imagine360(model: object) -> bool:
    """Whether a MODEL is Imagine360's."""
    return isinstance(getattr(model, "model", None), Imagine360Model)


def _forget(patcher: object) -> None:
    """The run is over: masks and encodings of its sizes need not be held."""
    patcher.model.diffusion_model.forget()


def _checked(executor, noise, latent_image, sampler, sigmas, denoise_mask=None, *arguments, **rest):
    """Raises Imagine360ModelError for what a guider is about to sample and cannot."""
    guider = executor.class_obj
    network = guider.model_patcher.model.diffusion_model
    shapes = rest.get("latent_shapes") or (arguments[3] if len(arguments) > 3 else [noise.shape])
    if len(shapes) != 2 or any(len(shape) != 5 for shape in shapes):
        raise Imagine360ModelError(
            f"The latent is {' and '.join(str(list(shape)) for shape in shapes)}; Imagine360 samples a panorama "
            "and its views, packed. Connect the latent of Imagine360 Conditioning."
        )
    if denoise_mask is not None:
        raise Imagine360ModelError(
            "The latent has a noise mask, which packed latents cannot have. What is known of the panorama is said by "
            "Imagine360 Conditioning; leave Set Latent Noise Mask out."
        )
    frames = shapes[0][2]
    if frames > network.most_frames:
        raise Imagine360ModelError(
            f"The latent holds {frames} frames, and the network knows {network.most_frames}. Sample a shorter clip, or "
            "leave frames out."
        )
    for role, conditions in guider.conds.items():
        for one in conditions or ():
            _check_condition(role, one, shapes, network)
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, *arguments, **rest)


def _check_condition(role: str, one: dict, shapes: list, network: Imagine360Network) -> None:
    held = one.get("model_conds", {})
    if any(name not in held for name in NEEDED):
        raise Imagine360ModelError(
            f"'{role}' says nothing of the panorama. Connect the {role} output of Imagine360 Conditioning."
        )
    if any(name in one for name in ("area", "mask", "control")):
        raise Imagine360ModelError(
            f"'{role}' has an area, a mask or a ControlNet, which know no packed latents. Leave them out."
        )
    width, text = network.sizes.unet["context_dim"], one.get("cross_attn")
    if text is None or text.shape[-1] != width:
        came = "none" if text is None else f"{text.shape[-1]} wide"
        source = "SD2.1's text encoder (OpenCLIP ViT-H)" if width == 1024 else "Demo Checkpoint's clip"
        raise Imagine360ModelError(f"'{role}' has text that is {came}; expected {width}. Use {source}.")
    count = len(held[CAMERAS].cond)
    for name, shape, frames in ((PANORAMA, shapes[0], shapes[0][2]), (VIEWS, shapes[1], count * shapes[0][2])):
        known = held[name].cond.shape
        if tuple(known[2:]) != tuple(shape[2:]) or shape[2] != frames:
            raise Imagine360ModelError(
                f"'{role}' was made for other sizes ({name} {list(known)}) than the latent's {list(shape)}. Connect "
                "latent and conditionings of the same Imagine360 Conditioning."
            )
    factor = 2 ** (len(network.sizes.unet["channel_mult"]) - 1)
    for shape in shapes:
        if shape[3] % factor or shape[4] % factor or shapes[0][4] < 2 * factor:
            raise Imagine360ModelError(
                f"The latent is {shape[4]}x{shape[3]}; both sides must be multiples of {factor}, which is "
                f"{8 * factor} pixels, of the panorama and of its views. Set another size in Imagine360 Conditioning."
            )
    for name in (ANCHOR_FEATURES, FRAME_FEATURES):
        tokens = network.sizes.tokens
        if name in held and tokens is not None and held[name].cond.shape[2] != tokens.features:
            raise Imagine360ModelError(
                f"'{role}' holds features of {held[name].cond.shape[2]} channels, and the network takes "
                f"{tokens.features}. Give Imagine360 Conditioning the image encoder of the same Imagine360 Loader."
            )
