"""The Triton fast path of ``ellipses.raster``: one launch draws all ellipses of all frames, every value written once.

A program owns a tile of one frame and goes through its ellipses from the top down. Of those whose box does not touch
the tile it only writes zeros, so that the time is that of writing. Products and sums are not fused: hard masks are the
eager path's bit for bit.
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE_X, TILE_Y, WARPS = 128, 16, 4
COLUMNS = tl.constexpr(10)
REACH = {"hard": 1.0, "soft": 14.0, "opacity": 105.0}
"""The q from which on an ellipse's opacity is 0 in float32."""


def draw(rows: Tensor, present: Tensor, kind: str, composited: bool, result: Tensor) -> None:
    """See ``ellipses.raster``.

    Args:
        rows: float32 [T, K, 6], of ``ellipses.coefficients``, on any device.
        present: bool [T, K], on the same one.
        kind: one of REACH.
        composited: whether they are laid over each other.
        result: [T, K or K + 1, H, W], contiguous, on a CUDA device (or, under Triton's interpreter, on any), written.
    """
    frames, planes, height, width = result.shape
    x, y, cos_a, sin_a, cos_b, sin_b = rows.unbind(-1)
    # With the half axes a and b, cos_a = cos / a, and so on: a^2 = 1 / (cos_a^2 + sin_a^2), a^2 cos^2 = a^4 cos_a^2.
    a, b = 1 / (cos_a.square() + sin_a.square()), 1 / (cos_b.square() + sin_b.square())
    reach = math.sqrt(REACH[kind])
    # A pixel more, for what is rounded; an absent one touches nothing.
    across = torch.hypot(a * cos_a, b * sin_b) * reach + 1
    down = torch.hypot(a * sin_a, b * cos_b) * reach + 1
    across = across.masked_fill(~present, -math.inf)
    box = torch.stack((x - across, y - down, x + across, y + down), -1)
    table = torch.cat((rows, box), -1).contiguous().to(result.device, non_blocking=True)
    if result.dtype == torch.bool:
        result = result.view(torch.uint8)
    columns = triton.cdiv(width, TILE_X)
    tiles = columns * triton.cdiv(height, TILE_Y)
    with _on(result.device):
        _draw[(tiles * frames,)](
            table, result, planes - composited, height, width, tiles, columns, kind=kind, composited=composited,
            tile_x=TILE_X, tile_y=TILE_Y, num_warps=WARPS, enable_fp_fusion=False,
        )  # fmt: skip


def _on(device: torch.device):
    """Triton launches on the current CUDA device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp(tl.minimum(-x, 88.0)))


@triton.jit(do_not_specialize=["count", "tiles", "columns"])
def _draw(
    table, result, count, height, width, tiles, columns,
    kind: tl.constexpr, composited: tl.constexpr, tile_x: tl.constexpr, tile_y: tl.constexpr,
):  # fmt: skip
    frame, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    left, top = (tile % columns) * tile_x, (tile // columns) * tile_y
    x, y = left + tl.arange(0, tile_x)[None, :], top + tl.arange(0, tile_y)[:, None]
    shown = (x < width) & (y < height)
    x_middle, y_middle = x.to(tl.float32) + 0.5, y.to(tl.float32) + 0.5
    pixels = height * width
    planes = result + frame.to(tl.int64) * (count + composited) * pixels + (y * width + x)
    free = tl.full([tile_y, tile_x], 1.0, tl.float32)
    for below in range(count):
        number = count - 1 - below
        row = table + (frame.to(tl.int64) * count + number) * COLUMNS
        touches = (tl.load(row + 6) < left + tile_x) & (tl.load(row + 8) > left)
        touches = touches & (tl.load(row + 7) < top + tile_y) & (tl.load(row + 9) > top)
        plane = planes + (number + composited).to(tl.int64) * pixels
        opacity = tl.zeros([tile_y, tile_x], tl.float32)
        inside = opacity != 0.0
        if touches:
            dx, dy = x_middle - tl.load(row), y_middle - tl.load(row + 1)
            u = dx * tl.load(row + 2) + dy * tl.load(row + 3)
            v = dy * tl.load(row + 4) - dx * tl.load(row + 5)
            q = u * u + v * v
            if kind == "hard":
                inside = q <= 1.0
            elif kind == "soft":
                opacity = _sigmoid(8.0 * (1.0 - q))
            else:
                opacity = tl.minimum(2.0 * _sigmoid(-q), 1.0)
        if kind == "hard":
            opacity = inside.to(tl.float32) if composited else inside
        if composited:
            tl.store(plane, (free * opacity).to(result.dtype.element_ty), shown)
            free = free * (1.0 - opacity)
        else:
            tl.store(plane, opacity.to(result.dtype.element_ty), shown)
    if composited:
        tl.store(planes, free.to(result.dtype.element_ty), shown)
