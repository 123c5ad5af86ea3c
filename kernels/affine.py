"""Affine maps of pixels: exact where nothing turns or grows, and pictures read through them box by box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Moves closer than this (pixels) to whole pixels are copied, not interpolated.
WHOLE = 1e-6


@dataclass(frozen=True)
class Affine:
    """(x, y) -> (a x + b y + the map's x, c x + d y + its y), in pixels; Python's own numbers are float64."""

    a: float
    b: float
    c: float
    d: float
    x: float
    y: float

    @property
    def only_moves(self) -> bool:
        """Whether nothing turns or grows."""
        return (self.a, self.b, self.c, self.d) == (1.0, 0.0, 0.0, 1.0)

    def inverse(self) -> Affine:
        determinant = self.a * self.d - self.b * self.c
        a, b, c, d = self.d / determinant, -self.b / determinant, -self.c / determinant, self.a / determinant
        return Affine(a, b, c, d, -(a * self.x + b * self.y), -(c * self.x + d * self.y))

    def apply(self, x: float, y: float) -> tuple[float, float]:
        return self.a * x + self.b * y + self.x, self.c * x + self.d * y + self.y

    def displacement(self) -> Affine:
        """How far the map moves a pixel: the map less the identity."""
        return Affine(self.a - 1.0, self.b, self.c, self.d - 1.0, self.x, self.y)

    def to_whole_pixels(self, tolerance: float = WHOLE) -> Affine:
        """The same map, but moves within ``tolerance`` of whole pixels are whole."""
        x, y = round(self.x), round(self.y)
        near = max(abs(self.x - x), abs(self.y - y)) < tolerance
        return Affine(1.0, 0.0, 0.0, 1.0, float(x), float(y)) if self.only_moves and near else self


def turn_and_scale(angle: float, scale: float, centre: tuple[float, float], move: tuple[float, float]) -> Affine:
    """centre + scale * R(angle) (p - centre) + move; angle in degrees, clockwise on the screen; exact where it is 0."""
    cos, sin = math.cos(math.radians(angle)) * scale, math.sin(math.radians(angle)) * scale
    x, y = centre
    return Affine(cos, -sin, sin, cos, move[0] + (x - (cos * x - sin * y)), move[1] + (y - (sin * x + cos * y)))


def cos_and_sin(angle: float) -> tuple[float, float]:
    """Of an angle in degrees; exact at quarter turns, and the same for whole turns more."""
    quarters, rest = divmod(angle, 90.0)
    cos, sin = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    return ((cos, sin), (-sin, cos), (-cos, -sin), (sin, -cos))[int(quarters) % 4]


@dataclass(frozen=True)
class Box:
    """Pixels left..right - 1, top..bottom - 1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def empty(self) -> bool:
        return self.right <= self.left or self.bottom <= self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def common(self, other: Box) -> Box:
        """The pixels of both; it may be empty."""
        return Box(
            max(self.left, other.left),
            max(self.top, other.top),
            min(self.right, other.right),
            min(self.bottom, other.bottom),
        )


def values_at(affine: Affine, box: Box, device, into: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What the map gives at a box's pixels: x and y, float32 [h, w] each.

    Columns and rows are worked out in float64 on the CPU and only their sums in float32 on the device, which costs
    little and keeps float32's full precision.

    Args:
        affine: the map.
        box: which pixels.
        device: where the result lies.
        into: float32 [h, w, 2], written if given: the result is its two halves.
    """
    columns = torch.arange(box.left, box.right, dtype=torch.float64)
    rows = torch.arange(box.top, box.bottom, dtype=torch.float64)
    parts = (affine.a * columns + affine.x, affine.b * rows, affine.c * columns + affine.y, affine.d * rows)
    moved = torch.cat(parts).to(torch.float32).to(device).split([len(part) for part in parts])
    x, y = (None, None) if into is None else into.unbind(dim=-1)
    return torch.add(moved[0], moved[1][:, None], out=x), torch.add(moved[2], moved[3][:, None], out=y)


def read_affine(source: Tensor, affine: Affine, box: Box, *, border: bool = False) -> Tensor:
    """Bilinear values of a picture at a map of a box's pixels; a move by whole pixels is copied bit for bit.

    Args:
        source: float32 [C, h, w].
        affine: from the box's pixels to the source's.
        box: which pixels to fill, not empty.
        border: what lies outside the source: the nearest pixel at its border, or zeros.

    Returns:
        float32 [C, box height, box width]; a view of the source where it can be.
    """
    return read_affine_parts(source, affine, box, border=border).flatten(1, 2)


def read_affine_parts(source: Tensor, affine: Affine, box: Box, *, border: bool = False) -> Tensor:
    """``read_affine`` in as many parts, one below the other, as are computed at the same time.

    Returns:
        float32 [C, parts, box height / parts, box width].
    """
    height, width = source.shape[1:]
    affine = affine.to_whole_pixels()
    if affine.only_moves and affine.x.is_integer() and affine.y.is_integer():
        return _shifted(source, int(affine.x), int(affine.y), box, border)[:, None]
    # In grid_sample's units: -1 and 1 are the centres of the first and the last pixel.
    across, down = 2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)
    unit = Affine(
        affine.a * across,
        affine.b * across,
        affine.c * down,
        affine.d * down,
        affine.x * across - 1.0,
        affine.y * down - 1.0,
    )
    rows, columns = box.bottom - box.top, box.right - box.left
    grid = torch.empty(rows, columns, 2, device=source.device)
    values_at(unit, box, source.device, into=grid)
    if border:
        grid = grid.clamp_(-1.0, 1.0)
    # On a CPU grid_sample keeps to one thread for each picture of a batch.
    threads = torch.get_num_threads() if source.device.type == "cpu" else 1
    parts = threads if rows % threads == 0 else 1
    sources, grid = source.expand(parts, -1, -1, -1), grid.view(parts, rows // parts, columns, 2)
    read = F.grid_sample(sources, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return read.transpose(0, 1)


def _shifted(source: Tensor, x: int, y: int, box: Box, border: bool) -> Tensor:
    """The source's pixels from (box.left + x, box.top + y) on."""
    height, width = source.shape[1:]
    left, top, right, bottom = box.left + x, box.top + y, box.right + x, box.bottom + y
    if left >= 0 and top >= 0 and right <= width and bottom <= height:
        return source[:, top:bottom, left:right]
    columns = torch.arange(left, right, device=source.device)
    rows = torch.arange(top, bottom, device=source.device)
    result = source[:, rows.clamp(0, height - 1)][:, :, columns.clamp(0, width - 1)]
    if not border:
        inside_x, inside_y = (columns >= 0) & (columns < width), (rows >= 0) & (rows < height)
        result = torch.where(inside_y[:, None] & inside_x, result, 0.0)
    return result
