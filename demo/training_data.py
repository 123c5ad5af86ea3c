"""The toy world's pictures and captions for training: drawn by worker processes, rendered where the training runs."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from demo.training import autocast, batches, elapsed, say
from demo.world.captions import captions
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes
from demo.world_tokens import token_rows

CHUNK = 4096


def _draw(count: int, seed: int, phrasings: int, full_phrasings: int, characters, combinations: str, describe):
    """One chunk: the arrays of its Scenes, and the rows of tokens [count, phrasings, 77] of its captions."""
    scenes = draw_scenes(count, seed, characters=characters, combinations=combinations)
    rows = None
    if describe:
        scenes, rows = describe(scenes, seed)
    if phrasings:
        rows = np.stack(
            [token_rows(captions(scenes, seed * 8 + k, full=k < full_phrasings)) for k in range(phrasings)], axis=1
        )
    return {item.name: getattr(scenes, item.name).numpy() for item in fields(Scenes)}, rows


def use_one_thread() -> None:
    torch.set_num_threads(1)


class Drawing:
    """Scenes, and tokens of their captions, chunk by chunk from worker processes.

    Made before anything touches the GPU: the workers are forked.

    Args:
        arguments: the script's; ``workers`` and ``drawing_seconds`` count.
        count: how many scenes.
        seed: another one gives other scenes.
        phrasings: captions for each scene, 0 for none.
        full_phrasings: how many of them name every attribute and relation.
        characters: as in draw_scenes; the default mixes one to four of them.
        combinations: "train", "held_out" or "all".
        describe: a function of a module, (scenes, seed) -> scenes and array [n, ...], that may change what is drawn and
            makes the captions in place of ``phrasings``.
    """

    def __init__(
        self,
        arguments,
        count: int,
        seed: int,
        *,
        phrasings: int = 0,
        full_phrasings: int = 0,
        characters=None,
        combinations: str = "train",
        describe: Callable[[Scenes, int], tuple[Scenes, np.ndarray]] | None = None,
    ):
        self.seconds = arguments.drawing_seconds
        sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
        rest = (phrasings, full_phrasings, characters, combinations, describe)
        self.jobs = [(size, seed * 100_000 + k, *rest) for k, size in enumerate(sizes)]
        self.pool = self.futures = None
        if arguments.workers > 1 and len(sizes) > 4:
            self.pool = ProcessPoolExecutor(
                arguments.workers, multiprocessing.get_context("fork"), initializer=use_one_thread
            )
            self.futures: list[Future] = [self.pool.submit(_draw, *job) for job in self.jobs]

    def __iter__(self) -> Iterator[tuple[Scenes, Tensor | None]]:
        """Scenes on the CPU, and int16 [n, phrasings, 77] or what ``describe`` gives, until count or time ends."""
        begin, count = elapsed(), 0
        try:
            for k, job in enumerate(self.jobs):
                arrays, rows = self.futures[k].result() if self.futures else _draw(*job)
                if self.futures:
                    self.futures[k] = None  # its memory is needed
                scenes = Scenes(**{name: torch.from_numpy(value) for name, value in arrays.items()})
                count += scenes.size
                yield scenes, None if rows is None else torch.from_numpy(rows)
                if elapsed() - begin > self.seconds:
                    say(f"the time for drawing is over after {count} of {sum(size for size, *_ in self.jobs)} pictures")
                    break
        finally:
            if self.pool:
                self.pool.shutdown(wait=False, cancel_futures=True)
        say(f"{count} pictures drawn in {elapsed() - begin:.1f} s")


def rendered(
    scenes: Scenes, device: torch.device, size: int, layers: tuple[str, ...] = ("frames",), part: int = 4096
) -> Iterator:
    """The renders of scenes on the device, ``size`` pixels wide and high, ``part`` at a time to save memory."""
    for chosen in batches(scenes.size, part):
        with torch.no_grad():
            some = scenes.select(torch.arange(chosen.start, chosen.stop))
            yield render(some.to(device), size, size, layers=layers)


def to_bytes(picture: Tensor) -> Tensor:
    """Values 0..1 as uint8."""
    return (picture * 255).round().clamp(0, 255).to(torch.uint8)


def encode_pictures(vae, pictures: Tensor) -> Tensor:
    """Latents float16 [B, 4, H/8, W/8] of pictures 0..1."""
    with torch.no_grad(), autocast(pictures.device):
        parts = pictures.to(memory_format=torch.channels_last).split(512)
        return torch.cat([vae.encode(part).half() for part in parts])
