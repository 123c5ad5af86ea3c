"""The fast path of ``panorama`` on a CPU: bilinear, in blocks of rows that stay in a core's cache, several at a time.

A direction is an outer sum: what a camera's column adds to what its row adds, worked out in float64 for each of them.
Whole blocks go to threads, as torch would wait for its own after every operation.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .panorama_eager import EDGE

# Pixels of a block. Up to so many torch works out each operation in the thread that asks for it.
_BLOCK = 1 << 15


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float] | None, mode: str, result: Tensor) -> None:
    """See ``panorama_eager.draw_views``; bilinear float32 on a CPU, panoramas of an even width."""

    def draw(number: int, turn: int, rows: slice) -> None:
        image = images[min(number, len(images) - 1)][None]
        x, y, ahead = _directions(matrices[turn], None if fovs is None else fovs[turn], *result.shape[2:], rows)
        level = (x * x).addcmul_(ahead, ahead).sqrt_()
        # In grid_sample's units: the panorama's sides are at -1 and 1, as half turns and quarter turns are.
        torch.atan2(x, ahead, out=x).mul_(1 / math.pi)
        y.div_(level).atan_().mul_(-2 / math.pi)
        part = result[number][:, rows]
        part.copy_(grid_sample(image, _grid(x, y), padding_mode="border", align_corners=False)[0])
        _mend(image[0], x, y, part)

    _in_threads(draw, result, len(matrices))


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """See ``panorama_eager.draw_panoramas``; bilinear float32 on a CPU."""
    height, width = images.shape[2:]

    def draw(number: int, turn: int, rows: slice) -> None:
        image = images[min(number, len(images) - 1)][None]
        x, y, depth = _directions(matrices[turn].T, None, *result.shape[2:], rows)
        depth.mul_(math.tan(math.radians(fovs[turn]) / 2))
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

    _in_threads(draw, result, len(matrices))


def _in_threads(draw, result: Tensor, turns: int) -> None:
    """Calls draw(number, turn, rows) for blocks that make up the result."""
    count, height, width = len(result), *result.shape[2:]
    step = max(1, _BLOCK // width)
    blocks = [
        (number, min(number, turns - 1), slice(top, min(top + step, height)))
        for number in range(count)
        for top in range(0, height, step)
    ]
    inference = torch.is_inference_mode_enabled()  # which new threads do not know of

    def guarded(block: tuple) -> None:
        with torch.inference_mode() if inference else torch.no_grad():
            draw(*block)

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for _ in pool.map(guarded, blocks):  # raises what a block has raised
            pass


def _directions(
    matrix: Tensor, fov: float | None, height: int, width: int, rows: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and -z, float32 [h, width] each, of some rows' directions times a matrix.

    Args:
        matrix: float64 [3, 3].
        fov: of a camera that has pixels of ``height`` and ``width``; None = they are a panorama's texels.
    """
    down, across = torch.arange(rows.start, rows.stop, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    if fov is None:
        latitude, longitude = (0.5 - (down + 0.5) / height) * math.pi, ((across + 0.5) / width - 0.5) * (2 * math.pi)
        stretch, upwards = latitude.cos().float()[:, None], latitude.sin()
        to_right, ahead = longitude.sin(), longitude.cos()
    else:
        step = 2 * math.tan(math.radians(fov) / 2) / width
        to_right, upwards = (across - (width - 1) / 2) * step, ((height - 1) / 2 - down) * step
    found = []
    for sign, numbers in zip((1, 1, -1), matrix.tolist(), strict=True):
        a, b, c = (sign * number for number in numbers)
        if fov is None:
            found.append(torch.addcmul((b * upwards).float()[:, None], stretch, (a * to_right - c * ahead).float()))
        else:
            found.append((a * to_right).float() + (b * upwards - c).float()[:, None])
    return tuple(found)


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
    beyond = (x.abs() > limits[0]) | (y.abs() > limits[1])
    across, down = ((x[beyond] + 1) * width - 1) / 2, ((y[beyond] + 1) * height - 1) / 2
    left, top = across.floor(), down.floor()
    total = 0.0
    for row, row_weight in ((top, 1 - (down - top)), (top + 1, down - top)):
        over = (row < 0) | (row >= height)
        row = row.clamp(0, height - 1).long()
        for column, column_weight in ((left, 1 - (across - left)), (left + 1, across - left)):
            column = (column.long() + torch.where(over, width // 2, 0)).remainder(width)
            total = total + panorama[:, row, column] * (row_weight * column_weight)
    part[:, beyond] = total
