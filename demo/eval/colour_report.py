"""Measures MangaNinja's demonstration on held-out looks: ``python -m demo.eval.colour_report --n 170 --seeds 3``.

Characters of looks that no training showed are seen twice, in other places, sizes and angles; one picture is the
reference, of the other the lines are given. Measured is how far the colours of each painted region are from the wanted
ones, over the same without a reference. Then two characters that differ in nothing but their colours: without points
nothing tells which is which, with one point on each it is told. Writes colour.json (keyed by each file's SHA-256) and
colour.md.
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.colour_pairs import Pairs, draw_pairs, numbered_maps, with_twins
from demo.eval import frozen
from demo.eval.colour_measures import colour_errors, own_colours, read_colours, regions_of
from demo.eval.colour_models import SCHEDULER, ColourModels
from demo.eval.image_models import CHECKPOINTS, SIZE, ImageModels, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import CHANCE, share_of
from demo.eval.video_measures import mean_interval, ratio_interval
from demo.world.scene import Scenes, concatenate, draw_scenes, repose

FIRST_SEED = 820_000_000
SCALES = (2.0, 2.0)
"""Factors of (reference - nothing) and of (points - reference): MangaNinja Guider's scales 3 and 4."""

RATIO_BAR, POINTS_BAR = 0.4, 0.8
PLACES = 12
"""Matched places on each character that points are taken from."""

IMAGE_MODEL = "image model and its ControlNet, no reference"
ALONE = "no reference"
REFERENCE = "reference"
POINTS = "reference and points"
WANTED = "wanted, autoencoder"


@dataclass(frozen=True)
class Arm:
    """How pictures are drawn."""

    scales: tuple[float, float]
    points: int = 0  # on each character

    def with_scales(self, scales: tuple[float, float]) -> "Arm":
        """The same with other scales where it has any."""
        return Arm(tuple(new if old else 0.0 for new, old in zip(scales, self.scales, strict=True)), self.points)


ARMS = {
    ALONE: Arm((0.0, 0.0)),
    REFERENCE: Arm((1.0, 0.0)),
    "reference, maps without points": Arm((1.0, 1.0)),
    POINTS: Arm((1.0, 1.0), 1),
    "reference and three points on each": Arm((1.0, 1.0), 3),
}


def scenes_of(count: int, seed: int, twins: bool) -> tuple[Scenes, Scenes]:
    """Held-out characters, one or two, or two twins, and the same once more elsewhere in the same place."""
    if not twins:
        scenes = draw_scenes(count, seed, characters=(0.5, 0.5, 0.0, 0.0), combinations="held_out")
    else:
        parts, had, draw = [], 0, 0
        while had < count:
            some = draw_scenes(4 * count, seed + 1000 * draw, characters=2, combinations="held_out")
            some, changed = with_twins(some, torch.ones(some.size, dtype=torch.bool), "held_out")
            parts.append(some.select(changed))
            had, draw = had + int(changed.sum()), draw + 1
        scenes = concatenate(parts).select(slice(0, count))
    return scenes, repose(scenes, seed + 1, scenery=False)


def maps_of(pairs: Pairs, points: int) -> tuple[Tensor, Tensor] | None:
    """Point maps with the first so many places of each character that are in sight in both pictures."""
    if not points:
        return None
    first = pairs.visible & (pairs.visible.cumsum(-1) <= points)
    places = torch.cat((pairs.wanted_points, pairs.reference_points), -1).round().clamp(0, SIZE - 1)
    places = torch.where(first[..., None], places, -1.0).flatten(1, 2).to(torch.int16)
    return numbered_maps(places, first.flatten(1).sum(1), SIZE)


def measure(models: ColourModels, plain: ImageModels, reader, arguments, seeds: list[int], say) -> dict:
    """ "pairs" and "twins" -> arm -> row -> values of all pictures."""
    table: dict[str, dict[str, dict[str, list[Tensor]]]] = {"pairs": {}, "twins": {}}
    for seed in seeds:
        for what, arms in table.items():
            scenes, others = (some.to(models.device) for some in scenes_of(arguments.n, seed, what == "twins"))
            pairs = draw_pairs(scenes, others, SIZE, seed, PLACES)
            regions = regions_of(scenes, SIZE)
            torch.manual_seed(seed)  # of the points' numbers
            drawn = {}
            for name, arm in ARMS.items():
                scales = arm.with_scales(arguments.scales).scales
                given = (pairs.reference, pairs.lines, maps_of(pairs, arm.points), seed, scales)
                drawn[name] = models.draw(*given, steps=arguments.steps, batch=arguments.batch)
            hint = pairs.lines.expand(-1, 3, -1, -1)
            drawn[IMAGE_MODEL] = plain.generate([""] * scenes.size, seed, 1.0, hint=hint, steps=arguments.steps)
            drawn[WANTED] = models.vae.decoder(models.vae.encode(pairs.wanted).float()).clamp(0, 1)
            for name, pictures in drawn.items():
                rows = arms.setdefault(name, {})
                read, there = read_colours(reader.read(pictures), scenes)
                found = {"error": colour_errors(pictures, pairs.wanted, regions), "read": (read | ~there).all(1)}
                found["characters read"] = read[there]
                if what == "twins":
                    found["own colours"] = own_colours(pictures, pairs.wanted, regions)
                for row, values in found.items():
                    rows.setdefault(row, []).append(values)
            say(f"{what}, seed {seed}")
    return {
        what: {name: {row: torch.cat(values) for row, values in rows.items()} for name, rows in arms.items()}
        for what, arms in table.items()
    }


def summary(found: dict) -> dict:
    """What the report holds of ``measure``'s values; the error's ratio is to the better of the two baselines."""
    table: dict = {}
    for what, arms in found.items():
        best = min((ALONE, IMAGE_MODEL), key=lambda name: float(arms[name]["error"].nanmean()))
        table[what] = {"baseline": best, "arms": {}}
        for name, rows in arms.items():
            entry = {
                "error": mean_interval(rows["error"]).row(),
                "ratio": ratio_interval(rows["error"], arms[best]["error"]).row(),
                "read": share_of(rows["read"], CHANCE["colour"]).row(),
                "characters read": share_of(rows["characters read"], CHANCE["colour"]).row(),
            }
            if "own colours" in rows:
                entry["own colours"] = share_of(rows["own colours"], 0.5).row()
            table[what]["arms"][name] = entry
    return table


def _percent(row: dict) -> str:
    return f"{row['share'] * 100:.1f} % ({row['low'] * 100:.1f})"


def markdown(content: dict) -> str:
    """The report for people."""
    lines = [
        "# MangaNinja's demonstration, measured",
        "",
        f"{content['n']} pictures a row and seed, {content['seeds']} seeds, held-out looks, {content['steps']} steps of"
        f" euler ({SCHEDULER}), factors {content['scales'][0]:g} and {content['scales'][1]:g}, {content['device']},"
        f" {content['date']}. Made by `python -m demo.eval.colour_report`.",
        "",
        "One or two characters, the reference shows them elsewhere in the same place:",
        "",
        "| drawn | colour error | of the better without reference | every colour read right |",
        "|---|---|---|---|",
    ]
    pairs, twins = content["table"]["pairs"], content["table"]["twins"]
    for name, row in pairs["arms"].items():
        error, ratio = row["error"], row["ratio"]
        lines.append(
            f"| {name} | {error['value']:.1f} | {ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}) |"
            f" {_percent(row['read'])} |"
        )
    lines += [
        "",
        "Two characters alike but for their colours:",
        "",
        "| drawn | each nearer to its own colour than to the other's | both colours read right | colour error |",
        "|---|---|---|---|",
    ]
    for name, row in twins["arms"].items():
        shares = f"{_percent(row['own colours'])} | {_percent(row['read'])}"
        lines.append(f"| {name} | {shares} | {row['error']['value']:.1f} |")
    lines += [
        "",
        "The error is the mean over painted regions of Delta E (1976) between mean colours. In brackets the 95 %"
        f" interval, or at least so many. Bars: a ratio of at most {RATIO_BAR:g} to the better of the two without a"
        f" reference; with points both colours right in at least {POINTS_BAR * 100:.0f} %. Chance is half for the own"
        " colour, a tenth for a colour that is read, a hundredth for both.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=170, help="pictures a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="of those, beyond the report's own")
    parser.add_argument("--scales", type=float, nargs=2, default=list(SCALES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256, help="pictures at a time")
    parser.add_argument("--models", type=Path, default=CHECKPOINTS, help="folder of the image models")
    parser.add_argument("--files", type=Path, default=CHECKPOINTS, help="folder of MangaNinja's files")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--tiny", action="store_true", help="3 pictures, 1 seed, 3 steps: whether it runs at all")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.n, arguments.seeds, arguments.steps = 3, 1, 3
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    from networks.demo_manga_ninja import KINDS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = ColourModels(device, arguments.models, arguments.files)
    plain = ImageModels(arguments.models, device)
    plain.load_control()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    content = {
        "checkpoints": file_hashes(arguments.models),
        "files": {
            kind: hashlib.sha256((arguments.files / f"{kind}.safetensors").read_bytes()).hexdigest() for kind in KINDS
        },
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **{name: getattr(arguments, name) for name in ("n", "seeds", "scales", "steps")},
    }
    seeds = [FIRST_SEED + arguments.first_seed + seed for seed in range(arguments.seeds)]
    content["table"] = summary(measure(models, plain, NetworkReader(device=device), arguments, seeds, say))
    content["seconds"] = round(time.monotonic() - begin)
    print(markdown(content))
    if not arguments.tiny:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "colour.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "colour.md").write_text(markdown(content), encoding="ascii")


if __name__ == "__main__":
    main()
