"""What a reader says of pictures, how that is matched with the truth, and how it is counted.

"Unsure" (-1) and "missing" are wrong wherever something is counted.
"""

import itertools
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from demo.world.attributes import ACCESSORIES, BACKGROUNDS, COLOURS, LIGHTS, PATTERNS, SHAPES
from demo.world.scene import MAXIMUM_CHARACTERS, Scenes

UNSURE = -1
POSITION_TOLERANCE = 0.1
"""Stage units within which a position counts as right."""

MATCH_REACH = 0.35
"""Stage units beyond which a character that was found is not the one that was meant."""

CHARACTER_NAMES = ("shape", "colour", "pattern", "accessory")
CHANCE = {
    "shape": 1 / len(SHAPES),
    "colour": 1 / len(COLOURS),
    "pattern": 1 / len(PATTERNS),
    "accessory": 1 / len(ACCESSORIES),
    "light": 1 / len(LIGHTS),
    "background": 1 / len(BACKGROUNDS),
    "position": math.pi * POSITION_TOLERANCE**2 / 4,
    "number": 1 / MAXIMUM_CHARACTERS,
}
"""How often a blind guess would be right: uniform over the classes, or over the square that a picture shows."""


@dataclass(frozen=True)
class Reading:
    """B pictures with up to K characters each, on the CPU; places as the default view shows them.

    Where ``present`` is False the rest means nothing. The index -1 is "unsure".
    """

    present: Tensor  # bool [B, K]
    position: Tensor  # float32 [B, K, 2], stage units, x right, y down; NaN where unknown
    radius: Tensor  # float32 [B, K], stage units; NaN where unknown
    angle: Tensor  # float32 [B, K], radians, positive clockwise; NaN where unknown
    shape: Tensor  # int64 [B, K], SHAPES
    colour: Tensor  # int64 [B, K], COLOURS
    pattern: Tensor  # int64 [B, K], PATTERNS
    accessory: Tensor  # int64 [B, K], ACCESSORIES
    light: Tensor  # int64 [B], LIGHTS
    background: Tensor  # int64 [B], BACKGROUNDS

    @property
    def size(self) -> int:
        """B."""
        return self.present.shape[0]

    def select(self, rows: Tensor | slice) -> "Reading":
        """Some of the pictures."""
        return Reading(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def pick(self, order: Tensor) -> "Reading":
        """Each picture's characters in another order: int64 [B, J], -1 for none."""
        taken = order.clamp(min=0)
        changed = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value.dim() == 1:
                changed[field.name] = value
            elif value.dim() == 3:
                changed[field.name] = value.gather(1, taken[..., None].expand(-1, -1, value.shape[2]))
            else:
                changed[field.name] = value.gather(1, taken)
        changed["present"] = changed["present"] & (order >= 0)
        return Reading(**changed)


def concatenate(parts: list[Reading]) -> Reading:
    """One reading from several with the same K."""
    return Reading(
        **{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Reading)}
    )


def truth(scenes: Scenes, frame: int = 0) -> Reading:
    """What a perfect reader would say of one frame: characters whose middle the camera shows, where it shows them."""
    scenes = scenes.to("cpu")
    camera = scenes.camera[:, frame]
    position = (scenes.position[:, frame] - camera[:, None, :2]) * camera[:, None, 2:]
    return Reading(
        present=scenes.present & (position.abs() < 1).all(-1),
        position=position,
        radius=scenes.radius[:, frame] * camera[:, 2:],
        angle=scenes.angle[:, frame],
        shape=scenes.shape,
        colour=scenes.colour,
        pattern=scenes.pattern,
        accessory=scenes.accessory,
        light=scenes.light,
        background=scenes.background,
    )


def match(asked: Reading, found: Reading) -> Tensor:
    """Which character of ``found`` each one of ``asked`` is: int64 [B, K], -1 where it is missing.

    All assignments are tried. A pair costs its distance in stage units (where both positions are known) and half a unit
    for each of shape and colour that differs; a missing character costs more than any pair. Where both positions are
    known, characters farther apart than MATCH_REACH are never the same.
    """
    if found.present.shape[1] > 6:
        raise ValueError(f"found has {found.present.shape[1]} characters a picture; expected at most 6.")
    missing = 10.0
    gap = asked.position[:, :, None] - found.position[:, None]
    distance = torch.hypot(gap[..., 0], gap[..., 1])
    far = distance > MATCH_REACH  # False where a position is not known
    cost = distance.nan_to_num(0.0)
    for name in ("shape", "colour"):
        cost = cost + 0.5 * (getattr(asked, name)[:, :, None] != getattr(found, name)[:, None])
    cost = cost.masked_fill(far | ~found.present[:, None], missing)
    batch, characters, slots = cost.shape
    # As many empty slots as characters, so that each may go missing.
    cost = torch.cat((cost, torch.full((batch, characters, max(0, characters - slots)), missing)), 2)
    cost = cost.masked_fill(~asked.present[..., None], 0.0)
    orders = torch.tensor(list(itertools.permutations(range(cost.shape[2]), characters)))
    totals = cost[:, torch.arange(characters), orders].sum(-1)
    best = orders[totals.argmin(dim=1)]
    price = cost.gather(2, best[..., None])[..., 0]
    return torch.where(asked.present & (price < missing), best, -1)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share: (lower end, upper end), (0, 1) where nothing was counted.

    Raises:
        ValueError: ``right`` is not within 0..count.
    """
    if not 0 <= right <= count:
        raise ValueError(f"right is {right}; expected 0..{count}.")
    if count == 0:
        return 0.0, 1.0
    share, square = right / count, z * z
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Share:
    """How many of how many were right, and how often a blind guess would be."""

    right: int
    count: int
    chance: float

    @property
    def value(self) -> float:
        """The share, 0..1; NaN of nothing."""
        return self.right / self.count if self.count else math.nan

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval."""
        return wilson(self.right, self.count)[0]

    def row(self) -> dict[str, float]:
        """For a report."""
        return {"n": self.count, "right": self.right, "share": round(self.value, 4), "low": round(self.low, 4),
                "chance": round(self.chance, 4)}  # fmt: skip


def share_of(flags: Tensor, chance: float) -> Share:
    """Share of True in a bool tensor."""
    return Share(int(flags.sum()), flags.numel(), chance)


def score(asked: Reading, found: Reading) -> dict[str, Share]:
    """Shares right, by attribute, over the characters asked for (light, background and number: over the pictures).

    ``position`` counts places within POSITION_TOLERANCE; ``character`` shape, colour, pattern and accessory together;
    ``number`` whether as many characters were found as were asked for.
    """
    order = match(asked, found)
    same = found.pick(order)
    wanted = asked.present
    right = {name: (getattr(same, name) == getattr(asked, name)) & same.present for name in CHARACTER_NAMES}
    gap = (same.position - asked.position).nan_to_num(torch.inf)
    right["position"] = (torch.hypot(gap[..., 0], gap[..., 1]) <= POSITION_TOLERANCE) & same.present
    table = {name: share_of(flags[wanted], CHANCE[name]) for name, flags in right.items()}
    whole = torch.stack([right[name] for name in CHARACTER_NAMES]).all(0)
    table["character"] = share_of(whole[wanted], math.prod(CHANCE[name] for name in CHARACTER_NAMES))
    for name in ("light", "background"):
        table[name] = share_of(getattr(found, name) == getattr(asked, name), CHANCE[name])
    table["number"] = share_of(found.present.sum(1) == wanted.sum(1), CHANCE["number"])
    return table


def agreement(first: Reading, second: Reading) -> dict[str, Share]:
    """How far two readings of the same pictures say the same.

    ``picture``: equally many characters, and of each the same shape and colour; the other rows count, over the
    characters of ``first``, those that ``second`` also found with the same attribute. Two "unsure" do not agree.
    """
    order = match(first, second)
    same = second.pick(order)
    wanted = first.present
    right = {
        name: (getattr(same, name) == getattr(first, name)) & (getattr(first, name) != UNSURE) & same.present
        for name in CHARACTER_NAMES
    }
    table = {name: share_of(flags[wanted], CHANCE[name]) for name, flags in right.items()}
    look = (right["shape"] & right["colour"]) | ~wanted
    number = first.present.sum(1) == second.present.sum(1)
    table["picture"] = share_of(look.all(1) & number, CHANCE["shape"] * CHANCE["colour"])
    table["light"] = share_of((first.light == second.light) & (first.light != UNSURE), CHANCE["light"])
    return table


def markdown(table: dict[str, Share]) -> str:
    """A table for people."""
    lines = ["| attribute | n | right | 95 % at least | chance |", "|---|---|---|---|---|"]
    for name, share in table.items():
        shares = (share.value * 100, share.low * 100)
        lines.append(f"| {name} | {share.count} | {shares[0]:.1f} % | {shares[1]:.1f} % | {share.chance * 100:.2g} % |")
    return "\n".join(lines) + "\n"
