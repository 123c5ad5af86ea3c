"""Pictures of everything around a point, in equirectangular layout: their geometry, turning them, looking into them.

Directions are (x, y, z): x to the right, y up, z to the viewer, as normals are in this pack; a camera looks along -z.
Columns are longitudes, evenly from -180 to 180 degrees: the middle of the map is straight ahead (-z), its right half to
the right, its left and right edges, which meet, behind the camera. Rows are latitudes from 90 (up) to -90 degrees.
Texel (row i, column j) of H x W is centred at latitude 90 - (i + 1/2) 180 / H and longitude (j + 1/2) 360 / W - 180.

Yaw and pitch turn the surroundings, in degrees: yaw first and about y, what is ahead goes to the right; then pitch
about x, what is ahead goes up.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import cos_and_sin
from .sampling import remap

NARROWEST, WIDEST = 1.0, 170.0
"""Degrees that a perspective view can be wide."""

# Schedules are float32: turns this close (texels) to whole ones were meant to be whole.
_WHOLE = 1e-3


def check_environment(environment: Tensor) -> None:
    """Raises ValueError unless a map is floating [H, W, 3], finite and not negative."""
    if environment.ndim != 3 or environment.shape[-1] != 3 or not environment.is_floating_point():
        raise ValueError(
            f"environment: got {environment.dtype} {list(environment.shape)}; expected floating [height, width, 3]."
        )
    if 0 in environment.shape:
        raise ValueError(f"environment: got {list(environment.shape)}; expected at least one pixel.")
    if not bool(((environment >= 0) & environment.isfinite()).all()):  # NaN fails the comparison
        raise ValueError("environment: it holds negative, NaN or infinite values; expected light, 0 or more.")


def rotations(yaw: Tensor, pitch: Tensor) -> Tensor:
    """Matrices that turn directions with the surroundings.

    Args:
        yaw, pitch: [T] each, degrees.

    Returns:
        float64 [T, 3, 3] on the CPU: ``matrix @ direction`` is where what lay in ``direction`` has gone. Exact at
        quarter turns; whole turns are the identity.

    Raises:
        ValueError: other shapes, different lengths, or values that are not finite.
    """
    if yaw.ndim != 1 or yaw.shape != pitch.shape or len(yaw) < 1:
        raise ValueError(
            f"yaw and pitch: got {list(yaw.shape)} and {list(pitch.shape)}; expected a value of each for every frame."
        )
    matrices = []
    for about_y, about_x in zip(yaw.tolist(), pitch.tolist(), strict=True):
        if not (math.isfinite(about_y) and math.isfinite(about_x)):
            raise ValueError(f"yaw and pitch: got {about_y:g} and {about_x:g}; expected degrees.")
        (a, b), (c, d) = cos_and_sin(about_y), cos_and_sin(about_x)
        matrices.append([[a, 0.0, -b], [-d * b, c, -d * a], [c * b, d, c * a]])
    return torch.tensor(matrices, dtype=torch.float64)


def texel_directions(height: int, width: int, device=None) -> Tensor:
    """float32 [height, width, 3]: the unit vector through the centre of every texel."""
    latitude = (0.5 - (torch.arange(height, dtype=torch.float64) + 0.5) / height) * math.pi
    longitude = ((torch.arange(width, dtype=torch.float64) + 0.5) / width - 0.5) * (2 * math.pi)
    across = latitude.cos()[:, None]
    x, z = across * longitude.sin(), -across * longitude.cos()
    return torch.stack([x, latitude.sin()[:, None].expand(-1, width), z], -1).to(torch.float32).to(device)


def positions_of(directions: Tensor, height: int, width: int) -> Tensor:
    """Where directions lie on a map of a size.

    Args:
        directions: float32 [..., 3], of any length but 0.

    Returns:
        float32 [2, ...]: x and y in texels, (0, 0) = the centre of the top left one.
    """
    x, y, z = directions.unbind(-1)
    longitude, latitude = torch.atan2(x, -z), torch.atan2(y, torch.hypot(x, z))
    column = (longitude / (2 * math.pi) + 0.5) * width - 0.5
    row = (0.5 - latitude / math.pi) * height - 0.5
    return torch.stack([column, row])


def solid_angles(height: int, width: int) -> Tensor:
    """float64 [height]: the solid angle of a texel of each row, steradians; all texels together have 4 pi."""
    edges = (0.5 - torch.arange(height + 1, dtype=torch.float64) / height) * math.pi
    return edges.sin().diff().neg() * (2 * math.pi / width)


def rotate_environment(environment: Tensor, yaw: Tensor, pitch: Tensor) -> Tensor:
    """Turned maps, one for each frame.

    A yaw by whole texels without pitch moves the map's columns bit for bit; other turns read it bilinearly, round its
    edges and over its poles.

    Args:
        environment: float32 [H, W, 3].
        yaw, pitch: [T], degrees.

    Returns:
        float32 [T, H, W, 3].

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    check_environment(environment)
    height, width = environment.shape[:2]
    matrices = rotations(yaw, pitch)
    picture, directions = _over_the_poles(environment), texel_directions(height, width, environment.device)
    result = environment.new_empty(len(yaw), height, width, 3)
    for frame, (about_y, about_x) in enumerate(zip(yaw.tolist(), pitch.tolist(), strict=True)):
        texels = about_y / 360.0 * width
        if about_x == 0 and abs(texels - round(texels)) < _WHOLE:
            result[frame] = environment.roll(round(texels), dims=1)
        else:
            result[frame] = _read(picture, directions @ matrices[frame].float().to(directions))
    return result


def background_frames(
    environment: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    field_of_view: float,
    height: int,
    width: int,
    *,
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """What a pinhole camera that looks along -z sees of the turned surroundings.

    The pixel at (x, y), measured from the picture's middle to the right and up, looks along (x, y, -f), with
    f = (width / 2) / tan(field of view / 2). Where the map is much finer than the picture it is averaged first.

    Args:
        environment: float32 [H, W, 3].
        yaw, pitch: [T], degrees.
        field_of_view: of the picture's width, degrees, ``NARROWEST`` to ``WIDEST``.
        height, width: of the pictures, pixels.
        on_frame: called with (index, frames) before each frame; may raise to stop.

    Returns:
        float32 [T, height, width, 3], in the map's own units.

    Raises:
        ValueError: shapes that do not fit, a field of view out of range, a size below 1.
    """
    check_environment(environment)
    matrices = rotations(yaw, pitch)
    if not NARROWEST <= field_of_view <= WIDEST:
        raise ValueError(f"field of view: got {field_of_view:g} degrees; expected {NARROWEST:g} to {WIDEST:g}.")
    if min(height, width) < 1:
        raise ValueError(f"background: got {width}x{height} pixels; expected at least 1x1.")
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    picture = _over_the_poles(_thinned(environment, environment.shape[1] / (2 * math.pi * focal)))
    x = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float32)
    rays = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), torch.full((height, width), -focal)], -1)
    rays = rays.to(environment.device)
    result = environment.new_empty(len(matrices), height, width, 3)
    for frame, matrix in enumerate(matrices):
        if on_frame is not None:
            on_frame(frame, len(matrices))
        result[frame] = _read(picture, rays @ matrix.float().to(rays))
    return result


def _read(picture: Tensor, directions: Tensor) -> Tensor:
    """float32 [h, w, 3]: a map from ``_over_the_poles`` in directions [h, w, 3] of surroundings that are not turned."""
    height, width = picture.shape[2] - 2, picture.shape[3]
    positions = positions_of(directions, height, width)
    positions[1] += 1  # the row above the pole
    return remap(picture, positions[None], border="wrap-x")[0].movedim(0, -1)


def over_the_poles(panoramas: Tensor, rows: int) -> Tensor:
    """[B, C, H + 2 rows, W]: with the rows that one meets beyond each pole, which are its own half a turn further.

    Args:
        panoramas: floating [B, C, H, W].
        rows: beyond each pole; beyond H the last one comes again.
    """
    height, width = panoramas.shape[2:]
    above = torch.arange(rows - 1, -1, -1).clamp_max(height - 1)
    ends = panoramas[:, :, torch.cat([above, height - 1 - above.flip(0)]).to(panoramas.device)]
    half = width // 2
    ends = ends.roll(half, -1) if width % 2 == 0 else (ends.roll(half, -1) + ends.roll(half + 1, -1)) / 2
    return torch.cat([ends[:, :, :rows], panoramas, ends[:, :, rows:]], 2)


def _over_the_poles(environment: Tensor) -> Tensor:
    """[1, 3, H + 2, W] of a map [H, W, 3]."""
    return over_the_poles(environment.movedim(-1, 0)[None], 1)


def _thinned(environment: Tensor, texels: float) -> Tensor:
    """The map averaged so that a pixel that covered so many of its texels covers between one and two."""
    factor = int(texels)
    if factor < 2:
        return environment
    size = [max(1, round(edge / factor)) for edge in environment.shape[:2]]
    return F.interpolate(environment.movedim(-1, 0)[None], size=size, mode="area")[0].movedim(0, -1)
