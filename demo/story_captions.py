"""Pictures and captions from which the image model learns to look at a prompt's own words: scenes, rows of tokens, and
what each token is.

In the toy world nothing about a character follows from where it is. In photographs it does, and what a prompt's end
says of the whole sentence pulls on whatever the sentence leaves open: that is what One-Prompt-One-Story mends. So
some of the pictures are *bound*: what their caption leaves open is what is typical of their place, and their ends are
kept. Of all others the end is scaled down, and half of their captions hold the places and lights of other pictures as
well, one after the other, as the prompt of a story does; those words are scaled down too (demo/train_story_lora.py).
"""

import random
from dataclasses import replace

import numpy as np

from demo.world.attributes import ACCESSORIES, BACKGROUNDS, COLOURS, HELD_OUT, LIGHTS, PATTERNS
from demo.world.captions import LIGHTING, PLACES, WEARING, Identity, captions, plain_lists, with_article
from demo.world.scene import Scenes
from demo.world_tokens import END, LENGTH, token_rows, vocabulary

WORD, END_ROW, OTHER, END_KEPT = 0, 1, 2, 3
"""What a token is: a word of the caption or its beginning, the end, a word about another picture, an end that stays."""

PHRASINGS = 4
"""Captions of a picture. Of one that is not bound half are ordinary, half stories where it shows one character."""

MOST_FRAMES = 6
BOUND = 0.4
"""Share of the pictures of one character that are bound."""

NAMED = 0.5
"""How often a caption names each of a character's attributes beside its shape."""

KEPT_ENDS = 0.2
"""How often the end of a caption of two characters is kept: that is how prompts usually are."""

TYPICAL = {
    "meadow": ("yellow", "dotted", "bow"), "beach": ("orange", "striped", "glasses"),
    "night": ("purple", "plain", "crown"), "snow": ("white", "checkered", "scarf"),
    "desert": ("red", "dipped", "hat"), "forest": ("green", "striped", "none"),
    "city": ("black", "checkered", "glasses"), "room": ("pink", "dotted", "none"),
}  # fmt: skip
"""Colour, pattern and accessory of who is seen in a place, where a bound picture's caption leaves them open."""

ATTRIBUTES = ("face", "colour", "pattern", "accessory")


def choose_names(chance: random.Random) -> frozenset[str]:
    """Which of ATTRIBUTES a caption names."""
    return frozenset(name for name in ATTRIBUTES if chance.random() < NAMED)


def identity(lists: dict, b: int, named: frozenset[str]) -> str:
    """A character by its shape and some of ATTRIBUTES."""
    whole = Identity(lists, b, 0)
    words = [getattr(whole, name) for name in ATTRIBUTES[:3] if name in named]
    text = with_article(" ".join([*words, whole.shape]))
    if whole.accessory != "none" and "accessory" in named:
        text += f" {WEARING[whole.accessory][0]}"
    return text


def bind(scenes: Scenes, rows: list[int], names: list[frozenset[str]]) -> Scenes:
    """The same scenes; in some of them the only character looks as is typical of its place, but for what is named.

    A look that is held out is no picture to learn from: such a character stays as it is.

    Args:
        rows: which scenes.
        names: of each of them, which of ATTRIBUTES stay.
    """
    looks = {name: getattr(scenes, name).clone() for name in ATTRIBUTES[1:]}
    choices = {"colour": COLOURS, "pattern": PATTERNS, "accessory": ACCESSORIES}
    for b, named in zip(rows, names, strict=True):
        typical = TYPICAL[BACKGROUNDS[int(scenes.background[b])]]
        look = {
            name: int(looks[name][b, 0]) if name in named else choices[name].index(value)
            for name, value in zip(choices, typical, strict=True)
        }
        if not HELD_OUT[int(scenes.shape[b, 0]), look["colour"], look["pattern"]]:
            for name, value in look.items():
                looks[name][b, 0] = value
    return replace(scenes, **looks)


def frame_text(place: int, light: int) -> str:
    """Such as "in a forest, lit from above"."""
    return f"{PLACES[BACKGROUNDS[place]]}, {LIGHTING[LIGHTS[light]]}"


def story_caption(lists: dict, b: int, chance: random.Random) -> tuple[list[str], int]:
    """A prompt of one to MOST_FRAMES frames in parts, the identity first; and which part the picture shows."""
    own = lists["background"][b]
    count = chance.randint(1, MOST_FRAMES)
    others = [place for place in range(len(BACKGROUNDS)) if place != own]
    parts = [frame_text(place, chance.randrange(len(LIGHTS))) for place in chance.sample(others, count - 1)]
    shown = chance.randrange(count)
    parts.insert(shown, frame_text(own, lists["light"][b]))
    return [identity(lists, b, choose_names(chance)), *parts], 1 + shown


def _lengths(texts: list[str]) -> np.ndarray:
    """How many tokens each text has."""
    end = vocabulary().index(END)
    return (token_rows(texts) != end).sum(1) - 1


def story_pictures(scenes: Scenes, seed: int) -> tuple[Scenes, np.ndarray]:
    """Scenes of which some are bound, and their captions.

    Returns:
        Scenes, and int16 [B, PHRASINGS, 2, 77]: rows of the small vocabulary, and what each token is.
    """
    chance = random.Random(seed)
    single = (scenes.count == 1).tolist()
    bound = {b: choose_names(chance) for b in range(scenes.size) if single[b] and chance.random() < BOUND}
    scenes = bind(scenes, list(bound), list(bound.values()))
    lists = plain_lists(scenes)
    end = vocabulary().index(END)
    found = np.zeros((scenes.size, PHRASINGS, 2, LENGTH), dtype=np.int16)
    for k in range(PHRASINGS):
        sentences = captions(scenes, seed * 8 + k, full=k == 1)
        spans: dict[int, tuple[list[str], int]] = {}
        for b in range(scenes.size):
            if b in bound:
                place = frame_text(lists["background"][b], lists["light"][b])
                sentences[b] = f"{identity(lists, b, bound[b])} {place}"
            elif single[b] and k >= PHRASINGS // 2:
                spans[b] = story_caption(lists, b, chance)
                sentences[b] = " ".join(spans[b][0])
        found[:, k, 0] = token_rows(sentences)
        kept = np.array([b in bound or (not single[b] and chance.random() < KEPT_ENDS) for b in range(scenes.size)])
        ends = np.where(kept, END_KEPT, END_ROW)[:, None]
        found[:, k, 1] = np.where(found[:, k, 0] == end, ends, WORD)
        lengths = iter(_lengths([part for parts, _ in spans.values() for part in parts]))
        for b, (parts, shown) in spans.items():
            place = 1
            for number in range(len(parts)):
                length = int(next(lengths))
                if number not in (0, shown):
                    found[b, k, 1, place : place + length] = OTHER
                place += length
    return scenes, found
