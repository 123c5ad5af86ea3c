"""Pictures as an autoencoder, a diffusion model or a careless export hands them on: soft, noisy, shifted in colour."""

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_BLUR = 1.2
"""Standard deviation in pixels of the strongest blur at strength 1."""


def spread(pictures: Tensor, low: float, high: float, channels: int = 1, share: float = 1.0) -> Tensor:
    """A random number for each picture (and channel), [B, channels, 1, 1]; 0 for all but ``share`` of the pictures."""
    size, device = pictures.shape[0], pictures.device
    value = low + (high - low) * torch.rand(size, channels, 1, 1, device=device)
    return value * (torch.rand(size, 1, 1, 1, device=device) < share)


def blur(pictures: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian blur of [B, 3, H, W]; ``deviation`` [B, 1, 1, 1] in pixels, 0 for none."""
    reach = torch.arange(-3, 4, device=pictures.device)
    weight = torch.exp(-0.5 * (reach / deviation.clamp(min=0.05)) ** 2)
    weight = weight / weight.sum(-1, keepdim=True)  # [B, 1, 1, 7]
    height, width = pictures.shape[-2:]
    padded = functional.pad(pictures, (3, 3, 0, 0), mode="replicate")
    pictures = sum(padded[..., k : k + width] * weight[..., k : k + 1] for k in range(7))
    padded = functional.pad(pictures, (0, 0, 3, 3), mode="replicate")
    return sum(padded[..., k : k + height, :] * weight[..., k : k + 1] for k in range(7))


def warp(pictures: Tensor, shift: float) -> Tensor:
    """Bend pictures by a smooth random field of about ``shift`` pixels."""
    size, _, height, width = pictures.shape
    field = torch.randn(size, 2, 5, 5, device=pictures.device) * spread(pictures, 0, shift, share=0.5)
    field = functional.interpolate(field, size=(height, width), mode="bicubic", align_corners=True)
    x = torch.arange(width, device=pictures.device) * 2 / (width - 1) - 1
    y = torch.arange(height, device=pictures.device)[:, None] * 2 / (height - 1) - 1
    grid = torch.stack((x + field[:, 0] * 2 / width, y + field[:, 1] * 2 / height), -1)
    return functional.grid_sample(pictures, grid, padding_mode="border", align_corners=True)


def soften(pictures: Tensor, strength: float = 1.0) -> Tensor:
    """What decoding at about 31 dB does, a little blur and noise: [B, 3, H, W] in 0..1, the same back."""
    soft = blur(pictures, spread(pictures, 0.4 * strength, 0.7 * strength))
    size = pictures.shape[-2:]
    coarse = torch.randn(*pictures.shape[:2], size[0] // 4, size[1] // 4, device=pictures.device)
    coarse = functional.interpolate(coarse, size=size, mode="bilinear")
    return (soft + 0.02 * strength * coarse + 0.01 * strength * torch.randn_like(pictures)).clamp(0, 1)


def degrade(pictures: Tensor, strength: float = 1.0) -> Tensor:
    """Random damage of many kinds and strengths, a part of the pictures hardly any.

    Args:
        pictures: float32 [B, 3, H, W], 0..1.
        strength: 1 is the most that a reader is expected to read.

    Returns:
        float32 [B, 3, H, W], 0..1. Random numbers come from the device's default generator; no syncs.
    """
    size = pictures.shape[-2:]
    pictures = warp(pictures, 1.5 * strength)
    pictures = blur(pictures, spread(pictures, 0, LARGEST_BLUR * strength, share=0.6))
    small = functional.interpolate(functional.avg_pool2d(pictures, 2), size=size, mode="bilinear")
    pictures = torch.lerp(pictures, small, spread(pictures, 0, 0.8 * strength, share=0.3))
    pictures = pictures * (1 + spread(pictures, -0.08 * strength, 0.08 * strength, 3, share=0.6))
    pictures = pictures + spread(pictures, -0.05 * strength, 0.05 * strength, 3, share=0.6)
    grey = pictures.mean(1, keepdim=True)
    pictures = torch.lerp(pictures, grey, spread(pictures, -0.10 * strength, 0.15 * strength, share=0.4))
    for part, amount in ((8, 0.06), (4, 0.05), (1, 0.06)):
        shape = (*pictures.shape[:2], size[0] // part, size[1] // part)
        noise = functional.interpolate(torch.randn(shape, device=pictures.device), size=size, mode="bilinear")
        pictures = pictures + noise * spread(pictures, 0, amount * strength, share=0.4)
    return pictures.clamp(0, 1)
