"""How well noise follows motion: the correlation of a frame with a later one along the tracks of the flow."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two tensors of equal shape."""
    a, b = a.double().reshape(-1), b.double().reshape(-1)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt())


def tracks(flow: Tensor, *, rounded: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Where every pixel of frame 0 is after each step.

    Args:
        flow: ``[T-1, 2, h, w]``, forward, in pixels.
        rounded: positions are rounded after every step (what a whole-pixel warp can follow at best) or kept as they
            are.

    Yields:
        int64 ``[h * w]`` pixel numbers reached, and bool ``[h * w]``: the track has never left the image.
    """
    height, width = flow.shape[2:]
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x, y = x.reshape(-1), y.reshape(-1)
    inside = torch.ones(height * width, dtype=torch.bool)
    number = torch.arange(height * width)
    for vectors in flow:
        x, y = x + vectors[0].reshape(-1)[number], y + vectors[1].reshape(-1)[number]
        column, row = x.round(), y.round()
        if rounded:
            x, y = column, row
        inside = inside & (column >= 0) & (column <= width - 1) & (row >= 0) & (row <= height - 1)
        number = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
        yield number, inside


def correlation_along_flow(noise: Tensor, flow: Tensor, lags: tuple[int, ...], *, rounded: bool) -> list[float]:
    """Correlation of frame 0 with frame t at the pixel each track has reached, for every t in ``lags``.

    Args:
        noise: ``[T, C, h, w]`` on the CPU; flow: ``[T-1, 2, h, w]``, of the noise's own size; rounded: see ``tracks``.
    """
    return [
        correlation(noise[0].flatten(1)[:, inside], noise[step].flatten(1)[:, number][:, inside])
        for step, (number, inside) in enumerate(tracks(flow, rounded=rounded), 1)
        if step in lags
    ]
