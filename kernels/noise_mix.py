"""Mixing noise fields and thinning out their frames, with the variance kept.

Burgert et al., "Go-with-the-Flow", CVPR 2025: noise degradation is ``mix_noise`` of warped with fresh noise; latent
video models have fewer frames than the clip, which ``temporal_downsample`` bridges.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from torch import Tensor

TemporalMode = Literal["nearest", "blend", "blend_norm", "randn"]
TEMPORAL_MODES: tuple[TemporalMode, ...] = ("nearest", "blend", "blend_norm", "randn")
_SIGNIFICANT = 6.0  # standard errors from which a correlation between two noises is taken for real
_CANCELLED = 1e-4


def mix_noise(a: Tensor, b: Tensor, weight: Tensor | float) -> Tensor:
    """``((1 - w) a + w b) / sqrt((1 - w)^2 + w^2)``: a at weight 0, b at weight 1, unit variance between.

    Where the two noises are correlated (the same seed twice, say) the cross term ``2 w (1 - w) rho`` joins the root,
    with rho measured in each frame, so that the variance is kept there too.

    Args:
        a: unit-variance noise, ``[T, ...]``.
        b: noise of the same shape.
        weight: in [0, 1]: one number, or ``[T]`` or ``[1]`` for the first axis (degradation g in the paper).

    Returns:
        The shape and dtype of ``a``; exactly ``a`` where the weight is 0 and exactly ``b`` where it is 1.

    Raises:
        ValueError: shapes that differ, a weight outside [0, 1] or of a wrong length, noises that cancel each other.
    """
    if a.shape != b.shape:
        raise ValueError(f"the two noises must have the same shape; got {list(a.shape)} and {list(b.shape)}")
    if a.ndim < 1:
        raise ValueError("noise must have at least one axis; got a single number")
    weight = torch.as_tensor(weight, dtype=torch.float32, device=a.device).reshape(-1)
    if weight.shape[0] not in (1, a.shape[0]):
        raise ValueError(f"weight must be one number or one for each of {a.shape[0]} frames; got {weight.shape[0]}")
    if not bool(((weight >= 0) & (weight <= 1)).all()):
        raise ValueError(f"weight must lie in [0, 1]; got {weight.min():g} to {weight.max():g}")
    weight = weight.expand(a.shape[0])
    correlation = _frame_correlation(a, b)
    square = (1 - weight) ** 2 + weight**2 + 2 * weight * (1 - weight) * correlation
    if bool((square < _CANCELLED).any()):
        raise ValueError("the two noises cancel each other at this weight (one is the negative of the other)")
    shape = (-1, *[1] * (a.ndim - 1))
    first, second = ((1 - weight) / square.sqrt()).view(shape), (weight / square.sqrt()).view(shape)
    return (first * a + second * b).to(a.dtype)


def _frame_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of a and b in each frame ``[T]``, 0 where it could be chance."""
    a, b = (
        a.detach().float().flatten(1) if a.ndim > 1 else a[:, None].float(),
        b.detach().float().reshape(a.shape[0], -1),
    )
    scale = (a.square().mean(1) * b.square().mean(1)).sqrt().clamp_min(1e-12)
    correlation = (a * b).mean(1) / scale
    return torch.where(correlation.abs() > _SIGNIFICANT / a.shape[1] ** 0.5, correlation, torch.zeros_like(correlation))


def temporal_downsample(noise: Tensor, frames: int, mode: TemporalMode = "nearest", *, seed: int = 0) -> Tensor:
    """Noise for ``frames`` latent frames from the noise of T video frames.

    Args:
        noise: float ``[T, C, h, w]``.
        frames: latent frames L, 1 to T.
        mode: ``nearest`` takes frame ``round(i (T-1) / (L-1))`` (the authors' choice: keeps variance and sharp
            motion); ``blend`` is the mean of L groups of nearly equal length (variance falls below 1); ``blend_norm``
            divides that by its standard deviation; ``randn`` draws independent noise (no motion: a control).
        seed: of ``randn``.

    Returns:
        float ``[L, C, h, w]`` on the device of ``noise``.

    Raises:
        ValueError: an unknown mode, L outside 1..T, or noise of another rank.
    """
    if noise.ndim != 4:
        raise ValueError(f"noise must have shape [T, C, h, w]; got {list(noise.shape)}")
    total = noise.shape[0]
    if mode not in TEMPORAL_MODES:
        raise ValueError(f"temporal mode must be one of {', '.join(TEMPORAL_MODES)}; got {mode!r}")
    if not 1 <= frames <= total:
        raise ValueError(f"cannot make {frames} latent frames from {total} video frames; expected 1 to {total}")
    if mode == "randn":
        generator = torch.Generator().manual_seed(seed & (2**64 - 1))
        return torch.randn(frames, *noise.shape[1:], generator=generator).to(noise)
    if frames == total:
        return noise
    if mode == "nearest":
        # Whole numbers decide: floor(x + 1/2) of i (T-1) / (L-1).
        steps = [(2 * i * (total - 1) + frames - 1) // (2 * (frames - 1)) if frames > 1 else 0 for i in range(frames)]
        return noise[steps]
    edges = [round(i * total / frames) for i in range(frames + 1)]
    mean = torch.stack([noise[start:end].mean(0) for start, end in itertools.pairwise(edges)])
    if mode == "blend_norm":
        mean = mean / mean.flatten(1).std(1, correction=0).clamp_min(1e-12).view(-1, 1, 1, 1)
    return mean
