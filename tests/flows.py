"""Flows with a known motion, for tests."""

import torch
from papernodes.kernels.flow import Flow


def pan(frames: int, height: int = 32, width: int = 32, dx: float = 4.0, dy: float = 0.0, direction="forward") -> Flow:
    """Everything moves by (dx, dy) pixels a frame."""
    vectors = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(frames - 1, 2, height, width).clone()
    return Flow(vectors, direction)


def swirl(frames: int, height: int = 32, width: int = 32, angle: float = 0.1) -> Flow:
    """Everything turns about the centre by ``angle`` radians a frame."""
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    cos, sin = torch.cos(torch.tensor(angle)), torch.sin(torch.tensor(angle))
    step = torch.stack([x * cos - y * sin - x, x * sin + y * cos - y])
    return Flow(step.expand(frames - 1, 2, height, width).clone())
