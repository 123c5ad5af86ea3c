"""The fast path of ``panorama`` on a CPU: bilinear, in blocks of rows that stay in a core's cache, several at a time.

A direction is an outer sum: what a camera's column adds to what its row adds, worked out in float64 for each of them.
Whole blocks go to threads, as torch would wait for its own after every operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .panorama_eager import EDGE

# Pixels of a block. Up to so many torch works out each operation in the thread that asks for it.
_BLOCK = 1 << 15

Sums = tuple[Tensor, Tensor, Tensor | None]
"""Of ``_outer_sums``: float32 [3, width], [3, height, 1], and None or, to stretch the first by, [height, 1]."""


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float] | None, mode: str, result: Tensor) -> None:
    """See ``panorama_eager.draw_views``; bilinear float32 on a CPU, panoramas of an even width."""

    def draw(number: int, sums: Sums, rows: slice) -> None:
        image = images[min(number, len(images) - 1)][None]
        x, y, ahead = _directions(sums, rows)
        level = (x * x).addcmul_(ahead, ahead).sqrt_()
        # In grid_sample's units: the panorama's sides are at -1 and 1, as half turns and quarter turns are.
        torch.atan2(x, ahead, out=x).mul_(1 / math.pi)
        y.div_(level).atan_().mul_(-2 / math.pi)
        part = result[number][:, rows]
        part.copy_(grid_sample(image, _grid(x, y), padding_mode="border", align_corners=False)[0])
        _mend(image[0], x, y, part)

    def sums(turn: int) -> Sums:
        return _outer_sums(matrices[turn], None if fovs is None else fovs[turn], *result.shape[2:])

    _in_threads(draw, sums, len(matrices), result)


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """See ``panorama_eager.draw_panoramas``; bilinear float32 on a CPU."""
    height, width = images.shape[2:]

    def draw(number: int, sums: Sums, rows: slice) -> None:
        image = images[min(number, len(images) - 1)][None]
        x, y, depth = _directions(sums, rows)
        depth.mul_(math.tan(math.radians(fovs[min(number, len(fovs) - 1)]) / 2))
        x.div_(depth)
        y.div_(depth).mul_(-width / height)
        known = (depth > 0) & (x.abs() <= 1 + EDGE) & (y.abs() <= 1 + EDGE)
        seen[number][rows] = known
        part = result[number][:, rows]
        part.zero_()
        if bool(known.any()):
            x, y = (torch.where(known, some, 0) for some in (x, y))  # they may be infinite
            read = grid_sample(image, _grid(x, y), padding_mode="border", align_corners=False)[0]
            torch.mul(read, known, out=part)

    _in_threads(draw, lambda turn: _outer_sums(matrices[turn].T, None, *result.shape[2:]), len(matrices), result)


def _in_threads(draw: Callable, sums: Callable, turns: int, result: Tensor) -> None:
    """Calls draw(number, sums of its turn, rows) for blocks that make up the result."""
    count, height, width = len(result), *result.shape[2:]
    step = max(1, _BLOCK // width)
    blocks = [slice(top, min(top + step, height)) for top in range(0, height, step)]
    inference = torch.is_inference_mode_enabled()  # which new threads do not know of

    def guarded(number: int, sums: Sums, rows: slice) -> None:
        with torch.inference_mode() if inference else torch.no_grad():
            draw(number, sums, rows)

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for number in range(count):
            part = partial(guarded, number, sums(min(number, turns - 1)))
            for _ in pool.map(part, blocks):  # raises what a block has raised
                pass


def _outer_sums(matrix: Tensor, fov: float | None, height: int, width: int) -> Sums:
    """What columns and rows add to the directions' x, y and -z, times a matrix.

    Args:
        matrix: float64 [3, 3].
        fov: of a camera that has pixels of ``height`` and ``width``; None = they are a panorama's texels.
    """
    down, across = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    matrix = matrix * torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
    if fov is None:
        latitude, longitude = (0.5 - (down + 0.5) / height) * math.pi, ((across + 0.5) / width - 0.5) * (2 * math.pi)
        columns = matrix[:, :1] * longitude.sin() - matrix[:, 2:] * longitude.cos()
        rows, stretch = matrix[:, 1:2] * latitude.sin(), latitude.cos().float()[:, None]
    else:
        step = 2 * math.tan(math.radians(fov) / 2) / width
        columns = matrix[:, :1] * ((across - (width - 1) / 2) * step) - matrix[:, 2:]
        rows, stretch = matrix[:, 1:2] * (((height - 1) / 2 - down) * step), None
    return columns.float(), rows.float()[..., None], stretch


def _directions(sums: Sums, rows: slice) -> list[Tensor]:
    """x, y and -z, float32 [h, width] each, of some rows' directions times the matrix."""
    columns, lines, stretch = sums
    if stretch is None:
        return [column + line[rows] for column, line in zip(columns, lines, strict=True)]
    return [torch.addcmul(line[rows], stretch[rows], column) for column, line in zip(columns, lines, strict=True)]


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """[1, h, w, 2]"""
    return torch.stack([x, y]).permute(1, 2, 0)[None]


def _mend(panorama: Tensor, x: Tensor, y: Tensor, part: Tensor) -> None:
    """Reads again what lies between the last column and the first, or beyond the middles of the rows at the poles.

    Args:
        panorama: float32 [C, H, W].
        x, y: float32 [h, w], where ``part`` was read, in grid_sample's units.
        part: float32 [C, h, w], written at these places.
    """
    height, width = panorama.shape[1:]
    limits = 1 - 1 / width, 1 - 1 / height
    ends = [torch.stack(some.aminmax()).abs().amax() for some in (x, y)]
    if not any(float(end) > limit for end, limit in zip(ends, limits, strict=True)):
        return
    places = ((x.abs() > limits[0]) | (y.abs() > limits[1])).flatten().nonzero()[:, 0]
    across, down = ((x.flatten()[places] + 1) * width - 1) / 2, ((y.flatten()[places] + 1) * height - 1) / 2
    left, top = across.floor(), down.floor()
    total = 0.0
    for row, row_weight in ((top, 1 - (down - top)), (top + 1, down - top)):
        over = (row < 0) | (row >= height)
        row = row.clamp(0, height - 1).long()
        for column, column_weight in ((left, 1 - (across - left)), (left + 1, across - left)):
            column = (column.long() + torch.where(over, width // 2, 0)).remainder(width)
            total = total + panorama[:, row, column] * (row_weight * column_weight)
    part[:, places // x.shape[1], places % x.shape[1]] = total
