"""Runs of MangaNinja whose calls read and write the same memory every time, so that a GPU can record and replay them.

A recorded call, a CUDA graph, is launched as a whole: its time is the GPU's work, however long a machine takes to
launch kernels one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[[], object]


def recorded(call: Call, device: torch.device) -> Call:
    """A call that does again what ``call`` does, in the same memory: a CUDA graph on a GPU, the call itself elsewhere.

    On a GPU ``call`` is called twice here, and what the second call makes is filled by the replays.
    """
    if device.type != "cuda":
        return call
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        call()
    torch.cuda.current_stream().wait_stream(aside)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


class StaticRun:
    """A run of steps with recorded calls: one for what is made once and the first step, one for all further steps.

    Args:
        prepare: makes what the steps share.
        step: latent, row of the schedule and what was prepared -> the next latent.
        x: the latent that a run starts from.
        schedule: a row for each step.
        before: what a run does before, itself not recorded.
    """

    def __init__(
        self,
        prepare: Call,
        step: Callable[[Tensor, Tensor, object], Tensor],
        x: Tensor,
        schedule: Tensor,
        before: Call = lambda: None,
    ):
        self.start, self.schedule, self.before = x, schedule, before
        self.x, self.row = x.clone(), schedule[0].clone()

        def further() -> None:
            self.x.copy_(step(self.x, self.row, self.prepared))

        def first() -> None:
            # Sums that the steps share are made in the first of them, so they belong to the same recorded call.
            self.prepared = prepare()
            further()

        before()
        self._first = recorded(first, x.device)
        # So that what is prepared has values when the next call is tried.
        self._go(self._first, x, schedule[0])
        self._further = recorded(further, x.device)

    def _go(self, call: Call, x: Tensor, row: Tensor) -> Tensor:
        self.row.copy_(row)
        if x is not self.x:
            self.x.copy_(x)
        call()
        return self.x

    def __call__(self) -> Tensor:
        """The last latent; the next call overwrites it."""
        self.before()
        x = self._go(self._first, self.start, self.schedule[0])
        for row in self.schedule[1:]:
            x = self._go(self._further, x, row)
        return x

    def step(self, x: Tensor, row: Tensor) -> Tensor:
        """One step with what the last run prepared; the next call overwrites its result."""
        return self._go(self._further, x, row)


def static_ours(ours, picture) -> StaticRun:
    """Our run: the bank still goes to main memory and back, between a recorded reference pass and the rest."""
    bank: dict = {}
    held: dict = {}
    write = recorded(lambda: bank.update(ours.bank(picture, ours.networks.reference)), ours.device)

    def there_and_back() -> None:
        write()
        for place, tokens in bank.items():
            held.setdefault(place, torch.empty_like(tokens)).copy_(tokens.cpu())

    return StaticRun(
        lambda: ours.prepare(picture, held), ours.step, ours.noisy(picture, 0), ours.schedule, there_and_back
    )


def static_published(published, picture) -> StaticRun:
    """The authors' run, all of it recorded."""
    return StaticRun(lambda: published.prepare(picture), published.step, picture.noise, published.schedule)


def launches(call: Call) -> int:
    """How many kernels a call runs on the GPU; 0 where PyTorch's profiler does not tell."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            call()
            torch.cuda.synchronize()
        names = [event.name for event in seen.events() if event.device_type == DeviceType.CUDA]
    except RuntimeError:
        return 0
    return sum(not name.startswith(("Memcpy", "Memset")) for name in names)
