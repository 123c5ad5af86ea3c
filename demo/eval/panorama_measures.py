"""How visible the seam of a panorama is, and what is read in perspective views of it."""

from torch import Tensor

from demo.eval.reading import Reading


def seam_changes(panoramas: Tensor) -> tuple[Tensor, Tensor]:
    """How much panoramas [B, 3, H, W] change from their last column to the first, and from any column to the next.

    Returns:
        float32 [B] each: mean absolute differences over rows and colours. Their ratio is the seam error: 1 = no more
        than anywhere.
    """
    across = (panoramas[..., 0] - panoramas[..., -1]).abs().mean((1, 2))
    inside = (panoramas[..., 1:] - panoramas[..., :-1]).abs().mean((1, 2, 3))
    return across.float().cpu(), inside.float().cpu()


def cell_changes(panoramas: Tensor, unit: int = 8) -> tuple[Tensor, Tensor]:
    """The same for places where two latents' pixels meet that are not the seam: what the VAE does at all of them."""
    steps = (panoramas[..., 1:] - panoramas[..., :-1]).abs().mean((1, 2))
    return steps[:, unit - 1 :: unit].mean(1).float().cpu(), steps.mean(1).float().cpu()


def shown_right(found: Reading, asked: Tensor, name: str = "shape") -> Tensor:
    """bool [B]: whether the largest character that is read is what was asked for, int64 [B]; none is wrong."""
    size = found.radius.nan_to_num(0.0).masked_fill(~found.present, -1.0)
    largest = size.argmax(1, keepdim=True)
    there = found.present.gather(1, largest)[:, 0]
    return there & (getattr(found, name).gather(1, largest)[:, 0] == asked)


def there_right(found: Reading, asked: Tensor, name: str = "shape") -> Tensor:
    """bool [B]: whether any character that is read is what was asked for."""
    return (found.present & (getattr(found, name) == asked[:, None])).any(1)
