"""Pictures of a training: the losses over the steps, and grids of what came out."""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor


def draw_losses(losses: Sequence[tuple[int, float]], path: Path, size: tuple[int, int] = (640, 320)) -> None:
    """A picture of the losses over the steps, the loss on a logarithmic axis."""
    image = Image.new("RGB", size, "white")
    if len(losses) >= 2:
        draw = ImageDraw.Draw(image)
        steps = torch.tensor([step for step, _ in losses], dtype=torch.float64)
        height = torch.tensor([max(loss, 1e-9) for _, loss in losses], dtype=torch.float64).log10()
        low, high = float(height.min()), float(height.max())
        x = 50 + (steps - steps[0]) / (steps[-1] - steps[0]) * (size[0] - 70)
        y = size[1] - 30 - (height - low) / max(high - low, 1e-6) * (size[1] - 50)
        draw.line([(50, 20), (50, size[1] - 30), (size[0] - 20, size[1] - 30)], fill="black")
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=(40, 90, 200), width=2)
        draw.text((4, 14), f"{10**high:.3g}", fill="black")
        draw.text((4, size[1] - 36), f"{10**low:.3g}", fill="black")
        draw.text((50, size[1] - 24), f"step {int(steps[0])}", fill="black")
        draw.text((size[0] - 100, size[1] - 24), f"step {int(steps[-1])}", fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def save_grid(rows: Sequence[Tensor], path: Path) -> None:
    """Writes a PNG: one row per tensor [N, 3, H, W] with values 0..1, all of one size."""
    lines = [torch.cat([*picture.detach().float().cpu().clamp(0, 1)], dim=2) for picture in rows]
    values = (torch.cat(lines, dim=1) * 255).round().byte().permute(1, 2, 0).contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.numpy()).save(path, optimize=True)
