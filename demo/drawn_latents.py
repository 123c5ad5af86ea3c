"""Latents as the video network draws them, next to those of the clip that they should be: for training its decoder.

A decoder that has seen none but true latents takes a network's small errors at their word. Here a clip's latents are
given noise and drawn again by the network from its caption; from a middle level of noise that gives nearly the clip,
with the network's own errors.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from demo.video_model import add_noise

LEVELS = (0.2, 0.65)
"""Sigmas to begin from. From 0.5 on a part of the clips becomes another, which a decoder could only answer by blur."""

STEPS = 4


def drawn_again(
    predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, levels: tuple[float, float] = LEVELS
) -> Tensor:
    """Latents float32 [B, 16, T, h, w], each noised to a level of its own and drawn by Euler's steps; free of syncs.

    Args:
        predict: (x, sigmas [B]) -> velocity, noise less clean latent.
        latents: of B clips.
        levels: lowest and highest sigma to begin from.
    """
    low, high = levels
    begin = low + (high - low) * torch.rand(latents.shape[0], device=latents.device)
    x = add_noise(latents, torch.randn_like(latents), begin)
    step = (begin / STEPS).view(-1, *[1] * (latents.ndim - 1))
    for number in range(STEPS):
        x = x - step * predict(x, begin * (1 - number / STEPS)).float()
    return x
