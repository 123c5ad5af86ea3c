"""What the report on the video models says: conditions, bars, rows and the two files it is written to."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.eval import frozen
from demo.eval import video_measures as measures
from demo.eval.reading import Share
from demo.eval.video_by_hand import CAMERA, DRAG, HAND_KINDS
from demo.eval.video_scenes import KINDS

REPORTS = Path(__file__).parent / "reports"
CLIP_STEP = 2
"""Every second frame is kept for optical flow: its own errors weigh less in a motion twice as long."""


@dataclass(frozen=True)
class Condition:
    """One way to generate the same clips."""

    name: str
    tuned: bool
    degradation: float


PLAIN, FOLLOWED = "plain noise", "degradation 0"
UNTUNED = ("LoRA off, degradation 0", "LoRA off, plain noise")
CONDITIONS = (
    Condition(FOLLOWED, True, 0.0),
    Condition("degradation 0.3", True, 0.3),
    Condition("degradation 0.6", True, 0.6),
    Condition(PLAIN, True, 1.0),
    Condition(UNTUNED[0], False, 0.0),
    Condition(UNTUNED[1], False, 1.0),
)
HAND_CONDITIONS = tuple(one for one in CONDITIONS if one.name in (FOLLOWED, PLAIN, *UNTUNED))
"""Of motion made by hand: no weaker following, that is told by the others."""

RISING = tuple(condition.name for condition in CONDITIONS if condition.tuned)
"""Conditions in the order in which the error is to rise."""

STILL, OTHERS, RENDERED = "a clip that stands still", "another scene's motion", "rendered"
"""Rows to compare with: nothing followed, chance, and what the measure itself loses."""

SHARE_BARS = {"one.identity": 0.90, "one.direction": 0.80}
"""Row -> what the lower end of the 95 % interval must reach."""

PSNR_BAR, RATIO_BAR, RATIO_GOAL, QUALITY_BAR = 28.0, 0.5, 0.35, -0.05


class VideoReport:
    """Collects shares, and numbers clip by clip, over all seeds."""

    def __init__(self) -> None:
        self.shares: dict[str, Share] = {}
        self.values: dict[str, list[Tensor]] = {}
        self.chance: dict[str, float] = {}

    def add(self, prefix: str, table: dict[str, Share]) -> None:
        """Add a seed's shares."""
        for name, share in table.items():
            old = self.shares.get(f"{prefix}.{name}", Share(0, 0, share.chance))
            self.shares[f"{prefix}.{name}"] = Share(old.right + share.right, old.count + share.count, share.chance)

    def add_values(self, name: str, values: Tensor, chance: float | None = None) -> None:
        """Add a seed's numbers, one for each clip; NaN where a clip has none."""
        self.values.setdefault(name, []).append(values.float().cpu())
        if chance is not None:
            self.chance[name] = chance

    def column(self, name: str) -> Tensor:
        """All seeds' numbers of a row."""
        return torch.cat(self.values[name])


def conditions_of(kind: str) -> tuple[Condition, ...]:
    """The ways in which clips of a kind are generated."""
    return HAND_CONDITIONS if kind in HAND_KINDS else CONDITIONS


def motion_rows(column: Callable[[str, str], Tensor], extra: tuple[str, ...]) -> dict[str, dict]:
    """Rows on the error between asked and generated motion, with bars.

    Args:
        column: (kind, condition) -> errors, clip by clip.
        extra: conditions beside those of the kind.
    """

    def columns_of(kinds: tuple[str, ...]) -> dict[str, dict[str, Tensor]]:
        names = {kind: [condition.name for condition in conditions_of(kind)] + list(extra) for kind in kinds}
        return {kind: {name: column(kind, name) for name in names[kind]} for kind in kinds}

    columns, by_hand = columns_of(KINDS), columns_of(HAND_KINDS)
    found = measures.motion_rows(columns, PLAIN, FOLLOWED, UNTUNED)
    found |= measures.motion_rows(by_hand, PLAIN, FOLLOWED, UNTUNED, whole="")
    rows = {name: interval.row() for name, interval in found.items()}
    for kind in ("both", *HAND_KINDS):
        rows[f"{kind}, {FOLLOWED} / plain noise"] |= {"bar": f"at most {RATIO_BAR:g} (goal {RATIO_GOAL:g})"}
        rows[f"{kind}, LoRA off - on"] |= {"bar": "above 0"}
    both = [torch.cat([columns[kind][name] for kind in KINDS]) for name in RISING]
    for (before, after), rise in zip(itertools.pairwise(RISING), measures.rises(both), strict=True):
        rows[f"both, rise from {before} to {after}"] = rise.row() | {"bar": "above 0"}
    return rows


def quality_rows(report: VideoReport) -> dict[str, dict]:
    """How much worse each condition's frames read than plain noise's."""

    def less(kinds: tuple[str, ...], name: str) -> dict:
        one, other = (
            torch.cat([report.column(f"frames right, {kind}.{condition}") for kind in kinds])
            for condition in (name, PLAIN)
        )
        row = measures.difference_interval(one, other).row()
        return row | {"bar": f"at least {QUALITY_BAR:g}"} if name == FOLLOWED else row

    rows = {f"both, {name} - plain noise": less(KINDS, name) for name in RISING[:-1]}
    return rows | {f"{kind}, {FOLLOWED} - plain noise": less((kind,), FOLLOWED) for kind in HAND_KINDS}


def contents(report: VideoReport, how: dict, seeds: int, seconds: float) -> dict:
    """What video.json holds.

    Args:
        how: n, cfg, scheduler, shift, steps, device and checkpoints (kind -> SHA-256).
        seeds: how many.
        seconds: that it took, all parts together.
    """
    shares = {name: share.row() for name, share in report.shares.items() if share.count}
    for name, bar in SHARE_BARS.items():
        if name in shares:
            shares[name]["bar"] = bar
    means = {}
    for name in report.values:
        if not name.startswith("reader, "):
            means[name] = measures.mean_interval(report.column(name)).row()
            if name in report.chance:
                means[name]["chance"] = round(report.chance[name], 6)
    if "VAE PSNR, dB" in means:
        means["VAE PSNR, dB"]["bar"] = f"at least {PSNR_BAR:g}"
    found = {
        "checkpoints": how["checkpoints"],
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": how["device"],
        "n": how["n"],
        "seeds": seeds,
        "cfg": how["cfg"],
        "scheduler": how["scheduler"],
        "shift": how["shift"],
        "steps": how["steps"],
        "seconds": round(seconds),
        "shares": shares,
        "means": means,
    }
    if f"reader, {KINDS[0]}.{PLAIN}" in report.values:
        found["motion by reader"] = motion_rows(
            lambda kind, name: report.column(f"reader, {kind}.{name}"), (STILL, OTHERS, RENDERED)
        )
        found["quality"] = quality_rows(report)
    return found


def markdown(content: dict) -> str:
    """video.md of what video.json holds."""
    lines = [
        "# The video models, measured",
        "",
        f"{content['n']} clips of 17 frames a row and seed, {content['seeds']} seeds, {content['steps']} steps of euler"
        f" ({content['scheduler']}, shift {content['shift']:g}), cfg {content['cfg']:g}, {content['device']},"
        f" {content['date']}, {content['seconds']} s. Made by `python -m demo.eval.video_report`.",
        "",
        "| row | n | right | 95 % at least | bar | chance |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in content["shares"].items():
        bar = f"{row['bar'] * 100:.0f} %" if "bar" in row else ""
        chance = f"{row['chance'] * 100:.2g} %"
        lines.append(
            f"| {name} | {row['n']} | {row['share'] * 100:.1f} % | {row['low'] * 100:.1f} % | {bar} | {chance} |"
        )

    def table(title: str, unit: str, rows: dict[str, dict]) -> None:
        head = f"| {title} | n | {unit} | 95 % from | to | bar | chance |"
        lines.extend(["", head, "|---|---|---|---|---|---|---|"])
        for name, row in rows.items():
            numbers = " | ".join(f"{row[key]:.3f}" for key in ("value", "low", "high"))
            lines.append(f"| {name} | {row['n']} | {numbers} | {row.get('bar', '')} | {row.get('chance', '')} |")

    table("mean over clips", "value", content["means"])
    for key, title in (
        ("motion by reader", "asked and generated motion, by the reader"),
        ("motion by optical flow", "the same by optical flow (DIS)"),
        ("quality", "frames right, less than with plain noise"),
    ):
        if key in content:
            table(title, "pixels or ratio" if key != "quality" else "difference", content[key])
    lines += [
        "",
        "Identity: the character has its first frame's shape and colour in all 17 frames. Frames right: share of a"
        " clip's frames that show exactly the characters asked for, with shape and colour. Lost: share of the moving"
        " pixels whose character the reader did not find; it counts as standing still.",
        "",
        "By the reader: how far the pixels of the first frame's characters end from where the flow takes them in"
        f" 17 frames, those that are to go at least {measures.MOVING_WAY:g} pixels. By optical flow: mean end-point"
        f" error from each second frame to the next, over the pixels that are to move at least"
        f" {measures.MOVING_STEP * CLIP_STEP:g} pixel and stay in sight, the background too. Both in pixels of 128 x"
        f' 128. "{STILL}": nothing is followed; "{OTHERS}": chance; "{RENDERED}": the measure\'s own error.',
        "",
        f'"{KINDS[0]}", "{KINDS[1]}": the noise follows the exact flow of scenes in which characters or the camera'
        f' move; "both": the two together. "{DRAG}", "{CAMERA}": it follows the flow that the functions behind the'
        " nodes Cut And Drag and Camera Flow make of a scene's first frame. One character, cut out by its outline, goes"
        " along a bent path, half of them growing or shrinking, half turning; the camera pans and zooms, or, in half of"
        " the clips, pans and goes ahead or back with a depth in which the background is twice as far away as the"
        " characters.",
        "",
    ]
    return "\n".join(lines)


def write(content: dict, folder: Path) -> None:
    """Writes video.json and video.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "video.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
    (folder / "video.md").write_text(markdown(content), encoding="ascii")
