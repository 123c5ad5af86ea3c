"""The ellipse of a mask: by its moments, then moved until it covers the mask as well as it can; many masks at once.

BlobGEN (Nie et al., ICML 2024) fits ellipses to segmentation masks by their intersection over union. Here
the start is closed form: a filled ellipse has half axes twice the roots of its covariance's eigenvalues. What follows
is a pattern search (Hooke and Jeeves, 1961), the same for the same masks: of a fixed set of small changes the best is
taken while it is better, else the changes are halved. Ellipses are those of ``kernels/ellipses.py``.

Only what is in the picture is compared. A thing cut off by the border gets the ellipse of all of it, which reaches
beyond the picture, as far as what is seen tells: of a drawn ellipse half is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

INSIDE = 0.5
"""A pixel belongs to a mask where it is more than this."""

SMALLEST = math.pi**-0.5
"""Half axis in pixels of a circle as large as a pixel: what a single one, or a line of them, is drawn with."""

LARGEST = 10.0
"""Half axis in heights of the picture, as in the layout's JSON."""

LEVELS = ((40, 0.2, 30, False), (96, 0.02, 16, False), (128, 0.005, 5, True))
"""The search's passes: cells across the mask's surroundings, first step, rounds, and whether a cell is in or out."""

SHORTEST_STEP = 5e-4
"""Of half axes; shorter ones are not tried."""

MARGIN = 0.3
"""How far around a mask is looked, in its longer sides."""

AT_ONCE = 8
TINY = 1e-9


@dataclass(frozen=True)
class FittedEllipses:
    """What ``fit_ellipses`` found."""

    ellipses: Tensor
    """float32 [..., 5]: x / W, y / H, half axes a >= b in units of H, the angle of a in radians in (-pi/2, pi/2],
    clockwise on the screen. Of an empty mask a middle of 0.5 and half axes of 0.2, as a blob is drawn at first."""

    present: Tensor
    """bool [...]: whether the mask has a pixel."""

    iou: Tensor
    """float32 [...]: intersection over union of the mask and the ellipse's pixels, 0..1; 0 of an empty mask."""


def fit_ellipses(masks: Tensor, refine: bool = True) -> FittedEllipses:
    """The ellipse of each mask.

    Args:
        masks: floating or bool [..., H, W], 0..1; a pixel belongs to it where it is more than 0.5.
        refine: move the ellipse of the moments until it overlaps most; it never overlaps less than before.

    Returns:
        FittedEllipses, on the device of ``masks``.

    Raises:
        ValueError: not [..., H, W], without pixels, or NaN or infinite values.
    """
    if masks.ndim < 2 or 0 in masks.shape[-2:]:
        raise ValueError(f"masks: got shape {list(masks.shape)}; expected [..., height, width] with pixels.")
    if masks.is_floating_point() and not bool(masks.isfinite().all()):
        raise ValueError("masks: holds NaN or infinite numbers.")
    height, width = masks.shape[-2:]
    flat = masks.reshape(-1, height, width)
    found = torch.tensor([0.5 * width, 0.5 * height, 0.2 * height, 0.2 * height, 0.0], device=masks.device)
    found = found.repeat(len(flat), 1)
    present = torch.zeros(len(flat), dtype=torch.bool, device=masks.device)
    iou = torch.zeros(len(flat), device=masks.device)
    for start in range(0, len(flat), AT_ONCE):
        some = flat[start : start + AT_ONCE] > INSIDE
        there = some.flatten(1).any(1)
        present[start : start + AT_ONCE] = there
        if not bool(there.any()):
            continue
        some, rows = some[there], start + there.nonzero()[:, 0]
        ellipses = _moments(some)
        overlap = _overlap(some, ellipses)
        if refine:
            ellipses, overlap = _refined(some, ellipses, overlap)
        found[rows], iou[rows] = ellipses, overlap
    scale = torch.tensor([width, height, height, height, 1.0], device=masks.device)
    ellipses = _in_order(found) / scale
    lead = masks.shape[:-2]
    return FittedEllipses(ellipses.view(*lead, 5), present.view(lead), iou.view(lead))


def steadied(ellipses: Tensor) -> Tensor:
    """Ellipses [T, ..., 5] over time with their axes named so that angles turn little: never more than an eighth turn.

    (a, b, angle) and (b, a, angle + a quarter turn) are the same ellipse; of a nearly round one the longer axis jumps.
    """
    found = [ellipses[0]] if len(ellipses) else []
    for now in ellipses[1:]:
        x, y, a, b, angle = now.unbind(-1)
        quarters = ((found[-1][..., 4] - angle) / (math.pi / 2)).round()
        swapped = quarters % 2 == 1
        turned = angle + quarters * (math.pi / 2)
        found.append(torch.stack((x, y, torch.where(swapped, b, a), torch.where(swapped, a, b), turned), -1))
    return torch.stack(found) if found else ellipses


def _in_order(ellipses: Tensor) -> Tensor:
    """The same ellipses [N, 5] with a >= b and angles in (-pi/2, pi/2]."""
    x, y, a, b, angle = ellipses.unbind(-1)
    angle = torch.where(b > a, angle + math.pi / 2, angle)
    angle = angle - math.pi * ((angle - math.pi / 2) / math.pi).ceil()
    return torch.stack((x, y, torch.maximum(a, b), torch.minimum(a, b), angle), -1)


def _moments(masks: Tensor) -> Tensor:
    """float32 [N, 5] in pixels of bool masks [N, H, W], none of them empty."""
    height, width = masks.shape[-2:]
    weights = masks.float()
    x = torch.arange(width, device=masks.device) + 0.5
    y = torch.arange(height, device=masks.device) + 0.5
    across, down = weights.sum(-2), weights.sum(-1)
    area = across.sum(-1)
    mean_x, mean_y = (across * x).sum(-1) / area, (down * y).sum(-1) / area
    dx, dy = x - mean_x[:, None], y - mean_y[:, None]
    xx, yy = (across * dx * dx).sum(-1) / area, (down * dy * dy).sum(-1) / area
    xy = (torch.bmm(dy[:, None], weights)[:, 0] * dx).sum(-1) / area
    middle, spread = (xx + yy) / 2, torch.hypot((xx - yy) / 2, xy)
    a = 2 * (middle + spread).sqrt()
    b = 2 * (middle - spread).clamp_min(0).sqrt()
    angle = torch.atan2(2 * xy, xx - yy) / 2
    most = LARGEST * height
    return torch.stack((mean_x, mean_y, a.clamp(SMALLEST, most), b.clamp(SMALLEST, most), angle), -1)


def _q(ellipses: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """q, 1 on the ellipse, and half its slope there, of points; arguments broadcast, ``ellipses``' last axis is 5."""
    middle_x, middle_y, a, b, angle = ellipses.unbind(-1)
    dx, dy = x - middle_x, y - middle_y
    cos, sin = angle.cos(), angle.sin()
    u, v = (dx * cos + dy * sin) / a, (dy * cos - dx * sin) / b
    slope = ((u / a).square() + (v / b).square()).clamp_min_(TINY).sqrt_()
    return u.square_() + v.square_(), slope


def _half_sides(ellipses: Tensor) -> tuple[Tensor, Tensor]:
    """Half width and half height of the upright boxes of ellipses [..., 5]."""
    _, _, a, b, angle = ellipses.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.hypot(a * cos, b * sin), torch.hypot(a * sin, b * cos)


def _bounds(masks: Tensor) -> Tensor:
    """int64 [N, 4]: left, top, right, bottom of bool masks [N, H, W], none empty; the last two are excluded."""
    across, down = masks.any(-2).byte(), masks.any(-1).byte()
    width, height = across.shape[-1], down.shape[-1]
    return torch.stack(
        (
            across.argmax(-1),
            down.argmax(-1),
            width - across.flip(-1).argmax(-1),
            height - down.flip(-1).argmax(-1),
        ),
        -1,
    )


def _overlap(masks: Tensor, ellipses: Tensor) -> Tensor:
    """Intersection over union, float32 [N], of bool masks [N, H, W] and the pixels inside ellipses [N, 5]."""
    height, width = masks.shape[-2:]
    wide, high = _half_sides(ellipses)
    x, y = ellipses[:, 0], ellipses[:, 1]
    reach = torch.stack((x - wide, y - high, x + wide, y + high), -1)
    most = reach.new_tensor([width, height, width, height])
    reach = reach.round().clamp_min(0).minimum(most).long()
    bounds = _bounds(masks)
    boxes = torch.cat((torch.minimum(bounds[:, :2], reach[:, :2]), torch.maximum(bounds[:, 2:], reach[:, 2:])), 1)
    found = []
    for mask, ellipse, (left, top, right, bottom) in zip(masks, ellipses, boxes.tolist(), strict=True):
        columns = torch.arange(left, right, device=masks.device) + 0.5
        rows = torch.arange(top, bottom, device=masks.device)[:, None] + 0.5
        drawn, seen = _q(ellipse, columns, rows)[0] <= 1, mask[top:bottom, left:right]
        found.append((drawn & seen).sum() / (drawn | seen).sum().clamp_min(1))
    return torch.stack(found).float()


def _cells(masks: Tensor, bounds: list[list[int]], cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The masks' surroundings, averaged to at most ``cells`` a side.

    Returns:
        covered, known: float32 [N, cells, cells], the share of each cell that is in the mask and in the picture; x, y:
        [N, cells], the cells' middles in pixels; size: [N], the cells' sides in pixels.
    """
    height, width = masks.shape[-2:]
    covered = torch.zeros(len(masks), cells, cells, device=masks.device)
    known = torch.zeros_like(covered)
    x, y, sizes = [], [], []
    for number, (left, top, right, bottom) in enumerate(bounds):
        margin = math.ceil(MARGIN * max(right - left, bottom - top)) + 2
        left, top = max(left - margin, 0), max(top - margin, 0)
        right, bottom = min(right + margin, width), min(bottom + margin, height)
        size = math.ceil(max(right - left, bottom - top) / cells)
        piece = masks[number, top:bottom, left:right].float()
        both = torch.stack((piece, torch.ones_like(piece)))
        both = torch.nn.functional.pad(both, (0, -(right - left) % size, 0, -(bottom - top) % size))
        if size > 1:
            both = torch.nn.functional.avg_pool2d(both[None], size)[0]
        rows, columns = both.shape[-2:]
        covered[number, :rows, :columns], known[number, :rows, :columns] = both
        steps = (torch.arange(cells, device=masks.device) + 0.5) * size
        x.append(left + steps)
        y.append(top + steps)
        sizes.append(float(size))
    return covered, known, torch.stack(x), torch.stack(y), torch.tensor(sizes, device=masks.device)


def _scores(candidates: Tensor, cells: tuple[Tensor, ...], hard: bool) -> Tensor:
    """Intersection over union by cells, float32 [N, C], of candidates [N, C, 5]."""
    covered, known, x, y, size = cells
    q, slope = _q(candidates[:, :, None, None], x[:, None, None, :], y[:, None, :, None])
    # Soft: a cell's share by the distance of its middle from the edge.
    soft = ((1 - q) / (2 * slope * size[:, None, None, None]) + 0.5).clamp_(0, 1)
    drawn = ((q <= 1) if hard else soft) * known[:, None]
    common = torch.minimum(drawn, covered[:, None]).sum((-2, -1))
    either = drawn.sum((-2, -1)) + covered.sum((-2, -1))[:, None] - common
    return common / either.clamp_min(TINY)


def _changes(ellipses: Tensor, step: Tensor, height: int) -> Tensor:
    """Ellipses [N, C, 5] that differ a little from [N, 5]: shifted, stretched, pulled at an end, turned.

    Args:
        step: float [N], in half axes.
        height: of the picture, which the half axes' limit goes by.
    """
    x, y, a, b, angle = ellipses.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    flat = (step * b.minimum(a) / a.maximum(b)).clamp_min(1e-4)
    found = []

    def add(along: Tensor | float, aside: Tensor | float, longer: Tensor | float, wider: Tensor | float, turn) -> None:
        """One more: moved along both half axes, in those; lengthened by factors; turned by radians."""
        found.append(
            torch.stack(
                (
                    x + along * a * cos - aside * b * sin,
                    y + along * a * sin + aside * b * cos,
                    a * longer,
                    b * wider,
                    angle + turn,
                ),
                -1,
            )
        )

    for way in (step, -step):
        grown, still = 1 + way, torch.zeros_like(way)
        add(way, 0, 1, 1, 0)
        add(0, way, 1, 1, 0)
        add(0, 0, grown, 1, 0)
        add(0, 0, 1, grown, 0)
        add(0, 0, grown, grown, 0)
        add(0, 0, grown, 1 / grown, 0)
        for end in (1, -1):
            add(end * way, 0, grown, 1, 0)
            add(0, end * way, 1, grown, 0)
        for turn in (way, flat * way.sign()):
            add(0, 0, 1, 1, turn)
        turn = flat * way.sign()
        for end in (1, -1):  # about an end of the long axis, and of the short one
            add(end * (1 - turn.cos()), -end * turn.sin() * a / b, 1, 1, turn)
            add(end * turn.sin() * b / a, end * (1 - turn.cos()) + still, 1, 1, turn)
    changed = torch.stack(found, 1)
    axes = changed[..., 2:4].clamp(SMALLEST, LARGEST * height)
    return torch.cat((changed[..., :2], axes, changed[..., 4:]), -1)


def _search(
    ellipses: Tensor, cells: tuple[Tensor, ...], height: int, first_step: float, rounds: int, hard: bool
) -> Tensor:
    """Ellipses [N, 5] whose scores are at least those of the ones given."""
    best = _scores(ellipses[:, None], cells, hard)[:, 0]
    step = torch.full_like(best, first_step)
    before = ellipses
    for _ in range(rounds):
        again = (2 * ellipses - before)[:, None]  # the last change once more
        again = torch.cat((again[..., :2], again[..., 2:4].clamp(SMALLEST, LARGEST * height), again[..., 4:]), -1)
        candidates = torch.cat((_changes(ellipses, step, height), again), 1)
        score, choice = _scores(candidates, cells, hard).max(1)
        better = score > best + 1e-7
        chosen = candidates[torch.arange(len(candidates), device=choice.device), choice]
        before = torch.where(better[:, None], ellipses, before)
        ellipses = torch.where(better[:, None], chosen, ellipses)
        best = torch.where(better, score, best)
        step = torch.where(better, step, step / 2)
        if float(step.max()) < SHORTEST_STEP:
            break
    return ellipses


def _refined(masks: Tensor, ellipses: Tensor, overlap: Tensor) -> tuple[Tensor, Tensor]:
    """Better ellipses, and their overlap with bool masks [N, H, W]: of all passes the one that overlaps most."""
    bounds = _bounds(masks).tolist()
    current = ellipses
    for count, step, rounds, hard in LEVELS:
        current = _search(current, _cells(masks, bounds, count), masks.shape[-2], step, rounds, hard)
        found = _overlap(masks, current)
        better = found > overlap
        ellipses = torch.where(better[:, None], current, ellipses)
        overlap = torch.where(better, found, overlap)
        current = ellipses if hard else current
    return ellipses, overlap
