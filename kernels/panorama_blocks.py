"""The fast path of ``panorama`` on a CPU: bilinear, in blocks of rows that stay in a core's cache, several at a time.

A direction is an outer sum: what a camera's column adds to what its row adds, worked out in float64 for each of them.
Whole blocks go to threads, as torch would wait for its own after every operation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from .panorama_eager import EDGE

# Pixels of a block. Up to so many torch works out each operation in the thread that asks for it.
_BLOCK = 1 << 15


@dataclass(frozen=True)
class _Rays:
    """The directions' x, y and -z, times a matrix, as outer sums.

    Attributes:
        columns: float32 [3, width].
        rows: float32 [3, height, 1].
        stretch: None or, to multiply the columns by, float32 [height, 1].
    """

    columns: Tensor
    rows: Tensor
    stretch: Tensor | None

    @staticmethod
    def of(matrix: Tensor, fov: float | None, height: int, width: int) -> _Rays:
        """Those of a camera that has pixels of ``height`` and ``width``; fov None = they are a panorama's texels."""
        down, across = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
        matrix = matrix * torch.tensor([[1.0], [1.0], [-1.0]], dtype=torch.float64)
        if fov is None:
            latitude = (0.5 - (down + 0.5) / height) * math.pi
            longitude = ((across + 0.5) / width - 0.5) * (2 * math.pi)
            columns = matrix[:, :1] * longitude.sin() - matrix[:, 2:] * longitude.cos()
            rows, stretch = matrix[:, 1:2] * latitude.sin(), latitude.cos().float()[:, None]
        else:
            step = 2 * math.tan(math.radians(fov) / 2) / width
            columns = matrix[:, :1] * ((across - (width - 1) / 2) * step) - matrix[:, 2:]
            rows, stretch = matrix[:, 1:2] * (((height - 1) / 2 - down) * step), None
        return _Rays(columns.float(), rows.float()[..., None], stretch)

    def directions(self, part: slice) -> list[Tensor]:
        """float32 [h, width] each, of some rows."""
        pairs = zip(self.columns, self.rows, strict=True)
        if self.stretch is None:
            return [column + row[part] for column, row in pairs]
        return [torch.addcmul(row[part], self.stretch[part], column) for column, row in pairs]

    def meet_seam(self, part: slice, near: float) -> bool:
        """Whether some rows may come so near the half plane from pole to pole behind the viewer; a panorama's may."""
        if self.stretch is not None:
            return True
        # Linear along rows and columns: what they reach, they reach in the corners.
        across, _, ahead = (
            [float(column[i]) + float(row[j]) for i in (0, -1) for j in (part.start, part.stop - 1)]
            for column, row in zip(self.columns, self.rows, strict=True)
        )
        return min(across) < near and max(across) > -near and min(ahead) < near


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float] | None, mode: str, result: Tensor) -> None:
    """See ``panorama_eager.draw_views``; bilinear float32 on a CPU, panoramas of an even width."""
    rows, columns = images.shape[2:]
    height, width = result.shape[2:]

    def draw(number: int, rays: _Rays, part: slice) -> tuple[Tensor, ...] | None:
        x, y, ahead = rays.directions(part)
        level = (x * x).addcmul_(ahead, ahead).sqrt_()
        # In grid_sample's units: the panorama's sides are at -1 and 1, as half turns and quarter turns are.
        torch.atan2(x, ahead, out=x).mul_(1 / math.pi)
        y.div_(level).atan_().mul_(-2 / math.pi)
        image = images[min(number, len(images) - 1)][None]
        read = grid_sample(image, _grid(x, y), padding_mode="border", align_corners=False)
        result[number][:, part] = read[0]
        reach = 0.0 if fovs is None else math.tan(math.radians(fovs[min(number, len(fovs) - 1)]) / 2)
        far = math.hypot(1, reach, reach * height / width)
        if not rays.meet_seam(part, far * 2 * math.pi / min(columns, 2 * rows)):
            return None
        places = ((x.abs() > 1 - 1 / columns) | (y.abs() > 1 - 1 / rows)).flatten().nonzero()[:, 0]
        return places + part.start * width, x.flatten()[places], y.flatten()[places]

    turns = len(matrices)
    rays = (
        _Rays.of(
            matrices[min(number, turns - 1)], None if fovs is None else fovs[min(number, turns - 1)], height, width
        )
        for number in range(len(result))
    )
    for number, found in enumerate(_in_threads(draw, rays, height, width)):
        if found := [some for some in found if some is not None]:
            places, x, y = (torch.cat(some) for some in zip(*found, strict=True))
            read = _over_the_seam(images[min(number, len(images) - 1)], x, y)
            result[number][:, places // width, places % width] = read


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """See ``panorama_eager.draw_panoramas``; bilinear float32 on a CPU."""
    rows, columns = images.shape[2:]
    height, width = result.shape[2:]

    def draw(number: int, rays: _Rays, part: slice) -> None:
        x, y, depth = rays.directions(part)
        depth.mul_(math.tan(math.radians(fovs[min(number, len(fovs) - 1)]) / 2))
        x.div_(depth)
        y.div_(depth).mul_(-columns / rows)
        known = (depth > 0) & (x.abs() <= 1 + EDGE) & (y.abs() <= 1 + EDGE)
        seen[number][part] = known
        if not bool(known.any()):
            result[number][:, part] = 0
            return
        x, y = (torch.where(known, some, 0) for some in (x, y))  # they may be infinite
        image = images[min(number, len(images) - 1)][None]
        read = grid_sample(image, _grid(x, y), padding_mode="border", align_corners=False)
        torch.mul(read[0], known, out=result[number][:, part])

    turns = len(matrices)
    rays = (_Rays.of(matrices[min(number, turns - 1)].T, None, height, width) for number in range(len(result)))
    for _ in _in_threads(draw, rays, height, width):
        pass


def _in_threads(draw: Callable, rays: Iterable[_Rays], height: int, width: int) -> Iterator[list]:
    """For each picture, what draw(number, its rays, rows) returns for the blocks that make it up."""
    step = max(1, _BLOCK // width)
    blocks = [slice(top, min(top + step, height)) for top in range(0, height, step)]
    inference = torch.is_inference_mode_enabled()  # which new threads do not know of

    def guarded(number: int, some: _Rays, part: slice):
        with torch.inference_mode() if inference else torch.no_grad():
            return draw(number, some, part)

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        for number, some in enumerate(rays):
            yield list(pool.map(partial(guarded, number, some), blocks))  # raises what a block has raised


def _grid(x: Tensor, y: Tensor) -> Tensor:
    """[1, h, w, 2]"""
    return torch.stack([x, y]).permute(1, 2, 0)[None]


def _over_the_seam(panorama: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """What lies between the last column and the first, or beyond the middles of the rows at the poles.

    Args:
        panorama: float32 [C, H, W].
        x, y: float32 [N], in grid_sample's units.

    Returns:
        float32 [C, N].
    """
    height, width = panorama.shape[1:]
    across, down = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
    left, top = across.floor(), down.floor()
    total = 0.0
    for row, row_weight in ((top, 1 - (down - top)), (top + 1, down - top)):
        over = (row < 0) | (row >= height)
        row = row.clamp(0, height - 1).long()
        for column, column_weight in ((left, 1 - (across - left)), (left + 1, across - left)):
            column = (column.long() + torch.where(over, width // 2, 0)).remainder(width)
            total = total + panorama[:, row, column] * (row_weight * column_weight)
    return total
