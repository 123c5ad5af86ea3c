"""Captions from which the image model learns to look at a prompt's own words: rows of tokens, and what each of them is.

Half of a single character's captions hold the places and lights of other pictures as well, one after the other, as the
prompt of a story does. Training scales those words' states down, and the end's (demo/train_story_lora.py).
"""

import random

import numpy as np

from demo.world.attributes import BACKGROUNDS, LIGHTS
from demo.world.captions import LIGHTING, PLACES, WEARING, captions, plain_lists, with_article
from demo.world.scene import Scenes
from demo.world_tokens import END, LENGTH, token_rows, vocabulary

WORD, END_ROW, OTHER = 0, 1, 2
"""What a token is: a word of the caption (or its beginning), the end, a word about another picture."""

PHRASINGS = 4
"""Captions of a picture: half ordinary ones, half stories where it shows one character."""

MOST_FRAMES = 6


def identity(lists: dict, b: int, chance: random.Random) -> str:
    """A character by its shape and, each in half of the cases, its other attributes."""
    from demo.world.captions import Identity

    whole = Identity(lists, b, 0)
    words = [word for word in (whole.face, whole.colour, whole.pattern) if chance.random() < 0.5]
    text = with_article(" ".join([*words, whole.shape]))
    if whole.accessory != "none" and chance.random() < 0.5:
        text += f" {WEARING[whole.accessory][0]}"
    return text


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
    return [identity(lists, b, chance), *parts], 1 + shown


def _lengths(texts: list[str]) -> np.ndarray:
    """How many tokens each text has."""
    end = vocabulary().index(END)
    return (token_rows(texts) != end).sum(1) - 1


def story_rows(scenes: Scenes, seed: int) -> np.ndarray:
    """int16 [B, PHRASINGS, 2, 77]: rows of the small vocabulary, and what each token is (WORD, END_ROW or OTHER)."""
    lists, chance = plain_lists(scenes), random.Random(seed)
    end = vocabulary().index(END)
    found = np.zeros((scenes.size, PHRASINGS, 2, LENGTH), dtype=np.int16)
    for k in range(PHRASINGS):
        sentences = captions(scenes, seed * 8 + k, full=k == 1)
        spans: list[tuple[list[str], int] | None] = [None] * scenes.size
        if k >= PHRASINGS // 2:
            for b in range(scenes.size):
                if lists["count"][b] == 1:
                    spans[b] = story_caption(lists, b, chance)
                    sentences[b] = " ".join(spans[b][0])
        found[:, k, 0] = token_rows(sentences)
        found[:, k, 1] = np.where(found[:, k, 0] == end, END_ROW, WORD)
        told = [b for b in range(scenes.size) if spans[b]]
        lengths = iter(_lengths([part for b in told for part in spans[b][0]]))
        for b in told:
            parts, shown = spans[b]
            place = 1
            for number in range(len(parts)):
                length = int(next(lengths))
                if number not in (0, shown):
                    found[b, k, 1, place : place + length] = OTHER
                place += length
    return found
