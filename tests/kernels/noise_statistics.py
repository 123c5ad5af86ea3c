"""Statistics of noise frames for the tests: is it white Gaussian noise, and does it follow the flow?"""

from __future__ import annotations

import math

import torch
from papernodes.benchmarks.tracking import correlation
from torch import Tensor


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    return x, y


def shift(height: int, width: int, dx: float, dy: float) -> Tensor:
    return torch.stack([torch.full((height, width), float(dx)), torch.full((height, width), float(dy))])


def zoom(height: int, width: int, factor: float) -> Tensor:
    x, y = _grid(height, width)
    return torch.stack([(x - (width - 1) / 2) * (factor - 1), (y - (height - 1) / 2) * (factor - 1)])


def swirl(height: int, width: int, angle: float = 0.15, radius: float = 0.35) -> Tensor:
    x, y = _grid(height, width)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    turn = angle * torch.exp(-(x * x + y * y) / (radius * min(height, width)) ** 2)
    return torch.stack([turn.cos() * x - turn.sin() * y - x, turn.sin() * x + turn.cos() * y - y])


def moving_patch(height: int, width: int, dx: float = 3.4) -> Tensor:
    """A patch that slides over a background at rest: one rim is covered, the other uncovered."""
    flow = torch.zeros(2, height, width)
    flow[0, height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = dx
    return flow


def departures(frame: Tensor) -> dict[str, float]:
    """How far a frame [C, h, w] is from white Gaussian noise, each in standard errors of its own sampling."""
    frame = frame.double()
    channels, height, width = frame.shape
    count = frame.numel()
    mean, variance = frame.mean(), frame.var(correction=0)
    standard = (frame - mean) / variance.sqrt()
    weights_sum = 4 * height * width - 2 * height - 2 * width  # Moran's I over the four neighbours
    neighbours = (standard[..., 1:] * standard[..., :-1]).sum() + (standard[:, 1:] * standard[:, :-1]).sum()
    moran = 2 * neighbours / (channels * weights_sum)
    result = {
        "mean": mean * math.sqrt(count),
        "variance": (variance - 1) * math.sqrt(count / 2),
        "kurtosis": (standard.pow(4).mean() - 3) * math.sqrt(count / 24),
        "neighbours in x": correlation(frame[..., 1:], frame[..., :-1]) * math.sqrt(count - channels * height),
        "neighbours in y": correlation(frame[:, 1:], frame[:, :-1]) * math.sqrt(count - channels * width),
        "Moran's I": moran * math.sqrt(channels * weights_sum / 4),
    }
    if channels > 1:
        result["channels"] = correlation(frame[:-1], frame[1:]) * math.sqrt(count - height * width)
    return {name: float(value) for name, value in result.items()}


def kolmogorov_smirnov_p(sample: Tensor) -> float:
    """Asymptotic p-value of the Kolmogorov-Smirnov test of a sample against N(0, 1)."""
    ordered = sample.double().reshape(-1).sort().values
    return _kolmogorov_p(0.5 * (1 + torch.erf(ordered / math.sqrt(2))))


def uniform_p(values: list[float]) -> float:
    """The same test of p-values against the uniform distribution."""
    return _kolmogorov_p(torch.tensor(values, dtype=torch.float64).sort().values)


def _kolmogorov_p(cumulative: Tensor) -> float:
    count = cumulative.numel()
    rank = torch.arange(1, count + 1, dtype=torch.float64)
    gap = float(torch.maximum((rank / count - cumulative).abs(), (cumulative - (rank - 1) / count).abs()).max())
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * gap
    if scaled < 0.2:
        return 1.0
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))))
