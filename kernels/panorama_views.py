"""Many views of one place joined in one panorama."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .panorama import perspective_to_equirect

_LEAST = 1e-3
"""The weight of a view's edge; it is 1 in the middle."""


def merge_views(
    views: Callable[[int], Tensor],
    turns: tuple[Tensor, Tensor, Tensor, Tensor],
    height: int,
    width: int,
    *,
    mode: str = "bilinear",
    convention: str = "pixel centres",
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The mean of all views that see a direction; each counts the less the nearer its edge is, so that none shows.

    Args:
        views: gives view number n, float32 [1, C, h, w]; its last channel is how unknown a pixel is, 0..1.
        turns: yaw, pitch, roll and fov, [T] each, degrees.
        height, width: of the panorama, pixels.
        mode, convention: as in ``panorama.perspective_to_equirect``.
        on_frame: called with (number, T) before each view; may raise to stop.

    Returns:
        float32 [C, height, width], on the views' device: 0 where nothing is known, and there 1 in the last channel.

    Raises:
        ValueError: as in ``panorama.perspective_to_equirect``.
    """
    count, total, weights, certain = len(turns[0]), None, None, None
    for number in range(count):
        if on_frame is not None:
            on_frame(number, count)
        view = views(number)
        sure = (1 - view[:, -1:]).clamp(0, 1)
        weight = (_falling(view.shape[2])[:, None] * _falling(view.shape[3])).clamp_min(_LEAST).to(view) * sure
        angles = (turn[number : number + 1] for turn in turns)
        layers = torch.cat([view[:, :-1], weight, sure], 1)
        laid, known = perspective_to_equirect(layers, *angles, height, width, mode=mode, convention=convention)
        weight = laid[0, -2:-1].clamp_min(0)
        colour, sure = laid[0, :-2] * weight, laid[0, -1:].clamp(0, 1) * known
        if total is None:
            total, weights, certain = colour, weight, sure
        else:
            total += colour
            weights += weight
            certain = torch.maximum(certain, sure)
    mean = torch.where(weights > 0, total / weights.clamp_min(1e-12), 0)
    return torch.cat([mean, 1 - certain])


def _falling(size: int) -> Tensor:
    """float32 [size]: 1 in the middle, falling to almost 0 at both ends."""
    return 1 - ((torch.arange(size) + 0.5) / size * 2 - 1).abs()
