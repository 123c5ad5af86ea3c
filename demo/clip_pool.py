"""Training clips that are made while the training goes on: a model that sees few of them often learns them by heart.

Measured with 20,480 clips, each seen 300 times: at noise 0.95 the network's error was 0.44 on clips of its training
and 0.58 on others (at 0.2, where the noise hides little, 0.55 and 0.56).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from demo.training import elapsed, say
from demo.video_data import ClipSource
from demo.world.scene import Scenes


def settled_time(device: torch.device) -> float:
    """Seconds since the start, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return elapsed()


class ClipPool:
    """Tensors that describe clips, all equally many, in memory that stays where it is: a captured step reads it.

    Args:
        capacity: clips; more than that take the places of the oldest.
    """

    def __init__(self, capacity: int):
        self.capacity, self.made = capacity, 0
        self.tensors: list[Tensor] = []

    def add(self, clips: Sequence[Tensor]) -> None:
        """Adds clips: tensors that begin with the same size, alike in all calls."""
        if not self.tensors:
            self.tensors = [some.new_zeros(self.capacity, *some.shape[1:]) for some in clips]
            self.count = torch.zeros((), device=clips[0].device)
        number = clips[0].shape[0]
        places = (torch.arange(number, device=clips[0].device) + self.made) % self.capacity
        for tensor, some in zip(self.tensors, clips, strict=True):
            tensor[places] = some
        self.made += number
        self.count.fill_(min(self.made, self.capacity))

    def draw(self, batch: int) -> Tensor:
        """int64 [batch]: the places of some clips; free of syncs."""
        chance = torch.rand(batch, device=self.count.device, dtype=torch.float64)
        return (chance * self.count).long()


class Refreshing:
    """Makes clips for a pool, all the time in small shares.

    Args:
        pool: where to.
        parts: without end, the tensors of a few clips.
        share: of the time from one call of ``spend`` to the next that it may take.
        device: where they are made.
    """

    def __init__(self, pool: ClipPool, parts: Iterator[Sequence[Tensor]], share: float, device: torch.device):
        self.pool, self.parts, self.share, self.device = pool, parts, share, device
        self.seconds, self.ended, self.owed = 0.0, 0.0, 0.0

    def fill(self, seconds: float, most: int) -> None:
        """Makes clips for so many seconds, or until there are so many.

        Of those seconds the very first part costs none: it has to wait for what is compiled.
        """
        begin = first = settled_time(self.device)
        if not self.pool.made:
            self.pool.add(next(self.parts))
            first = settled_time(self.device)
        while self.pool.made < most:
            self.pool.add(next(self.parts))
            if settled_time(self.device) - first > seconds:
                break
        self.ended = settled_time(self.device)
        self.seconds += self.ended - begin
        say(f"{self.pool.made} clips made in {self.ended - begin:.1f} s, the first ones in {first - begin:.1f} s")

    def spend(self) -> None:
        """Makes clips for its share of the time since it was last here; what it takes too long is kept in mind."""
        begin = settled_time(self.device)
        self.owed += (begin - self.ended) * self.share / max(1 - self.share, 1e-3)
        while self.owed > 0 and self.share > 0:
            start = settled_time(self.device)
            self.pool.add(next(self.parts))
            self.owed -= settled_time(self.device) - start
        self.ended = settled_time(self.device)
        self.seconds += self.ended - begin


def parts_of(source: ClipSource, make: Callable[[Scenes, Tensor], Sequence[Tensor]], size: int) -> Iterator:
    """What ``make`` gives of ``size`` scenes at a time and of their tokens, without end."""
    while True:
        scenes, tokens = source.chunk()
        for chosen in torch.arange(scenes.size).split(size):
            yield make(scenes.select(chosen), tokens[chosen])
