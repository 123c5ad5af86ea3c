"""Whether things keep their colour with masked 3-D attention: ``python -m demo.eval.layout_video_pairs --part FILE``.

The same clips as of layout_video, other seeds, with and without it: the only question to which the report's clips are
too few. ``--merge FILES`` writes layout_video_pairs.json and .md of all parts.
"""

import argparse
import json
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from demo.eval import frozen
from demo.eval.image_report import REPORTS
from demo.eval.layout_video import APART, ARMS, CFG, COLOUR_ROWS, FILES, MASKED, LayoutVideo, measure
from demo.eval.network_reader import NetworkReader
from demo.eval.video_measures import mean_interval, ratio_interval
from demo.eval.video_models import CHECKPOINTS, STEPS, file_hashes

FIRST_SEED = 870_000_000
ROWS = ("overlap", *COLOUR_ROWS)


def draw_part(arguments, path: Path, say) -> None:
    """Writes the values of some seeds: row -> arm -> a number for each character, null where it cannot be said."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = LayoutVideo(CHECKPOINTS, device, arguments.steps)
    seeds = [FIRST_SEED + 10 * (arguments.first + seed) for seed in range(arguments.seeds)]
    arms = {name: ARMS[name] for name in (MASKED, APART)}
    found, _ = measure(model, NetworkReader(device=device), arguments, seeds, arms, say)
    values = {row: {name: [] for name in arms} for row in ROWS}
    for row in ROWS:
        asked = found[MASKED]["overlap"].isfinite()
        for name in arms:
            numbers = found[name][row][asked].tolist()
            values[row][name] = [None if number != number else number for number in numbers]
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"clips": arguments.n * arguments.seeds, "seeds": seeds, "device": device.type, **facts()}
    path.write_text(json.dumps({**about, "values": values}), encoding="ascii")


def facts() -> dict:
    """What parts must have in common."""
    return {"checkpoints": file_hashes(CHECKPOINTS, FILES), "readers": frozen.current()}


def merged(parts: list[dict]) -> dict:
    """The report of several parts.

    Raises:
        ValueError: they are of other files, or have seeds in common.
    """
    seeds = [seed for part in parts for seed in part["seeds"]]
    if any({key: part[key] for key in facts()} != facts() for part in parts) or len(set(seeds)) < len(seeds):
        raise ValueError("the parts are of other files than those that are here, or have seeds in common.")
    table = {}
    for row in ROWS:
        columns = [[number for part in parts for number in part["values"][row][name]] for name in (MASKED, APART)]
        both = [pair for pair in zip(*columns, strict=True) if None not in pair]
        without, apart = torch.tensor(both).unbind(1)
        table[row] = {
            "characters": len(both),
            MASKED: mean_interval(without).row(),
            APART: mean_interval(apart).row(),
            "ratio": ratio_interval(apart, without).row(),
        }
    return {
        **facts(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": sorted({part["device"] for part in parts}),
        "clips": sum(part["clips"] for part in parts),
        "seeds": len(seeds),
        "cfg": CFG,
        "steps": STEPS,
        "table": table,
    }


def markdown(content: dict) -> str:
    """The report for people."""
    lines = [
        "# Things keep their colour, measured",
        "",
        f"{content['clips']} clips, {content['seeds']} seeds that no other report has, {content['steps']} steps of"
        f" euler (simple), cfg {content['cfg']:g}, {' and '.join(content['device'])}, {content['date']}. Made by"
        " `python -m demo.eval.layout_video_pairs`.",
        "",
        "| of each character | n | masked | masked, 3-D attention | ratio (95 %) |",
        "|---|---|---|---|---|",
    ]
    for row, entry in content["table"].items():
        ratio = entry["ratio"]
        lines.append(
            f"| {row} | {entry['characters']} | {entry[MASKED]['value']:.3g} | {entry[APART]['value']:.3g} |"
            f" {ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) |"
        )
    lines += ["", "Rows are those of layout_video.md; changes of colour in levels of 255.", ""]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=12, help="clips a seed")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="of the seeds")
    parser.add_argument("--part", type=Path, help="where to write what is measured")
    parser.add_argument("--merge", type=Path, nargs="+", help="parts to make the report of")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.set_defaults(cfg=CFG, batch=12, steps=STEPS)
    arguments = parser.parse_args()
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    if arguments.part:
        draw_part(
            arguments, arguments.part, lambda text: print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)
        )
    if arguments.merge:
        content = merged([json.loads(path.read_text(encoding="ascii")) for path in arguments.merge])
        (arguments.out / "layout_video_pairs.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "layout_video_pairs.md").write_text(markdown(content), encoding="ascii")
        print(markdown(content))


if __name__ == "__main__":
    main()
