"""Parts of the report on the video models, measured by several processes (one to a GPU) and put together afterwards."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from demo.eval.reading import Share
from demo.eval.video_tables import VideoReport

SECTIONS = ("guidance", "captions", "VAE", "flows")


@dataclass(frozen=True)
class Part:
    """What one process measured.

    Args:
        how: settings that all parts of a report share, and the hashes of the checkpoints that it used, by kind.
        sections: which of SECTIONS.
        seeds: of the sections that have them.
        seconds: that it took.
    """

    report: VideoReport
    how: dict
    sections: tuple[str, ...]
    seeds: tuple[int, ...]
    seconds: float


def write_part(part: Part, path: Path) -> None:
    """Writes a part as JSON; numbers that are missing become null."""
    report = part.report
    content = {
        "how": part.how,
        "sections": part.sections,
        "seeds": part.seeds,
        "seconds": part.seconds,
        "shares": {name: [share.right, share.count, share.chance] for name, share in report.shares.items()},
        "values": {
            name: [[None if math.isnan(value) else value for value in seed.tolist()] for seed in column]
            for name, column in report.values.items()
        },
        "chance": report.chance,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="ascii")


def read_part(path: Path) -> Part:
    """What ``write_part`` wrote."""
    content = json.loads(path.read_text(encoding="ascii"))
    report = VideoReport()
    report.shares = {name: Share(*numbers) for name, numbers in content["shares"].items()}
    report.chance = content["chance"]
    for name, column in content["values"].items():
        report.values[name] = [
            torch.tensor([math.nan if value is None else value for value in seed], dtype=torch.float32)
            for seed in column
        ]
    return Part(report, content["how"], tuple(content["sections"]), tuple(content["seeds"]), content["seconds"])


def merge(parts: Sequence[Part]) -> Part:
    """The parts put together, seed after seed.

    Raises:
        ValueError: they were not measured alike, a section was measured twice for a seed, or sections have not the
            same seeds.
    """
    parts = sorted(parts, key=lambda part: part.seeds)
    checkpoints: dict[str, str] = {}
    for part in parts:  # only flows need all of them
        if part.how | {"checkpoints": {}} != parts[0].how | {"checkpoints": {}} or any(
            checkpoints.get(kind, name) != name for kind, name in part.how["checkpoints"].items()
        ):
            raise ValueError("the parts were not measured with the same settings and checkpoints.")
        checkpoints |= part.how["checkpoints"]
    whole = VideoReport()
    seeds: dict[str, list[int]] = {}
    for part in parts:
        for section in part.sections:
            done = seeds.setdefault(section, [])
            if again := set(done) & set(part.seeds):
                raise ValueError(f"{section} was measured twice for seed {min(again)}.")
            done.extend(part.seeds)
        for name, share in part.report.shares.items():
            group, _, row = name.rpartition(".")
            whole.add(group, {row: share})
        whole.chance |= part.report.chance
        for name, column in part.report.values.items():
            whole.values.setdefault(name, []).extend(column)
    counted = {tuple(some) for section, some in seeds.items() if section != "guidance"}
    if len(counted) != 1:
        raise ValueError(f"sections have different seeds: {seeds}.")
    seconds = sum(part.seconds for part in parts)
    return Part(whole, parts[0].how | {"checkpoints": checkpoints}, tuple(seeds), counted.pop(), seconds)
