"""The small ControlNet of the demonstration: ComfyUI's own class, stored as a small change of the UNet's encoder.

The file holds the hint block and the zero convolutions in full. Every other weight is the UNet's own, to which matrices
and convolutions add a product of two factors of low rank: ``X.lora_up`` [out, rank] and ``X.lora_down``
[rank, in x height x width] belong to the weight ``X.weight``.

Zhang, Rao, Agrawala: Adding Conditional Control to Text-to-Image Diffusion Models, ICCV 2023.
"""

import os
from collections.abc import Mapping

import comfy.cldm.cldm
import comfy.ops
import torch
from torch import Tensor

from .demo_format import DemoFileError, check_fit, load
from .demo_image import UNET_CONFIG, unet_operations

RANK = 16
OWN = ("input_hint_block.", "zero_convs.", "middle_block_out.")
"""What the file holds in full."""

ENCODER = ("time_embed.", "input_blocks.", "middle_block.")
"""What of the UNet a ControlNet has."""

_UP, _DOWN = ".lora_up", ".lora_down"


def build_controlnet(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    operations: type = comfy.ops.disable_weight_init,
) -> comfy.cldm.cldm.ControlNet:
    """A ControlNet whose weights are not yet set (memory as it comes).

    Called with x [B, 4, H, W], hint [B, 3, 8 H, 8 W] in 0..1, timesteps [B] in 0..999 and context [B, T, 128].
    """
    config = {name: value for name, value in UNET_CONFIG.items() if name != "out_channels"}
    return comfy.cldm.cldm.ControlNet(
        **config, hint_channels=3, device=device, dtype=dtype, operations=unet_operations(operations)
    )


def initial_state(unet_state: Mapping[str, Tensor], seed: int, rank: int = RANK) -> dict[str, Tensor]:
    """What training starts from, in the form that the file holds: the control is exactly 0.

    Args:
        unet_state: the UNet's weights; the shipped ones as demo_format.load gives them, for these are what the factors
            will be added to.
        seed: of the random hint block and down factors.
        rank: of the factors.

    Returns:
        float32 on the CPU, to be trained and then saved as they are.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in build_controlnet("meta").state_dict().items():
        if name.startswith("input_hint_block.") and name.endswith(".weight"):
            inputs = value[0].numel()
            state[name] = torch.randn(value.shape, generator=generator) * (2 / inputs) ** 0.5
        elif name.startswith(OWN):
            state[name] = torch.zeros(value.shape)
        elif value.ndim >= 2 and name in unet_state:
            layer = name.removesuffix(".weight")
            inputs = value[0].numel()
            state[layer + _UP] = torch.zeros(value.shape[0], rank)
            state[layer + _DOWN] = torch.randn(rank, inputs, generator=generator) * inputs**-0.5
    return state


def assemble(state: Mapping[str, Tensor], unet_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole ControlNet's weights, names as ComfyUI has them; gradients reach ``state``.

    Args:
        state: what the file holds.
        unet_state: the UNet's weights, on the same device; those of its decoder are left out.

    Raises:
        ValueError: factors that belong to no weight of the UNet's encoder, or do not have its shape.
    """
    weights = {name: value for name, value in unet_state.items() if name.startswith(ENCODER)}
    for name, value in state.items():
        if name.endswith(_UP):
            layer = name.removesuffix(_UP)
            weight, down = weights.get(layer + ".weight"), state.get(layer + _DOWN)
            if weight is None or down is None or not _fits(weight, value, down):
                raise ValueError(f"the factors of {layer} do not belong to the UNet's weights.")
            weights[layer + ".weight"] = weight + (value @ down).view(weight.shape).to(weight.dtype)
        elif not name.endswith(_DOWN):
            weights[name] = value
    return weights


def _fits(weight: Tensor, up: Tensor, down: Tensor) -> bool:
    """Whether a product of factors has a weight's size."""
    return up.ndim == down.ndim == 2 and (*up.shape, down.shape[1]) == (
        weight.shape[0],
        down.shape[0],
        weight[0].numel(),
    )


def load_controlnet(path: str | os.PathLike, unet_path: str | os.PathLike):
    """The CONTROL_NET that ControlNetLoader would give.

    Args:
        path: a file of kind "image_controlnet_lineart".
        unet_path: the file of kind "image_unet" that it was trained on.

    Returns:
        comfy.controlnet.ControlNet.

    Raises:
        DemoFileError: see demo_format.load; weights that do not fit.
    """
    state, _ = load(path, "image_controlnet_lineart")
    unet_state, _ = load(unet_path, "image_unet")
    try:
        weights = assemble(state, unet_state)
    except ValueError as error:
        raise DemoFileError(f"{path} does not fit {unet_path}: {error}") from error
    check_fit(path, weights, build_controlnet("meta").state_dict())
    return controlnet_of(weights)


def controlnet_of(weights: Mapping[str, Tensor]):
    """The CONTROL_NET that ControlNetLoader would give for a ControlNet of this size.

    Args:
        weights: all of it, names as ComfyUI has them.

    Returns:
        comfy.controlnet.ControlNet.
    """
    import comfy.controlnet
    import comfy.model_management as management

    load_device = management.get_torch_device()
    # -1 parameters, float16: what the stock loader asks with for an ordinary SD1.5 ControlNet.
    dtype = management.unet_dtype(model_params=-1, weight_dtype=torch.float16)
    manual_cast_dtype = management.unet_manual_cast(dtype, load_device)
    operations = comfy.ops.pick_operations(dtype, manual_cast_dtype)
    network = build_controlnet(management.unet_offload_device(), dtype, operations)
    network.load_state_dict(weights)
    return comfy.controlnet.ControlNet(network.eval(), load_device=load_device, manual_cast_dtype=manual_cast_dtype)
