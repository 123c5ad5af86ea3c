"""Measures panoramas: ``python -m demo.eval.panorama_report --n 170 --seeds 3``.

The seam: panoramas of places, with and without Panorama Model and Panorama VAE Decode; the change across the edge over
the mean change. The views: panoramas of one character by Panorama Views, seen in perspective straight ahead and 60
degrees up and down, and what the frozen reader says of the largest character there; with the same prompts and noise the
plain model's panoramas. Writes panorama.json (keyed by each file's SHA-256) and panorama.md. ``--tune`` compares views
on other scenes instead.
"""

import argparse
import json
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.eval import frozen
from demo.eval.image_models import CHECKPOINTS, ImageModels, file_hashes
from demo.eval.image_report import CFG, REPORTS
from demo.eval.network_reader import NetworkReader
from demo.eval.panorama_measures import cell_changes, seam_changes, shown_right, there_right
from demo.eval.panorama_models import UNIT, Arm, draw, look, rendered_views, ring_yaws, views_of
from demo.eval.reading import CHANCE
from demo.eval.video_measures import difference_interval, mean_interval, ratio_interval
from demo.training_drawings import save_grid
from demo.world.attributes import BACKGROUNDS, LIGHTS
from demo.world.captions import LIGHTING, PLACES, object_captions
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes

FIRST_SEED, TUNING_SEED = 910_000_000, 920_000_000
SEAM_HEIGHT, VIEWS_HEIGHT = 24, 32
"""Latents: panoramas of 192 x 384 and of 256 x 512 pixels."""

ELEVATIONS = (60.0, 0.0, -60.0)
"""Degrees at which panoramas are looked at."""

WITHOUT_BAR, WITH_BAR = 2.0, 1.2
KEPT_BAR, KEPT_GAIN = 0.5, 0.1
"""Shape right at 60 degrees up and down, and over the plain model's panoramas."""

PLAIN, ROUND = "plain model, VAE Decode", "Panorama Model, Panorama VAE Decode"
SEAMS = {
    PLAIN: Arm("plain", "plain"),
    "plain model, Panorama VAE Decode": Arm("plain", "round"),
    "Panorama Model, VAE Decode": Arm("round", "plain"),
    ROUND: Arm("round", "round"),
}
FLAT, ENDLESS, VIEWS, WANTED = "plain model", "Panorama Model", "Panorama Views", "rendered views"
SMALL, LATENTS = "Panorama Views of 128 x 128", "Panorama Views of 128 x 128 without a VAE"
ARMS = {
    FLAT: Arm("plain", "tiles"),
    ENDLESS: Arm("round", "tiles"),
    VIEWS: Arm("views", "tiles", columns=24),
    SMALL: Arm("views", "tiles"),
    LATENTS: Arm("views", "tiles", pictures=False),
}
TUNING = {
    VIEWS: ARMS[VIEWS],
    **{f"sharpness {value:g}": replace(ARMS[VIEWS], sharpness=value) for value in (1.0, 8.0, 16.0)},
    "16 views": replace(ARMS[VIEWS], count=0, pitches=()),
    "4 of 90 at 60": replace(ARMS[VIEWS], count=4, fov=90.0, pitches=(60.0, 0.0, -60.0)),
    "4 of 90 at 50": replace(ARMS[VIEWS], count=4, fov=90.0),
    "3 of 110 at 55": replace(ARMS[VIEWS], fov=110.0, pitches=(55.0, 0.0, -55.0)),
    "6 of 120": replace(ARMS[VIEWS], fov=120.0, pitches=(45.0, -45.0)),
    "16 columns": ARMS[SMALL],
    "32 columns": replace(ARMS[VIEWS], columns=32),
}


def place_prompts(count: int) -> list[str]:
    """Every place in every light, in turn."""
    pairs = [(place, light) for light in LIGHTS for place in BACKGROUNDS]
    return [f"{PLACES[place]}, {LIGHTING[light]}" for place, light in (pairs[n % len(pairs)] for n in range(count))]


def scenes_of(count: int, seed: int) -> Scenes:
    """One character each."""
    return draw_scenes(count, seed, characters=(1.0, 0.0, 0.0, 0.0))


def scene_prompts(scenes: Scenes) -> list[str]:
    """Who, where and in which light; nothing of where in the picture."""
    pairs = zip(object_captions(scenes), scenes.background.tolist(), scenes.light.tolist(), strict=True)
    return [f"{own[0]} {PLACES[BACKGROUNDS[b]]}, {LIGHTING[LIGHTS[light]]}" for own, b, light in pairs]


def read_views(panoramas: Tensor, scenes: Scenes, reader, arm: Arm, device: torch.device) -> dict[str, Tensor]:
    """Row -> float32 [B], the share of a panorama's views at an elevation that show what was asked for."""
    rows = {}
    for pitch in ELEVATIONS:
        yaws = ring_yaws(arm, pitch)
        asked = {name: getattr(scenes, name)[:, 0].cpu().repeat_interleave(len(yaws)) for name in ("shape", "colour")}
        parts = [reader.read(look(part.to(device), yaws, pitch)) for part in panoramas.split(64)]
        for name, wanted in asked.items():
            flags = torch.cat(
                [shown_right(some, one, name) for some, one in zip(parts, wanted.split(64 * len(yaws)), strict=True)]
            )
            rows[f"{name} {pitch:g}"] = flags.float().view(-1, len(yaws)).mean(1)
        flags = [there_right(some, one) for some, one in zip(parts, asked["shape"].split(64 * len(yaws)), strict=True)]
        rows[f"any {pitch:g}"] = torch.cat(flags).float().view(-1, len(yaws)).mean(1)
    steep = [values for name, values in rows.items() if name.startswith("shape") and not name.endswith(" 0")]
    return rows | {"shape steep": torch.stack(steep).mean(0)}


def measure_seams(models: ImageModels, arguments, seeds: list[int], say) -> tuple[dict, list[Tensor]]:
    """Arm -> what changes across, inside and where latents meet, float32 [panoramas]; and the first of each arm."""
    found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in SEAMS}
    shown = []
    for seed in seeds:
        prompts = place_prompts(arguments.n)
        for name, arm in SEAMS.items():
            given = (prompts, seed, arm, SEAM_HEIGHT, arguments.cfg)
            pictures = draw(models, *given, steps=arguments.steps, batch=arguments.batch)
            across, inside = seam_changes(pictures)
            for row, values in (("across", across), ("inside", inside), ("cells", cell_changes(pictures)[0])):
                found[name].setdefault(row, []).append(values)
            if seed == seeds[0]:
                shown.append(pictures[:6].roll(pictures.shape[-1] // 2, -1))
        say(f"seed {seed}: seams")
    return {name: {row: torch.cat(some) for row, some in rows.items()} for name, rows in found.items()}, shown


def measure_views(models, reader, arms: dict[str, Arm], arguments, seeds, say) -> tuple[dict, list[Tensor]]:
    """Arm -> row -> float32 [panoramas]; and the first panoramas of each arm."""
    found: dict[str, dict[str, list[Tensor]]] = {}
    shown = []
    for seed in seeds:
        scenes = scenes_of(arguments.panoramas, seed)
        prompts, device = scene_prompts(scenes), models.device
        drawn = {}
        for name, arm in arms.items():
            given = (prompts, seed, arm, VIEWS_HEIGHT, arguments.cfg)
            drawn[name] = draw(models, *given, steps=arguments.steps, batch=arguments.batch)
            say(f"seed {seed}: {name}")
        known = arms[VIEWS]
        views = len(views_of(known).yaw)
        edge = UNIT * known.columns
        flat = render(scenes.to(device), edge, edge).frames[:, 0].repeat_interleave(views, 0)
        drawn[WANTED] = torch.cat([rendered_views(some, known, VIEWS_HEIGHT).cpu() for some in flat.split(views * 32)])
        for name, pictures in drawn.items():
            for row, values in read_views(pictures, scenes, reader, arms.get(name, known), device).items():
                found.setdefault(name, {}).setdefault(row, []).append(values)
        if seed == seeds[0]:
            shown = [pictures[:6] for pictures in drawn.values()]
    return {name: {row: torch.cat(some) for row, some in rows.items()} for name, rows in found.items()}, shown


def summary(seams: dict, views: dict) -> dict:
    """What the report holds of the values."""
    table = {"seams": {}, "views": {}}
    for name, rows in seams.items():
        table["seams"][name] = {
            "seam": ratio_interval(rows["across"], rows["inside"]).row(),
            "cells": ratio_interval(rows["cells"], rows["inside"]).row(),
        }
    for name, rows in views.items():
        table["views"][name] = {row: mean_interval(values).row() for row, values in rows.items()}
        table["views"][name]["gain"] = difference_interval(rows["shape steep"], views[FLAT]["shape steep"]).row()
    return table


def markdown(content: dict) -> str:
    """The report for people."""
    table, views = content["table"], content["views_each"]
    lines = [
        "# Panoramas, measured",
        "",
        f"{content['n']} panoramas of places a row and seed ({16 * SEAM_HEIGHT} x {8 * SEAM_HEIGHT} pixels) and"
        f" {content['panoramas']} of one character ({16 * VIEWS_HEIGHT} x {8 * VIEWS_HEIGHT}), {content['seeds']}"
        f" seeds, {content['steps']} steps of euler (normal), cfg {content['cfg']:g}, {content['device']},"
        f" {content['date']}. Made by `python -m demo.eval.panorama_report`.",
        "",
        "## The seam",
        "",
        "| drawn | change across the edge over the mean (95 %) | where other latents meet |",
        "|---|---|---|",
    ]
    for name, row in table["seams"].items():
        seam = row["seam"]
        lines.append(
            f"| {name} | {seam['value']:.2f} ({seam['low']:.2f} to {seam['high']:.2f}) | {row['cells']['value']:.2f} |"
        )
    lines += [
        "",
        f"Bars: over {WITHOUT_BAR:g} without, under {WITH_BAR:g} with both nodes.",
        "",
        "## Seen in perspective",
        "",
        "| drawn | shape right 60 up and down | straight ahead | 60 up | 60 down | over the plain model's | colour"
        " right 60 up and down | any of the shape 60 up and down |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in table["views"].items():
        steep, gain = row["shape steep"], row["gain"]
        both = {kind: (row[f"{kind} 60"]["value"] + row[f"{kind} -60"]["value"]) / 2 for kind in ("colour", "any")}
        lines.append(
            f"| {name} | {steep['value'] * 100:.1f} % ({steep['low'] * 100:.1f}) |"
            + "".join(f" {row[f'shape {pitch}']['value'] * 100:.1f} % |" for pitch in (0, 60, -60))
            + f" {gain['value'] * 100:+.1f} ({gain['low'] * 100:+.1f}) | {both['colour'] * 100:.1f} % |"
            f" {both['any'] * 100:.1f} % |"
        )
    lines.append(f"| chance | {CHANCE['shape'] * 100:.1f} % | | | | | {CHANCE['colour'] * 100:.1f} % | |")
    lines += [
        "",
        f"Of each panorama {views} views of 90 degrees at each elevation,"
        f" {content['panoramas'] * content['seeds'] * views} a row and elevation: whether the largest character that"
        " the frozen reader finds there has the shape that was asked for. In brackets the lower end of the"
        " 95 % interval over panoramas. Bars: at least"
        f" {KEPT_BAR * 100:.0f} % at 60 degrees, and {KEPT_GAIN * 100:.0f} points over the plain model's. More than the"
        f" {WANTED} cannot be read.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=170, help="panoramas of places a row and seed")
    parser.add_argument("--panoramas", type=int, default=60, help="of one character a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64, help="panoramas at a time")
    parser.add_argument("--models", type=Path, default=CHECKPOINTS)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--tune", action="store_true", help="compare views on other scenes; writes only pictures")
    parser.add_argument("--tiny", action="store_true", help="2 panoramas, 1 seed, 3 steps: whether it runs at all")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.n, arguments.panoramas, arguments.seeds, arguments.steps = 2, 2, 1, 3
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models, reader = ImageModels(arguments.models, device), NetworkReader(device=device)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    if arguments.tune:
        seeds = [TUNING_SEED + 10 * seed for seed in range(arguments.seeds)]
        arms = {FLAT: ARMS[FLAT], **TUNING}
        found, shown = measure_views(models, reader, arms, arguments, seeds, say)
        for name, rows in found.items():
            print(name, {row: round(float(values.mean()), 3) for row, values in rows.items()})
        arguments.out.mkdir(parents=True, exist_ok=True)
        save_grid(shown, arguments.out / "panorama_tuning.png")
        return
    seeds = [FIRST_SEED + 10 * seed for seed in range(arguments.seeds)]
    seams, first = measure_seams(models, arguments, seeds, say)
    views, second = measure_views(models, reader, ARMS, arguments, seeds, say)
    content = {
        "checkpoints": file_hashes(arguments.models),
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **{name: getattr(arguments, name) for name in ("n", "panoramas", "seeds", "cfg", "steps")},
        "views_each": ARMS[VIEWS].count,
        "table": summary(seams, views),
    }
    content["seconds"] = round(time.monotonic() - begin)
    print(markdown(content))
    if not arguments.tiny:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "panorama.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "panorama.md").write_text(markdown(content), encoding="ascii")
        save_grid(first, arguments.out / "panorama_seams.png")
        save_grid(second, arguments.out / "panorama_views.png")


if __name__ == "__main__":
    main()
