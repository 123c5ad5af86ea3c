"""Which places of perspective views and of a panorama see each other, as soft masks of the attention between them.

Imagine360's exchange blocks let every token of a panorama attend to all tokens of all views, and the other way round,
with a bias that is high where the two look in the same direction. The masks are what warping a single bright pixel from
one picture to the other gives, here in closed form: how much a pixel counts in a bilinear sample is the product of two
hats. The warps are the method's own ("Imagine360 exact"): grids that include both ends of what they span, a vertical
field of view that is linear in the angle.

A camera is (yaw, pitch, fov) in degrees: yaw turns it to the right, pitch up, fov is its horizontal field of view. In
this module a direction is (ahead, right, up).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Camera = tuple[float, float, float]
Size = tuple[int, int]

_BLUR = 2  # pixels to either side, with a standard deviation of one


def check_cameras(cameras: Sequence[Camera]) -> None:
    """Raises ValueError unless there are cameras, each of finite yaw and pitch and of 0 < fov < 180."""
    if not cameras:
        raise ValueError("cameras: got none; expected at least one (yaw, pitch, fov).")
    for yaw, pitch, fov in cameras:
        if not (math.isfinite(yaw) and math.isfinite(pitch) and 0 < fov < 180):
            raise ValueError(
                f"cameras: got yaw {yaw:g}, pitch {pitch:g}, fov {fov:g}; expected degrees, 0 < fov < 180."
            )


def half_extents(fov: float, size: Size) -> tuple[float, float]:
    """How far a view reaches to the right and up at distance 1; its vertical field of view is linear in the angle."""
    height, width = size
    return math.tan(math.radians(fov) / 2), math.tan(math.radians(fov * height / width) / 2)


def camera_matrix(yaw: float, pitch: float) -> Tensor:
    """float32 [3, 3]: what the camera calls (ahead, right, up) -> what the panorama calls so."""
    a, b = math.radians(yaw), math.radians(pitch)
    turn = torch.tensor([[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0], [0.0, 0.0, 1.0]])
    lift = torch.tensor([[math.cos(b), 0.0, -math.sin(b)], [0.0, 1.0, 0.0], [math.sin(b), 0.0, math.cos(b)]])
    return turn @ lift


def places_on_panorama(camera: Camera, view_size: Size, panorama_size: Size) -> Tensor:
    """Where the pixels of a view lie on a panorama.

    Args:
        camera: see the module.
        view_size, panorama_size: (height, width), pixels.

    Returns:
        float32 [2, h, w]: column and row, pixels; 0 = the centre of the first, and the last = the other end.
    """
    (height, width), (panorama_height, panorama_width) = view_size, panorama_size
    right, up = half_extents(camera[2], view_size)
    y = torch.linspace(-right, right, width).expand(height, width)
    z = torch.linspace(up, -up, height)[:, None].expand(height, width)
    rays = F.normalize(torch.stack([torch.ones_like(y), y, z], -1), dim=-1) @ camera_matrix(*camera[:2]).T
    ahead, right_of, above = rays.unbind(-1)
    longitude, latitude = torch.atan2(right_of, ahead), torch.asin(above.clamp(-1, 1))
    column = (longitude / math.pi + 1) * (panorama_width - 1) / 2
    row = (1 - latitude / (math.pi / 2)) * (panorama_height - 1) / 2
    return torch.stack([column, row])


def places_on_view(camera: Camera, view_size: Size, panorama_size: Size) -> tuple[Tensor, Tensor]:
    """Where the pixels of a panorama lie on a view.

    Args:
        camera, view_size, panorama_size: see places_on_panorama.

    Returns:
        float32 [2, H, W]: column and row, from 0 to the view's width and height; bool [H, W]: what the view sees.
    """
    height, width = panorama_size
    right, up = half_extents(camera[2], view_size)
    longitude = torch.linspace(-math.pi, math.pi, width).expand(height, width)
    latitude = torch.linspace(math.pi / 2, -math.pi / 2, height)[:, None].expand(height, width)
    across = latitude.cos()
    rays = torch.stack([across * longitude.cos(), across * longitude.sin(), latitude.sin()], -1)
    ahead, y, z = (rays @ camera_matrix(*camera[:2])).unbind(-1)
    known = ahead > 0
    ahead = torch.where(known, ahead, 1.0)
    y, z = y / ahead, z / ahead
    known = known & (y.abs() < right) & (z.abs() < up)
    places = torch.stack([(y + right) / (2 * right) * view_size[1], (up - z) / (2 * up) * view_size[0]])
    return places, known


def exchange_masks(
    cameras: Sequence[Camera],
    view_size: Size,
    panorama_size: Size,
    antipodal: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """What is added to the attention between a panorama and its views, after scaling (Imagine360's WarpAttn).

    A bright pixel of either picture is warped to the other; each direction is completed by the other's transpose,
    blurred, divided by the largest value of its query and brought to [-1, 1].

    Args:
        cameras: of V views.
        view_size, panorama_size: (height, width), tokens.
        antipodal: pair each place with what lies half a turn further, at the same latitude.
        device, dtype: of the result; computed in float32.

    Returns:
        Panorama to views [H * W, V * h * w] and views to panorama [V * h * w, H * W]: rows are queries, the views'
        tokens view by view; -1 = do not see each other, 1 = the closest that the query has.

    Raises:
        ValueError: see check_cameras; sizes below 1, or an odd width of the panorama.
    """
    check_cameras(cameras)
    if min(*view_size, *panorama_size) < 1 or panorama_size[1] % 2:
        raise ValueError(
            f"sizes: got views of {list(view_size)} and a panorama of {list(panorama_size)}; expected at least one "
            "token, and an even width of the panorama."
        )
    to_views, to_panorama = [], []
    for camera in cameras:
        seen, shown = _warped(camera, view_size, panorama_size, antipodal, device)
        # [panorama, view] both: from a panorama's pixel to the view, and from a view's pixel to the panorama.
        seen = (seen + shown).clamp(0, 1)
        shown = (shown + seen).clamp(0, 1)
        to_views.append(_blurred(seen.unflatten(1, view_size)).flatten(1))
        to_panorama.append(_blurred(shown.T.unflatten(1, panorama_size), around=True).flatten(1))
    return tuple(_as_bias(torch.cat(parts, dim)).to(dtype) for parts, dim in ((to_views, 1), (to_panorama, 0)))


def _warped(camera: Camera, view_size: Size, panorama_size: Size, antipodal: bool, device) -> tuple[Tensor, Tensor]:
    """[panorama, view] both: how much pixels count for each other when warped to the view, and from it."""
    columns, rows = places_on_panorama(camera, view_size, panorama_size).to(device).flatten(1)
    seen = _bilinear(columns, rows, panorama_size)
    if antipodal:
        seen = seen.unflatten(1, panorama_size).roll(-(panorama_size[1] // 2), dims=2).flatten(1)
        camera = (camera[0] + 180.0, *camera[1:])
    (columns, rows), known = places_on_view(camera, view_size, panorama_size)
    shown = _bilinear(columns.flatten().to(device), rows.flatten().to(device), view_size)
    return seen.T, shown * known.flatten().to(shown)[:, None]


def _bilinear(columns: Tensor, rows: Tensor, size: Size) -> Tensor:
    """[N, height * width]: how much each pixel of a picture counts in N bilinear samples, nothing beyond its edges."""
    height, width = size
    across = (1 - (columns[:, None] - torch.arange(width, device=columns.device)).abs()).clamp_min(0)
    down = (1 - (rows[:, None] - torch.arange(height, device=rows.device)).abs()).clamp_min(0)
    return (down[:, :, None] * across[:, None, :]).flatten(1)


def _blurred(pictures: Tensor, around: bool = False) -> Tensor:
    """[N, h, w] under a Gaussian of 5 x 5; its edges repeat, or left and right ones meet."""
    steps = torch.arange(-_BLUR, _BLUR + 1, device=pictures.device, dtype=torch.float32)
    weights = torch.exp(-steps.square() / 2)
    weights = weights / weights.sum()
    for dim, wraps in ((1, False), (2, around)):
        count = pictures.shape[dim]
        place = torch.arange(-_BLUR, count + _BLUR, device=pictures.device)
        wide = pictures.index_select(dim, place % count if wraps else place.clamp(0, count - 1))
        pictures = sum(weight * wide.narrow(dim, at, count) for at, weight in enumerate(weights))
    return pictures


def _as_bias(masks: Tensor) -> Tensor:
    """[queries, keys] from 0 up -> from -1 to 1, the largest of each query at 1."""
    most = masks.amax(1, keepdim=True)
    return masks / torch.where(most > 0, most, 1.0) * 2 - 1
