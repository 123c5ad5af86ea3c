"""What the training scripts share: resumable pieces, the schedule, one captured step, pictures of the outcome.

A model is trained in pieces of a few minutes. A piece starts with a warm-up, keeps its rate, and only the last one
(``--final``) lets it fall to zero. Between pieces travel the raw weights in half precision, the step count and the
losses, in one file of at most 16 MiB; the optimiser's moments and the moving average do not, the warm-up makes up for
them. Random numbers continue with the step count: a resumed run sees other batches than an uninterrupted one would
have, and neither repeats bit for bit on a GPU.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor, nn

from demo.muon import Muon
from demo.training_drawings import draw_losses
from demo.training_group import TrainingGroup
from demo.training_state import Progress, read_state, write_state

WARM_UP = 200  # steps, in every piece
DECAY_SHARE = 0.35  # of the last piece
RESTARTS = (20, 50, 100, 200, 400, 800)
"""Steps of a piece after which the moving average starts again: it is not to remember the first, bad weights."""
TICK = 50  # steps between two entries of the losses
AUXILIARY = "auxiliary."
"""What begins the names of parameters that only help training: a state may lack them."""
RESTARTED = "PAPERNODES_TRAINING_STARTED"


def _process_start() -> float:
    """When this process started, on time.monotonic()'s clock: --minutes counts from there, imports included."""
    age = -1.0
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        pass
    return time.monotonic() - (age if 0 <= age <= 60 else 10.0)  # an unlikely age: about what the imports take


STARTED = _process_start()


def parser(description: str, *, minutes: float, batch: int, rate: float, pictures: int) -> argparse.ArgumentParser:
    """The arguments that every training script takes; the defaults are the script's."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    found.add_argument("--minutes", type=float, default=minutes, help="from the start of the process to its end")
    found.add_argument("--state", type=Path, required=True, help="folder for the state, the losses and the pictures")
    found.add_argument("--out", type=Path, help="folder for the finished files; the state's where left out")
    found.add_argument("--resume", type=Path, nargs="?", const=True, help="go on from this folder (alone: --state)")
    found.add_argument("--final", action="store_true", help="the last piece: the rate falls to zero")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--batch", type=int, default=batch)
    found.add_argument("--rate", type=float, default=rate, help="learning rate")
    found.add_argument("--decay", type=float, default=DECAY_SHARE, help="share of the last piece in which it falls")
    found.add_argument("--pictures", type=int, default=pictures, help="drawn at the start")
    found.add_argument("--drawing-seconds", type=float, default=75, help="stop drawing then, with what there is")
    found.add_argument("--workers", type=int, default=max(1, min(15, (os.cpu_count() or 2) - 1)))
    found.add_argument("--steps", type=int, help="end after so many steps, whatever the time")
    found.add_argument("--tiny", action="store_true", help="three steps on the CPU, to try the script out")
    found.add_argument("--no-graph", action="store_true", help="no CUDA graph")
    found.add_argument("--muon", action="store_true", help="move matrices by Muon, not by AdamW")
    return found


def settle(arguments: argparse.Namespace, *, several: bool = False) -> torch.device:
    """Fills in what depends on other arguments; returns the device and prints what there is.

    Args:
        several: whether the script may be run by several processes that train one model.

    Raises:
        SystemExit: it is run by several and may not.
    """
    arguments.size = 128
    if arguments.tiny:
        arguments.batch, arguments.pictures, arguments.workers, arguments.size = 2, 16, 1, 64
        arguments.steps = arguments.steps or 3
        torch.set_num_threads(1)  # more of them only wait for each other where the machine is busy
    arguments.out = arguments.out or arguments.state
    if arguments.resume is True:
        arguments.resume = arguments.state
    cuda = torch.cuda.is_available() and not arguments.tiny
    arguments.group = TrainingGroup.join(cuda)
    if arguments.group.size > 1 and not several:
        raise SystemExit("This script trains in one process; those of video models can be run by several.")
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    name = torch.cuda.get_device_name() if cuda else "CPU"
    say(f"{Path(sys.argv[0]).stem}: {name}, torch {torch.__version__}, {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC")
    return torch.device("cuda" if cuda else "cpu")


def elapsed() -> float:
    """Seconds since the process started (since its first start, where it had to start again)."""
    earlier = float(os.environ.get(RESTARTED, STARTED))
    return time.monotonic() - min(earlier, STARTED)


def say(text: str) -> None:
    """Prints with the time since the start; of several processes only the first one does."""
    if TrainingGroup.rank() == 0:
        print(f"[{elapsed():6.1f} s] {text}", flush=True)


def rate_factor(step: int, done: float, *, final: bool, warm_up: int = WARM_UP, share: float = DECAY_SHARE) -> float:
    """Warm-up, constant, and in the last piece decay: what the learning rate is multiplied by.

    Args:
        step: steps done in this piece, from 0.
        done: how much of the piece has passed, 0..1, in time or in steps.
        final: whether this is the last piece.
        warm_up: steps over which the factor rises to 1.
        share: the part at the end of the last piece over which it falls to 0 in a straight line.
    """
    factor = min(1.0, (step + 1) / warm_up)
    if final:
        factor *= min(1.0, max(0.0, (1.0 - done) / share))
    return factor


def initialise(network: nn.Module) -> None:
    """PyTorch's own start values for the host's layers, which leave their memory as it comes."""
    for module in network.modules():
        for kind in (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm):
            if isinstance(module, kind):
                kind.reset_parameters(module)
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


class Trainer:
    """Trains named parameters by a function that returns the loss of one step.

    Args:
        parameters: name -> leaf tensor on the device, float32.
        loss: called without arguments; draws its own batch with the device's default generator; free of syncs.
        arguments: the script's.
        reserve: seconds to keep for what comes after the last step.
        average: how much of the moving average of the weights each step keeps.
        progress: of earlier pieces, where it does not come with the state that is resumed.
        is_matrix: (name, value) -> whether a parameter maps features to features, which is what Muon is made for;
            what ``--muon`` needs. With it those move by Muon, the others by AdamW at the same rate.

    Raises:
        SystemExit: ``--muon`` without ``is_matrix``.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        loss: Callable[[], Tensor],
        arguments,
        *,
        reserve: float = 25,
        average: float = 0.999,
        weight_decay: float = 0.01,
        progress: Progress | None = None,
        is_matrix: Callable[[str, Tensor], bool] | None = None,
    ):
        self.names, self.parameters = list(parameters), list(parameters.values())
        self.loss, self.arguments, self.reserve, self.average = loss, arguments, reserve, average
        self.device = self.parameters[0].device
        self.progress = progress or Progress()
        if arguments.resume:
            weights, self.progress = read_state(arguments.resume / "state.safetensors")
            with torch.no_grad():
                for name, parameter in parameters.items():
                    if name in weights or not name.startswith(AUXILIARY):
                        parameter.copy_(weights[name])
            say(f"resumed after step {self.progress.step}")
        self.group = getattr(arguments, "group", TrainingGroup())
        self.group.share_first(self.parameters)
        self.first_step = self.progress.step
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        cuda = self.device.type == "cuda"
        self.rate = torch.zeros((), device=self.device)
        self.running = torch.zeros((), device=self.device)
        if arguments.muon and not is_matrix:
            raise SystemExit("--muon: this script does not say which of its parameters are matrices; leave it out.")
        by_muon = [value for name, value in parameters.items() if arguments.muon and is_matrix(name, value)]
        self.muon = Muon(by_muon, self.rate, weight_decay=weight_decay) if by_muon else None
        taken = {id(parameter) for parameter in by_muon}
        left = [parameter for parameter in self.parameters if id(parameter) not in taken]
        matrices = [parameter for parameter in left if parameter.ndim >= 2]
        others = [parameter for parameter in left if parameter.ndim < 2]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        # The rate is a tensor, so that it can change between replays of the captured step.
        self.optimiser = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.rate if cuda else 0.0,
            betas=(0.9, 0.99),
            foreach=True,
            capturable=cuda,
        )
        if cuda:
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate  # this tensor itself, no copy of it

    def step_once(self) -> None:
        """Forward, backward, clip, optimiser, moving average; no syncs, so that it can be captured."""
        self.forget_gradients()
        loss = self.loss()
        loss.backward()
        self.settle_gradients()
        self.optimiser.step()
        if self.muon:
            self.muon.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, [item.detach() for item in self.parameters], 1 - self.average)
            self.running.add_(loss.detach())

    @torch.no_grad()
    def settle_gradients(self) -> None:
        """Averages the gradients over all processes and clips their common norm to 1.

        They become parts of one tensor: one message, and few kernels instead of some for every parameter.
        """
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        everything = torch.cat([parameter.grad.flatten() for parameter in moved])
        self.group.average(everything)
        everything.mul_((1 / (everything.norm() + 1e-6)).clamp_max(1))
        parts = everything.split([parameter.numel() for parameter in moved])
        for parameter, part in zip(moved, parts, strict=True):
            if parameter.is_contiguous():
                parameter.grad = part.view(parameter.shape)
            else:  # channels last: optimisers want the gradient laid out alike
                parameter.grad.copy_(part.view(parameter.shape))

    def forget_gradients(self) -> None:
        """Frees the gradients of all parameters, whichever optimiser moves them."""
        for parameter in self.parameters:
            parameter.grad = None

    def _set_rate(self, value: float) -> None:
        self.rate.fill_(value)
        if self.device.type != "cuda":
            for group in self.optimiser.param_groups:
                group["lr"] = value

    def _prepare(self) -> Callable[[], None]:
        """The function that does one step: the captured graph's replay, or the step itself."""
        if self.device.type != "cuda" or self.arguments.no_graph:
            return self.step_once
        try:
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # real steps at a small rate: libraries and the optimiser set themselves up
                    self.step_once()
            torch.cuda.current_stream().wait_stream(stream)
            torch.cuda.synchronize()
            say(f"three steps without a graph done, loss {self.running.item() / 3:.4f}")
            self.forget_gradients()
            torch.cuda.empty_cache()
            graph = torch.cuda.CUDAGraph()
            # NCCL's own thread asks the device about its work meanwhile, which a stricter mode forbids.
            mode = "thread_local" if self.group.size > 1 else "global"
            with torch.cuda.graph(graph, capture_error_mode=mode):
                self.step_once()
            self.running.zero_()
            graph.replay()
            torch.cuda.synchronize()
            say(f"one step captured in a CUDA graph; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most")
            return graph.replay
        except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or self.group.size > 1:
                raise  # one of several processes cannot start again alone
            say(f"no CUDA graph: {type(error).__name__}: {error}")
            say("starting again without one")
            os.environ[RESTARTED] = str(min(float(os.environ.get(RESTARTED, STARTED)), STARTED))
            sys.stdout.flush()
            # A failed capture leaves PyTorch's generator and allocator in doubt; a new process does not.
            os.execv(sys.executable, [sys.executable, "-m", *_module_and_arguments(), "--no-graph"])

    def train(self, on_tick: Callable[[], None] | None = None) -> None:
        """Steps until the time is up; the state is written every two minutes and at the end.

        Args:
            on_tick: called every TICK steps.

        Raises:
            FloatingPointError: the loss is no longer finite; the last good state is kept.
        """
        arguments = self.arguments
        torch.manual_seed(arguments.seed * 1_000_003 + self.first_step + 500_000 * self.group.number)
        self._set_rate(arguments.rate / WARM_UP)
        step = self._prepare()
        self.running.zero_()
        begin = elapsed()
        end = arguments.minutes * 60 - self.reserve
        saved, ticked, earlier = begin, begin, self.progress.seconds
        events: list = []
        count = 0
        while True:
            if self.group.size == 1 or arguments.steps or count % TICK == 0:  # several agree now and then
                done = count / arguments.steps if arguments.steps else (elapsed() - begin) / max(end - begin, 1e-3)
                done = self.group.agree(done)
            if done >= 1:
                break
            self._set_rate(arguments.rate * rate_factor(count, done, final=arguments.final, share=arguments.decay))
            step()
            count += 1
            self.progress.step += 1
            if count in RESTARTS:
                self.restart_averages()
            if self.device.type == "cuda":  # the queue is kept short: the rate follows the clock
                events.append(torch.cuda.Event())
                events[-1].record()
                if len(events) > 4:
                    events.pop(0).synchronize()
            if count % TICK == 0 or count == arguments.steps:
                loss = self.running.item() / (count % TICK or TICK)
                self.running.zero_()
                if not loss == loss or loss in (float("inf"), float("-inf")):
                    raise FloatingPointError(f"the loss is {loss} at step {self.progress.step}")
                self.progress.losses.append((self.progress.step, round(loss, 6)))
                now = elapsed()
                if count % (TICK * 4) == 0 or count == arguments.steps:
                    share = (now - ticked) / (count % (TICK * 4) or TICK * 4) * 1000
                    rate = self.rate.item()
                    say(f"step {self.progress.step}: loss {loss:.5f}, {share:.1f} ms a step, rate {rate:.2e}")
                    ticked = now
                if on_tick:
                    on_tick()
                if now - saved > 120:
                    self.progress.seconds = earlier + now - begin
                    self.save()
                    saved = elapsed()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = elapsed() - begin
        self.progress.seconds = earlier + seconds
        say(f"{count} steps in {seconds:.1f} s: {seconds / max(count, 1) * 1000:.1f} ms a step")
        self.save()

    def save(self) -> None:
        """Writes state.safetensors, losses.json and losses.png; of several processes the first one does."""
        if self.group.number:
            return
        folder = self.arguments.state
        write_state(folder / "state.safetensors", dict(zip(self.names, self.parameters, strict=True)), self.progress)
        (folder / "losses.json").write_text(json.dumps(self.progress.losses) + "\n", encoding="ascii")
        draw_losses(self.progress.losses, folder / "losses.png")

    def averaged(self) -> dict[str, Tensor]:
        """The moving average of the weights, under their names."""
        return dict(zip(self.names, self.averages, strict=True))

    def restart_averages(self) -> None:
        """After the weights were changed from outside."""
        with torch.no_grad():
            torch._foreach_copy_(self.averages, self.parameters)

    def use_averages(self) -> None:
        """Puts the moving average in the place of the weights; training does not go on after that."""
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.averages)

    def metadata(self, kind: str) -> dict[str, str]:
        """What the finished file says of itself."""
        losses = self.progress.losses
        return {
            "kind": kind,
            "steps": str(self.progress.step),
            "loss": f"{losses[-1][1]:.5f}" if losses else "",
            "seed": str(self.arguments.seed),
            "training_seconds": f"{self.progress.seconds:.0f}",
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        }


def _module_and_arguments() -> list[str]:
    """How this process was started: ``-m`` takes the module's name, which a script run so has in __spec__."""
    return [sys.modules["__main__"].__spec__.name, *sys.argv[1:]]


def autocast(device: torch.device):
    """bfloat16 on a GPU. Cast weights are not kept: each is used once, and a captured graph wants none."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False)


def batches(count: int, size: int) -> Iterator[slice]:
    """The slices of at most ``size`` that make up ``count``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
