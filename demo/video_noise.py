"""Warped noise for many training clips at once: the pack's own, from the scenes' exact flow."""

import math

import torch
from torch import Tensor

from kernels.noise_mix import temporal_downsample
from kernels.noise_warp import warp_noise

OVERSAMPLE = 8  # the default of the Warp Noise node
CHANNELS = 16


def _mosaic(flows: Tensor, side: int) -> Tensor:
    """Flows [B, S, 2, H, W] side by side in one field [S, 2, side H, side W]; nothing leaves its own tile."""
    size, _, _, height, width = flows.shape
    x = torch.arange(width, device=flows.device) + flows[:, :, 0]
    y = torch.arange(height, device=flows.device)[:, None] + flows[:, :, 1]
    outside = (x < -0.5) | (x >= width - 0.5) | (y < -0.5) | (y >= height - 0.5)
    # What leaves its clip leaves the whole field.
    flows = flows.masked_fill(outside[:, :, None], 4.0 * side * max(height, width))
    padded = torch.cat((flows, flows.new_zeros(side * side - size, *flows.shape[1:])))
    return padded.unflatten(0, (side, side)).permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3).contiguous()


def warped_noise(flows: Tensor, frames: int, seed: int) -> Tensor:
    """Noise that follows each clip's flow, as the Warp Noise node makes it for a Wan latent.

    A single clip of this size keeps a GPU busy for a hundredth of the time that launching its kernels takes, so the
    clips lie side by side in one field. Every tile is white Gaussian noise, as the whole is.

    Args:
        flows: float32 [B, T-1, 2, H, W], forward, pixels; H and W multiples of 8.
        frames: latent frames.
        seed: of all of it.

    Returns:
        float32 [B, 16, frames, H/8, W/8] on the device of ``flows``.
    """
    side = math.ceil(flows.shape[0] ** 0.5)
    height, width = flows.shape[-2] // OVERSAMPLE, flows.shape[-1] // OVERSAMPLE
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
    return tiles.permute(2, 4, 1, 0, 3, 5).flatten(0, 1)[: flows.shape[0]].contiguous()


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
