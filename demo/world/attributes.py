"""The words of the toy world: what a character can be, wear and stand in front of, and which combinations are held out.

The order of every tuple is part of the world's version: pictures, captions and readers refer to it by index.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from networks.demo_format import WORLD_VERSION

VERSION = WORLD_VERSION
"""Version of everything in this folder that a trained model has seen; a change of it makes all checkpoints void."""

SHAPES = ("ball", "cube", "triangle", "star", "heart", "drop", "flower", "cloud", "ghost", "cat")
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "white", "black")
PATTERNS = ("plain", "striped", "dotted", "checkered", "dipped")
FACES = ("happy", "sad", "surprised", "sleepy", "angry")
ACCESSORIES = ("none", "hat", "crown", "glasses", "bow", "scarf")
BACKGROUNDS = ("meadow", "beach", "night", "snow", "desert", "forest", "city", "room")
LIGHTS = ("left", "right", "above", "below")
MOTIONS = ("still", "left", "right", "up", "down", "grows", "shrinks", "spins")

LIGHT_ANGLES = (torch.pi, 0.0, -torch.pi / 2, torch.pi / 2)
"""Where each of LIGHTS stands round the picture: radians, 0 to the right, positive clockwise (y points down)."""

PALETTE = torch.tensor(
    [
        [0.90, 0.20, 0.20],
        [0.98, 0.55, 0.12],
        [0.99, 0.84, 0.20],
        [0.32, 0.72, 0.28],
        [0.12, 0.68, 0.68],
        [0.20, 0.42, 0.92],
        [0.56, 0.30, 0.82],
        [0.98, 0.55, 0.74],
        [0.97, 0.96, 0.94],
        [0.23, 0.23, 0.27],
    ]
)
"""float32 [10, 3]: the body's colour, RGB in 0..1, before light falls on it."""

TINTS = torch.tensor(
    [
        [1.00, 0.71, 0.66],
        [1.00, 0.85, 0.60],
        [1.00, 0.98, 0.86],
        [0.74, 0.93, 0.60],
        [0.64, 0.93, 0.89],
        [0.62, 0.78, 1.00],
        [0.83, 0.70, 0.98],
        [1.00, 0.90, 0.95],
        [0.60, 0.68, 0.83],
        [0.60, 0.60, 0.68],
    ]
)
"""float32 [10, 3]: what a pattern adds to the body of that colour."""

INK = torch.tensor([0.13, 0.10, 0.16])
"""float32 [3]: outlines, pupils and mouths."""


def read_held_out() -> Tensor:
    """bool [10, 10, 5]: the shape, colour and pattern combinations that no training picture shows."""
    rows = json.loads((Path(__file__).parent / "held_out.json").read_text(encoding="utf-8"))["combinations"]
    held_out = torch.zeros(len(SHAPES), len(COLOURS), len(PATTERNS), dtype=torch.bool)
    for shape, colour, pattern in rows:
        held_out[SHAPES.index(shape), COLOURS.index(colour), PATTERNS.index(pattern)] = True
    return held_out


HELD_OUT = read_held_out()
