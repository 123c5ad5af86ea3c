"""Where stage points and characters' own points fall in the picture, and back."""

import torch
from torch import Tensor

from demo.world.scene import Scenes


def picture_scale(height: int, width: int) -> float:
    """Pixels in one stage unit at zoom 1: the shorter side shows two units."""
    return min(height, width) / 2


def stage_grid(scenes: Scenes, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The stage point under every pixel's centre.

    Returns:
        x, y: float32 [B, T, H, W], stage units; and a pixel's size in stage units, float32 [B, T, 1, 1].
    """
    camera = scenes.camera
    pixel = 1 / (picture_scale(height, width) * camera[..., 2])[..., None, None]
    across = torch.arange(width, device=camera.device) - (width - 1) / 2
    down = torch.arange(height, device=camera.device) - (height - 1) / 2
    x = camera[..., 0, None, None] + across * pixel
    y = camera[..., 1, None, None] + down[:, None] * pixel
    shape = (*camera.shape[:2], height, width)
    return x.expand(shape), y.expand(shape), pixel


def stage_to_picture(scenes: Scenes, height: int, width: int, points: Tensor) -> Tensor:
    """Pixel coordinates (x, then y; pixel centres are whole numbers) of stage points [B, T, ..., 2]."""
    camera = scenes.camera.view(*scenes.camera.shape[:2], *[1] * (points.dim() - 3), 3)
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], device=points.device)
    return (points - camera[..., :2]) * (picture_scale(height, width) * camera[..., 2:]) + centre


def character_to_picture(scenes: Scenes, height: int, width: int, points: Tensor) -> Tensor:
    """Pixel coordinates of points on the characters.

    Args:
        scenes: B scenes of T frames.
        height, width: of the picture, pixels.
        points: float32 [B, T, K, P, 2], character coordinates (u, v).

    Returns:
        float32 [B, T, K, P, 2], pixels, x then y.
    """
    cos, sin = scenes.angle.cos()[..., None], scenes.angle.sin()[..., None]
    u, v = points.unbind(-1)
    radius = scenes.radius[..., None]
    stage = (
        torch.stack(((u * cos - v * sin) * radius, (u * sin + v * cos) * radius), -1) + scenes.position[..., None, :]
    )
    return stage_to_picture(scenes, height, width, stage)
