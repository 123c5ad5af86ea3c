"""Light from all around: what an equirectangular map in linear light gives a matt surface, and its look on a screen.

Ramamoorthi and Hanrahan: An Efficient Representation for Irradiance Environment Maps, SIGGRAPH 2001. The light that
reaches a surface is smooth in its normal, so nine numbers for each colour hold it:

    E(n) = sum over l <= 2 and m of A_l L_lm Y_lm(n),  A_0 = pi, A_1 = 2 pi / 3, A_2 = pi / 4     (their eq. 7, 8)
    L_lm = integral over all directions of L(w) Y_lm(w) dw                                             (their eq. 3)

A lone lamp then gives 1/4 + c/2 + 5/32 (3 c^2 - 1) of its light instead of max(c, 0), c = cos(angle to it): up to 0.094
too much, where its light grazes, and up to 0.040 too little. Maps and directions are laid out as in
``kernels/equirectangular.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .equirectangular import check_environment, rotations, solid_angles

CURVES = ("clip", "soft")
"""clip: over 1 is white, as on a photograph. soft: x / (1 + x), which only comes near (Reinhard et al. 2002, eq. 3)."""

MOST_STOPS = 64.0
MIDDLE_GREY = 0.18

# A_l of every Y_lm below.
_COSINE = (math.pi, *[2 * math.pi / 3] * 3, *[math.pi / 4] * 5)
_Y0 = math.sqrt(1 / (4 * math.pi))
_Y1 = math.sqrt(3 / (4 * math.pi))
_Y2 = math.sqrt(15 / (4 * math.pi))
_Y20 = math.sqrt(5 / (16 * math.pi))
_Y22 = math.sqrt(15 / (16 * math.pi))
_ROWS_AT_ONCE = 256
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # ITU-R BT.709


def tone_map(light: Tensor, exposure: float | Tensor = 0.0, curve: str = "clip") -> Tensor:
    """Linear light as a picture: exposed, brought into 0..1, and written as sRGB (IEC 61966-2-1).

    Args:
        light: float32 [T, H, W, 3], 0 or more.
        exposure: stops, a number or [T], within ``MOST_STOPS`` of 0: the light is multiplied by 2^exposure.
        curve: one of ``CURVES``.

    Returns:
        float32 [T, H, W, 3], 0..1.

    Raises:
        ValueError: an unknown curve, or exposures of another length or out of range.
    """
    if curve not in CURVES:
        raise ValueError(f"curve: got {curve!r}; expected one of {', '.join(CURVES)}.")
    exposure = torch.as_tensor(exposure, dtype=torch.float32, device=light.device)
    if exposure.ndim > 1 or (exposure.ndim == 1 and len(exposure) != len(light)):
        raise ValueError(f"exposure: got {list(exposure.shape)}; expected one number, or one for each of {len(light)}.")
    if not bool((exposure.abs() <= MOST_STOPS).all()):  # NaN fails the comparison
        raise ValueError(f"exposure: got a value out of range; expected {-MOST_STOPS:g} to {MOST_STOPS:g} stops.")
    value = light * torch.exp2(exposure).view(-1, 1, 1, 1)
    # Not x / (1 + x): that is infinity over infinity for the largest numbers.
    value = 1.0 - 1.0 / (1.0 + value) if curve == "soft" else value.clamp(0.0, 1.0)
    # 1.055 v^(1 / 2.4) - 0.055, written so that 1 gives exactly 1.
    curved = 1.0 + 1.055 * (value.clamp(min=0.0031308) ** (1 / 2.4) - 1.0)
    return torch.where(value <= 0.0031308, value * 12.92, curved)


def from_srgb(pictures: Tensor) -> Tensor:
    """Linear light of pictures: sRGB's transfer (IEC 61966-2-1) undone.

    Args:
        pictures: floating, 0 or more.
    """
    bright = ((pictures.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(pictures <= 0.04045, pictures / 12.92, bright)


def grey_exposure(environment: Tensor) -> float:
    """The exposure that shows the surroundings at a middle brightness, whatever their unit.

    It brings their luminance, averaged in logarithms over all directions, to ``MIDDLE_GREY`` (Reinhard et al. 2002,
    eq. 1 and 2), which a small sun hardly moves. Black counts as 2^-20 of the brightest.

    Args:
        environment: float32 [H, W, 3], linear light.

    Returns:
        Stops, within ``MOST_STOPS`` of 0; 0 for a black map.

    Raises:
        ValueError: another shape, or values that are negative or not finite.
    """
    check_environment(environment)
    luminance = environment.to("cpu", torch.float32) @ torch.tensor(_LUMINANCE)
    brightest = float(luminance.max())
    if brightest == 0:
        return 0.0
    of_rows = luminance.clamp_(min=brightest * 2.0**-20).log2_().mean(1, dtype=torch.float64)
    share = solid_angles(*luminance.shape) * luminance.shape[1] / (4 * math.pi)
    stops = math.log2(MIDDLE_GREY) - float(of_rows @ share)
    return min(max(stops, -MOST_STOPS), MOST_STOPS)


def irradiance_coefficients(environment: Tensor) -> Tensor:
    """A_l L_lm of a map, exactly for texels that are evenly bright.

    Args:
        environment: float32 [H, W, 3], linear light (radiance), 0 or more.

    Returns:
        float64 [9, 3] on the CPU; ``irradiance`` reads them.

    Raises:
        ValueError: another shape, or values that are negative or not finite.
    """
    check_environment(environment)
    height, width = environment.shape[:2]
    down, across = _latitude_integrals(height), _longitude_integrals(width)
    # sums[k, p] = sum over texels of L * down[k] * across[p]; in pieces, as large maps would double in memory.
    sums = torch.zeros(6, 5, 3, dtype=torch.float64)
    for top in range(0, height, _ROWS_AT_ONCE):
        rows = environment[top : top + _ROWS_AT_ONCE].to("cpu", torch.float64)
        of_rows = torch.einsum("wp,hwc->hpc", across, rows)
        sums += torch.einsum("hk,hpc->kpc", down[top : top + _ROWS_AT_ONCE], of_rows)
    one, up, up_up, flat, flat_up, flat_flat = sums
    moments = torch.stack(
        [
            _Y0 * one[0],
            _Y1 * up[0],
            _Y1 * flat[1],  # x = flat sin(longitude)
            _Y1 * -flat[2],  # z = -flat cos(longitude)
            _Y2 * flat_up[1],
            _Y2 * -flat_up[2],
            _Y2 * -flat_flat[3] / 2,
            _Y20 * (3 * up_up[0] - one[0]),
            _Y22 * -flat_flat[4],
        ]
    )
    return moments * torch.tensor(_COSINE, dtype=torch.float64)[:, None]


def irradiance(coefficients: Tensor, normals: Tensor) -> Tensor:
    """The light that reaches a matt surface: E(n), pi times L under an even sky of radiance L.

    Args:
        coefficients: [9, 3] from ``irradiance_coefficients``.
        normals: float32 [..., 3] of length 1.

    Returns:
        float32 [..., 3], 0 or more: where the approximation dips below (by up to 4 % of a lone lamp's light) it is cut.
    """
    x, y, z = normals.unbind(-1)
    basis = torch.stack(
        [
            torch.full_like(x, _Y0),
            _Y1 * y,
            _Y1 * x,
            _Y1 * z,
            _Y2 * x * y,
            _Y2 * y * z,
            _Y2 * x * z,
            _Y20 * (3 * y * y - 1),
            _Y22 * (x * x - z * z),
        ],
        -1,
    )
    return (basis @ coefficients.float().to(basis)).clamp(min=0.0)


def dome_normals(height: int, width: int) -> Tensor:
    """Normals of a dome that fills a picture: to the viewer in the middle, flat on the picture's plane in its corners.

    With u and v from -1 to 1 across the picture and up, n = (u, v, sqrt(2 - u^2 - v^2)) / sqrt(2): the middle of each
    side leans 45 degrees.

    Returns:
        float32 [height, width, 3], of length 1.

    Raises:
        ValueError: a size below 1.
    """
    if min(height, width) < 1:
        raise ValueError(f"dome: got {width}x{height} pixels; expected at least 1x1.")
    u = (torch.arange(width, dtype=torch.float64) + 0.5) * (2 / width) - 1
    v = 1 - (torch.arange(height, dtype=torch.float64) + 0.5) * (2 / height)
    u, v = u.expand(height, -1), v[:, None].expand(-1, width)
    return (torch.stack([u, v, (2 - u * u - v * v).sqrt()], -1) / math.sqrt(2)).to(torch.float32)


def environment_light_maps(
    environment: Tensor,
    yaw: Tensor,
    pitch: Tensor,
    normals: Tensor,
    *,
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """How the turned surroundings light a white matt surface: E(n) / pi, so that an even sky L shows as L.

    Args:
        environment: float32 [H, W, 3], linear light.
        yaw, pitch: [T], degrees.
        normals: float32 [h, w, 3] for every frame, or [T, h, w, 3]; of length 1: ``dome_normals``, or a thing's own.
        on_frame: called with (index, frames) before each frame; may raise to stop.

    Returns:
        float32 [T, h, w, 3] in the map's own units, on the normals' device; for ``tone_map``.

    Raises:
        ValueError: shapes that do not fit.
    """
    matrices = rotations(yaw, pitch)
    frames = len(matrices)
    if normals.ndim not in (3, 4) or normals.shape[-1] != 3 or (normals.ndim == 4 and normals.shape[0] != frames):
        raise ValueError(
            f"normals: got {list(normals.shape)}; expected [height, width, 3] or [{frames}, height, width, 3]."
        )
    coefficients = irradiance_coefficients(environment) / math.pi
    result = torch.empty(frames, *normals.shape[-3:], device=normals.device)
    for frame, matrix in enumerate(matrices):
        if on_frame is not None:
            on_frame(frame, frames)
        own = normals[frame] if normals.ndim == 4 else normals
        # Turning the surroundings one way is turning the surface the other way.
        result[frame] = irradiance(coefficients, own.to(torch.float32) @ matrix.float().to(own.device))
    return result


def _latitude_integrals(height: int) -> Tensor:
    """float64 [height, 6]: over a row, with u = sin(latitude): integrals of 1, u, u^2, s, s u, s^2 du; s = cos."""
    latitude = (0.5 - torch.arange(height + 1, dtype=torch.float64) / height) * math.pi
    u, s = latitude.sin(), latitude.cos()
    primitives = [u, u.square() / 2, u**3 / 3, (u * s + latitude) / 2, -(s**3) / 3, u - u**3 / 3]
    return torch.stack(primitives, -1).diff(dim=0).neg()


def _longitude_integrals(width: int) -> Tensor:
    """float64 [width, 5]: over a column: integrals of 1, sin, cos, sin of twice the longitude, cos of twice it."""
    longitude = (torch.arange(width + 1, dtype=torch.float64) / width - 0.5) * (2 * math.pi)
    double = 2 * longitude
    primitives = [longitude, -longitude.cos(), longitude.sin(), -double.cos() / 2, double.sin() / 2]
    return torch.stack(primitives, -1).diff(dim=0)
