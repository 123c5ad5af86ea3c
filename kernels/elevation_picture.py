"""A camera's tilt drawn over what it sees: the horizon, and lines of equal elevation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .horizon import up_of
from .panorama import camera_directions

STEP = 15.0
"""Degrees between lines."""

FOUND, FITTED = (0.25, 1.0, 0.45), (1.0, 0.62, 0.15)
"""Colours of what a frame said itself, and of what the other frames say of it."""


def draw_elevations(pictures: Tensor, pitch: Tensor, roll: Tensor, fov: float, found: Tensor) -> Tensor:
    """Pictures with the horizon as a thick line and each 15 degrees over and under it as a thin one.

    Args:
        pictures: float [T, H, W, 3], 0..1.
        pitch, roll: [T] each, degrees.
        fov: the camera's horizontal field of view, degrees.
        found: bool [T]: in ``FOUND``'s colour where True, else in ``FITTED``'s.

    Returns:
        float32 [T, H, W, 3] on the pictures' device.
    """
    height, width = pictures.shape[1:3]
    rays = F.normalize(camera_directions(height, width, fov, pictures.device), dim=-1)
    ups = up_of(pitch.double(), roll.double()).float().to(pictures.device)
    result = pictures.float().clone()
    thin = max(1.0, max(height, width) / 400)
    for number, up in enumerate(ups):
        elevation = torch.rad2deg(torch.asin((rays @ up).clamp(-1, 1)))
        down, across = torch.gradient(elevation) if min(height, width) > 1 else (elevation, elevation)
        steep = torch.hypot(down, across).clamp_min(1e-6)  # degrees to a pixel
        nearest = (elevation / STEP).round() * STEP
        away = (elevation - nearest).abs() / steep
        thick = torch.where(nearest == 0, 2 * thin, thin)
        colour = torch.tensor(FOUND if bool(found[number]) else FITTED, device=pictures.device)
        # At the poles the lines would run together.
        opaque = (thick / 2 + 0.5 - away).clamp(0, 1) * torch.where(nearest == 0, 1.0, 0.6) * (nearest.abs() < 89)
        result[number] = result[number] + (colour - result[number]) * opaque[..., None]
    return result
