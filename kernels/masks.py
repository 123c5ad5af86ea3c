"""What the functions that take pictures and a mask ask of the mask."""

from __future__ import annotations

from torch import Tensor


def check_mask(mask: Tensor | None, pictures: Tensor) -> None:
    """Raises ValueError unless a mask is [B or 1, H, W] for pictures [B, H, W, C], or None."""
    size = list(pictures.shape[:3])
    if mask is not None and (mask.ndim != 3 or list(mask.shape[1:]) != size[1:] or mask.shape[0] not in (1, size[0])):
        raise ValueError(f"mask has shape {list(mask.shape)}; expected {size}.")
