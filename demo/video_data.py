"""The toy world's clips for training: drawn by worker processes, rendered and encoded where the training runs."""

import math
import multiprocessing
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from demo.training_data import use_one_thread
from demo.world.attributes import MOTIONS
from demo.world.captions import MOVING, captions
from demo.world.scene import Scenes, draw_scenes, still_characters
from demo.world_tokens import token_rows

FRAMES = 17
CHUNK = 512
"""Clips that are drawn together; a process draws 2,000 a second."""

HARD = ("grows", "shrinks", "spins")
"""Motions in which a character looks another way in every frame."""

OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}


def move_apart(scenes: Scenes, share: float, generator: np.random.Generator) -> Scenes:
    """The same scenes; of those whose camera moves, in a share nothing else does.

    As drawn, characters nearly always move, and what noise tells of the camera is hardly ever seen alone.
    """
    camera = scenes.camera
    moves = (camera != camera[:, :1]).flatten(1).any(1)
    rows = moves & torch.from_numpy(generator.random(scenes.size) < share)
    still = still_characters(scenes)
    found = {}
    for item in fields(Scenes):
        value = getattr(scenes, item.name)
        found[item.name] = torch.where(rows.view(-1, *[1] * (value.ndim - 1)), getattr(still, item.name), value)
    return Scenes(**found)


def turn(scenes: Scenes, share: float, generator: np.random.Generator) -> Scenes:
    """The same scenes; in a share of them every character is turned by some angle, all the way round, throughout.

    As drawn, characters stand nearly upright but where they spin, and a network learns to draw them so.
    """
    size, characters = scenes.shape.shape
    angles = generator.uniform(-math.pi, math.pi, (size, 1, characters))
    angles *= generator.random((size, 1, 1)) < share
    return replace(scenes, angle=scenes.angle + torch.from_numpy(angles).float())


@dataclass(frozen=True)
class ClipChoice:
    """Which clips are drawn, and what is said of them."""

    phrasings: int = 0
    """Captions that tell the motions."""

    silent: int = 0
    """Captions without motion words, which come after those."""

    full: int = 1
    """How many of either name everything, from the second on."""

    characters: tuple[float, ...] | None = None
    """As in draw_scenes."""

    easy: float = 1.0
    """Share of the clips without HARD motions that are kept, over 0 to 1."""

    unspun: float = 1.0
    """Share of the clips in which nothing spins that are kept, over 0 to 1."""

    apart: float = 0.0
    """Share of the clips with a moving camera in which nothing else moves."""

    standing: float = 1.0
    """Share of the clips with a camera that does not move that are kept, 0 to 1."""

    turned: float = 0.0
    """Share of the clips in which characters stand at any angle."""


def _draw_clips(count: int, seed: int, frames: int, choice: ClipChoice):
    """One chunk: the arrays of its Scenes, and rows of tokens [count, phrasings + silent, 77] of its captions."""
    generator = np.random.default_rng(seed)
    scenes = draw_scenes(count, seed, characters=choice.characters, frames=frames)
    scenes = move_apart(scenes, choice.apart, generator)
    still = scenes.at(slice(None, 1))  # of a single frame no caption tells a motion
    sentences = [captions(scenes, seed * 8 + k, full=1 <= k <= choice.full) for k in range(choice.phrasings)]
    sentences += [captions(still, seed * 8 + 4 + k, full=1 <= k <= choice.full) for k in range(choice.silent)]
    rows = (
        np.stack([token_rows(some) for some in sentences], axis=1) if sentences else np.zeros((count, 0, 77), "int16")
    )
    hard = torch.isin(scenes.motion, torch.tensor([MOTIONS.index(name) for name in HARD]))
    kept = (hard & scenes.present).any(1).numpy() | (generator.random(count) < choice.easy)
    moves = (scenes.camera != scenes.camera[:, :1]).flatten(1).any(1).numpy()
    kept &= moves | (generator.random(count) < choice.standing)
    spins = (scenes.motion == MOTIONS.index("spins")) & scenes.present
    kept &= spins.any(1).numpy() | (generator.random(count) < choice.unspun)
    kept = kept.nonzero()[0]
    scenes = turn(scenes, choice.turned, generator)
    return {item.name: getattr(scenes, item.name).numpy()[kept] for item in fields(Scenes)}, rows[kept]


def settle_clips(arguments, frames: int = FRAMES) -> int:
    """How many frames a clip has; with --tiny clips are few, short and small."""
    if not arguments.tiny:
        return frames
    arguments.pictures, arguments.size = min(arguments.pictures, 6), 32
    return min(frames, 5)


class ClipSource:
    """Scenes of several frames and tokens of their captions, chunk after chunk without end.

    Made before anything touches the GPU: the workers are forked.

    Args:
        arguments: the script's; with ``tiny`` chunks are small and drawn where they are asked for.
        seed: another one gives other scenes.
        frames: of every scene.
        workers: processes, as many as the arguments say if None; 0 draws where chunks are asked for.
        choice: what ClipChoice takes.
    """

    draw = staticmethod(_draw_clips)
    """What draws a chunk, in a worker; a subclass may draw something else."""

    def __init__(self, arguments, seed: int, frames: int, *, workers: int | None = None, **choice):
        size = 6 if arguments.tiny else CHUNK * FRAMES // frames
        rest = (frames, ClipChoice(**choice))
        self.jobs = ((size, seed * 100_000 + k, *rest) for k in range(100_000))
        self.pool, self.waiting = None, deque()
        count = arguments.workers if workers is None else workers
        if count and not arguments.tiny:
            self.pool = ProcessPoolExecutor(count, multiprocessing.get_context("fork"), initializer=use_one_thread)
            self.waiting.extend(self.pool.submit(self.draw, *next(self.jobs)) for _ in range(2 * count))

    def chunk(self) -> tuple[Scenes, Tensor]:
        """Scenes on the CPU, and int16 [scenes, phrasings + silent, 77]; at least one."""
        arrays, rows = {}, ()
        while not len(rows):
            if self.pool:
                arrays, rows = self.waiting.popleft().result()
                self.waiting.append(self.pool.submit(self.draw, *next(self.jobs)))
            else:
                arrays, rows = self.draw(*next(self.jobs))
        return Scenes(**{name: torch.from_numpy(value) for name, value in arrays.items()}), torch.from_numpy(rows)

    def close(self) -> None:
        """Ends the workers."""
        if self.pool:
            self.pool.shutdown(wait=False, cancel_futures=True)


def opposite_motions(sentences: Sequence[str], names: Sequence[str]) -> list[str | None]:
    """Captions with every motion of ``names`` turned round ("moves left" becomes "moves right").

    Args:
        sentences: captions.
        names: of MOTIONS, such as ("left", "right").

    Returns:
        None for a caption without such a motion.
    """
    found = []
    for text in sentences:
        turned = text
        for name in names:
            turned = turned.replace(MOVING[name], f"<{OPPOSITES[name]}>")
        for name in names:
            turned = turned.replace(f"<{name}>", MOVING[name])
        found.append(None if turned == text else turned)
    return found
