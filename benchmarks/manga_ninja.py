"""MangaNinja: a picture's time against its authors' loop, the reference pass' share of it, and memory.

The UNets and the ControlNet have SD1.5's size, all weights are random; 512 x 512, 50 steps. Ours is what the nodes run
on a GPU, in float16: the bank of one row, one call for three rows, the guidance of DualCFGGuider and Euler's steps,
which are DDIM's; what ComfyUI's sampler does around the networks' calls is left out, but the sums of guidance. The
reference (published_manga_ninja.py) is timed in float32, as its authors run it, and in float16. Both use PyTorch's
attention, and PyTorch's defaults for TF32: in convolutions, not in products of matrices.

Kernels launched one by one leave a fast GPU waiting where launches are slow. Runs and steps are therefore timed twice:
as they are, and captured, both sides' calls recorded as CUDA graphs, which compares the GPU's work.
"""

import argparse
import copy
import gc
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from . import lib
from .manga_ninja_run import SIZE, STEPS, TINY, Networks, Ours, random_networks, random_picture
from .static_run import StaticRun, launches, recorded, static_ours, static_published

CLIP_TEXT, CLIP_VISION, AUTOENCODER = 123_060_480, 303_966_208, 83_653_863
"""Parameters of CLIP ViT-L/14's text model, of its vision model with projection, and of SD1.5's VAE."""

Keep = Callable[[lib.Table], None]
Draw = Callable[[], Tensor]


class Setting:
    """A device, the networks' sizes, a picture and how many steps it takes."""

    def __init__(self, device: torch.device, tiny: bool):
        self.device, self.tiny = device, tiny
        self.config, self.latent, self.steps = (TINY, 16, 4) if tiny else (SIZE, 64, STEPS)
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.dtypes = {"single": torch.float32, "half": self.dtype}
        self.picture = random_picture(device, self.config, self.latent)
        self.half_picture = self.picture.to(self.dtype)
        self.size = "in small" if tiny else "512 x 512"
        # What the libraries themselves need is there before memory is counted.
        torch.ones(64, 64, device=device, dtype=self.dtype) @ torch.ones(64, 64, device=device, dtype=self.dtype)

    @staticmethod
    def described(dtype: torch.dtype) -> str:
        return str(dtype).removeprefix("torch.")

    def ours(self, networks: Networks, away: nn.Module, steps: int | None = None) -> Ours:
        return Ours(networks, away, steps or self.steps)

    def published(self, networks: Networks, steps: int | None = None):
        from .published_manga_ninja import PublishedMangaNinja

        return PublishedMangaNinja(*vars(networks).values(), steps=steps or self.steps)


class Bytes:
    """Counts a device's memory beyond what is allocated when this is made."""

    def __init__(self, device: torch.device):
        self.device = device
        self.base = self._allocated()

    def _allocated(self) -> int:
        gc.collect()
        return torch.cuda.memory_allocated() if self.device.type == "cuda" else 0

    def show(self, call: Callable[[], object]) -> tuple[str, str]:
        """Megabytes: allocated before a call, weights for the most part; and the peak while it runs. Both beyond the
        base."""
        before = self._allocated()
        peak = lib.peak_bytes(call, self.device)
        return f"{(before - self.base) / 1e6:.0f}", f"{(before - self.base + peak) / 1e6:.0f}"


def zeros(device: torch.device, dtype: torch.dtype, copies: int, tiny: bool) -> list[Tensor]:
    """What stands for CLIP's towers, ``copies`` of each, and for the VAE."""
    counts = [CLIP_TEXT, CLIP_VISION] * copies + [AUTOENCODER]
    return [torch.zeros(count // 1000 if tiny else count, device=device, dtype=dtype) for count in counts]


def measure_memory(setting: Setting, keep: Keep) -> tuple[Networks, Networks, nn.Module]:
    """Makes the networks, one set after the other, and a table of what each way of running them needs.

    Returns:
        In float32, in the setting's dtype, and the reference UNet for ``Ours``.
    """
    device, dtype = setting.device, setting.dtype
    table = lib.Table(
        name=f"manga-ninja-memory-{device.type}",
        title=f"MangaNinja's memory, {setting.size}, {device.type.upper()}, MB, weights included",
        reference="the authors' loop, transcribed (`benchmarks/published_manga_ninja.py`), all their networks resident",
        columns=["what", "in", "before the run", "peak"],
        facts=lib.facts(device),
        remarks=[
            "Reference: two UNets, ControlNet, point net, and, as tensors of zeros that nothing reads, the VAE "
            f"({AUTOENCODER:,} parameters) and two copies each of CLIP ViT-L/14's text model ({CLIP_TEXT:,}) and "
            f"vision model with projection ({CLIP_VISION:,}), which the authors load twice.",
            "Ours, all resident: the same with one copy of each. Ours, moved: the reference UNet comes for its pass "
            "and goes, CLIP and VAE have gone, as ComfyUI does it where memory is short.",
        ],
    )
    steps = 2  # a peak does not depend on how many there are

    def add(what: str, kind: torch.dtype, count: Bytes, call: Callable[[], object]) -> None:
        table.add(what, setting.described(kind), *count.show(call))
        keep(table)

    count = Bytes(device)
    single = random_networks(device, setting.config)
    others = zeros(device, torch.float32, 2, setting.tiny)
    run = setting.published(single, steps)
    add("reference", torch.float32, count, lambda: run(setting.picture))
    del others
    count = Bytes(device)
    half = single.to(dtype)
    others = zeros(device, dtype, 2, setting.tiny)
    run = setting.published(half, steps)
    add("reference", dtype, count, lambda: run(setting.half_picture))
    del others
    others = zeros(device, dtype, 1, setting.tiny)
    away = copy.deepcopy(half.reference).to("cpu")
    ours = setting.ours(half, away, steps)
    add("ours, all resident", dtype, count, lambda: ours(setting.picture))
    del others
    half.reference.to("cpu")
    add("ours, moved", dtype, count, lambda: ours(setting.picture, move=True))
    half.reference.to(device)
    return single, half, away


class Times:
    """The table of runs' and steps' times. The calls of a row are named: ours, moved, single and half."""

    def __init__(self, setting: Setting, keep: Keep):
        self.setting, self.keep, self.worst = setting, keep, 0.0
        device = setting.device
        self.table = lib.Table(
            name=f"manga-ninja-{device.type}",
            title=f"MangaNinja, {setting.steps} steps, the reference pass included, {setting.size}, "
            f"{device.type.upper()}",
            reference="the authors' loop, transcribed (`benchmarks/published_manga_ninja.py`)",
            columns=["what", "reference in", "ours", "reference", "ours / reference", "differ by"],
            facts=lib.facts(device),
            remarks=[
                f"Ours in {setting.described(setting.dtype)}. TF32 as PyTorch sets it: convolutions only. Moved: our "
                "reference UNet comes from pageable main memory and goes back within the run; theirs stays.",
                "Networks and guidance only: neither side has CLIP, VAE or a sampler's bookkeeping in it. Differ by: "
                "the largest difference of the two latents over the largest value.",
                "4 pictures: ours in one batch of 12 rows, the reference one after the other, as its authors draw.",
            ],
        )

    def add(self, what: str, reference: str, pair: lib.Pair, found: Tensor, wanted: Tensor) -> None:
        gap = float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())
        self.worst = max(self.worst, gap)
        shown = [f"{milliseconds:.1f} ms" for milliseconds in (pair.subject, pair.reference)]
        dtype = self.setting.described(self.setting.dtypes[reference])
        self.table.add(what, dtype, *shown, f"{1 / pair.ratio:.3f}", f"{gap:.1e}")
        self.keep(self.table)

    def remark(self, text: str) -> None:
        self.table.remarks.append(text)
        self.keep(self.table)

    def add_runs(self, what: str, calls: Mapping[str, Draw]) -> dict[str, list[float]]:
        """Rows of whole runs, timed in turn, the float32 reference less often; returns each one's milliseconds."""
        made: dict[str, Tensor] = {}

        def keeping(name: str) -> Callable[[], None]:
            def kept() -> None:
                made[name] = calls[name]()

            return kept

        columns: dict[str, list[float]] = {name: [] for name in calls}
        quick = [name for name in calls if name != "single"]
        for names, repeats in ((list(calls), 1),) if self.setting.tiny else ((list(calls), 3), (quick, 2)):
            for taken in lib.in_turn([keeping(name) for name in names], self.setting.device, repeats, 0):
                for name, milliseconds in zip(names, taken, strict=True):
                    columns[name].append(milliseconds)
        for subject in ("ours", "moved"):
            for reference in ("single", "half"):
                if subject in calls and reference in calls:
                    pair = lib.pair_of(list(zip(columns[subject], columns[reference], strict=False)))
                    shown = f"{what}, moved" if subject == "moved" else what
                    self.add(shown, reference, pair, made[subject], made[reference])
        return columns

    def add_steps(self, what: str, calls: Mapping[str, Draw], repeats: int = 20) -> None:
        """Rows of steps."""
        for reference in ("single", "half"):
            if "ours" in calls and reference in calls:
                pair = lib.paired(
                    calls["ours"], calls[reference], self.setting.device, 2 if self.setting.tiny else repeats
                )
                self.add(what, reference, pair, calls["ours"](), calls[reference]())


class Sides:
    """Both sides' runs, and the step in the middle of them, of one picture and of four."""

    def __init__(self, setting: Setting, single: Networks, half: Networks, away: nn.Module):
        self.setting, self.middle = setting, setting.steps // 2
        self.ours = setting.ours(half, away)
        self.theirs = {
            "single": (setting.published(single), setting.picture),
            "half": (setting.published(half), setting.half_picture),
        }
        self.four = random_picture(setting.device, setting.config, setting.latent, 4)
        self.each = self.four.to(setting.dtype).split()

    def runs(self) -> dict[str, Draw]:
        ours, picture = self.ours, self.setting.picture
        calls: dict[str, Draw] = {"ours": lambda: ours(picture), "moved": lambda: ours(picture, move=True)}
        for name, (published, given) in self.theirs.items():
            calls[name] = lambda published=published, given=given: published(given)
        return calls

    def step_of_ours(self, picture, static: StaticRun | None = None) -> Draw:
        """A step of ours, by a recorded call where there is one."""
        ours, number = self.ours, self.middle
        noisy, row = ours.noisy(picture, number), ours.schedule[number]
        if static:
            return lambda: ours.scaled(static.step(noisy, row), number + 1)
        prepared = ours.prepare(picture, ours.kept_bank(picture))
        return lambda: ours.scaled(ours.step(noisy, row, prepared), number + 1)

    def step_of_theirs(self, name: str, picture, static: StaticRun | None = None) -> Draw:
        published, _ = self.theirs[name]
        row = published.schedule[self.middle]
        if static:
            return lambda: static.step(picture.noise, row)
        prepared = published.prepare(picture)
        return lambda: published.step(picture.noise, row, prepared)

    def steps(self) -> dict[str, Draw]:
        calls = {"ours": self.step_of_ours(self.setting.picture)}
        return calls | {name: self.step_of_theirs(name, given) for name, (_, given) in self.theirs.items()}

    def steps_of_four(self) -> dict[str, Draw]:
        theirs = [self.step_of_theirs("half", given) for given in self.each]
        return {"ours": self.step_of_ours(self.four), "half": lambda: torch.cat([step() for step in theirs])}


def measure_times(setting: Setting, sides: Sides, times: Times) -> tuple[float, float]:
    """Rows of runs and steps as they are; returns our runs' milliseconds, the second with the reference UNet moved."""
    columns = times.add_runs("a run", sides.runs())
    times.add_steps("a step", sides.steps())
    times.add_steps("a step, 4 pictures", sides.steps_of_four(), 10)
    if setting.device.type == "cpu" and times.worst > 1e-4:
        sys.exit(f"manga_ninja: the two sides differ by {times.worst:.1e}")
    return statistics.median(columns["ours"]), statistics.median(columns["moved"])


def measure_captured(setting: Setting, sides: Sides, times: Times, table: lib.Table, keep: Keep) -> None:
    """Rows of the same with both sides' calls captured; ``table`` is that of the reference pass."""
    device, ours = setting.device, sides.ours
    times.remark(
        "Captured: both sides' calls recorded as CUDA graphs and replayed, which neither ComfyUI nor the authors do, "
        "so that the GPU's work is compared and not how fast a machine launches kernels. What a graph uses cannot "
        "move, so there are no such rows with the reference UNet moved; our bank goes to main memory and back."
    )

    def captured(what: str, make: Callable[[], object]):
        try:
            return make()
        except RuntimeError as error:
            print(f"manga_ninja: {what} is not captured: {error}", flush=True)
            return None

    own = captured("ours", lambda: static_ours(ours, setting.picture))
    if own is None:
        return
    runs: dict[str, Draw] = {"ours": lambda: ours.scaled(own(), setting.steps)}
    steps = {"ours": sides.step_of_ours(setting.picture, own)}
    for name, (published, given) in sides.theirs.items():
        static = captured(
            f"theirs, {name}", lambda published=published, given=given: static_published(published, given)
        )
        if static is not None:
            runs[name] = lambda static=static: static().clone()
            steps[name] = sides.step_of_theirs(name, given, static)
    columns = times.add_runs("a run, captured", runs)
    times.add_steps("a step, captured", steps)
    write = captured(
        "the reference pass", lambda: recorded(lambda: ours.bank(setting.picture, ours.networks.reference), device)
    )
    if write is not None:
        time = statistics.median(milliseconds for (milliseconds,) in lib.in_turn([write], device, 20, 2))
        whole = statistics.median(columns["ours"])
        table.add("the pass alone, captured, of a captured run", f"{time:.1f} ms", f"{100 * time / whole:.2f} %")
        keep(table)
    own_four = captured("ours, 4 pictures", lambda: static_ours(ours, sides.four))
    published, _ = sides.theirs["half"]
    theirs = captured("theirs, 4 pictures", lambda: [static_published(published, given) for given in sides.each])
    if own_four is not None and theirs is not None:
        each = [sides.step_of_theirs("half", given, static) for given, static in zip(sides.each, theirs, strict=True)]
        calls = {
            "ours": sides.step_of_ours(sides.four, own_four),
            "half": lambda: torch.cat([step() for step in each]),
        }
        times.add_steps("a step, 4 pictures, captured", calls, 10)


def count_launches(sides: Sides, times: Times) -> None:
    """A remark on how many kernels a step has."""
    names = {"ours": "ours", "single": "the reference in float32", "half": "the reference in float16"}
    counts = {names[name]: launches(call) for name, call in sides.steps().items()}
    if all(counts.values()):
        times.remark("Kernels in a step: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + ".")


def measure_pass(setting: Setting, ours: Ours, runs: tuple[float, float], keep: Keep) -> lib.Table:
    """A table of the reference pass' share of a run of ours, which is returned."""
    device, picture = setting.device, setting.picture
    run, moved = runs
    table = lib.Table(
        name=f"manga-ninja-pass-{device.type}",
        title=f"MangaNinja's reference pass in a run of {setting.steps} steps, {setting.size}, {device.type.upper()}",
        reference="a run of ours with that pass in it",
        columns=["what", "time", "share of a run"],
        facts=lib.facts(device),
        remarks=["ComfyUI runs the pass once for a reference and keeps its bank for all further pictures."],
    )

    def there_and_back() -> None:
        for tokens in ours.kept_bank(picture).values():
            tokens.to(device)

    def moving() -> None:
        for tokens in ours.kept_bank(picture, move=True).values():
            tokens.to(device)

    for what, call, whole, repeats in (
        ("the pass alone", lambda: ours.bank(picture, ours.networks.reference), run, 20),
        ("and the bank to main memory and back", there_and_back, run, 20),
        ("and the reference UNet from main memory and back", moving, moved, 5),
    ):
        taken = lib.in_turn([call], device, 2 if setting.tiny else repeats, 2)
        time = statistics.median(milliseconds for (milliseconds,) in taken)
        table.add(what, f"{time:.1f} ms", f"{100 * time / whole:.2f} %")
        keep(table)
    return table


def run(device: torch.device, tiny: bool, keep: Keep) -> None:
    """All tables; ``keep`` is handed each of them whenever it has a new row."""
    setting = Setting(device, tiny)
    single, half, away = measure_memory(setting, keep)
    sides, times = Sides(setting, single, half, away), Times(setting, keep)
    runs = measure_times(setting, sides, times)
    table = measure_pass(setting, sides.ours, runs, keep)
    if device.type == "cuda":
        measure_captured(setting, sides, times, table, keep)
        count_launches(sides, times)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", default=str(lib.RESULTS), help="folder for the tables")
    parser.add_argument("--tiny", action="store_true", help="small networks: whether it runs; writes nothing")
    arguments, _ = parser.parse_known_args()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda" and not arguments.tiny:
        print("manga_ninja: left out, networks of SD1.5's size need a GPU")
        return
    tables: dict[str, lib.Table] = {}

    def keep(table: lib.Table) -> None:
        tables[table.name] = table
        if not arguments.tiny:
            table.save(Path(arguments.results))

    run(device, arguments.tiny, keep)
    for table in tables.values():
        print(table.markdown())


if __name__ == "__main__":
    main()
