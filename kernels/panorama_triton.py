"""The fast path of ``panorama`` on CUDA: direction, longitude and latitude, and the bilinear read in one pass.

A program owns a tile of one picture. What it needs of a camera is a row of numbers in a small table; no map of
positions is written. A warp's pixels lie side by side, as what they read then does: rows of the result are not said to
be aligned, or Triton would give each thread four pixels for wider stores, and every read would touch four times as
many lines. Whether reads go over a pole is asked only where the camera sees one.
"""

from __future__ import annotations

import contextlib
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .panorama_eager import EDGE

TILE_X, TILE_Y, WARPS = 32, 16, 4
CHANNELS = 4
"""As many are read at once."""

_NUMBERS = tl.constexpr(11)
_EDGE = tl.constexpr(EDGE)


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float] | None, mode: str, result: Tensor) -> None:
    """See ``panorama_eager.draw_views``; bilinear, panoramas of an even width.

    They lie on a CUDA device or, under Triton's interpreter, on any.
    """
    rows, columns = images.shape[2:]
    height, width = result.shape[2:]
    if fovs is None:
        reach = torch.ones(len(matrices), dtype=torch.float64)
        near = torch.ones_like(reach)
    else:
        reach = (torch.tensor(fovs, dtype=torch.float64) * (math.pi / 360)).tan()
        near = _poles_in_view(matrices, reach, height / width, 2 * math.pi / rows).double()
    table = _table(matrices, 2 * reach / width, near, result.device)
    tables = _sines(height, width, result.device) if fovs is None else (table, table)
    _launch(_views, images, result, table, *tables, rows, columns, None, turned=fovs is None)


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """See ``panorama_eager.draw_panoramas``; bilinear, and where they lie as in ``draw_views``."""
    rows, columns = images.shape[2:]
    reach = (torch.tensor(fovs, dtype=torch.float64) * (math.pi / 360)).tan()
    table = _table(matrices.mT, reach, reach, result.device)
    _launch(_panoramas, images, result, table, *_sines(*result.shape[2:], result.device), rows, columns, seen)


def _launch(kernel, images, result, table, *arguments, **choices) -> None:
    *arguments, seen = arguments
    count, channels, height, width = result.shape
    across = triton.cdiv(width, TILE_X)
    tiles = across * triton.cdiv(height, TILE_Y)
    image_step, table_step = images.stride(0) if len(images) > 1 else 0, table.stride(0) if len(table) > 1 else 0
    with _on(result.device):
        for first in range(0, channels, CHANNELS):
            source, target = images[:, first : first + CHANNELS], result[:, first : first + CHANNELS]
            marked = {} if seen is None else {"seen": seen}
            kernel[(tiles * count,)](
                source, target, table, *arguments, height, width, tiles, across, table_step, image_step,
                *source.stride()[1:], *target.stride(), **marked, **choices, channels=source.shape[1],
                tile_x=TILE_X, tile_y=TILE_Y, num_warps=WARPS,
            )  # fmt: skip


def _on(device: torch.device):
    """Triton launches on the current CUDA device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _table(matrices: Tensor, first: Tensor, second: Tensor, device: torch.device) -> Tensor:
    """float32 [T, 11]: nine numbers of a matrix, and two more."""
    table = torch.cat([matrices.flatten(1), first[:, None], second[:, None]], 1)
    return table.float().to(device, non_blocking=True)


def _sines(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [2, height] and [2, width]: sine and cosine of the texels' latitudes and longitudes."""
    latitude = (0.5 - (torch.arange(height, dtype=torch.float64) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5) * (2 * math.pi)
    return tuple(torch.stack([angle.sin(), angle.cos()]).float().to(device) for angle in (latitude, longitude))


def _poles_in_view(matrices: Tensor, reach: Tensor, aspect: float, margin: float) -> Tensor:
    """bool [T]: whether a pole is in the circle round a camera's picture, or within a margin of it, in radians."""
    corner = (reach * math.hypot(1, aspect)).atan() + margin
    return matrices[:, 1, 2].abs() >= corner.clamp_max(math.pi / 2).cos()


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
    """atan2(a, b) / pi for b >= 0."""
    far, near = tl.maximum(tl.abs(a), b), tl.minimum(tl.abs(a), b)
    p = _part(near / tl.maximum(far, 1e-30))
    p = tl.where(tl.abs(a) > b, 0.5 - p, p)
    return tl.where(a < 0, -p, p)


@triton.jit
def _rotated(row, x, y, z):
    """A matrix times (x, y, z)."""
    return (
        tl.load(row) * x + (tl.load(row + 1) * y + tl.load(row + 2) * z),
        tl.load(row + 3) * x + (tl.load(row + 4) * y + tl.load(row + 5) * z),
        tl.load(row + 6) * x + (tl.load(row + 7) * y + tl.load(row + 8) * z),
    )


@triton.jit
def _texels(row, latitudes, longitudes, x, y, height, width):
    """A matrix times the directions of a panorama's texels."""
    x, y = tl.minimum(x, width - 1), tl.minimum(y, height - 1)
    up, level = tl.load(latitudes + y), tl.load(latitudes + height + y)
    to_right, ahead = tl.load(longitudes + x), tl.load(longitudes + width + x)
    return _rotated(row, level * to_right, up, -level * ahead)


@triton.jit(do_not_specialize=["to_row", "to_channel", "to_picture"])
def _views(
    images, result, table, latitudes, longitudes, rows, columns, height, width, tiles, across, table_step, image_step,
    from_channel, from_row, from_column, to_picture, to_channel, to_row, to_column,
    turned: tl.constexpr, channels: tl.constexpr, tile_x: tl.constexpr, tile_y: tl.constexpr,
):  # fmt: skip
    picture, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    x = (tile % across) * tile_x + tl.arange(0, tile_x)[None, :]
    y = (tile // across) * tile_y + tl.arange(0, tile_y)[:, None]
    row = table + picture * table_step
    if turned:
        right, up, back = _texels(row, latitudes, longitudes, x, y, height, width)
    else:
        step = tl.load(row + 9)
        right, up, back = _rotated(
            row, (x.to(tl.float32) - (width - 1) * 0.5) * step, ((height - 1) * 0.5 - y.to(tl.float32)) * step, -1.0
        )
    longitude = _half_turns(right, tl.abs(back))
    longitude = tl.where(back > 0, tl.where(right < 0, -1.0, 1.0) - longitude, longitude)
    latitude = _half_turns(up, tl.sqrt(right * right + back * back))
    column = longitude * (columns * 0.5) + (columns * 0.5 - 0.5)
    line = (rows * 0.5 - 0.5) - latitude * rows
    left, top = tl.floor(column), tl.floor(line)
    a, b = column - left, line - top
    left, top = left.to(tl.int32), top.to(tl.int32)
    right_one = tl.where(left + 1 >= columns, 0, left + 1)
    left = tl.where(left < 0, columns - 1, left)
    bottom = tl.minimum(top + 1, rows - 1)
    left_below, right_below = left, right_one
    if tl.load(row + 10) > 0:  # over a pole: the same row half a turn further
        turn = tl.where(top + 1 >= rows, columns // 2, 0)
        left_below, right_below = (left + turn) % columns, (right_one + turn) % columns
        turn = tl.where(top < 0, columns // 2, 0)
        left, right_one = (left + turn) % columns, (right_one + turn) % columns
    top = tl.maximum(top, 0) * from_row
    bottom = bottom * from_row
    shown = (x < width) & (y < height)
    source = images + picture.to(tl.int64) * image_step
    target = result + picture.to(tl.int64) * to_picture + (y * to_row + x * to_column)
    first, second = top + left * from_column, top + right_one * from_column
    third, fourth = bottom + left_below * from_column, bottom + right_below * from_column
    for channel in tl.static_range(channels):
        plane = source + channel * from_channel
        above = tl.load(plane + first).to(tl.float32)
        above += a * (tl.load(plane + second).to(tl.float32) - above)
        below = tl.load(plane + third).to(tl.float32)
        below += a * (tl.load(plane + fourth).to(tl.float32) - below)
        value = above + b * (below - above)
        tl.store(target + channel * to_channel, value.to(result.dtype.element_ty), shown)


@triton.jit(do_not_specialize=["to_row", "to_channel", "to_picture"])
def _panoramas(
    images, result, table, latitudes, longitudes, rows, columns, height, width, tiles, across, table_step, image_step,
    from_channel, from_row, from_column, to_picture, to_channel, to_row, to_column, seen,
    channels: tl.constexpr, tile_x: tl.constexpr, tile_y: tl.constexpr,
):  # fmt: skip
    picture, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    x = (tile % across) * tile_x + tl.arange(0, tile_x)[None, :]
    y = (tile // across) * tile_y + tl.arange(0, tile_y)[:, None]
    row = table + picture * table_step
    right, up, back = _texels(row, latitudes, longitudes, x, y, height, width)
    ahead = back < 0
    depth = tl.where(ahead, -back, 1.0) * tl.load(row + 9)
    right, up = right / depth, up / depth
    known = ahead & (tl.abs(right) <= 1 + _EDGE) & (tl.abs(up) * columns <= rows * (1 + _EDGE))
    shown = (x < width) & (y < height)
    tl.store(seen + picture.to(tl.int64) * height * width + (y * width + x), known.to(tl.float32), shown)
    read = known & shown
    column = tl.where(read, right * (columns * 0.5) + (columns - 1) * 0.5, 0.0)
    line = tl.where(read, (rows - 1) * 0.5 - up * (columns * 0.5), 0.0)
    left, top = tl.floor(column), tl.floor(line)
    a, b = column - left, line - top
    left, top = left.to(tl.int32), top.to(tl.int32)
    right_one = tl.minimum(left + 1, columns - 1) * from_column
    bottom = tl.minimum(top + 1, rows - 1) * from_row
    left, top = tl.maximum(left, 0) * from_column, tl.maximum(top, 0) * from_row
    source = images + picture.to(tl.int64) * image_step
    target = result + picture.to(tl.int64) * to_picture + (y * to_row + x * to_column)
    for channel in tl.static_range(channels):
        plane = source + channel * from_channel
        above = tl.load(plane + (top + left), read, 0.0).to(tl.float32)
        above += a * (tl.load(plane + (top + right_one), read, 0.0).to(tl.float32) - above)
        below = tl.load(plane + (bottom + left), read, 0.0).to(tl.float32)
        below += a * (tl.load(plane + (bottom + right_one), read, 0.0).to(tl.float32) - below)
        value = above + b * (below - above)
        tl.store(target + channel * to_channel, value.to(result.dtype.element_ty), shown)
