"""The reference of ``panorama`` for pixels that are areas, in eager torch, frame by frame.

``panorama_blocks`` (CPU) and ``panorama_triton`` (CUDA) have functions of the same names that do the same, faster.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .equirectangular import over_the_poles, positions_of, texel_directions
from .sampling import remap

EDGE = 1e-5
"""Parts of half a picture that it is known beyond its edges, so that views side by side leave no gap."""

# Rows beyond each pole that bicubic reads.
_BEYOND = 2


def camera_directions(height: int, width: int, fov: float, device=None) -> Tensor:
    """float32 [height, width, 3]: where each pixel's middle looks from a camera, not normalised, z = -1."""
    step = 2 * math.tan(math.radians(fov) / 2) / width
    x = (torch.arange(width, dtype=torch.float64) - (width - 1) / 2) * step
    y = ((height - 1) / 2 - torch.arange(height, dtype=torch.float64)) * step
    ahead = torch.full((height, width), -1.0, dtype=torch.float64)
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width), ahead], -1).to(torch.float32).to(device)


def draw_views(images: Tensor, matrices: Tensor, fovs: list[float] | None, mode: str, result: Tensor) -> None:
    """What cameras see of panoramas.

    Args:
        images: float [B, C, H, W], panoramas.
        matrices: float64 [T, 3, 3], from a camera's directions to the world's, on the CPU; T = B, or one of them is 1.
        fovs: T angles in degrees; None = each sees a whole panorama.
        mode: of ``sampling.remap``.
        result: [max(B, T), C, height, width], written.
    """
    height, width = result.shape[2:]
    padded = positions = None
    for number in range(len(result)):
        if padded is None or len(images) > 1:
            padded = over_the_poles(images[min(number, len(images) - 1)][None], _BEYOND)
        if positions is None or len(matrices) > 1:
            turn = min(number, len(matrices) - 1)
            rays = (
                texel_directions(height, width, images.device)
                if fovs is None
                else camera_directions(height, width, fovs[turn], images.device)
            )
            positions = positions_of(_turned(rays, matrices[turn]), *images.shape[2:])
            positions[1] += _BEYOND
        result[number] = remap(padded, positions[None], mode=mode, border="wrap-x")[0]


def draw_panoramas(
    images: Tensor, matrices: Tensor, fovs: list[float], mode: str, result: Tensor, seen: Tensor
) -> None:
    """Pictures of cameras laid into panoramas.

    Args:
        images: float [B, C, h, w], pictures.
        matrices, fovs, mode: as in ``draw_views``.
        result: [max(B, T), C, height, width], written; 0 where the camera did not look.
        seen: float32 [max(B, T), height, width], written; 1 where it did.
    """
    texels = texel_directions(*result.shape[2:], images.device)
    positions = known = None
    for number in range(len(result)):
        if positions is None or len(matrices) > 1:
            turn = min(number, len(matrices) - 1)
            positions, known = _on_view(_turned(texels, matrices[turn].T), fovs[turn], *images.shape[2:])
        one = images[min(number, len(images) - 1)][None]
        result[number] = torch.where(known, remap(one, positions[None], mode=mode, border="border")[0], 0)
        seen[number] = known


def _turned(directions: Tensor, matrix: Tensor) -> Tensor:
    """Each of directions [..., 3] times a matrix; without matrix products, which a GPU may round to TF32."""
    x, y, z = directions.unbind(-1)
    return torch.stack([a * x + b * y + c * z for a, b, c in matrix.tolist()], -1)


def _on_view(directions: Tensor, fov: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where a camera's directions [..., 3] lie on its picture, float32 [2, ...] in pixels, and whether they do."""
    x, y, z = directions.unbind(-1)
    ahead = z < 0
    depth = torch.where(ahead, -z, 1.0) * math.tan(math.radians(fov) / 2)
    x, y = x / depth, y / depth  # the picture's sides are at x = -1 and 1, y = -h/w and h/w
    known = ahead & (x.abs() <= 1 + EDGE) & (y.abs() <= height / width * (1 + EDGE))
    positions = torch.stack([x * (width / 2) + (width - 1) / 2, (height - 1) / 2 - y * (width / 2)])
    return torch.where(known, positions, 0.0), known
