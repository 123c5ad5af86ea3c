"""Latents that turn, flip and shrink as their pictures do, for training autoencoders.

What a network is to draw is then the same pattern wherever a thing points (Kouzelis et al. 2025, "EQ-VAE", section 3.2;
Skorokhodov et al. 2025, "Improving the Diffusability of Autoencoders", section 4): a decoder that is given turned or
smaller latents has to give the turned or smaller picture.
"""

import torch
from torch import Tensor
from torch.nn import functional


def turned_alike(latents: Tensor, clips: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Latents and their clips turned by the same quarter turns or mirrored, other ones in each row; free of syncs.

    Args:
        latents: [B, C, t, h, h].
        clips: [B, 3, T, H, H], on the same device.
        share: of the rows to be changed, 0..1; all eight symmetries of a square are as likely there.
    """
    count, device = latents.shape[0], latents.device
    chosen = torch.rand(count, device=device) < share
    coins = (torch.rand(3, count, device=device) < 0.5) & chosen
    for coin, change in zip(coins.view(3, count, 1, 1, 1, 1), _CHANGES, strict=True):
        latents, clips = (torch.where(coin, change(value), value) for value in (latents, clips))
    return latents, clips


_CHANGES = (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2))


def halved(values: Tensor) -> Tensor:
    """[B, C, T, H, W] at half the height and width, each value the mean of four."""
    return functional.avg_pool3d(values, (1, 2, 2))
