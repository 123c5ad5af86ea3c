"""Measures layouts on held-out looks: ``python -m demo.eval.layout_report --n 170 --seeds 3``.

Two to four characters of looks that no training showed are asked for: by a prompt that names them all, and by an
ellipse and a caption for each. The frozen reader says what stands where; measured is the IoU of the asked ellipse and
of what is read, a missing object counting 0. Leakage is the share of characters in another one's colour. Writes
layout.json (keyed by each file's SHA-256) and layout.md.
"""

import argparse
import hashlib
import json
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.blob_scenes import seen_ellipses
from demo.eval import frozen
from demo.eval.image_models import CHECKPOINTS, SIZE, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.layout_measures import are_right, leaks, leaks_by_shape, per_object, read_overlaps
from demo.eval.layout_models import SCHEDULER, Arm, LayoutModels
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import CHANCE, share_of
from demo.eval.video_measures import difference_interval, mean_interval, ratio_interval
from demo.training_drawings import save_grid
from demo.world.attributes import BACKGROUNDS, LIGHTS
from demo.world.captions import LIGHTING, PLACES, captions, object_captions
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes, repose

FIRST_SEED = 840_000_000
CFG = 3.0
KIND = "blob_adapter"

FREE_BAR, FREE_GAIN = 0.30, 0.12
ADAPTER_BAR, ADAPTER_GAIN = 0.55, 0.25
LEAK_BAR = 0.5

PLAIN = "prompt alone"
MASKED, MASKED_SCENE = "masked, no training", "masked, no training, the prompt tells the scene alone"
SCENE_FIRST = "masked, no training, the scene alone at first, places attend to their own blob"
THREE_DIS = "3dis rules, no training"
ADAPTER, BOTH = "adapter", "adapter, masked as well"
WANTED, ELSEWHERE = "rendered", "rendered, the same things elsewhere"

ARMS = {
    PLAIN: Arm(),
    MASKED: Arm("masked"),
    "masked, places attend to their own blob": Arm(
        "masked", settings=(("self_attention", True), ("first_blocks", 10), ("self_end", 0.3))
    ),
    MASKED_SCENE: Arm("masked", prompt="scene"),
    SCENE_FIRST: Arm(
        "masked", settings=(("self_attention", True), ("first_blocks", 0), ("self_end", 0.2)), scene_until=0.3
    ),
    THREE_DIS: Arm("3dis", settings=(("first_blocks", 10), ("self_end", 0.5))),
    ADAPTER: Arm("none", ""),
    BOTH: Arm("masked", ""),
    "adapter, the prompt tells the scene alone": Arm("none", "", prompt="scene"),
    "adapter trained without masks": Arm("none", "masks"),
    "adapter trained without geometry": Arm("none", "geometry"),
}


def scenes_of(count: int, seed: int) -> Scenes:
    """Held-out characters, two to four of them."""
    return draw_scenes(count, seed, characters=(0.0, 1.0, 1.0, 1.0), combinations="held_out")


def prompts_of(scenes: Scenes, seed: int) -> dict[str, list[str]]:
    """What Arm.prompt says -> a sentence for each scene."""
    pairs = zip(scenes.background.tolist(), scenes.light.tolist(), strict=True)
    places = [f"{PLACES[BACKGROUNDS[place]]}, {LIGHTING[LIGHTS[light]]}" for place, light in pairs]
    return {"whole": captions(scenes, seed, full=True), "scene": places, "nothing": [""] * scenes.size}


def padded_captions(scenes: Scenes) -> list[list[str]]:
    """Each character's caption, "" where there is none."""
    most = scenes.shape.shape[1]
    return [own + [""] * (most - len(own)) for own in object_captions(scenes)]


def measured(pictures: Tensor, reader, scenes: Scenes, ellipses: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Row -> values of pictures drawn for scenes: [B, K] of each object, or [B]."""
    found = reader.read(pictures)
    return {
        "overlap": read_overlaps(found, scenes, ellipses, present),
        "right": are_right(found, scenes).float(),
        "leaks": leaks(found, scenes).float(),
        "leaks by shape": leaks_by_shape(found, scenes).float(),
        "number": found.present.sum(1) == present.sum(1).cpu(),
    }


def measure(models: LayoutModels, reader, arguments, seeds: list[int], say) -> tuple[dict, list[Tensor]]:
    """Arm -> row -> values of all pictures, "asked" being which objects were asked for; and the first pictures of each
    arm.
    """
    table: dict[str, dict[str, list[Tensor]]] = {}
    shown = []
    for seed in seeds:
        scenes = scenes_of(arguments.n, seed)
        ellipses, present = seen_ellipses(scenes.to(models.device), SIZE)
        elsewhere = repose(scenes, seed + 1)
        prompts, given = prompts_of(scenes, seed), (padded_captions(scenes), ellipses, present, seed)
        arms = {name: arm for name, arm in ARMS.items() if arm.adapter is None or arm.adapter in models.adapters}

        def rendered(some: Scenes) -> Tensor:
            return render(some.to(models.device), SIZE, SIZE).frames[:, 0]

        drawn = {WANTED: rendered(scenes), ELSEWHERE: rendered(elsewhere)}
        for name, arm in arms.items():
            drawn[name] = models.draw(
                prompts[arm.prompt],
                *given,
                arm,
                arguments.cfg,
                steps=arguments.steps,
                batch=arguments.batch,
                scenes=prompts["scene"],
            )
            say(f"seed {seed}: {name}")
        for name, pictures in drawn.items():
            rows = table.setdefault(name, {})
            values = measured(pictures, reader, scenes, ellipses, present)
            for row, some in {**values, "asked": present.cpu(), "count": scenes.count}.items():
                rows.setdefault(row, []).append(some)
        shown = shown or [pictures[:12] for pictures in drawn.values()]
    return {name: {row: torch.cat(some) for row, some in rows.items()} for name, rows in table.items()}, shown


def summary(found: dict) -> dict:
    """What the report holds of ``measure``'s values."""
    table = {}

    def objects(name: str, row: str) -> Tensor:
        return per_object(found[name][row], found[name]["asked"])

    for name, rows in found.items():
        entry = {
            "overlap": mean_interval(objects(name, "overlap")).row(),
            "gain": difference_interval(objects(name, "overlap"), objects(PLAIN, "overlap")).row(),
            "right": mean_interval(objects(name, "right")).row(),
            "leaks": mean_interval(objects(name, "leaks")).row(),
            "leaks by shape": mean_interval(objects(name, "leaks by shape")).row(),
            "leak ratio": ratio_interval(objects(name, "leaks"), objects(PLAIN, "leaks")).row(),
            "number": share_of(rows["number"], CHANCE["number"]).row(),
        }
        for count in (2, 3, 4):
            chosen = rows["count"] == count
            if chosen.any():
                some = per_object(rows["overlap"][chosen], rows["asked"][chosen])
                entry[f"overlap of {count}"] = mean_interval(some).row()
        table[name] = entry
    return table


def markdown(content: dict) -> str:
    """The report for people."""
    lines = [
        "# Layouts, measured",
        "",
        f"{content['n']} pictures a row and seed, {content['seeds']} seeds, two to four characters of held-out looks,"
        f" {content['steps']} steps of euler ({SCHEDULER}), cfg {content['cfg']:g}, {content['device']},"
        f" {content['date']}. Made by `python -m demo.eval.layout_report`.",
        "",
        "| drawn | mean IoU | over the prompt alone | of 2, 3, 4 | there, in shape and colour | as many as asked |"
        " another one's colour | of the prompt's | by shape alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["table"].items():
        overlap, gain, leak, ratio = (row[key] for key in ("overlap", "gain", "leaks", "leak ratio"))
        counts = ", ".join(f"{row[key]['value']:.2f}" for key in (f"overlap of {n}" for n in (2, 3, 4)) if key in row)
        lines.append(
            f"| {name} | {overlap['value']:.3f} ({overlap['low']:.3f}) | {gain['value']:+.3f} ({gain['low']:+.3f}) |"
            f" {counts} | {row['right']['value'] * 100:.1f} % | {row['number']['share'] * 100:.1f} % |"
            f" {leak['value'] * 100:.1f} % ({leak['high'] * 100:.1f}) | {ratio['value']:.2f} ({ratio['high']:.2f}) |"
            f" {row['leaks by shape']['value'] * 100:.1f} % |"
        )
    lines += [
        "",
        "The IoU is of the asked ellipse and the ellipse of what is read, a missing object, or one of another shape or"
        " colour, counting 0. In brackets the end of the 95 % interval that a bar looks at, the lower one of the first"
        f" two columns. Bars: without training at least {FREE_BAR:g} and {FREE_GAIN:g} over the prompt alone; with the"
        f" adapter {ADAPTER_BAR:g} and {ADAPTER_GAIN:g}; another one's colour at most {LEAK_BAR:g} times as often as"
        " with the prompt alone. For that characters are matched by look and place, as for the IoU; in the last column"
        f" by shape alone, wherever they stand. Of chance is what stands elsewhere ({ELSEWHERE}); more than {WANTED}"
        " cannot be read.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=170, help="pictures a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="of those, beyond the report's own")
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=256, help="pictures at a time")
    parser.add_argument("--models", type=Path, default=CHECKPOINTS, help="folder of the image models")
    parser.add_argument("--adapter", type=Path, default=CHECKPOINTS / f"{KIND}.safetensors")
    parser.add_argument("--without-masks", type=Path, help="an adapter that was trained so")
    parser.add_argument("--without-geometry", type=Path, help="an adapter that was trained so")
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

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files = {"": arguments.adapter, "masks": arguments.without_masks, "geometry": arguments.without_geometry}
    files = {name: path for name, path in files.items() if path is not None and path.is_file()}
    models = LayoutModels(device, files, arguments.models)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    content = {
        "checkpoints": file_hashes(arguments.models),
        "files": {name or KIND: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **{name: getattr(arguments, name) for name in ("n", "seeds", "cfg", "steps")},
    }
    seeds = [FIRST_SEED + arguments.first_seed + 10 * seed for seed in range(arguments.seeds)]
    found, shown = measure(models, NetworkReader(device=device), arguments, seeds, say)
    content["table"] = summary(found)
    content["seconds"] = round(time.monotonic() - begin)
    print(markdown(content))
    if not arguments.tiny:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "layout.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "layout.md").write_text(markdown(content), encoding="ascii")
        save_grid(shown, arguments.out / "layout_pictures.png")


if __name__ == "__main__":
    main()
