"""How IC-Light writes pixels for the VAE, and what it puts round a foreground."""

from __future__ import annotations

from torch import Tensor

from .masks import check_mask

GREY = 127 / 255
"""What lies round a foreground; IC-Light's files were trained with it, and anything else lights the picture."""

CODINGS = ("official", "comfy")
"""official: x / 127 - 1 of 8-bit values, so that GREY is exactly 0 (and white 1.0079). comfy: x / 127.5 - 1."""


def on_grey(pictures: Tensor, mask: Tensor | None, grey: float = GREY) -> Tensor:
    """Foregrounds on grey: grey + (picture - grey) * mask.

    Args:
        pictures: float32 [B, H, W, 3], 0..1.
        mask: float32 [B or 1, H, W], 1 where the foreground is; None: it is everywhere.
        grey: 0..1.

    Raises:
        ValueError: sizes that do not fit.
    """
    if mask is None:
        return pictures
    check_mask(mask, pictures)
    return grey + (pictures - grey) * mask[..., None].clamp(0, 1)


def coded(pictures: Tensor, coding: str) -> Tensor:
    """Pictures such that ``2 x - 1``, which the host's VAE computes, is what ``coding`` says.

    Raises:
        ValueError: another coding.
    """
    if coding not in CODINGS:
        raise ValueError(f"coding is {coding!r}; expected one of {', '.join(CODINGS)}.")
    return pictures * (255 / 254) if coding == "official" else pictures
