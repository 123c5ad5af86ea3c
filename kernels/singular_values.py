"""Reweighting the singular values of a few rows of a text embedding.

Liu et al., "One-Prompt-One-Story: Free-Lunch Consistent Text-to-Image Generation Using a Single Prompt", ICLR 2025,
arXiv 2501.13554, singular value reweighting. The rows X [n, d] of a frame's words (and of the end of the text) have
the singular value decomposition X = U diag(s) V^T; their singular values become ``beta s exp(-alpha s)``. A negative
alpha makes the large ones larger (the frame is expressed), a small beta makes all of them smaller (it is suppressed).

No decomposition of X itself is needed: with X X^T = U diag(s^2) U^T the new rows are
``U diag(beta exp(-alpha s)) U^T X``, and n is at most a chunk of text, 77.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["svr", "svr-eot"]
MODES: tuple[Mode, ...] = ("svr", "svr-eot")

END_FACTOR = 0.9
"""What mode "svr-eot" multiplies the end rows by, once for every text that is processed."""


@dataclass(frozen=True)
class Curve:
    """``s -> beta s exp(-alpha s)``, of one kind of text."""

    alpha: float
    beta: float


EXPRESS = Curve(alpha=-0.01, beta=1.0)
"""The paper's curve for the text a frame shows."""

SUPPRESS = Curve(alpha=0.01, beta=0.05)
"""The paper's curve for the texts of the other frames."""


def reweight_rows(states: Tensor, rows: Tensor, curve: Curve) -> Tensor:
    """Gives the chosen rows of each item the singular values ``beta s exp(-alpha s)``.

    Computed in float64: where the device has none (MPS), on the CPU.

    Args:
        states: ``[..., n, d]``, any floating dtype; finite.
        rows: bool ``[..., n]``, which rows make up X; broadcast over the items of ``states``. An item without any
            comes back as it was.
        curve: of alpha any finite number, of beta at least 0.

    Returns:
        The shape, dtype and device of ``states``; rows that are not chosen are the same numbers.

    Raises:
        ValueError: shapes that do not fit, another dtype, numbers that are not finite, a negative beta, or an
            alpha so negative that the result overflows.
    """
    _check(states, rows)
    _check_curve(curve)
    rows = rows.to(states.device).expand(states.shape[:-1])
    wide = states.cpu() if states.device.type == "mps" else states
    # Rows that are left out are 0 and so have no part in the other rows' decomposition.
    x = wide.double() * rows.to(wide.device)[..., None]
    squares, u = torch.linalg.eigh(x @ x.mT)
    # Rounding may leave a square of 0 slightly negative.
    factors = curve.beta * torch.exp(-curve.alpha * squares.clamp_min(0).sqrt())
    changed = (u * factors[..., None, :]) @ (u.mT @ x)
    if not bool(changed.isfinite().all()):
        raise ValueError(
            f"alpha {curve.alpha:g} is too far from 0 for an embedding whose largest singular value is "
            f"{float(squares.amax().sqrt()):.4g}: exp(-alpha s) overflows"
        )
    return torch.where(rows[..., None], changed.to(states), states)


def reweight_story(
    states: Tensor,
    suppressed: Sequence[Tensor],
    expressed: Tensor | None,
    ends: Tensor,
    *,
    mode: Mode = "svr",
    suppress: Curve = SUPPRESS,
    express: Curve = EXPRESS,
) -> Tensor:
    """Suppresses some texts of a prompt, one after the other, and then expresses one.

    Args:
        states: one text encoder's rows of each frame, ``[..., n, d]``.
        suppressed: in order, the word rows of each suppressed text, bool ``[..., n]``. An item where one has no rows
            leaves out that step: this is how frames with fewer texts join a batch.
        expressed: the word rows of the text to express, bool ``[..., n]``, or None for none.
        ends: the rows of the end token and of the padding after it, bool ``[..., n]``.
        mode: "svr": the end rows join the words in every decomposition, so they are suppressed every time and
            expressed once. "svr-eot": only words are decomposed, and every text multiplies the end rows by 0.9.
        suppress: curve of the suppressed texts.
        express: curve of the expressed one.

    Returns:
        The shape, dtype and device of ``states``; after every step rounded to its dtype.

    Raises:
        ValueError: an unknown mode, and what ``reweight_rows`` raises.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; got {mode!r}")
    steps = [(words, suppress) for words in suppressed]
    if expressed is not None:
        steps.append((expressed, express))
    for words, curve in steps:
        _check(states, words, "words")
        _check(states, ends, "ends")
        words = words.to(states.device)
        there = words.any(-1, keepdim=True)
        touched_ends = ends.to(states.device) & there
        if mode == "svr":
            states = reweight_rows(states, words | touched_ends, curve)
        else:
            states = torch.where(touched_ends[..., None], states * END_FACTOR, states)
            states = reweight_rows(states, words, curve)
    return states


def _check(states: Tensor, rows: Tensor, name: str = "rows") -> None:
    """Raises ValueError unless the rows name rows of the states."""
    if states.ndim < 2 or not states.is_floating_point():
        raise ValueError(f"states must be floating point [..., n, d]; got {states.dtype} {list(states.shape)}")
    if rows.dtype != torch.bool:
        raise ValueError(f"{name} must be bool; got {rows.dtype}")
    items = states.shape[:-1]
    fits = 1 <= rows.ndim <= len(items) and all(
        one in (1, other) for one, other in zip(rows.shape[::-1], items[::-1], strict=False)
    )
    if not fits or rows.shape[-1] != items[-1]:
        raise ValueError(f"{name} must be [..., {items[-1]}] for states {list(states.shape)}; got {list(rows.shape)}")


def _check_curve(curve: Curve) -> None:
    """Raises ValueError unless a curve's numbers are in range."""
    alpha, beta = torch.tensor([curve.alpha, curve.beta], dtype=torch.float64)
    if not bool(alpha.isfinite() & beta.isfinite()) or beta < 0:
        raise ValueError(f"alpha must be finite and beta at least 0; got alpha {curve.alpha} and beta {curve.beta}")
