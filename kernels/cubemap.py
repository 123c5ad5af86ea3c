"""Panoramas as the six faces of a cube, and back.

Directions and panoramas are those of ``equirectangular``. The faces are F, R, B, L, U, D (``FACES``), each as a camera
with a square picture 90 degrees wide sees it: ahead, to the right, behind, to the left, all upright; up and down, with
what lies ahead at the bottom and at the top edge. Pixel (i, j) of an n x n face is centred (2 j + 1) / n - 1 to the
right and 1 - (2 i + 1) / n up on the plane at distance 1. Greene: Environment Mapping and Other Applications of World
Projections, IEEE CG&A 1986; the order and the arrangements are py360convert's ("dice", "horizon", "list").
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .equirectangular import texel_directions
from .panorama import equirect_to_perspective
from .sampling import MODES, remap

FACES = ("F", "R", "B", "L", "U", "D")
CROSS, STRIP, PICTURES = "cross 4x3", "strip 6x1", "six pictures"
LAYOUTS = (CROSS, STRIP, PICTURES)

ANGLES = ((0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (-90.0, 0.0), (0.0, 90.0), (0.0, -90.0))
"""Yaw and pitch of each face's camera, degrees."""

_CELLS = {  # layout -> (rows, columns), and the (row, column) of each face
    CROSS: ((3, 4), ((1, 1), (1, 2), (1, 3), (1, 0), (0, 1), (2, 1))),
    STRIP: ((1, 6), tuple((0, column) for column in range(6))),
    PICTURES: ((1, 1), ()),
}

# For each face the world's direction of its picture's right, of its up, and of what lies ahead of it.
_AXES = torch.tensor(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, -1]],
        [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
        [[-1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, -1], [0, 1, 0], [-1, 0, 0]],
        [[1, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, 0, -1], [0, -1, 0]],
    ],
    dtype=torch.float32,
)

# Pixels beyond its edges that a face is read with.
_BEYOND = {"nearest": 1, "bilinear": 1, "bicubic": 2}


def panorama_to_faces(images: Tensor, size: int, *, mode: str = "bilinear", backend: str | None = None) -> Tensor:
    """The six faces of panoramas.

    Args:
        images: float [B, C, H, W], any range; the columns go all the way round, the rows from pole to pole.
        size: pixels to an edge of a face, at least 1. A quarter of the width keeps the resolution ahead.
        mode: "nearest", "bilinear" or "bicubic".
        backend: as in ``panorama.equirect_to_perspective``.

    Returns:
        [6, B, C, size, size] of the images' dtype, in the order of ``FACES``.

    Raises:
        ValueError: other shapes, or an unknown mode.
    """
    if size < 1:
        raise ValueError(f"size: got {size}; expected at least 1 pixel.")
    nothing, wide = torch.zeros(1), torch.tensor([90.0])
    return torch.stack(
        [
            equirect_to_perspective(
                images,
                torch.tensor([yaw]),
                torch.tensor([pitch]),
                nothing,
                wide,
                size,
                size,
                mode=mode,
                backend=backend,
            )
            for yaw, pitch in ANGLES
        ]
    )


def faces_to_panorama(faces: Tensor, height: int, width: int, *, mode: str = "bilinear") -> Tensor:
    """Panoramas of six faces; where a face ends, its neighbour's pixels go on.

    Args:
        faces: float [6, B, C, n, n] in the order of ``FACES``.
        height, width: of the panoramas, pixels; 2 n and 4 n keep the resolution.
        mode: "nearest", "bilinear" or "bicubic".

    Returns:
        [B, C, height, width] of the faces' dtype.

    Raises:
        ValueError: other shapes, or an unknown mode.
    """
    square = faces.ndim == 5 and faces.shape[0] == 6 and faces.shape[-1] == faces.shape[-2] and 0 not in faces.shape
    if not square or not faces.is_floating_point():
        raise ValueError(f"faces: got {faces.dtype} {list(faces.shape)}; expected floating [6, batch, channels, n, n].")
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; expected one of {', '.join(MODES)}.")
    if min(height, width) < 1:
        raise ValueError(f"panorama: got {width}x{height} pixels; expected at least 1x1.")
    beyond = _BEYOND[mode]
    return _read(_with_neighbours(faces, beyond), texel_directions(height, width, faces.device), mode, beyond)


def arrange_faces(faces: Tensor, layout: str) -> Tensor:
    """Faces on one picture.

    Args:
        faces: [6, B, C, n, n] in the order of ``FACES``.
        layout: ``CROSS``: L F R B in the middle row, U over and D under F, [B, C, 3 n, 4 n], 0 where there is no face;
            ``STRIP``: F R B L U D side by side, [B, C, n, 6 n]; ``PICTURES``: one after the other for each of the
            panoramas, [6 B, C, n, n].

    Returns:
        As the layout says.
    """
    size, batch = faces.shape[-1], faces.shape[1]
    if layout == PICTURES:
        return faces.transpose(0, 1).flatten(0, 1)
    (rows, columns), places = _CELLS[layout]
    picture = faces.new_zeros(batch, faces.shape[2], rows * size, columns * size)
    for face, (row, column) in zip(faces, places, strict=True):
        picture[..., row * size : (row + 1) * size, column * size : (column + 1) * size] = face
    return picture


def separate_faces(pictures: Tensor, layout: str) -> Tensor:
    """The inverse of ``arrange_faces``: [6, B, C, n, n] of pictures [N, C, h, w].

    Raises:
        ValueError: pictures that have not the layout's shape; the message says what came and what was expected.
    """
    rows, columns = _CELLS[layout][0]
    count, _, height, width = pictures.shape
    if height % rows or width % columns or height // rows != width // columns or 0 in pictures.shape:
        shape = "square" if layout == PICTURES else f"{columns} faces wide and {rows} high, all square"
        raise ValueError(f"it is {width}x{height} pixels; expected for {layout}: {shape}.")
    if layout == PICTURES:
        if count % 6:
            raise ValueError(
                f"it holds {count} pictures; expected for {layout}: 6 for each panorama ({' '.join(FACES)})."
            )
        return pictures.unflatten(0, (count // 6, 6)).transpose(0, 1)
    size = height // rows
    return torch.stack(
        [
            pictures[..., row * size : (row + 1) * size, column * size : (column + 1) * size]
            for row, column in _CELLS[layout][1]
        ]
    )


def _plane(size: int, beyond: int, device) -> tuple[Tensor, Tensor]:
    """How far to the right and up the pixels of a face, and ``beyond`` more on each side, lie: [n, n, 1] each."""
    steps = (torch.arange(-beyond, size + beyond, dtype=torch.float32, device=device) * 2 + 1) / size - 1
    return steps[None, :, None], -steps[:, None, None]


def _with_neighbours(faces: Tensor, beyond: int) -> Tensor:
    """[6, B, C, n + 2 beyond, n + 2 beyond]: faces with what their neighbours show beyond their edges."""
    size = faces.shape[-1]
    right, up = _plane(size, beyond, faces.device)
    wide = F.pad(faces.flatten(0, 1), (beyond,) * 4).unflatten(0, faces.shape[:2])
    ring = torch.ones(wide.shape[-2:], dtype=torch.bool, device=faces.device)
    ring[beyond : beyond + size, beyond : beyond + size] = False
    for number, axes in enumerate(_AXES.to(faces.device)):
        directions = (right * axes[0] + up * axes[1] + axes[2])[ring]
        wide[number][..., ring] = _read(faces, directions[None], "bilinear", 0)[..., 0, :]
    return wide


def _read(faces: Tensor, directions: Tensor, mode: str, beyond: int) -> Tensor:
    """[B, C, h, w]: faces with ``beyond`` pixels more on each side, read in directions [h, w, 3]."""
    edge = faces.shape[-1]
    size = edge - 2 * beyond
    along = directions.abs()
    # The longest axis decides; ties go to one side, and the neighbours' pixels make the other say the same.
    axis = along.argmax(-1)
    largest = along.gather(-1, axis[..., None])[..., 0]
    positive = directions.gather(-1, axis[..., None])[..., 0] > 0
    x, y, z = directions.unbind(-1)
    number = torch.where(
        axis == 0, torch.where(positive, 1, 3), torch.where(axis == 1, torch.where(positive, 4, 5), 2 * positive.long())
    )
    right = torch.where(axis == 0, torch.where(positive, z, -z), torch.where((axis == 2) & positive, -x, x)) / largest
    up = torch.where(axis == 1, torch.where(positive, z, -z), y) / largest
    # Without neighbours the face's own last pixels are read.
    low, high = (0, size - 1) if beyond == 0 else (-0.5, size - 0.5)
    column = (((right + 1) * size - 1) / 2).clamp(low, high) + beyond
    row = (((1 - up) * size - 1) / 2).clamp(low, high) + beyond
    side_by_side = faces.permute(1, 2, 3, 0, 4).flatten(3)
    return remap(side_by_side, torch.stack((column + number * edge, row))[None], mode=mode, border="border")
