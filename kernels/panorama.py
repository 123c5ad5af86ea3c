"""Panoramas and perspective views: each made from the other, and panoramas turned.

Directions, panoramas and their texels are those of ``equirectangular``: x right, y up, z to the viewer; the middle of a
panorama is straight ahead, -z. A camera has a yaw (degrees, above 0 it looks to the right), then a pitch (above 0 it
looks up), then a roll (above 0 it turns clockwise, seen from behind it, so that its picture turns anticlockwise), and
a horizontal field of view in degrees.

Two conventions say where the pixels of a picture lie:

- ``pixel centres``: a pixel is an area and its number that of its middle; square pixels, seen through a pinhole.
  Panoramas are read round their edges and over their poles.
- ``Imagine360 exact``: the grids of Imagine360's published warps, see ``panorama_exact``; for its networks, which were
  trained on them.

Eager torch is the reference. ``backend`` forces "eager" or "triton".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .affine import cos_and_sin
from .equirectangular import positions_of, texel_directions
from .panorama_exact import panorama_positions, read_wrapped, view_positions
from .sampling import remap

CONVENTIONS = ("pixel centres", "Imagine360 exact")
MODES = ("bilinear", "nearest", "bicubic")

# Pictures are known this little (parts of their half) beyond their edges, so that views side by side leave no gap.
_EDGE = 1e-5
# Schedules are float32: turns this close (texels) to whole ones were meant to be whole.
_WHOLE = 1e-3
# Rows beyond each pole that bicubic reads.
_BEYOND = 2


def camera_rotations(yaw: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Matrices from a camera's directions to the world's: yaw about y, after pitch about x, after roll about z.

    Args:
        yaw, pitch, roll: [T] each, degrees.

    Returns:
        float64 [T, 3, 3] on the CPU; exact at quarter turns, the same for whole turns more.

    Raises:
        ValueError: other shapes, different lengths, or values that are not finite.
    """
    shapes = [list(angle.shape) for angle in (yaw, pitch, roll)]
    if yaw.ndim != 1 or len(yaw) < 1 or shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        raise ValueError(f"yaw, pitch and roll: got {shapes}; expected a value of each for every frame.")
    matrices = []
    for angles in zip(yaw.tolist(), pitch.tolist(), roll.tolist(), strict=True):
        if not all(math.isfinite(angle) for angle in angles):
            raise ValueError(f"yaw, pitch and roll: got {', '.join(f'{a:g}' for a in angles)}; expected degrees.")
        (a, b), (c, d), (e, f) = (cos_and_sin(angle) for angle in angles)
        about_y = torch.tensor([[a, 0, -b], [0, 1, 0], [b, 0, a]], dtype=torch.float64)
        about_x = torch.tensor([[1, 0, 0], [0, c, -d], [0, d, c]], dtype=torch.float64)
        about_z = torch.tensor([[e, f, 0], [-f, e, 0], [0, 0, 1]], dtype=torch.float64)
        matrices.append(about_y @ about_x @ about_z)
    return torch.stack(matrices)


def camera_directions(height: int, width: int, fov: float, device=None) -> Tensor:
    """float32 [height, width, 3]: where each pixel's middle looks from a camera, not normalised, z = -1."""
    step = 2 * math.tan(math.radians(fov) / 2) / width
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * step
    y = ((height - 1) / 2 - torch.arange(height, dtype=torch.float64)) * step
    ahead = torch.full((height, width), -1.0, dtype=torch.float64)
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), ahead], -1).to(torch.float32).to(device)


def equirect_to_perspective(
    images: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    roll: Tensor,
    fov: Tensor,
    height: int,
    width: int,
    *,
    mode: str = "bilinear",
    convention: str = CONVENTIONS[0],
    backend: str | None = None,
) -> Tensor:
    """What cameras in the middle of panoramas see.

    Args:
        images: float [B, C, H, W], panoramas.
        yaw, pitch, roll, fov: [T] each, degrees; 0 < fov < 180. T = B, or one of them is 1 and goes with all.
        height, width: of the views, pixels.
        mode: "bilinear", "nearest", or "bicubic" (Keys 1981, a = -1/2; exact: OpenCV's a = -3/4).
        convention: one of ``CONVENTIONS``.
        backend: None chooses; "eager" or "triton" force it.

    Returns:
        [max(B, T), C, height, width] of the images' dtype, on their device.

    Raises:
        ValueError: shapes or numbers that do not fit, a field of view out of range, an unknown choice.
    """
    matrices, fovs = _cameras(yaw, pitch, roll, fov)
    count = _check(images, len(matrices), height, width, mode, convention)
    result = images.new_empty(count, images.shape[1], height, width)
    rows, columns = images.shape[2:]
    padded = positions = None
    for number in range(count):
        if padded is None or len(images) > 1:
            one = images[number if len(images) > 1 else 0][None]
            padded = one if convention != CONVENTIONS[0] else _over_the_poles(one)
        if positions is None or len(matrices) > 1:
            matrix, angle = matrices[number if len(matrices) > 1 else 0], fovs[number if len(fovs) > 1 else 0]
            if convention == CONVENTIONS[0]:
                rays = camera_directions(height, width, angle, images.device)
                positions = _on_padded(positions_of(_turned(rays, matrix), rows, columns))
            else:
                positions = panorama_positions(matrix, angle, height, width, rows, columns, images.device)
        result[number] = (
            remap(padded, positions[None], mode=mode, border="wrap-x")
            if convention == CONVENTIONS[0]
            else read_wrapped(padded, positions, mode)
        )[0]
    return result


def perspective_to_equirect(
    images: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    roll: Tensor,
    fov: Tensor,
    height: int,
    width: int,
    *,
    mode: str = "bilinear",
    convention: str = CONVENTIONS[0],
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Pictures of cameras laid into panoramas.

    Args:
        images: float [B, C, h, w], what the cameras saw.
        yaw, pitch, roll, fov: [T] each, degrees; 0 < fov < 180. T = B, or one of them is 1 and goes with all.
        height, width: of the panoramas, pixels.
        mode, convention, backend: as in ``equirect_to_perspective``.

    Returns:
        The panoramas [max(B, T), C, height, width] of the images' dtype, 0 where the camera did not look, and float32
        [max(B, T), height, width], 1 where it did.

    Raises:
        ValueError: as in ``equirect_to_perspective``.
    """
    matrices, fovs = _cameras(yaw, pitch, roll, fov)
    count = _check(images, len(matrices), height, width, mode, convention)
    result = images.new_empty(count, images.shape[1], height, width)
    seen = torch.empty(count, height, width, dtype=torch.float32, device=images.device)
    rows, columns = images.shape[2:]
    positions = known = None
    for number in range(count):
        if positions is None or len(matrices) > 1:
            matrix, angle = matrices[number if len(matrices) > 1 else 0], fovs[number if len(fovs) > 1 else 0]
            if convention == CONVENTIONS[0]:
                texels = _turned(texel_directions(height, width, images.device), matrix.T)
                positions, known = _on_view(texels, angle, rows, columns)
            else:
                positions, known = view_positions(matrix, angle, height, width, rows, columns, images.device)
        one = images[number if len(images) > 1 else 0][None]
        read = (
            remap(one, positions[None], mode=mode, border="border")
            if convention == CONVENTIONS[0]
            else read_wrapped(one, positions, mode)
        )
        result[number], seen[number] = torch.where(known, read[0], 0), known
    return result, seen


def rotate_panorama(
    images: Tensor, yaw: Tensor, pitch: Tensor, roll: Tensor, *, mode: str = "bilinear", backend: str | None = None
) -> Tensor:
    """Panoramas as cameras see them that are turned: what a camera looks at comes to the middle.

    A yaw by whole texels alone moves the columns bit for bit.

    Args:
        images: float [B, C, H, W].
        yaw, pitch, roll: [T] each, degrees. T = B, or one of them is 1 and goes with all.
        mode, backend: as in ``equirect_to_perspective``.

    Returns:
        [max(B, T), C, H, W] of the images' dtype.

    Raises:
        ValueError: shapes or numbers that do not fit, an unknown choice.
    """
    matrices = camera_rotations(yaw, pitch, roll)
    height, width = images.shape[-2:]
    count = _check(images, len(matrices), height, width, mode, CONVENTIONS[0])
    result = torch.empty_like(images[:1]).expand(count, -1, -1, -1).clone()
    directions = texel_directions(height, width, images.device)
    for number in range(count):
        one = images[number if len(images) > 1 else 0][None]
        turn = number if len(matrices) > 1 else 0
        texels = float(yaw[turn]) / 360 * width
        if float(pitch[turn]) == float(roll[turn]) == 0 and abs(texels - round(texels)) < _WHOLE:
            result[number] = one[0].roll(-round(texels), dims=-1)
        else:
            positions = _on_padded(positions_of(_turned(directions, matrices[turn]), height, width))
            result[number] = remap(_over_the_poles(one), positions[None], mode=mode, border="wrap-x")[0]
    return result


def _cameras(yaw: Tensor, pitch: Tensor, roll: Tensor, fov: Tensor) -> tuple[Tensor, list[float]]:
    matrices = camera_rotations(yaw, pitch, roll)
    if list(fov.shape) != [len(matrices)]:
        raise ValueError(f"fov: got {list(fov.shape)}; expected a value for each of {len(matrices)} frames.")
    fovs = fov.tolist()
    for angle in fovs:
        if not 0 < angle < 180:
            raise ValueError(f"fov: got {angle:g} degrees; expected more than 0 and less than 180.")
    return matrices, fovs


def _check(images: Tensor, turns: int, height: int, width: int, mode: str, convention: str) -> int:
    """How many pictures there will be."""
    if images.ndim != 4 or not images.is_floating_point() or 0 in images.shape:
        raise ValueError(
            f"images: got {images.dtype} {list(images.shape)}; expected floating [batch, channels, height, width]."
        )
    if len(images) != turns and 1 not in (len(images), turns):
        raise ValueError(f"images: got {len(images)} for {turns} cameras; expected as many, or one of either.")
    if min(height, width) < 1:
        raise ValueError(f"height and width: got {height} and {width}; expected at least 1.")
    if mode not in MODES:
        raise ValueError(f"mode: got {mode!r}; expected one of {', '.join(MODES)}.")
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: got {convention!r}; expected one of {', '.join(CONVENTIONS)}.")
    return max(len(images), turns)


def _turned(directions: Tensor, matrix: Tensor) -> Tensor:
    """Each of directions [..., 3] times a matrix; without matrix products, which a GPU may round to TF32."""
    x, y, z = directions.unbind(-1)
    return torch.stack([a * x + b * y + c * z for a, b, c in matrix.tolist()], -1)


def _on_padded(positions: Tensor) -> Tensor:
    """Positions of a panorama [2, ...] on one with the rows beyond its poles."""
    return torch.stack([positions[0], positions[1] + _BEYOND])


def _over_the_poles(panorama: Tensor) -> Tensor:
    """[1, C, H + 4, W]: with the rows that one meets beyond each pole, which are its own half a turn further."""
    height, width = panorama.shape[2:]
    above = torch.arange(_BEYOND - 1, -1, -1).clamp_max(height - 1)
    ends = panorama[:, :, torch.cat([above, height - 1 - above.flip(0)]).to(panorama.device)]
    half = width // 2
    ends = ends.roll(half, -1) if width % 2 == 0 else (ends.roll(half, -1) + ends.roll(half + 1, -1)) / 2
    return torch.cat([ends[:, :, :_BEYOND], panorama, ends[:, :, _BEYOND:]], 2)


def _on_view(directions: Tensor, fov: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where a camera's directions [..., 3] lie on its picture, float32 [2, ...] in pixels, and whether they do."""
    x, y, z = directions.unbind(-1)
    ahead = z < 0
    depth = torch.where(ahead, -z, 1.0)
    reach = math.tan(math.radians(fov) / 2)
    x, y = x / depth / reach, y / depth / reach  # the picture's sides are at x = -1 and 1, y = -h/w and h/w
    known = ahead & (x.abs() <= 1 + _EDGE) & (y.abs() <= height / width * (1 + _EDGE))
    positions = torch.stack([x * (width / 2) + (width - 1) / 2, (height - 1) / 2 - y * (width / 2)])
    return positions, known
