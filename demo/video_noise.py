"""Warped noise for many training clips at once: the pack's own, from the scenes' exact flow."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from kernels.noise_mix import temporal_downsample
from kernels.noise_warp import warp_noise

OVERSAMPLE = 8  # the default of the Warp Noise node
CHANNELS = 16
GUTTER = 16
"""Pixels between two clips: more than things move from frame to frame in the toy world. A multiple of OVERSAMPLE."""


def _mosaic(flows: Tensor, side: int) -> Tensor:
    """Flows [B, S, 2, H, W] side by side in one field, each with a gutter on its right and below it."""
    size, height, width = flows.shape[0], flows.shape[-2] + GUTTER, flows.shape[-1] + GUTTER
    # What is in a gutter leaves the whole field, so that there is new noise in it in every frame.
    away = 4.0 * side * max(height, width)
    flows = functional.pad(flows.flatten(0, 1), (0, GUTTER, 0, GUTTER), value=away).unflatten(0, flows.shape[:2])
    padded = torch.cat((flows, flows.new_full((side * side - size, *flows.shape[1:]), away)))
    return padded.unflatten(0, (side, side)).permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3).contiguous()


def warped_noise(flows: Tensor, frames: int, seed: int) -> Tensor:
    """Noise that follows each clip's flow, as the Warp Noise node makes it for a Wan latent.

    A single clip of this size keeps a GPU busy for a hundredth of the time that launching its kernels takes, so the
    clips lie side by side in one field. Between them are gutters, which take what leaves a clip and from which new
    noise enters, as happens at the edge of a single one. Every tile is white Gaussian noise, as the whole is.

    Args:
        flows: float32 [B, T-1, 2, H, W], forward, pixels; H and W multiples of 8.
        frames: latent frames.
        seed: of all of it.

    Returns:
        float32 [B, 16, frames, H/8, W/8] on the device of ``flows``.
    """
    side = math.ceil(flows.shape[0] ** 0.5)
    height, width = ((size + GUTTER) // OVERSAMPLE for size in flows.shape[-2:])
    noise = warp_noise(
        _mosaic(flows, side),
        CHANNELS,
        (side * height, side * width),
        seed=seed,
        oversample=OVERSAMPLE,
        device=flows.device,
    )
    noise = temporal_downsample(noise, frames, "nearest")
    tiles = noise.unflatten(3, (side, width)).unflatten(2, (side, height))  # [L, C, side, h, side, w]
    tiles = tiles.permute(2, 4, 1, 0, 3, 5).flatten(0, 1)[: flows.shape[0]]
    return tiles[..., : flows.shape[-2] // OVERSAMPLE, : flows.shape[-1] // OVERSAMPLE].contiguous()


def shuffled(noise: Tensor) -> Tensor:
    """Noise [B, 16, ...] with each item's channels in a random order and of random signs; free of syncs.

    The channels follow the flow independently of each other, so this is as good as noise warped anew.
    """
    size, channels = noise.shape[:2]
    order = torch.rand(size, channels, device=noise.device).argsort(1)
    signs = torch.randint(0, 2, (size, channels), device=noise.device, dtype=noise.dtype) * 2 - 1
    rest = [1] * (noise.ndim - 2)
    return noise.gather(1, order.view(size, channels, *rest).expand_as(noise)) * signs.view(size, channels, *rest)


def degraded(noise: Tensor, fresh: Tensor, weights: Tensor) -> Tensor:
    """kernels.noise_mix.mix_noise of a batch with independent noise; free of syncs, which that one is not.

    Args:
        noise, fresh: [B, ...].
        weights: [B], 0..1: 0 gives ``noise``, 1 gives ``fresh``.
    """
    weights = weights.view(-1, *[1] * (noise.ndim - 1))
    return ((1 - weights) * noise + weights * fresh) / ((1 - weights).square() + weights.square()).sqrt()
