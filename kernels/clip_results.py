"""Where a clip's results are put while it is computed frame by frame, on the device that computes or in main memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor


def zeros(*size: int, device: torch.device) -> Tensor:
    """float32 zeros; in main memory what is never written costs nothing.

    numpy asks the system for empty pages, large ones where it can; torch writes every zero.
    """
    if device.type == "cpu":
        return torch.from_numpy(numpy.zeros(size, dtype=numpy.float32))
    return torch.zeros(size, device=device)


class Courier:
    """Brings results to where they belong while the next frame is computed.

    From a CUDA device they travel through page-locked memory, two frames of it, so that the device never waits for the
    copy into ordinary memory; anywhere else they are copied at once.

    Args:
        source: the device that computes.
        target: where the results belong.
    """

    def __init__(self, source: torch.device, target: torch.device):
        self._locked = source.type == "cuda" and target.type == "cpu"
        self._buffers: list[Tensor | None] = [None, None]
        self._waiting: list[tuple[torch.cuda.Event, list[tuple[Tensor, Tensor]]] | None] = [None, None]
        self._turn = 0

    def send(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Copies the first of each pair into the second, of the same shape, now or by ``finish`` at the latest.

        The first ones may be overwritten afterwards only by work of the same device's current stream.
        """
        if not self._locked:
            for source, target in pairs:
                target.copy_(source)
            return
        turn, self._turn = self._turn, 1 - self._turn
        self._unload(turn)
        needed = sum(source.numel() for source, _ in pairs)
        buffer = self._buffers[turn]
        if buffer is None or buffer.numel() < needed:
            buffer = self._buffers[turn] = torch.empty(needed, dtype=torch.float32, pin_memory=True)
        start, carried = 0, []
        for source, target in pairs:
            part = buffer[start : start + source.numel()].view(source.shape)
            part.copy_(source.contiguous(), non_blocking=True)
            carried.append((part, target))
            start += math.prod(source.shape)
        event = torch.cuda.Event()
        event.record()
        self._waiting[turn] = (event, carried)

    def finish(self) -> None:
        """Waits until everything has arrived."""
        self._unload(self._turn)
        self._unload(1 - self._turn)

    def _unload(self, turn: int) -> None:
        if self._waiting[turn] is None:
            return
        event, carried = self._waiting[turn]
        self._waiting[turn] = None
        event.synchronize()
        for part, target in carried:
            target.copy_(part)
