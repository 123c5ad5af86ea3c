"""What is counted about generated pictures: pure functions of what was asked for and what a reader found."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from demo.eval.reading import CHANCE, Reading, Share, match, share_of, truth
from demo.world.attributes import ACCESSORIES, COLOURS, PATTERNS, SHAPES
from demo.world.captions import plain_lists, relation
from demo.world.scene import Scenes

EDGE_LEVEL = 0.12
"""Length of the Sobel gradient (of a picture in 0..1, in units of its values per pixel) from which there is an edge."""

EDGE_TOLERANCE = 1
"""Pixels by which an edge may lie beside the one asked for."""

LAYOUT_TOLERANCE = 0.15
"""Stage units within which a place counts as kept."""


def asked(scenes: Scenes) -> Reading:
    """What a prompt asks for: everything but the places."""
    wanted = truth(scenes)
    unknown = torch.full_like(wanted.position, torch.nan)
    return dataclasses.replace(wanted, position=unknown)


def look_chance(characters: int) -> float:
    """How often a blind guess has shape and colour of all characters right, in any order."""
    return (2 if characters == 2 else 1) * (1 / (len(SHAPES) * len(COLOURS))) ** characters


def prompt_scores(scenes: Scenes, found: Reading) -> dict[str, Share]:
    """For scenes of equally many characters: ``look`` (every character's shape and colour right, and no character too
    many), over pictures; ``pattern``, ``accessory``, ``worn`` (accessories other than none) and ``bare`` over
    characters; ``light`` and ``background`` over pictures.
    """
    wanted = asked(scenes)
    same = found.pick(match(wanted, found))
    there = wanted.present
    characters = int(there.sum(1)[0])
    right = {name: (getattr(same, name) == getattr(wanted, name)) & same.present for name in CHANCE_OF_CHARACTERS}
    look = ((right["shape"] & right["colour"]) | ~there).all(1) & (found.present.sum(1) == there.sum(1))
    bare = wanted.accessory == ACCESSORIES.index("none")
    return {
        "look": share_of(look, look_chance(characters)),
        "pattern": share_of(right["pattern"][there], CHANCE["pattern"]),
        "accessory": share_of(right["accessory"][there], CHANCE["accessory"]),
        "worn": share_of(right["accessory"][there & ~bare], CHANCE["accessory"]),
        "bare": share_of(right["accessory"][there & bare], CHANCE["accessory"]),
        "light": share_of(found.light == wanted.light, CHANCE["light"]),
        "background": share_of(found.background == wanted.background, CHANCE["background"]),
    }


CHANCE_OF_CHARACTERS = ("shape", "colour", "pattern", "accessory")


def relation_scores(scenes: Scenes, found: Reading) -> dict[str, Share]:
    """For scenes of two characters whose caption says how they stand: whether both are there and stand so."""
    lists = plain_lists(scenes.to("cpu"))
    said = [relation(lists, b) for b in range(scenes.size)]
    wanted = asked(scenes)
    order = match(wanted, found)
    same = found.pick(order)
    right = (same.shape == wanted.shape) & (same.colour == wanted.colour) & same.present
    step = same.position[:, 0] - same.position[:, 1]
    flags: dict[str, list[bool]] = {"left/right": [], "above/below": []}
    for b, name in enumerate(said):
        if name is None:
            continue
        axis = 0 if name in ("left", "right") else 1
        direction = -1 if name in ("left", "above") else 1
        holds = bool(step[b, axis] * direction > 0) and bool(right[b, :2].all())
        flags["left/right" if axis == 0 else "above/below"].append(holds)
    return {
        name: share_of(torch.tensor(values, dtype=torch.bool), look_chance(2) / 2) for name, values in flags.items()
    }


def layout_kept(source: Reading, found: Reading) -> Share:
    """Of the source's characters, how many are found within LAYOUT_TOLERANCE and with the same shape."""
    same = found.pick(match(source, found))
    gap = same.position - source.position
    near = torch.hypot(gap[..., 0], gap[..., 1]) <= LAYOUT_TOLERANCE
    kept = near & (same.shape == source.shape) & same.present
    return share_of(kept[source.present], torch.pi * LAYOUT_TOLERANCE**2 / 4 / len(SHAPES))


def colour_share(found: Reading, colour: Tensor) -> Share:
    """Of all pictures, how many show a character of the colour int64 [B]."""
    return share_of(((found.colour == colour[:, None]) & found.present).any(1), CHANCE["colour"])


def sure_characters(found: Reading) -> Share:
    """Of all pictures, how many show a character none of whose attributes is unsure."""
    sure = torch.stack([getattr(found, name) >= 0 for name in CHANCE_OF_CHARACTERS]).all(0)
    return share_of((sure & found.present).any(1), 0.0)


def edges(pictures: Tensor) -> Tensor:
    """bool [B, H, W]: where a Sobel gradient of any of the three colours [B, 3, H, W] is at least EDGE_LEVEL long."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], device=pictures.device) / 8
    kernel = torch.stack((across, across.T))[:, None]
    flat = functional.pad(pictures.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate")
    slope = functional.conv2d(flat, kernel)
    strength = torch.hypot(slope[:, 0], slope[:, 1]).view(pictures.shape)
    return strength.amax(1) >= EDGE_LEVEL


def line_overlap(one: Tensor, two: Tensor, tolerance: int = EDGE_TOLERANCE) -> Tensor:
    """Intersection over union of two edge maps bool [B, H, W], each edge allowed to lie ``tolerance`` pixels aside.

    With P the share of ``one`` near ``two`` and R the share of ``two`` near ``one``: P R / (P + R - P R), which for no
    tolerance is the ordinary intersection over union. float32 [B].
    """

    def near(part: Tensor, whole: Tensor) -> Tensor:
        reach = functional.max_pool2d(whole.float()[:, None], 2 * tolerance + 1, 1, tolerance)[:, 0]
        return (part * reach).sum((1, 2)) / part.sum((1, 2)).clamp(min=1)

    precision, recall = near(one, two), near(two, one)
    return precision * recall / (precision + recall - precision * recall).clamp(min=1e-6)


def names_of(reading: Reading, b: int) -> list[str]:
    """What a reading says of one picture, in words."""

    def word(table: tuple[str, ...], index: Tensor) -> str:
        return table[int(index)] if index >= 0 else "unsure"

    return [
        f"{word(COLOURS, reading.colour[b, k])} {word(PATTERNS, reading.pattern[b, k])}"
        f" {word(SHAPES, reading.shape[b, k])}, {word(ACCESSORIES, reading.accessory[b, k])}"
        for k in reading.present[b].nonzero()[:, 0].tolist()
    ]
