"""Filled polygons as coverage masks: which share of each pixel lies inside, by the non-zero winding rule.

Positions are in pixels, (0, 0) the centre of the top left pixel. Every pixel is asked at 4 x 4 points. An edge crosses
the rows of points from its upper end (included) to its lower end (not included); a point is right of an edge if its
column is at or beyond the crossing. So two polygons that share an edge share no point and leave none out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SAMPLES = 4
"""Points along each side of a pixel: coverage comes in steps of 1/16."""

_POINTS_AT_ONCE = 1 << 23  # bounds the temporary memory of large polygons


@dataclass(frozen=True, eq=False)
class Coverage:
    """A polygon's mask inside its bounding box.

    Args:
        alpha: float32 [h, w] in 0..1, steps of 1/16; h or w is 0 where nothing of the polygon is in the picture.
        left, top: whole pixels, where the mask's first pixel lies in the picture.
    """

    alpha: Tensor
    left: int
    top: int

    def full(self, height: int, width: int) -> Tensor:
        """float32 [height, width]: the mask in the whole picture."""
        rows, columns = self.alpha.shape
        mask = torch.zeros(height, width, device=self.alpha.device)
        mask[self.top : self.top + rows, self.left : self.left + columns] = self.alpha
        return mask


def polygon_coverage(points: Tensor, height: int, width: int) -> Coverage:
    """Share of every pixel that lies inside a closed polygon.

    Args:
        points: [N, 2], x and y in pixels, N >= 3; may lie outside the picture. Self-crossing outlines are filled by the
            non-zero winding rule: inside is what the outline goes round, however often and in either sense, but not
            where turns in both senses cancel out.
        height, width: of the picture, pixels.

    Returns:
        The coverage, computed in float64 on the CPU whatever the points' device.

    Raises:
        ValueError: fewer than 3 points, another shape, or NaN / infinite numbers.
    """
    if points.ndim != 2 or points.shape[0] < 3 or points.shape[1] != 2:
        raise ValueError(f"points: got {list(points.shape)}; expected [3 or more, 2] (x and y in pixels).")
    points = points.to("cpu", torch.float64)
    if not bool(points.isfinite().all()):
        raise ValueError("points: they hold NaN or infinite numbers; expected positions in pixels.")
    low = (points.amin(dim=0) + 0.5).floor()
    high = (points.amax(dim=0) + 0.5).ceil()
    size = torch.tensor([width, height], dtype=torch.float64)
    left, top = (int(edge) for edge in torch.minimum(low.clamp(min=0), size))
    right, bottom = (int(edge) for edge in torch.minimum(high.clamp(min=0), size))
    columns, rows = max(right - left, 0), max(bottom - top, 0)
    alpha = torch.zeros(rows, columns)
    if columns and rows:
        edges = _edges(points)
        band = max(1, _POINTS_AT_ONCE // (SAMPLES * SAMPLES * columns))
        for start in range(0, rows, band):
            count = min(band, rows - start)
            alpha[start : start + count] = _band(edges, left, top + start, columns, count)
    return Coverage(alpha, left, top)


def _edges(points: Tensor) -> Tensor:
    """float64 [M, 5]: x and y of the upper end, y of the lower end, columns per row, and the sense; no level edges."""
    start, end = points, points.roll(-1, dims=0)
    down = start[:, 1] <= end[:, 1]
    upper = torch.where(down[:, None], start, end)
    lower = torch.where(down[:, None], end, start)
    height = lower[:, 1] - upper[:, 1]
    steep = height > 0
    slope = (lower[:, 0] - upper[:, 0]) / torch.where(steep, height, 1.0)
    sense = torch.where(down, 1.0, -1.0).to(torch.float64)
    return torch.stack([upper[:, 0], upper[:, 1], lower[:, 1], slope, sense], dim=1)[steep]


def _band(edges: Tensor, left: int, top: int, columns: int, rows: int) -> Tensor:
    """float32 [rows, columns]: coverage of the pixels from (left, top) on."""
    across, down = columns * SAMPLES, rows * SAMPLES
    x, y, end, slope, sense = edges.unbind(dim=1)
    # Row k of points lies at (k + 0.5) / 4 - 0.5; the first at or below y is ceil((y + 0.5) * 4 - 0.5).
    first = (((y + 0.5) * SAMPLES - 0.5).ceil() - top * SAMPLES).clamp(0, down).to(torch.int64)
    beyond = (((end + 0.5) * SAMPLES - 0.5).ceil() - top * SAMPLES).clamp(0, down).to(torch.int64)
    counts = beyond - first
    edge = torch.arange(len(edges)).repeat_interleave(counts)
    row = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts)[edge] + first[edge]
    height = (row.to(torch.float64) + (top * SAMPLES + 0.5)) / SAMPLES - 0.5
    crossing = x[edge] + (height - y[edge]) * slope[edge]
    column = ((crossing + 0.5) * SAMPLES - 0.5).ceil() - left * SAMPLES
    place = row * (across + 1) + column.clamp(0, across).to(torch.int64)
    # Whole numbers are added, so the order does not matter.
    turns = torch.zeros(down * (across + 1), dtype=torch.int32)
    turns.index_add_(0, place, sense[edge].to(torch.int32))
    turns = turns.view(down, across + 1)[:, :-1].cumsum(dim=1, dtype=torch.int32)
    inside = (turns != 0).view(rows, SAMPLES, columns, SAMPLES)
    return inside.sum(dim=(1, 3), dtype=torch.int32).to(torch.float32) / (SAMPLES * SAMPLES)
