"""Which places of perspective views and of a panorama see each other, as soft masks of the attention between them.

Imagine360's exchange blocks let every token of a panorama attend to all tokens of all views, and the other way round,
with a bias that is high where the two look in the same direction. The masks are what warping a single bright pixel from
one picture to the other gives, here in closed form: how much a pixel counts in a bilinear sample is the product of two
hats. The warps are the method's own ("Imagine360 exact"): grids that include both ends of what they span, a vertical
field of view that is linear in the angle.

A camera is (yaw, pitch, fov) in degrees: yaw turns it to the right, pitch up, fov is its horizontal field of view.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .panorama import camera_rotations
from .panorama_exact import panorama_positions, view_positions

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


def _matrix(camera: Camera) -> Tensor:
    """float64 [3, 3] as ``panorama_exact`` takes it."""
    yaw, pitch, _ = torch.tensor(camera, dtype=torch.float64)
    return camera_rotations(yaw[None], pitch[None], torch.zeros(1))[0]


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
    places = panorama_positions(_matrix(camera), camera[2], *view_size, *panorama_size)
    columns, rows = places.float().to(device).flatten(1)
    seen = _bilinear(columns, rows, panorama_size)
    if antipodal:
        seen = seen.unflatten(1, panorama_size).roll(-(panorama_size[1] // 2), dims=2).flatten(1)
        camera = (camera[0] + 180.0, *camera[1:])
    places, known = view_positions(_matrix(camera), camera[2], *panorama_size, *view_size)
    columns, rows = places.float().to(device).flatten(1)
    shown = _bilinear(columns, rows, view_size)
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
