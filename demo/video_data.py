"""The toy world's clips for training: drawn by worker processes, rendered and encoded where the training runs."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from demo.training_data import Drawing, _use_one_thread
from demo.world.captions import MOVING, captions
from demo.world.scene import Scenes, draw_scenes
from demo.world_tokens import token_rows

FRAMES = 17
CHUNK = 512

OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}


def _draw_clips(count: int, seed: int, frames: int, phrasings: int, silent: int, combinations: str, characters):
    """One chunk: the arrays of its Scenes, and rows of tokens [count, phrasings + silent, 77] of its captions."""
    scenes = draw_scenes(count, seed, characters=characters, frames=frames, combinations=combinations)
    still = scenes.at(slice(None, 1))  # of a single frame no caption tells a motion
    sentences = [captions(scenes, seed * 8 + k, full=k == 1) for k in range(phrasings)]
    sentences += [captions(still, seed * 8 + 4 + k, full=k == 1) for k in range(silent)]
    rows = np.stack([token_rows(some) for some in sentences], axis=1) if sentences else None
    return {item.name: getattr(scenes, item.name).numpy() for item in fields(Scenes)}, rows


def settle_clips(arguments, frames: int = FRAMES) -> int:
    """How many frames a clip has; with --tiny clips are few, short and small."""
    if not arguments.tiny:
        return frames
    arguments.pictures, arguments.size = min(arguments.pictures, 6), 32
    return min(frames, 5)


@dataclass(frozen=True)
class _Later:
    """A job that is done when its result is asked for, where there are no worker processes."""

    job: tuple

    def result(self):
        return _draw_clips(*self.job)


class ClipDrawing(Drawing):
    """Scenes of several frames, and tokens of their captions, chunk by chunk; iterated over as a Drawing is.

    Made before anything touches the GPU: the workers are forked.

    Args:
        arguments: the script's; ``workers`` and ``drawing_seconds`` count.
        count: how many scenes.
        seed: another one gives other scenes.
        frames: of every scene.
        phrasings: captions that tell the motions; the second of them names everything.
        silent: captions without motion words, which come after those.
        combinations: "train", "held_out" or "all".
        characters: as in draw_scenes.
    """

    def __init__(
        self,
        arguments,
        count: int,
        seed: int,
        frames: int,
        *,
        phrasings: int = 0,
        silent: int = 0,
        combinations: str = "train",
        characters: tuple[float, ...] | None = None,
    ):
        self.seconds = arguments.drawing_seconds
        sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
        rest = (frames, phrasings, silent, combinations, characters)
        self.jobs = [(size, seed * 100_000 + k, *rest) for k, size in enumerate(sizes)]
        self.pool = None
        self.futures: list = [_Later(job) for job in self.jobs]
        if arguments.workers > 1 and len(sizes) > 4:
            self.pool = ProcessPoolExecutor(
                arguments.workers, multiprocessing.get_context("fork"), initializer=_use_one_thread
            )
            self.futures = [self.pool.submit(_draw_clips, *job) for job in self.jobs]


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
