"""What every benchmark shares: flows to move things by, paired timing, facts about the machine, results on disk.

A benchmark times its subject and its reference in turn (A B A B ...) in one process and reports medians and the
median of the pairwise ratios, so that a machine whose speed drifts does not decide the outcome.
"""

from __future__ import annotations

import itertools
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"


# ---- flows, float32 [2, height, width], pixels ---------------------------------------------------


def _centred(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float32) - (width - 1) / 2,
        indexing="ij",
    )
    return x, y


def pan(height: int, width: int, pixels: float = 7.3) -> Tensor:
    """Everything moves right by ``pixels``."""
    return torch.stack([torch.full((height, width), pixels), torch.zeros(height, width)])


def swirl(height: int, width: int, angle: float = 0.15, radius: float = 0.35) -> Tensor:
    """A turn about the centre by ``angle`` radians that fades with a Gaussian of ``radius`` times the shorter side."""
    x, y = _centred(height, width)
    turn = angle * torch.exp(-(x * x + y * y) / (radius * min(height, width)) ** 2)
    cos, sin = torch.cos(turn), torch.sin(turn)
    return torch.stack([cos * x - sin * y - x, sin * x + cos * y - y])


def zoom(height: int, width: int, factor: float = 2.0) -> Tensor:
    """Everything moves away from the centre by ``factor``."""
    x, y = _centred(height, width)
    return torch.stack([x * (factor - 1), y * (factor - 1)])


FLOWS: dict[str, Callable[[int, int], Tensor]] = {"pan 7.3 px": pan, "swirl": swirl, "zoom-in x2": zoom}


# ---- timing --------------------------------------------------------------------------------------


def milliseconds(call: Callable[[], object], device: torch.device) -> float:
    """One timed call: CUDA events on a GPU, a monotonic clock elsewhere."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def timings(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Times of ``repeats`` calls in a row. On a GPU nothing waits in between, as in real use: the queue stays full."""
    if device.type != "cuda":
        return [milliseconds(call, device) for _ in range(repeats)]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    marks[0].record()
    for mark in marks[1:]:
        call()
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]


def median_ms(call: Callable[[], object], device: torch.device, repeats: int = 50, warm_up: int = 5) -> float:
    """Median of ``repeats`` timed calls in a row."""
    for _ in range(warm_up):
        call()
    return statistics.median(timings(call, device, repeats))


def in_turn(
    calls: Sequence[Callable[[], object]], device: torch.device, repeats: int, warm_up: int
) -> list[tuple[float, ...]]:
    """Times of some calls, in milliseconds: a tuple for each round in which each is called once, in their order."""
    for _ in range(warm_up):
        for call in calls:
            call()
    return [tuple(milliseconds(call, device) for call in calls) for _ in range(repeats)]


@dataclass
class Pair:
    """Medians of two calls timed in turn, in milliseconds, and the median of reference / subject."""

    subject: float
    reference: float
    ratio: float


def paired(
    subject: Callable[[], object],
    reference: Callable[[], object],
    device: torch.device,
    repeats: int = 20,
    warm_up: int = 3,
) -> Pair:
    """Times both in turn."""
    return pair_of(in_turn((subject, reference), device, repeats, warm_up))


def pair_of(rows: Sequence[tuple[float, float]]) -> Pair:
    """Of (subject, reference) in each round."""
    return Pair(
        statistics.median(a for a, _ in rows),
        statistics.median(b for _, b in rows),
        statistics.median(b / a for a, b in rows),
    )


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Peak bytes on a CUDA device while ``call`` runs, beyond what was allocated before it; 0 elsewhere."""
    if device.type != "cuda":
        call()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


# ---- results -------------------------------------------------------------------------------------


def commit() -> str:
    """Short hash of the checked-out commit, with ``+`` when the tree has changes; ``unknown`` outside a repository."""
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=FOLDER, capture_output=True, text=True, check=True
        )
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=FOLDER, capture_output=True, text=True)
        return name.stdout.strip() + ("+" if dirty.stdout.strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """Model name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def facts(device: torch.device) -> dict[str, str]:
    """The machine and the software a table was made with."""
    try:
        import triton

        triton_version = triton.__version__
    except ImportError:
        triton_version = "absent"
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{processor()}, {torch.get_num_threads()} threads"
    )
    return {
        "machine": name,
        "torch": torch.__version__,
        "triton": triton_version,
        "python": platform.python_version(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


@dataclass
class Table:
    """One benchmark's outcome on one kind of device."""

    name: str
    title: str
    reference: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        row = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells]
        self.rows.append(row)
        print("  ".join(f"{cell:>16}" for cell in row), flush=True)

    def save(self, folder: Path = RESULTS) -> Path:
        """Writes ``<name>.json``; the report is made from these files."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", f"Reference: {self.reference}.", ""]
        lines += ["| " + " | ".join(self.columns) + " |", "|" + " --- |" * len(self.columns)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        known = ", ".join(f"{key} {value}" if key != "machine" else value for key, value in self.facts.items())
        return "\n".join([*lines, "", f"Measured on {known}.", *[f"{remark}" for remark in self.remarks], ""])


def write_report() -> Path:
    """RESULTS.md from the saved tables and the prose in NOTES.md."""
    tables = [Table(**json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
    head = (
        "# Benchmark results\n\nMade by `make bench` from the tables in `benchmarks/results/` and the prose in "
        "`benchmarks/NOTES.md`; do not edit by hand. Times are medians in milliseconds.\n"
    )
    notes = FOLDER / "NOTES.md"
    path = FOLDER / "RESULTS.md"
    path.write_text(
        "\n".join([head, *[table.markdown() for table in tables], notes.read_text() if notes.exists() else ""])
    )
    return path
