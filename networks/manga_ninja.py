"""MangaNinja's files: the UNet that sees the reference, and the point net.

Liu et al.: MangaNinja: Line Art Colorization with Precise Reference Following, CVPR 2025. The published reference_unet
is an SD1.5 UNet under diffusers' names that lacks the last norm and convolution, for its result is not used; what is
used is what its self attentions see. The other two files, denoising_unet and controlnet, are read by ComfyUI's own
loaders.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from .checkpoints import difference, some, wrong_shape
from .demo_image import UNET_CONFIG, model_of, unet_operations
from .point_net import KEYS, PointNet, widths_of

SOURCE = "https://huggingface.co/Johanan0528/MangaNinjia"

SD15_CONFIG = {**UNET_CONFIG, "model_channels": 320, "channel_mult": [1, 2, 4, 4], "context_dim": 768, "num_heads": 8}
"""ComfyUI's description of SD1.5's UNet."""

HEAD = ("conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias")
"""What the published reference UNet lacks of a UNet; not read where a file has it."""

_CONFIGS = {config["model_channels"]: config for config in (SD15_CONFIG, UNET_CONFIG)}
_FIRST = "conv_in.weight"
_TEXT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


class MangaNinjaFileError(Exception):
    """A file is not what MangaNinja's are; the message is for the person at the graph."""


@dataclass(frozen=True, eq=False)
class MangaNinja:
    """The value on a PN_MANGANINJA socket."""

    reference: comfy.model_patcher.ModelPatcher
    """The UNet that sees the reference: a MODEL of SD1.5's architecture."""

    points: comfy.model_patcher.ModelPatcher
    """Around a PointNet."""


def read_point_net(name: str, state: Mapping[str, Tensor]) -> PointNet:
    """The point net of a file.

    Args:
        name: the file's, for messages.
        state: what it holds.

    Returns:
        In eval mode, holding the file's own tensors in their dtype; the widths of its stages are the file's.

    Raises:
        MangaNinjaFileError: another kind of file, weights that are missing or too many, shapes that do not fit.
    """
    weights = _without_prefix(state)
    use = f"Use point_net.pth of {SOURCE}."
    if not weights.keys() & set(KEYS):
        raise MangaNinjaFileError(f"{name} is no point net: it is {_what_it_is(weights)}. {use}")
    wrong = difference(KEYS, weights)
    if wrong:
        raise MangaNinjaFileError(f"{name} holds no complete point net:{wrong} {use}")
    if any(weights[f"blocks.{stage}.0.weight"].ndim != 4 for stage in range(4)):
        raise MangaNinjaFileError(f"{name} is no point net: its weights are none of convolutions. {use}")
    dtype = weights[KEYS[0]].dtype
    network = PointNet(widths_of(weights), device="meta", dtype=dtype)
    misshapen = wrong_shape(network.state_dict(), weights)
    if misshapen:
        raise MangaNinjaFileError(f"{name}: {misshapen} {use}")
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def points_patcher(network: PointNet) -> comfy.model_patcher.ModelPatcher:
    """A point net that the host loads and unloads."""
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(network, management.get_torch_device(), management.unet_offload_device())


def read_reference_unet(name: str, state: Mapping[str, Tensor]) -> comfy.model_patcher.ModelPatcher:
    """The UNet of a file that sees the reference, as the host's loaders would give it; its last layer gives zeros.

    Args:
        name: the file's, for messages.
        state: what it holds: diffusers' names, ``module.`` before all of them or not, with or without ``HEAD``.

    Raises:
        MangaNinjaFileError: see reference_weights.
    """
    config, weights = reference_weights(name, state)
    for own, weight in _layout(config["model_channels"]).values():
        if own not in weights:
            weights[own] = torch.zeros(weight.shape, dtype=next(iter(weights.values())).dtype)
    if config is UNET_CONFIG:
        return model_of(weights)
    # Imported here, because the host's text encoders come with it.
    import comfy.sd

    return comfy.sd.load_diffusion_model_state_dict(weights)


def reference_weights(name: str, state: Mapping[str, Tensor]) -> tuple[dict, dict[str, Tensor]]:
    """The weights of a reference UNet, checked and under ComfyUI's names.

    Args:
        name: the file's, for messages.
        state: see read_reference_unet.

    Returns:
        ComfyUI's description of the UNet, and all weights but those of ``HEAD``.

    Raises:
        MangaNinjaFileError: another kind of file, another family of UNet, weights that are missing or too many or of
            another shape.
    """
    weights = _without_prefix(state)
    use = f"Use reference_unet.pth of {SOURCE}."
    first = weights.get(_FIRST)
    if first is None or first.ndim != 4 or _is_controlnet(weights):
        raise MangaNinjaFileError(f"{name} is no reference UNet: it is {_what_it_is(weights)}. {use}")
    if HEAD[-1] in weights and "denois" in name.lower():
        raise MangaNinjaFileError(
            f"{name} is MangaNinja's denoising UNet, by its name and its last layer. {use} The denoising UNet goes to "
            "'model' of MangaNinja Apply, through Load Diffusion Model (UNETLoader)."
        )
    text = weights.get(_TEXT)
    config = _CONFIGS.get(first.shape[0])
    if (
        "add_embedding.linear_1.weight" in weights
        or config is None
        or first.shape[1] != config["in_channels"]
        or (text is not None and text.shape[-1] != config["context_dim"])
    ):
        raise MangaNinjaFileError(f"{name} is no reference UNet: it is {_what_it_is(weights)}. {use}")
    layout = _layout(first.shape[0])
    found = {key: value for key, value in weights.items() if key not in HEAD}
    wrong = difference(layout.keys() - set(HEAD), found)
    if wrong:
        raise MangaNinjaFileError(f"{name} holds no complete reference UNet:{wrong} {use}")
    misshapen = wrong_shape({key: weight for key, (_, weight) in layout.items()}, found)
    if misshapen:
        raise MangaNinjaFileError(f"{name}: {misshapen} {use}")
    return config, {layout[key][0]: value for key, value in found.items()}


def diffusers_names(config: Mapping) -> dict[str, str]:
    """ComfyUI's names of a UNet's weights -> diffusers'.

    Args:
        config: SD15_CONFIG or the demonstration's UNET_CONFIG.
    """
    return {own: key for key, (own, _) in _layout(config["model_channels"]).items()}


@functools.cache
def _layout(model_channels: int) -> dict[str, tuple[str, Tensor]]:
    """Diffusers' name of each weight of a UNet -> ComfyUI's, and a tensor of its shape."""
    config = _CONFIGS[model_channels]
    # No values are held on this device, and how many groups a norm has does not show in its weights.
    operations = unet_operations(comfy.ops.disable_weight_init)
    unet = UNetModel(**config, device="meta", dtype=torch.float32, operations=operations)
    own = unet.state_dict()
    # The host's table has samplers on levels that have none.
    return {key: (name, own[name]) for key, name in comfy.utils.unet_to_diffusers(config).items() if name in own}


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name, without what training on several devices puts before all names."""
    held = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if held else key: value for key, value in state.items()}


def _is_controlnet(names: Iterable[str]) -> bool:
    return any(key.startswith(("controlnet_", "control_model.")) or "zero_convs." in key for key in names)


def _what_it_is(weights: Mapping[str, Tensor]) -> str:
    """What a file is that was chosen for another, as the end of "it is"."""
    if not weights:
        return "empty"
    if weights.keys() & set(KEYS):
        return "MangaNinja's point net, which belongs to 'point_net'"
    if _is_controlnet(weights):
        return "a ControlNet, which Load ControlNet Model reads"
    for prefixes, kind in (
        (("model.diffusion_model.", "first_stage_model.", "cond_stage_model."), "a whole checkpoint"),
        (("input_blocks.", "diffusion_model."), "a UNet under ComfyUI's names, not under diffusers'"),
        (("vision_model.", "visual.", "text_model."), "a CLIP model"),
    ):
        if any(key.startswith(prefixes) for key in weights):
            return kind
    if any("lora" in key for key in weights):
        return f"a LoRA ({some(weights)})"
    if any("motion_modules" in key for key in weights):
        return "a file of motion modules"
    first, text = weights.get(_FIRST), weights.get(_TEXT)
    if first is None or first.ndim != 4:
        return f"something else, which holds {some(weights)}"
    if "add_embedding.linear_1.weight" in weights:
        return "an SDXL UNet, and MangaNinja's is an SD1.5"
    if first.shape[1] != 4:
        return f"a UNet whose first convolution takes {first.shape[1]} channels (inpainting takes 9); expected 4"
    if text is not None and text.shape[-1] == 1024:
        return "an SD2 UNet (its text is 1024 wide), and MangaNinja's is an SD1.5"
    width = "unknown" if text is None else text.shape[-1]
    return (
        f"a UNet {first.shape[0]} channels wide at its first convolution, its text {width} wide; expected SD1.5's 320 "
        "and 768"
    )
