"""Captions: what a person might type for a scene, in a few phrasings of a small grammar."""

import random
import re

from demo.world.attributes import ACCESSORIES, BACKGROUNDS, COLOURS, FACES, LIGHTS, MOTIONS, PATTERNS, SHAPES
from demo.world.scene import Scenes

PLACES = {
    "meadow": "in a meadow", "beach": "on a beach", "night": "at night", "snow": "in the snow",
    "desert": "in a desert", "forest": "in a forest", "city": "in a city", "room": "in a room",
}  # fmt: skip

WEARING = {
    "hat": ("with a hat", "wearing a hat"),
    "crown": ("with a crown", "wearing a crown"),
    "glasses": ("with glasses", "wearing glasses"),
    "bow": ("with a bow", "wearing a bow"),
    "scarf": ("with a scarf", "wearing a scarf"),
}

LIGHTING = {name: f"lit from {'the ' if name in ('left', 'right') else ''}{name}" for name in LIGHTS}

RELATIONS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below",),
}

SIDES = {"left": "on the left", "right": "on the right"}

MOVING = {
    "still": "stands still", "left": "moves left", "right": "moves right", "up": "moves up", "down": "moves down",
    "grows": "grows", "shrinks": "shrinks", "spins": "spins",
}  # fmt: skip

OPENINGS = ("a picture of", "a drawing of")

CLEAR_RELATION = 0.40
"""Stage units by which one character must be farther along its main axis before a caption says so."""

CLEAR_SIDE = 0.15
"""Stage units from the middle at which a lone character stands on one side of the picture."""


def words(text: str) -> list[str]:
    """A caption's words and commas, in order."""
    return re.findall(r"[a-z]+|,", text)


def every_word() -> tuple[str, ...]:
    """Every word and sign that a caption can hold, sorted."""
    phrases = [*SHAPES, *COLOURS, *PATTERNS, *FACES, *ACCESSORIES[1:], *BACKGROUNDS, *PLACES.values(), *OPENINGS]
    phrases += [phrase for choices in (*WEARING.values(), *RELATIONS.values()) for phrase in choices]
    phrases += [*LIGHTING.values(), *MOVING.values(), "a", "an", "and", ","]
    return tuple(sorted({word for phrase in phrases for word in words(phrase)}))


WORDS = every_word()


def with_article(phrase: str) -> str:
    """``an orange ball``, ``a red cat``."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


class Identity:
    """One character's words."""

    def __init__(self, scenes: dict, b: int, k: int):
        self.shape = SHAPES[scenes["shape"][b][k]]
        self.colour = COLOURS[scenes["colour"][b][k]]
        self.pattern = PATTERNS[scenes["pattern"][b][k]]
        self.face = FACES[scenes["face"][b][k]]
        self.accessory = ACCESSORIES[scenes["accessory"][b][k]]
        self.motion = MOTIONS[scenes["motion"][b][k]]

    def phrase(self, chance: random.Random, *, full: bool, moving: bool) -> str:
        """``a happy red striped cat with a crown``; without ``full`` some attributes may go unsaid."""
        parts = []
        if full or chance.random() < 0.45:
            parts.append(self.face)
        look = [self.colour]
        if full or chance.random() < (0.5 if self.pattern == "plain" else 0.88):
            look.insert(1 if full or chance.random() < 0.7 else 0, self.pattern)
        text = with_article(" ".join([*parts, *look, self.shape]))
        if self.accessory != "none" and (full or chance.random() < 0.88):
            choices = WEARING[self.accessory]
            text += f" {choices[0] if full else chance.choice(choices)}"
        if moving and (full or chance.random() < 0.8):
            text += f" {MOVING[self.motion]}"
        return text

    def tags(self, chance: random.Random) -> str:
        """``red striped cat, crown``, as people write who are used to tags."""
        look = self.colour if self.pattern == "plain" else f"{self.colour} {self.pattern}"
        extra = f", {self.accessory}" if self.accessory != "none" else ""
        mood = f"{self.face} " if chance.random() < 0.4 else ""
        return f"{mood}{look} {self.shape}{extra}"


def relation(scenes: dict, b: int) -> str | None:
    """How the first of two characters stands to the second, or None where it is not clear."""
    (x0, y0), (x1, y1) = scenes["position"][b][0][:2]
    dx, dy = x0 - x1, y0 - y1
    if abs(dx) > CLEAR_RELATION and abs(dx) > 1.3 * abs(dy):
        return "left" if dx < 0 else "right"
    if abs(dy) > CLEAR_RELATION and abs(dy) > 1.3 * abs(dx):
        return "above" if dy < 0 else "below"
    return None


def side(scenes: dict, b: int) -> str | None:
    """Which half of the picture a lone character stands in, or None where it is near the middle."""
    x = scenes["position"][b][0][0][0]
    return None if abs(x) < CLEAR_SIDE else "left" if x < 0 else "right"


def plain_lists(scenes: Scenes) -> dict:
    """The batch as nested lists, which are much faster to read one by one than tensors."""
    names = ("count", "shape", "colour", "pattern", "face", "accessory", "motion", "position", "background", "light")
    return {name: getattr(scenes, name).tolist() for name in names}


def caption(scenes: dict, b: int, chance: random.Random, *, full: bool, moving: bool) -> str:
    """One scene's caption, from ``plain_lists``."""
    count = scenes["count"][b]
    order = list(range(count))
    flipped = chance.random() < 0.5
    if flipped:
        order.reverse()
    place = PLACES[BACKGROUNDS[scenes["background"][b]]]
    light = LIGHTING[LIGHTS[scenes["light"][b]]]
    if count == 1 and not full and not moving and chance.random() < 0.12:
        parts = [Identity(scenes, b, 0).tags(chance)]
        if chance.random() < 0.7:
            parts.append(BACKGROUNDS[scenes["background"][b]])
        return ", ".join(parts)
    phrases = [Identity(scenes, b, k).phrase(chance, full=full, moving=moving) for k in order]
    between = relation(scenes, b) if count == 2 else None
    if between and (full or chance.random() < 0.8):
        if flipped:
            between = {"left": "right", "right": "left", "above": "below", "below": "above"}[between]
        choices = RELATIONS[between]
        if between in SIDES and not full and chance.random() < 0.35:
            other = "right" if between == "left" else "left"
            here, there = SIDES[between], SIDES[other]
            if chance.random() < 0.5:
                text = f"{phrases[0]} {here} and {phrases[1]} {there}"
            else:
                text = f"{here} {phrases[0]} and {there} {phrases[1]}"
        else:
            text = f"{phrases[0]} {choices[0] if full else chance.choice(choices)} {phrases[1]}"
    elif count == 1:
        text = phrases[0]
        where = side(scenes, b)
        if where and (full or chance.random() < 0.5):
            text += f" {SIDES[where]}"
    else:
        text = f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    style = 1.0 if full else chance.random()
    if style < 0.15:
        text = f"{place}, {text}"
    elif style < 0.30 and not text.startswith("on the "):
        text = f"{chance.choice(OPENINGS)} {text} {place}"
    elif style > 0.40:
        text = f"{text} {place}"
    if full or chance.random() < 0.4:
        text += f", {light}"
    return text


def captions(scenes: Scenes, seed: int, *, full: bool = False) -> list[str]:
    """A caption for each scene.

    Args:
        scenes: B scenes; of videos the first frame's places count, and motions are told.
        seed: of the phrasing; another seed says the same scenes in other words.
        full: name every attribute, place and light, in the plainest phrasing.

    Returns:
        B strings of words from WORDS, separated by spaces, commas glued to the word before.
    """
    lists, chance = plain_lists(scenes), random.Random(seed)
    return [caption(lists, b, chance, full=full, moving=scenes.frames > 1) for b in range(scenes.size)]


def object_captions(scenes: Scenes) -> list[list[str]]:
    """For each scene, each character's own caption with every attribute named, in drawing order."""
    lists, chance = plain_lists(scenes), random.Random(0)
    moving = scenes.frames > 1
    return [
        [Identity(lists, b, k).phrase(chance, full=True, moving=moving) for k in range(lists["count"][b])]
        for b in range(scenes.size)
    ]
