"""What a cut-and-drag clip is made of, in pixels: the cut-out parts, what lies behind them, where each part is when."""

from __future__ import annotations

import math

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from .affine import Affine, Box, turn_and_scale
from .drag_motion import MotionObject
from .hole_fill import fill_holes
from .polygons import Coverage, polygon_coverage


class Scene:
    """The parts of a picture and their places.

    Args:
        image: float [H, W, 3 or more], 0..1.
        objects: what moves, back to front.
        frames: length of the clip.
        fill: whether the holes are filled from their surroundings.
        device: where the pictures lie.

    Attributes:
        background: float32 [3, H, W], what lies behind everything.
        coverages: every object's mask in the picture.
        sources: for every object colour * alpha and alpha inside its outline's box, float32 [4, h + 2, w + 2], a pixel
            of zeros around.
    """

    def __init__(self, image: Tensor, objects: tuple[MotionObject, ...], frames: int, fill: bool, device: torch.device):
        self.device = device
        self.height, self.width = image.shape[:2]
        self.frames = frames
        image = image[..., :3].to(device, torch.float32).permute(2, 0, 1).contiguous()
        self._places = [self._in_pixels(moved) for moved in objects]
        self._outlines = [numpy.array(self._outline(moved)) for moved in objects]
        self.coverages = [self._coverage(moved) for moved in objects]
        self.sources = [self._cut(image, coverage) for coverage in self.coverages]
        self.background = self._background(image) if fill and objects else image

    def transform(self, number: int, index: int) -> Affine:
        """T_f of object ``number`` (from 0) at frame ``index``."""
        pivot, places = self._places[number]
        x, y, angle, scale = places[index]
        return turn_and_scale(angle, scale, pivot, (x, y))

    def step(self, number: int, index: int) -> Affine:
        """T_{f+1} T_f^-1 less the identity: the flow of an object as a map of pixels."""
        pivot, places = self._places[number]
        (x, y, angle, scale), (next_x, next_y, next_angle, next_scale) = places[index], places[index + 1]
        centre, move = (pivot[0] + x, pivot[1] + y), (next_x - x, next_y - y)
        return turn_and_scale(next_angle - angle, next_scale / scale, centre, move).displacement()

    def inside(self, number: int, index: int) -> Affine:
        """From the picture's pixels at a frame to the pixels of an object's source."""
        back, coverage = self.transform(number, index).inverse(), self.coverages[number]
        return Affine(back.a, back.b, back.c, back.d, back.x - (coverage.left - 1), back.y - (coverage.top - 1))

    def bands(self, number: int, index: int, rows: int | None = None) -> list[Box]:
        """The pixels where an object can be seen at a frame, from top to bottom.

        Args:
            number, index: which object, which frame.
            rows: height of a band; None = all in one box.

        Returns:
            Boxes one below the other, each as narrow as the outline allows; none where the object is outside.
        """
        if 0 in self.coverages[number].alpha.shape:
            return []
        transform = self.transform(number, index)
        points = self._outlines[number]
        x = transform.a * points[:, 0] + transform.b * points[:, 1] + transform.x
        y = transform.c * points[:, 0] + transform.d * points[:, 1] + transform.y
        # Two pixels of the source: half of one that is partly covered, and one more by interpolation.
        margin = 2.0 * self._places[number][1][index][3] + 1.0
        top, bottom = _clipped(y.min() - margin, y.max() + margin, self.height)
        if bottom <= top:
            return []
        edges = numpy.arange(top, bottom, rows or bottom - top)
        ends = numpy.append(edges[1:], bottom)
        low, high = _extent(x, y, edges - margin, ends - 1 + margin)
        spans = [_clipped(left - margin, right + margin, self.width) for left, right in zip(low, high, strict=True)]
        boxes = (Box(left, int(y0), right, int(y1)) for (left, right), y0, y1 in zip(spans, edges, ends, strict=True))
        return [box for box in boxes if not box.empty]

    def _in_pixels(self, moved: MotionObject) -> tuple[tuple[float, float], list[list[float]]]:
        """The pivot, and x, y (pixels), angle (degrees), scale at every frame."""
        pivot = (moved.pivot[0] * self.width - 0.5, moved.pivot[1] * self.height - 0.5)
        places = moved.places(self.frames) * torch.tensor([self.width, self.height, 1.0, 1.0], dtype=torch.float64)
        return pivot, places.tolist()

    def _outline(self, moved: MotionObject) -> list[tuple[float, float]]:
        return [(x * self.width - 0.5, y * self.height - 0.5) for x, y in moved.polygon]

    def _coverage(self, moved: MotionObject) -> Coverage:
        points = torch.tensor(self._outline(moved), dtype=torch.float64)
        return polygon_coverage(points, self.height, self.width)

    def _cut(self, image: Tensor, coverage: Coverage) -> Tensor:
        rows, columns = coverage.alpha.shape
        part = image[:, coverage.top : coverage.top + rows, coverage.left : coverage.left + columns]
        alpha = coverage.alpha.to(self.device)[None]
        return F.pad(torch.cat([part * alpha, alpha]), (1, 1, 1, 1)).contiguous()

    def _background(self, image: Tensor) -> Tensor:
        known = torch.ones(self.height, self.width, device=self.device)
        for coverage in self.coverages:
            rows, columns = coverage.alpha.shape
            window = known[coverage.top : coverage.top + rows, coverage.left : coverage.left + columns]
            window.masked_fill_(coverage.alpha.to(self.device) > 0, 0.0)
        return fill_holes(image, known)


def _extent(x: numpy.ndarray, y: numpy.ndarray, tops: numpy.ndarray, bottoms: numpy.ndarray) -> tuple[list, list]:
    """The lowest and the highest x of a closed outline inside every band of heights; inf and -inf where it is not."""
    next_x, next_y = numpy.roll(x, -1), numpy.roll(y, -1)
    upper, lower = numpy.minimum(y, next_y), numpy.maximum(y, next_y)
    tops, bottoms = tops[:, None], bottoms[:, None]
    there = (lower >= tops) & (upper <= bottoms)
    rise = numpy.where(next_y == y, 1.0, next_y - y)
    first, second = ((numpy.clip(edge, upper, lower) - y) / rise for edge in (tops, bottoms))
    level = next_y == y  # such an edge has both its ends in the band
    ends = [x + (next_x - x) * numpy.where(level, end, part) for end, part in ((0.0, first), (1.0, second))]
    low = numpy.where(there, numpy.minimum(*ends), math.inf).min(axis=1)
    high = numpy.where(there, numpy.maximum(*ends), -math.inf).max(axis=1)
    return low.tolist(), high.tolist()


def _clipped(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels from ``low`` to ``high`` inside 0..size: the first, and the one after the last."""
    if high < low:
        return 0, 0
    return min(max(math.floor(low), 0), size), max(min(math.ceil(high) + 1, size), 0)
