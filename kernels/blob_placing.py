"""Places for the things that a prompt names: the rule-based planner's second half.

Every wish is a bound on a place or on the difference of two; things start somewhere, and what is violated is pushed
right a little at a time, from several starts at once. What finds no room is made smaller. Two upright ellipses are
apart if their middles are outside the ellipse whose half axes are the sums of theirs, which holds their Minkowski sum.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from .blob_layout import Blob, BlobLayout, Ellipse
from .blob_rules import Group, Understood, understand
from .blob_words import proportions

COVERED = 0.38
"""Most of the picture that all things together may cover before they are made smaller."""

LARGEST_RADIUS, SMALLEST_RADIUS = 0.3, 0.01
GAP = 1.08
"""How far things are put apart, in the distance at which they would touch."""

ROUNDS, ATTEMPTS, SHRINK = 240, 14, 0.87
OVERLAPPING = ("on", "front", "behind", "inside")
OPPOSITE = {"right": "left", "below": "above"}
SAID = {
    "left": "left of", "right": "right of", "above": "above", "below": "below", "on": "on", "beside": "next to",
    "front": "in front of", "behind": "behind", "inside": "inside", "between": "between",
}  # fmt: skip


@dataclass(frozen=True)
class Wish:
    """Thing ``one`` stands so to thing ``other`` (and, between, to ``third``)."""

    one: int
    kind: str
    other: int
    third: int | None = None


def plan_by_rules(prompt: str, width: int, height: int, seed: int) -> tuple[BlobLayout, list[str]]:
    """A layout of what a prompt says, without a model.

    Args:
        prompt: English, simple: see ``kernels/blob_rules.py``.
        width, height: of the picture.
        seed: of everything that the prompt leaves open; the same seed gives the same layout.

    Returns:
        The layout, one frame, and the log: how the prompt was understood, and what was not.

    Raises:
        ValueError: a prompt that is too long, or that names no thing.
    """
    read = understand(prompt)
    things = [(number, group) for number, group in enumerate(read.groups) for _ in range(group.count)]
    if not things:
        raise ValueError(
            f"nothing in {prompt.strip()[:80]!r} could be read as a thing; expected a description such as 'three red "
            "balls and a big blue cube left of a tree'."
        )
    log = [f"{group.count} x {group.caption}{_said_place(group)}" for group in read.groups if group.count]
    wishes = _wishes(read, [number for number, _ in things], log)
    groups = [group for _, group in things]
    radii = _radii(groups, wishes, width / height)
    generator = torch.Generator().manual_seed(seed)
    places, fitting, left_over = _placed(groups, radii, wishes, width / height, generator)
    if left_over:  # what cannot be had must not make everything tiny
        wishes = [wish for wish in wishes if wish not in left_over]
        places, fitting, more = _placed(groups, radii, wishes, width / height, generator)
        left_over += more
    radii = fitting
    names = [f"{group.caption}{f' ({number + 1})' * (len(groups) > 1)}" for number, group in enumerate(groups)]
    for wish in left_over:
        log.append(f"No room was found for: {names[wish.one]} {SAID[wish.kind]} {names[wish.other]}.")
    log += read.notes
    order = _order(groups, wishes, (places[:, 1] + radii[:, 1]).tolist(), log)
    blobs = []
    for number, thing in enumerate(order):
        (x, y), (a, b) = places[thing].tolist(), radii[thing].tolist()
        ellipse = Ellipse(round(x * height / width, 6), round(y, 6), round(a, 6), round(b, 6))
        blobs.append(Blob(str(number + 1), groups[thing].caption, ellipse))
    return BlobLayout(tuple(blobs), width, height), log


def _said_place(group: Group) -> str:
    if group.place is None:
        return ""
    across = {0.0: "on the left", 0.5: "in the middle", 1.0: "on the right", None: ""}[group.place[0]]
    y = group.place[1]
    down = "" if y is None or y == 0.5 else "at the top" if y < 0.5 else "at the bottom"
    return f", {' '.join(filter(None, (down, across)))}"


def _wishes(read: Understood, groups: list[int], log: list[str]) -> list[Wish]:
    """Relations of groups as those of their things; what contradicts an earlier one is left out with a sentence."""
    members = [[n for n, group in enumerate(groups) if group == number] for number in range(len(read.groups))]
    found: list[Wish] = []
    for subject, kind, objects in read.relations:
        others = [number for group in objects for number in members[group]]
        if not others or not members[subject]:
            continue
        title = f"{read.groups[subject].caption} {SAID[kind]} {' and '.join(read.groups[o].caption for o in objects)}"
        new = []
        for number, one in enumerate(members[subject]):
            if kind == "between":
                new.append(Wish(one, kind, others[0], others[-1]))
            elif kind in ("left", "right", "above", "below"):
                new += [Wish(one, kind, other) for other in others]
            else:
                new.append(Wish(one, kind, others[number % len(others)]))
        if any(wish.one == wish.other for wish in new) or _closes_a_circle(found, new):
            log.append(f"Left out, because it contradicts what was said before: {title}.")
            continue
        log.append(title)
        found += new
    return found


def _closes_a_circle(wishes: list[Wish], new: list[Wish]) -> bool:
    """Whether something would have to be left of, or above, itself."""

    def arrow(wish: Wish) -> tuple[str, int, int]:
        if wish.kind in OPPOSITE:
            return OPPOSITE[wish.kind], wish.other, wish.one
        return ("above" if wish.kind == "on" else wish.kind), wish.one, wish.other

    after: dict[tuple[str, int], set[int]] = {}
    for wish in (*wishes, *new):
        kind, of, to = arrow(wish)
        after.setdefault((kind, of), set()).add(to)
    for kind, start, goal in {arrow(wish) for wish in new}:
        reached, waiting = set(), [goal] if kind in ("left", "above") else []
        while waiting:
            here = waiting.pop()
            if here == start:
                return True
            if here not in reached:
                reached.add(here)
                waiting += after.get((kind, here), ())
    return False


def _radii(groups: list[Group], wishes: list[Wish], aspect: float) -> Tensor:
    """float64 [n, 2]: half widths and half heights in heights of the picture."""
    shorter = min(aspect, 1.0)
    radius = min((COVERED * 0.9 * aspect / (torch.pi * len(groups))) ** 0.5, LARGEST_RADIUS * shorter)
    found = []
    for group in groups:
        ratio, size = proportions(group.noun) ** 0.5, radius * group.size
        found.append([size / ratio, size * ratio])
    radii = torch.tensor(found, dtype=torch.float64)
    for other in {wish.other for wish in wishes if wish.kind in ("on", "behind", "front", "inside")}:
        above = [wish.one for wish in wishes if wish.other == other and wish.kind in ("on", "behind", "front")]
        within = [wish.one for wish in wishes if wish.other == other and wish.kind == "inside"]
        if above:  # what stands on a thing finds room on it
            radii[other, 0] = torch.maximum(radii[other, 0], 0.95 * radii[above, 0].sum())
        if within:
            radii[other] = torch.maximum(radii[other], 1.6 * radii[within].amax(0))
            for one in within:
                most = radii[other] * 0.5 / len(within) ** 0.5
                radii[one] = radii[one] * (most / radii[one]).min().clamp(max=1.0)
    radii = radii.minimum(radii.new_tensor([0.46 * aspect, 0.46]))
    covered = float(torch.pi * radii.prod(1).sum()) / aspect
    return radii * min(1.0, (COVERED / covered) ** 0.5)


def _bounds(groups: list[Group], radii: Tensor, aspect: float) -> tuple[Tensor, Tensor]:
    """Where middles may be, float64 [n, 2] each: in the picture, and where the prompt wants them."""
    low, high = radii.clone(), radii.new_tensor([aspect, 1.0]) - radii
    for number, group in enumerate(groups):
        alike = sum(other.place == group.place for other in groups)
        for axis, wanted in enumerate(group.place or (None, None)):
            if wanted is None:
                continue
            side = (aspect, 1.0)[axis]
            if wanted == 0.5:
                near = (0.04 + 0.07 * (alike - 1)) * side
                start, end = side / 2 - near, side / 2 + near
            else:
                start, end = (0.0, 0.36 * side) if wanted < 0.5 else (0.64 * side, side)
            least, most = float(low[number, axis]), float(high[number, axis])
            low[number, axis] = min(max(start, least), most)
            high[number, axis] = max(min(end, most), least)
    return low, torch.maximum(low, high)


def _rows(wishes: list[Wish], radii: Tensor) -> tuple[list[tuple[int, int, int, float]], list[int]]:
    """Bounds (one, other, axis, c): place of one less that of the other at most c; and of each the wish's number."""
    rows, numbers = [], []
    rx, ry = radii.unbind(1)
    alike = Counter((wish.kind, wish.other) for wish in wishes)

    def less(one: int, other: int, axis: int, most: Tensor | float) -> None:
        rows.append((one, other, axis, float(most)))

    def level(one: int, other: int, axis: int, most: Tensor | float) -> None:
        less(one, other, axis, most)
        less(other, one, axis, most)

    for number, wish in enumerate(wishes):
        one, other = wish.one, wish.other
        beside = GAP * (
            alike[wish.kind, other] - 1
        )  # how far the outer ones of several must be from the middle, in half widths
        apart, above = GAP * (rx[one] + rx[other]), GAP * (ry[one] + ry[other])
        if wish.kind in ("left", "right", "beside"):
            first, second = (one, other) if wish.kind == "left" else (other, one)
            less(first, second, 0, -apart)
            level(one, other, 1, 0.45 * above)
            if wish.kind == "beside":
                less(second, first, 0, 1.3 * apart)
        elif wish.kind in ("above", "below"):
            first, second = (one, other) if wish.kind == "above" else (other, one)
            less(first, second, 1, -above)
            level(one, other, 0, 0.45 * apart)
        elif wish.kind == "on":
            touching = ry[one] + 0.8 * ry[other]
            less(one, other, 1, -touching)
            less(other, one, 1, 1.1 * touching)
            level(one, other, 0, torch.maximum(0.6 * rx[other], beside * rx[one]))
        elif wish.kind in ("front", "behind"):
            near, far = (one, other) if wish.kind == "front" else (other, one)
            less(far, near, 1, -0.35 * ry[far])
            less(near, far, 1, 0.8 * torch.maximum(ry[far], ry[near]))
            level(one, other, 0, torch.maximum(0.5 * torch.maximum(rx[one], rx[other]), beside * rx[one]))
        elif wish.kind == "inside":
            level(one, other, 0, 0.5 * (rx[other] - rx[one]).clamp_min(0))
            level(one, other, 1, 0.5 * (ry[other] - ry[one]).clamp_min(0))
        elif wish.third is not None:  # between
            third = wish.third
            less(other, one, 0, -apart)
            less(one, third, 0, -GAP * (rx[one] + rx[third]))
            level(one, other, 1, 0.4 * above)
            level(one, third, 1, 0.4 * GAP * (ry[one] + ry[third]))
        numbers += [number] * (len(rows) - len(numbers))
    return rows, numbers


def _placed(
    groups: list[Group], radii: Tensor, wishes: list[Wish], aspect: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[Wish]]:
    """Places and radii, float64 [n, 2] each, and the wishes for which there is no room."""
    count = len(groups)
    starts = 12 if count <= 24 else 3
    over = torch.eye(count, dtype=torch.bool)
    for wish in wishes:
        if wish.kind in OVERLAPPING:
            one, other = (wish.other, wish.one) if wish.kind == "behind" else (wish.one, wish.other)
            over[one, other] = True
    for middle in range(count):  # what is on a thing in front of a house may be before the house, too
        over |= over[:, middle, None] & over[middle]
    apart = ~(over | over.T)
    drawn = torch.rand(ATTEMPTS, starts, count, 2, generator=generator, dtype=torch.float64)
    best = None
    for attempt in range(ATTEMPTS):
        low, high = _bounds(groups, radii, aspect)
        rows, numbers = _rows(wishes, radii)
        places = _relaxed(low + drawn[attempt] * (high - low), radii, low, high, apart, rows)
        broken, overlap = _violations(places, radii, apart, rows)
        worst = broken.sum(1) + overlap
        chosen = int(worst.argmin())
        if best is None or float(worst[chosen]) < best[0]:
            lost = {numbers[row] for row in broken[chosen].nonzero()[:, 0].tolist()}
            best = (float(worst[chosen]), places[chosen], radii, [wishes[number] for number in sorted(lost)])
        if best[0] == 0:
            break
        radii = (radii * SHRINK).clamp_min(SMALLEST_RADIUS * min(aspect, 1.0))
    return best[1:]


def _relaxed(
    places: Tensor, radii: Tensor, low: Tensor, high: Tensor, apart: Tensor, rows: list[tuple[int, int, int, float]]
) -> Tensor:
    """Places [starts, n, 2] after all rounds of pushing."""
    sums = radii[:, None] + radii
    one, other, axis, most = _columns(rows)
    count = places.shape[1]
    for number in range(ROUNDS):
        apart_by = (places[:, :, None] - places[:, None]) / sums
        distance = apart_by.square().sum(-1).sqrt().clamp_min(1e-3)
        push = ((GAP - distance).clamp_min(0) * apart / distance)[..., None] * apart_by * sums
        moves = push.sum(2) / 2
        if rows:
            flat = places.flatten(1)
            wrong = (flat[:, one * 2 + axis] - flat[:, other * 2 + axis] - most).clamp_min(0) / 2
            change = torch.zeros(len(places), count * 2, dtype=torch.float64)
            change.index_add_(1, one * 2 + axis, -wrong).index_add_(1, other * 2 + axis, wrong)
            moves = moves + change.view_as(moves)
        places = (places + moves * (0.8 if number % 2 else 0.5)).clamp(low, high)
    return places


def _columns(rows: list[tuple[int, int, int, float]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    one, other, axis = (torch.tensor([row[n] for row in rows], dtype=torch.int64) for n in range(3))
    return one, other, axis, torch.tensor([row[3] for row in rows], dtype=torch.float64)


def _violations(
    places: Tensor, radii: Tensor, apart: Tensor, rows: list[tuple[int, int, int, float]]
) -> tuple[Tensor, Tensor]:
    """By how much each bound is broken [starts, rows], and things overlap [starts]; 0 where nothing is to be seen."""
    sums = radii[:, None] + radii
    distance = ((places[:, :, None] - places[:, None]) / sums).square().sum(-1).sqrt()
    overlap = ((1.0 + 1e-6 - distance).clamp_min(0) * apart).flatten(1).sum(1)
    if not rows:
        return torch.zeros(len(places), 0, dtype=torch.float64), overlap
    one, other, axis, most = _columns(rows)
    flat = places.flatten(1)
    slack = (GAP - 1.01) / GAP * most.abs() + 0.002
    broken = (flat[:, one * 2 + axis] - flat[:, other * 2 + axis] - most - slack).clamp_min(0)
    return broken, overlap


def _order(groups: list[Group], wishes: list[Wish], bottoms: list[float], log: list[str]) -> list[int]:
    """Things from the farthest to the nearest: what is on, in front of or inside another comes after it, else the one
    whose lower end is lower."""
    later: dict[int, set[int]] = {number: set() for number in range(len(groups))}
    for wish in wishes:
        if wish.kind in ("on", "front", "inside"):
            later[wish.one].add(wish.other)
        elif wish.kind == "behind":
            later[wish.other].add(wish.one)
    found: list[int] = []
    waiting = sorted(later, key=lambda number: (bottoms[number], number))
    while waiting:
        free = next((number for number in waiting if later[number] <= set(found)), None)
        if free is None:
            log.append("What is in front of what goes round in a circle; the lower one is drawn in front.")
            free = waiting[0]
        waiting.remove(free)
        found.append(free)
    return found
