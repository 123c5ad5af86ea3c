"""The fast path of ``panorama`` on CUDA: direction, longitude and latitude, and the bilinear read in one pass.

A program owns a tile of one picture and walks down it. What it needs of a camera is a row of numbers in a small table;
no map of positions is written. What bounds it is what a multiprocessor's L1 cache can read: twelve gathers a pixel.
Three things decide how much that is: a warp's pixels are 16 x 2, since a row of 32 crosses more lines of the panorama
where rows are bent; a thread's pixels of one step lie side by side, or a warp would ask again for lines that are still
on their way; and rows of the result are not said to be aligned, or Triton would give each thread four pixels for wider
stores, and every read would touch four times as many lines (benchmarks/NOTES.md has the counters).
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .panorama_eager import EDGE

ACROSS, DOWN = 16, 2
"""Of a warp's pixels."""

STEP, STEPS, WARPS = 256, 4, 4
"""Pixels of a step, steps and warps of a program: a tile is STEP / DOWN wide and STEPS * DOWN high."""

CHANNELS = 4
"""As many are read at once."""

_EDGE = tl.constexpr(EDGE)


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float] | None, mode: str, result: Tensor) -> None:
    """See ``panorama_eager.draw_views``; bilinear, panoramas of an even width.

    They lie on a CUDA device or, under Triton's interpreter, on any.
    """
    rows, columns = images.shape[2:]
    height, width = result.shape[2:]
    if fovs is None:
        reach = torch.ones(len(matrices), dtype=torch.float64)
    else:
        reach = (torch.tensor(fovs, dtype=torch.float64) * (math.pi / 360)).tan()
    table = _table(matrices, 2 * reach / width, result.device)
    tables = _sines(height, width, result.device) if fovs is None else (table, table)
    _launch(_views, images, result, table, *tables, rows, columns, None, turned=fovs is None)


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """See ``panorama_eager.draw_panoramas``; bilinear, and where they lie as in ``draw_views``."""
    rows, columns = images.shape[2:]
    reach = (torch.tensor(fovs, dtype=torch.float64) * (math.pi / 360)).tan()
    table = _table(matrices.mT, reach, result.device)
    _launch(_panoramas, images, result, table, *_sines(*result.shape[2:], result.device), rows, columns, seen)


def _launch(kernel, images, result, table, *arguments, **choices) -> None:
    *arguments, seen = arguments
    count, channels, height, width = result.shape
    grid = triton.cdiv(width, STEP // DOWN), triton.cdiv(height, STEPS * DOWN), count
    image_step, table_step = images.stride(0) if len(images) > 1 else 0, table.stride(0) if len(table) > 1 else 0
    with _on(result.device):
        for first in range(0, channels, CHANNELS):
            source, target = images[:, first : first + CHANNELS], result[:, first : first + CHANNELS]
            marked = {} if seen is None else {"seen": seen}
            kernel[grid](
                source, target, table, *arguments, height, width, table_step, image_step,
                *source.stride()[1:], *target.stride(), **marked, **choices, channels=source.shape[1],
                across=ACROSS, down=DOWN, step=STEP, steps=STEPS, num_warps=WARPS,
            )  # fmt: skip


def _on(device: torch.device):
    """Triton launches on the current CUDA device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _table(matrices: Tensor, more: Tensor, device: torch.device) -> Tensor:
    """float32 [T, 10]: nine numbers of a matrix, and one more."""
    table = torch.cat([matrices.flatten(1), more[:, None]], 1)
    return table.float().to(device, non_blocking=True)


def _sines(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [2, height] and [2, width]: sine and cosine of the texels' latitudes and longitudes."""
    kind = {"dtype": torch.float64, "device": device}
    latitude = (0.5 - (torch.arange(height, **kind) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width, **kind) + 0.5) / width - 0.5) * (2 * math.pi)
    return tuple(torch.stack([angle.sin(), angle.cos()]).float() for angle in (latitude, longitude))


@triton.jit
def _part(t):
    """atan(t) / pi for t in 0..1, to 1.2e-8."""
    s = t * t
    p = -0.0012906081543829619 * s + 0.006959193131386259
    p = p * s - 0.017797442662707476
    p = p * s + 0.030692064548757485
    p = p * s - 0.0442725417680732
    p = p * s + 0.0634918901916983
    p = p * s - 0.10609224190707373
    p = p * s + 0.3183096746912724
    return p * t


@triton.jit
def _half_turns(a, b):
    """atan2(a, b) / pi for a, b >= 0, not both 0."""
    root = tl.rsqrt(tl.maximum(tl.maximum(a, b), 1e-30))
    p = _part(tl.minimum(a, b) * root * root)
    return tl.where(a > b, 0.5 - p, p)


@triton.jit
def _signed(p, a):
    """p >= 0 with the sign of a."""
    return (p.to(tl.int32, bitcast=True) | (a.to(tl.int32, bitcast=True) & -2147483648)).to(tl.float32, bitcast=True)


@triton.jit
def _matrix(row):
    """Nine numbers, row by row; read once, as stores might change what is read after them."""
    return (
        tl.load(row), tl.load(row + 1), tl.load(row + 2),
        tl.load(row + 3), tl.load(row + 4), tl.load(row + 5),
        tl.load(row + 6), tl.load(row + 7), tl.load(row + 8),
    )  # fmt: skip


@triton.jit
def _sine_and_cosine(table, number, count):
    """Of texels; of the last one beyond them."""
    number = tl.minimum(number, count - 1)
    return tl.load(table + number), tl.load(table + count + number)


@triton.jit
def _first_step(across: tl.constexpr, down: tl.constexpr, step: tl.constexpr, steps: tl.constexpr):
    """Columns and rows int32 [step] of a program's first step: each warp's ``across`` wide and ``down`` high."""
    number = tl.arange(0, step)
    x = tl.program_id(0) * (step // down) + (number // (across * down)) * across + number % across
    return x, tl.program_id(1) * (steps * down) + (number // across) % down


@triton.jit
def _blended(first, second, third, fourth, from_channel, a, b, target, to_channel, shown, channels: tl.constexpr):
    """Writes what lies between four pixels, whose first channels are pointed at."""
    for channel in tl.static_range(channels):
        step = channel * from_channel
        above = tl.load(first + step).to(tl.float32)
        above += a * (tl.load(second + step).to(tl.float32) - above)
        below = tl.load(third + step).to(tl.float32)
        below += a * (tl.load(fourth + step).to(tl.float32) - below)
        value = above + b * (below - above)
        tl.store(target + channel * to_channel, value.to(target.dtype.element_ty), shown)


@triton.jit
def _wrapped(x, columns):
    """Columns from -1 to 3 / 2 columns, round the panorama."""
    x = tl.where(x >= columns, x - columns, x)
    return tl.where(x < 0, columns - 1, x)


@triton.jit(do_not_specialize=["to_row", "to_channel", "to_picture"])
def _views(
    images, result, table, latitudes, longitudes, rows, columns, height, width, table_step, image_step,
    from_channel, from_row, from_column, to_picture, to_channel, to_row, to_column,
    turned: tl.constexpr, channels: tl.constexpr,
    across: tl.constexpr, down: tl.constexpr, step: tl.constexpr, steps: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(2)
    x, y = _first_step(across, down, step, steps)
    row = table + picture * table_step
    xx, xy, xz, yx, yy, yz, zx, zy, zz = _matrix(row)
    if turned:
        sine, cosine = _sine_and_cosine(longitudes, x, width)
    else:
        size = tl.load(row + 9)
        to_right = (x.to(tl.float32) - (width - 1) * 0.5) * size
    source = images + picture.to(tl.int64) * image_step
    target = result + picture.to(tl.int64) * to_picture + x * to_column
    half = columns // 2
    for _ in range(steps):
        if turned:
            to_top, level = _sine_and_cosine(latitudes, y, height)
            aside, ahead = level * sine, -level * cosine
            right = xx * aside + (xy * to_top + xz * ahead)
            up = yx * aside + (yy * to_top + yz * ahead)
            back = zx * aside + (zy * to_top + zz * ahead)
        else:
            to_top = ((height - 1) * 0.5 - y) * size
            right = (xx * to_right - xz) + xy * to_top
            up = (yx * to_right - yz) + yy * to_top
            back = (zx * to_right - zz) + zy * to_top
        longitude = _half_turns(tl.abs(right), tl.abs(back))
        longitude = _signed(tl.where(back > 0, 1.0 - longitude, longitude), right)
        latitude = _signed(_half_turns(tl.abs(up), tl.sqrt(right * right + back * back)), up)
        # From the texel before the first one: whole parts of what is not negative are floors.
        column = longitude * half + (half + 0.5)
        line = (rows * 0.5 + 0.5) - latitude * rows
        left, top = column.to(tl.int32), line.to(tl.int32)
        a, b = column - left.to(tl.float32), line - top.to(tl.float32)
        left, top = left - 1, top - 1
        # Over a pole: the same row half a turn further.
        turn, turn_below = tl.where(top < 0, half, 0), tl.where(top >= rows - 1, half, 0)
        below = tl.minimum(top + 1, rows - 1) * from_row
        top = tl.maximum(top, 0) * from_row
        first = source + (top + _wrapped(left + turn, columns) * from_column)
        second = source + (top + _wrapped(left + 1 + turn, columns) * from_column)
        third = source + (below + _wrapped(left + turn_below, columns) * from_column)
        fourth = source + (below + _wrapped(left + 1 + turn_below, columns) * from_column)
        shown = (x < width) & (y < height)
        _blended(first, second, third, fourth, from_channel, a, b, target + y * to_row, to_channel, shown, channels)
        y += down


@triton.jit(do_not_specialize=["to_row", "to_channel", "to_picture", "width"])
def _panoramas(
    images, result, table, latitudes, longitudes, rows, columns, height, width, table_step, image_step,
    from_channel, from_row, from_column, to_picture, to_channel, to_row, to_column, seen, channels: tl.constexpr,
    across: tl.constexpr, down: tl.constexpr, step: tl.constexpr, steps: tl.constexpr,
):  # fmt: skip
    picture = tl.program_id(2)
    x, y = _first_step(across, down, step, steps)
    row = table + picture * table_step
    xx, xy, xz, yx, yy, yz, zx, zy, zz = _matrix(row)
    reach = tl.load(row + 9)
    sine, cosine = _sine_and_cosine(longitudes, x, width)
    source = images + picture.to(tl.int64) * image_step
    target = result + picture.to(tl.int64) * to_picture + x * to_column
    seen += picture.to(tl.int64) * height * width + x
    for _ in range(steps):
        to_top, level = _sine_and_cosine(latitudes, y, height)
        aside, ahead = level * sine, -level * cosine
        back = zx * aside + (zy * to_top + zz * ahead)
        depth = tl.where(back < 0, -back, 1.0) * reach
        right = (xx * aside + (xy * to_top + xz * ahead)) / depth
        up = (yx * aside + (yy * to_top + yz * ahead)) / depth
        known = (back < 0) & (tl.abs(right) <= 1 + _EDGE) & (tl.abs(up) * columns <= rows * (1 + _EDGE))
        shown = (x < width) & (y < height)
        tl.store(seen + y * width, known.to(tl.float32), shown)
        read = known & shown
        column = tl.where(read, right * (columns * 0.5) + (columns - 1) * 0.5, 0.0)
        line = tl.where(read, (rows - 1) * 0.5 - up * (columns * 0.5), 0.0)
        left, top = tl.floor(column), tl.floor(line)
        a, b = column - left, line - top
        left, top = left.to(tl.int32), top.to(tl.int32)
        right_one = tl.minimum(left + 1, columns - 1) * from_column
        bottom = tl.minimum(top + 1, rows - 1) * from_row
        left, top = tl.maximum(left, 0) * from_column, tl.maximum(top, 0) * from_row
        for channel in tl.static_range(channels):
            plane = source + channel * from_channel
            above = tl.load(plane + (top + left), read, 0.0).to(tl.float32)
            above += a * (tl.load(plane + (top + right_one), read, 0.0).to(tl.float32) - above)
            below = tl.load(plane + (bottom + left), read, 0.0).to(tl.float32)
            below += a * (tl.load(plane + (bottom + right_one), read, 0.0).to(tl.float32) - below)
            value = above + b * (below - above)
            tl.store(target + y * to_row + channel * to_channel, value.to(result.dtype.element_ty), shown)
        y += down
