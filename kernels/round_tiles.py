"""A function of pictures, applied to tiles that go round their width.

Tiles overlap, and where they do one fades into the next; the first one goes on where the last one ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def tile_starts(size: int, tile: int, overlap: int, around: bool) -> list[int]:
    """Where tiles begin, evenly, each overlapping the next by ``overlap`` or more.

    Args:
        size: of what is cut; a tile of ``size`` or more is one tile, which begins at 0.
        tile: above ``overlap``.
        around: whether the last one overlaps the first one, beyond the end.

    Raises:
        ValueError: a tile no larger than its overlap.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"tile: got {tile} with an overlap of {overlap}; expected a tile larger than its overlap")
    if tile >= size:
        return [0]
    if around:
        count = math.ceil(size / (tile - overlap))
        return [size * number // count for number in range(count)]
    count = math.ceil((size - overlap) / (tile - overlap))
    return [(size - tile) * number // (count - 1) for number in range(count)]


def in_round_tiles(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int,
    overlap: int,
    scale: float,
    *,
    axes: tuple[int, int],
    result_axes: tuple[int, int],
    step: int = 1,
    columns: int = 0,
    on_tile: Callable[[int, int], None] | None = None,
) -> Tensor:
    """A function of whole pictures, piece by piece.

    Args:
        function: what maps a piece to one ``scale`` times as high and wide, other axes as it likes.
        x: pictures; height and width are multiples of ``step``.
        tile, overlap: of the pieces, in ``step`` of ``x``.
        scale: a whole number of times, or one part of it.
        axes: of height and width in ``x``; ``result_axes``: in what the function gives.
        step: pixels of ``x`` that belong together, such as those of one latent.
        columns: what a single tile that is as wide as ``x`` is continued by on either side, in ``step``.
        on_tile: called with (index, tiles) before each tile; may raise to stop.

    Returns:
        float32, of the whole, on the device of the function's results.
    """
    height, width = (x.shape[axis] // step for axis in axes)
    unit = round(step * scale)
    rows = tile_starts(height, tile, overlap, around=False)
    cols = tile_starts(width, tile, overlap, around=True)
    high, wide = min(tile, height), min(tile, width)
    extra = columns if len(cols) == 1 else 0
    total = weights = None
    for number, (top, left) in enumerate((row, col) for row in rows for col in cols):
        if on_tile is not None:
            on_tile(number, len(rows) * len(cols))
        places = (torch.arange((left - extra) * step, (left + wide + extra) * step) % (width * step)).to(x.device)
        piece = x.narrow(axes[0], top * step, high * step).index_select(axes[1], places)
        made = function(piece).float().movedim(result_axes, (-2, -1))
        made = made[..., extra * unit : (extra + wide) * unit]
        if len(rows) == len(cols) == 1:
            return made.movedim((-2, -1), result_axes)
        if total is None:
            total = made.new_zeros(*made.shape[:-2], height * unit, width * unit)
            weights = made.new_zeros(height * unit, width * unit)
        fade = _ramp(high * unit, overlap * unit, top > 0, top + high < height)[:, None] * _ramp(
            wide * unit, overlap * unit, len(cols) > 1, len(cols) > 1
        )
        fade = fade.to(made)
        target = ((torch.arange(wide * unit) + left * unit) % (width * unit)).to(made.device)
        band = slice(top * unit, (top + high) * unit)
        # A tile's columns are all different, so nothing is added twice.
        total[..., band, target] += made * fade
        weights[band, target] += fade
    return (total / weights).movedim((-2, -1), result_axes)


def _ramp(size: int, overlap: int, before: bool, after: bool) -> Tensor:
    """[size]: 1, and less towards the ends that overlap another tile, never 0."""
    place = torch.arange(size, dtype=torch.float32) + 0.5
    ramp = torch.ones(size)
    if overlap:
        if before:
            ramp = (place / overlap).clamp(max=1)
        if after:
            ramp = ramp * ((size - place) / overlap).clamp(max=1)
    return ramp
