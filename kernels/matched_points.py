"""Pairs of points that belong together in two pictures: the JSON of the Match Points editor, and MangaNinja's maps.

Version 1, coordinates in fractions of each picture (x of its width, y of its height, (0, 0) = its top left corner)::

    {"version": 1, "points": [{"reference": [0.31, 0.4], "target": [0.62, 0.38]}, ...]}

Pairs are numbered from 1 in their order. The pictures may differ in size and in shape.

MangaNinja (Liu et al.: MangaNinja: Line Art Colorization with Precise Reference Following, CVPR 2025, its section on
point-driven control) reads pairs as two maps, all 0 but for the number of a pair at its pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .editor_json import article, read_list, read_number, read_text, short
from .flow import Flow, invert_flow
from .sampling import remap

VERSION = 1
MOST_PAIRS = 100
"""Pairs to a frame. The maps hold numbers as they are, and MangaNinja was trained on few: its demonstration has 14."""

SIDES = ("reference", "target")
_HIDDEN = 0.5
_EMPTY = torch.zeros(0, 2)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one frame, number k + 1 in row k.

    Args:
        reference: float32 [N, 2], x then y, 0..1 of the reference picture; 0.5 / W is the centre of its first pixel.
        target: float32 [N, 2], likewise in the target picture.
        confidence: float32 [N], 0..1: how sure whoever found them was; None = not known.

    Raises:
        ValueError: another shape or dtype, numbers beyond 0..1, or more than ``MOST_PAIRS``.
    """

    reference: Tensor
    target: Tensor
    confidence: Tensor | None = None

    def __post_init__(self) -> None:
        count = len(self.reference) if isinstance(self.reference, Tensor) and self.reference.ndim else 0
        expected = {"reference": (count, 2), "target": (count, 2), "confidence": (count,)}
        for name, shape in expected.items():
            values = getattr(self, name)
            if values is None and name == "confidence":
                continue
            if not isinstance(values, Tensor) or tuple(values.shape) != shape or values.dtype != torch.float32:
                came = f"{values.dtype} {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
                raise ValueError(f"pairs: {name} is {came}; expected torch.float32 {list(shape)}.")
            if not bool(((values >= 0) & (values <= 1)).all()):  # NaN is neither
                raise ValueError(f"pairs: {name} holds numbers that are not from 0 to 1.")
        if count > MOST_PAIRS:
            raise ValueError(f"pairs: there are {count} pairs of points; at most {MOST_PAIRS} can be used.")

    def __len__(self) -> int:
        return len(self.reference)

    def only(self, kept: Tensor) -> Pairs:
        """Those of a mask, bool [N], or of row numbers, int64 [M]; in that order they are numbered anew."""
        confidence = None if self.confidence is None else self.confidence[kept]
        return Pairs(self.reference[kept], self.target[kept], confidence)


@dataclass(frozen=True, eq=False)
class MatchedPoints:
    """The value on a PN_POINTS socket.

    Args:
        frames: one ``Pairs`` that serves all frames of the target, or one for each frame; at least one. Their N may
            differ, and may be 0.

    Raises:
        ValueError: something else.
    """

    frames: tuple[Pairs, ...]

    def __post_init__(self) -> None:
        good = isinstance(self.frames, tuple) and all(isinstance(pairs, Pairs) for pairs in self.frames)
        if not good or not self.frames:
            raise ValueError("matched points: expected a tuple of at least one Pairs.")

    @property
    def count(self) -> int:
        """The most pairs that any frame has."""
        return max(len(pairs) for pairs in self.frames)


def parse_points(text: str, name: str = "points") -> MatchedPoints:
    """Read the editor's JSON.

    Args:
        text: version 1 of the JSON at the top of this module; empty = no pairs. Fields it does not know are ignored.
        name: how the messages call it, usually the input's name.

    Returns:
        One ``Pairs`` for all frames, without confidence, on the CPU.

    Raises:
        ValueError: names the pair and the picture, what came and what was expected. A pair of which one point is
            missing is an error, too: it may be the one that mattered.
    """
    example = f'{{"version": {VERSION}, "points": [...]}}'
    content = read_text(text, name, "Match Points", "points", VERSION, example)
    if content is None:
        return MatchedPoints((Pairs(_EMPTY, _EMPTY),))
    entries = read_list(content, "points", name)
    if len(entries) > MOST_PAIRS:
        raise ValueError(f"{name}: there are {len(entries)} pairs of points; at most {MOST_PAIRS} can be used.")
    read = [_pair(entry, f"{name}: pair {number}") for number, entry in enumerate(entries, start=1)]
    places = torch.tensor(read, dtype=torch.float32).view(-1, 2, 2)
    return MatchedPoints((Pairs(places[:, 0].contiguous(), places[:, 1].contiguous()),))


def point_map(pairs: Pairs, side: str, height: int, width: int) -> Tensor:
    """Draw MangaNinja's map of one picture: the number of a pair at its pixel, nothing else.

    No blur and no scale: numbers as they are, row = floor(y * height), column = floor(x * width), in the picture. Where
    several fall on one pixel the last of them is seen.

    Args:
        pairs: of one frame.
        side: "reference" or "target".
        height, width: of the map in pixels, at least 1.

    Returns:
        float32 [1, 1, height, width], 0..N, on the pairs' device.

    Raises:
        ValueError: an unknown side, or a size below 1.
    """
    if side not in SIDES:
        raise ValueError(f"side: got {side!r}; expected one of {', '.join(SIDES)}.")
    if min(height, width) < 1:
        raise ValueError(f"point map: got {width}x{height} pixels; expected at least 1 of each.")
    places = getattr(pairs, side)
    drawn = torch.zeros(1, 1, height, width)
    size = torch.tensor([width, height], dtype=torch.float32)
    pixels = (places.cpu() * size).floor().long().minimum(size.long() - 1)
    for number, (column, row) in enumerate(pixels.tolist(), start=1):  # in order: the last one at a pixel stays
        drawn[0, 0, row, column] = number
    return drawn.to(places.device)


def point_maps(points: MatchedPoints, side: str, height: int, width: int) -> Tensor:
    """float32 [F, 1, height, width]: ``point_map`` of every one of the points' F frames (1 where one serves all)."""
    return torch.cat([point_map(pairs, side, height, width) for pairs in points.frames])


def carried_along(points: MatchedPoints, flow: Flow) -> MatchedPoints:
    """Let the target's points of the first frame go with the motion of a clip.

    From frame to frame a point p goes to p + F(p), F read bilinearly. A point that leaves the picture is dropped from
    there on, and so is one that is hidden: where the flow has an occlusion mask, one at which it is above 0.5 (of a
    forward flow where the point comes from, of a backward flow where it arrives). The others move up: a pair's number
    is its place among its frame's pairs, the same in reference and target.

    Args:
        points: of their frames only the first is read.
        flow: of T frames, in either direction (a backward one is inverted first), of any size.

    Returns:
        T Pairs on the CPU; reference points and confidence are those of the first frame.
    """
    height, width = flow.size
    size = torch.tensor([width, height], dtype=torch.float32)
    pairs = points.frames[0]
    pairs = Pairs(*(None if part is None else part.cpu() for part in (pairs.reference, pairs.target, pairs.confidence)))
    forward = flow.direction == "forward"
    vectors = (flow.vectors if forward else invert_flow(flow.vectors)).cpu()
    frames = [pairs]
    for step in range(flow.frames - 1):
        before = pairs.target * size - 0.5
        after = before + _read(vectors[step], before)
        place = (after + 0.5) / size
        kept = ((place >= 0) & (place <= 1)).all(dim=1)
        if flow.occlusion is not None:
            hidden = _read(flow.occlusion[step, None].cpu(), before if forward else after)[:, 0]
            kept &= hidden <= _HIDDEN
        pairs = Pairs(pairs.reference, place.clamp(0, 1), pairs.confidence).only(kept)
        frames.append(pairs)
    return MatchedPoints(tuple(frames))


def _read(values: Tensor, places: Tensor) -> Tensor:
    """float32 [N, C]: values [C, H, W] at pixel positions [N, 2]; beyond the border as at it."""
    if not len(places):
        return values.new_zeros(0, values.shape[0])
    return remap(values[None], places.T[None, :, None], border="border")[0, :, 0].T


def _pair(entry: object, where: str) -> list[tuple[float, float]]:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {article(entry)}; expected an object with reference and target.")
    missing = [side for side in SIDES if entry.get(side) is None]
    if len(missing) == len(SIDES):
        raise ValueError(f"{where} has no points; expected one in the reference and one in the target.")
    if missing:
        there = SIDES[1 - SIDES.index(missing[0])]
        raise ValueError(
            f"{where} has a point in the {there} and none in the {missing[0]}. Put it there in the editor, or delete "
            "the pair."
        )
    return [_point(entry[side], f"{where}: its point in the {side}") for side in SIDES]


def _point(point: object, where: str) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        came = f"a list of {len(point)}" if isinstance(point, list) else short(point)
        raise ValueError(f"{where} is {came}; expected [x, y].")
    x, y = (read_number(value, f"{where}: {axis}", 0.0, 1.0) for axis, value in zip("xy", point, strict=True))
    return x, y
