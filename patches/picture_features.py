"""What a UNet makes of a picture without noise, as features of its places.

Tang et al., Emergent Correspondence from Image Diffusion, NeurIPS 2023: what the decoder of a diffusion model computes
at a middle size is alike for places that mean the same. Taken here are the tokens that go into the decoder's last self
attention at half of the latent's size, at timestep 0 without noise: MangaNinja's reference UNet (Liu et al., CVPR
2025) was trained so. Measured on the toy world: of its matches on characters 95 % are right there, at other sizes
fewer.
"""

from __future__ import annotations

import math

import comfy.model_management
import comfy.patcher_extension
import torch
from torch import Tensor

from .ic_light import KEY as IC_LIGHT
from .manga_ninja import call_dtype
from .reference_attention import Place, place_of, with_patch

SHRINKING = 2
"""Latent pixels to a side of one place."""

CHANNELS = 4
"""Of the latents."""


class FeaturesError(Exception):
    """A MODEL is none whose features are taken; the message is for the person at the graph."""


def feature_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the features of latents of a size."""
    return math.ceil(height / SHRINKING), math.ceil(width / SHRINKING)


def check_inputs(model: object) -> None:
    """Raises FeaturesError unless a MODEL's UNet sees latents and nothing beside them."""
    channels = model.model.model_config.unet_config["in_channels"]
    if channels != CHANNELS:
        raise FeaturesError(
            f"'model' sees {channels} channels, as one for inpainting does; features are taken from one that sees "
            f"{CHANNELS}. Connect MangaNinja's reference_unet or another SD1.5."
        )
    if IC_LIGHT in model.wrappers.get(comfy.patcher_extension.WrappersMP.APPLY_MODEL, {}):
        raise FeaturesError("'model' has IC-Light and sees a foreground, too. Connect the MODEL from before it.")


@torch.no_grad()
def picture_features(model: object, latents: Tensor, context_width: int) -> Tensor:
    """Features of pictures.

    Args:
        model: a ModelPatcher that check_inputs let pass; loaded by the host and left as it is.
        latents: [B, 4, h, w], scaled by the latent format.
        context_width: of the text that its cross attentions see; here they see zeros.

    Returns:
        float32 [B, C, h', w'], see feature_size, on the device of the network.

    Raises:
        FeaturesError: the UNet's decoder has no self attention of that size.
    """
    comfy.model_management.load_models_gpu([model], memory_required=model.memory_required(latents.shape))
    base, device = model.model, model.load_device
    dtype = call_dtype(base)
    size = feature_size(*latents.shape[2:])
    found: dict[Place, Tensor] = {}

    def keep(n: Tensor, context: Tensor, value: Tensor, extra: dict) -> tuple[Tensor, Tensor, Tensor]:
        place = place_of(extra)
        if place[0] == "output" and n.shape[1] == size[0] * size[1]:
            found.clear()  # the last one stays
            found[place] = n
        return n, context, value

    base.diffusion_model(
        latents.to(device, dtype),
        torch.zeros(latents.shape[0], device=device),
        context=torch.zeros(latents.shape[0], 1, context_width, device=device, dtype=dtype),
        transformer_options=with_patch(model.model_options.get("transformer_options", {}), keep),
    )
    if not found:
        raise FeaturesError(
            f"'model' has no self attention at 1/{SHRINKING} of the latent's size in its decoder. Connect MangaNinja's "
            "reference_unet or another SD1.5."
        )
    (tokens,) = found.values()
    return tokens.float().transpose(1, 2).unflatten(2, size)
