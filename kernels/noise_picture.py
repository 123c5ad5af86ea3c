"""Noise as a picture for people: colours spread evenly, and enlarged until its pixels can be seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def noise_to_picture(noise: Tensor, shortest_side: int = 256) -> Tensor:
    """Shows the first three channels of noise frames as red, green and blue.

    Each value goes through the normal distribution function, so that unit Gaussian noise fills every colour evenly,
    and is then drawn towards grey by a third, which is easier on the eye and leaves movement just as visible.

    Args:
        noise: ``[N, C, h, w]`` of any floating dtype, variance about 1; fewer than three channels are repeated.
        shortest_side: the picture is enlarged by a whole factor until its shorter side is at least this many pixels.

    Returns:
        float32 ``[N, H, W, 3]`` in [0, 1], on the device of ``noise``.

    Raises:
        ValueError: not four dimensions, or an empty one.
    """
    if noise.ndim != 4 or 0 in noise.shape:
        raise ValueError(f"noise must have shape [N, C, h, w] with nothing empty; got {list(noise.shape)}")
    channels = [index % noise.shape[1] for index in range(3)]
    colours = noise[:, channels].float()
    colours = 0.5 + torch.erf(torch.nan_to_num(colours) / math.sqrt(2)) / 3
    factor = max(1, -(-shortest_side // min(noise.shape[-2:])))
    colours = colours.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    return colours.permute(0, 2, 3, 1).contiguous()
