"""Measures the image models with the frozen readers: ``python -m demo.eval.image_report --n 500 --seeds 3``.

Writes image.json (keyed by each checkpoint's SHA-256) and image.md. Scenes, prompts and noise come from seeds that no
training uses (700 million and a little more). "Unsure" and "missing" are wrong.
"""

import argparse
import json
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.eval import frozen
from demo.eval.image_measures import (
    EDGE_LEVEL,
    EDGE_TOLERANCE,
    LAYOUT_TOLERANCE,
    colour_share,
    edges,
    layout_kept,
    line_overlap,
    prompt_scores,
    relation_scores,
    sure_characters,
)
from demo.eval.image_models import CHECKPOINTS, SAMPLERS, SCHEDULERS, ImageModels, file_hashes
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import Share, agreement, share_of, truth
from demo.world.attributes import COLOURS, SHAPES
from demo.world.captions import captions
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes

FIRST_SEED = 700_000_000
REPORTS = Path(__file__).parent / "reports"
LINES = "image_controlnet_lineart"
CFG = 3.0
"""Default guidance; the report's sweep says how others do."""

SAMPLER, SCHEDULER = "dpmpp_2m", "normal"

SWEEP = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
BARS = {
    "one.look": 0.95,
    "two.look": 0.85,
    "one.pattern": 0.80,
    "one.accessory": 0.80,
    "two.left/right": 0.75,
    "clip_vision": 0.80,
    "agreement.picture": 0.95,
}
"""Row -> what the lower end of the 95 % interval must reach."""

LINE_BAR, PSNR_BAR = 0.60, 30.0


class Report:
    """Collects shares and means under their rows' names, over all seeds."""

    def __init__(self) -> None:
        self.shares: dict[str, Share] = {}
        self.values: dict[str, list[float]] = {}

    def add(self, prefix: str, table: dict[str, Share]) -> None:
        """Add a seed's shares."""
        for name, share in table.items():
            key = f"{prefix}.{name}"
            old = self.shares.get(key, Share(0, 0, share.chance))
            self.shares[key] = Share(old.right + share.right, old.count + share.count, share.chance)

    def add_values(self, name: str, values: Tensor) -> None:
        """Add measurements whose mean counts."""
        self.values.setdefault(name, []).extend(values.float().flatten().tolist())

    def means(self) -> dict[str, dict[str, float]]:
        """Mean, count and lower end of the mean's 95 % interval."""
        found = {}
        for name, values in self.values.items():
            numbers = torch.tensor(values)
            error = float(numbers.std() / len(values) ** 0.5) if len(values) > 1 else 0.0
            found[name] = {
                "n": len(values),
                "mean": round(float(numbers.mean()), 4),
                "low": round(float(numbers.mean()) - 1.96 * error, 4),
            }
        return found


def scenes_of(n: int, seed: int, characters: int, combinations: str) -> tuple[Scenes, list[str]]:
    """Scenes and the sentences that name everything about them."""
    scenes = draw_scenes(n, FIRST_SEED + seed, characters=characters, combinations=combinations)
    return scenes, captions(scenes, FIRST_SEED + seed, full=True)


def frames_of(scenes: Scenes, device: torch.device, layers: tuple[str, ...] = ("frames",)) -> list[Tensor]:
    """Each layer [B, C, 128, 128] of still scenes, on the device."""
    parts = [
        render(scenes.select(torch.arange(start, min(start + 256, scenes.size))).to(device), layers=layers)
        for start in range(0, scenes.size, 256)
    ]
    return [torch.cat([getattr(part, layer)[:, 0] for part in parts]) for layer in layers]


def prompts_section(models, reader, other, report: Report, n: int, seed: int, cfg: float) -> None:
    """One and two characters, trained and held-out looks, relations, and how far the readers agree."""
    for kind in ("train", "held_out"):
        for characters, name in ((1, "one"), (2, "two")):
            scenes, sentences = scenes_of(n, seed * 10 + characters, characters, kind)
            pictures = models.generate(sentences, seed * 100 + characters, cfg)
            found = reader.read(pictures)
            prefix = name if kind == "train" else f"{name}, held out"
            report.add(prefix, prompt_scores(scenes, found))
            if characters == 2:
                report.add(prefix, relation_scores(scenes, found))
            if other is not None and kind == "train":
                second = other.read(pictures)
                report.add("agreement", agreement(found, second))
                report.add(f"{prefix}, analytic reader", prompt_scores(scenes, second))


def sweep_section(models, reader, report: Report, n: int, seed: int) -> None:
    """Several strengths of guidance."""
    for cfg in SWEEP:
        for characters, name in ((1, "one"), (2, "two")):
            scenes, sentences = scenes_of(n, seed * 10 + characters, characters, "train")
            found = reader.read(models.generate(sentences, seed * 100 + characters, cfg))
            table = prompt_scores(scenes, found)
            report.add(f"cfg {cfg:g}, {name}", {key: table[key] for key in ("look", "pattern", "accessory")})


def prompt_free_section(models, reader, report: Report, n: int, seed: int, cfg: float) -> None:
    """The empty prompt, and what a negative prompt keeps away."""
    empty = reader.read(models.generate([""] * n, seed * 100 + 31, 1.0))
    report.add("empty prompt", {"a character without unsure attributes": sure_characters(empty)})
    common = torch.bincount(empty.colour[empty.present].clamp(min=0), minlength=len(COLOURS)).amax()
    report.add("empty prompt", {"commonest colour": Share(int(common), int(empty.present.sum()), 1 / len(COLOURS))})
    shapes = torch.arange(n) % len(SHAPES)
    colours = torch.arange(n) // len(SHAPES) % len(COLOURS)
    prompts = [f"a {SHAPES[k]} in a meadow" for k in shapes.tolist()]
    negative = [COLOURS[k] for k in colours.tolist()]
    for name, unwanted in (("none", ""), ("the colour", negative)):
        found = reader.read(models.generate(prompts, seed * 100 + 32, cfg, negative=unwanted))
        report.add("colour shown, negative prompt", {name: colour_share(found, colours)})
        right = ((found.shape == shapes[:, None]) & found.present).any(1)
        report.add("shape right, negative prompt", {name: share_of(right, 1 / len(SHAPES))})


def layout_section(models, reader, report: Report, n: int, seed: int, cfg: float) -> None:
    """img2img at 0.3 keeps the layout; without a start it does not."""
    scenes, sentences = scenes_of(n, seed * 10 + 5, 2, "train")
    source = truth(scenes)
    latents = models.encode(frames_of(scenes, models.device)[0])
    kept = reader.read(models.generate(sentences, seed * 100 + 5, cfg, start=latents, denoise=0.3))
    fresh = reader.read(models.generate(sentences, seed * 100 + 5, cfg))
    table = {"denoise 0.3": layout_kept(source, kept), "no start": layout_kept(source, fresh)}
    report.add("layout kept", table)


def control_section(models, reader, report: Report, n: int, seed: int, cfg: float) -> None:
    """Edges of what the ControlNet draws, held against those of the picture whose lines it was given."""
    scenes, sentences = scenes_of(n, seed * 10 + 6, 2, "train")
    frames, lines = frames_of(scenes, models.device, ("frames", "lines"))
    hint, wanted = lines.expand(-1, 3, -1, -1), edges(frames)
    shuffled = hint.roll(1, 0)
    for name, used, strength in (("asked", hint, 1.0), ("strength 0", hint, 0.0), ("shuffled hint", shuffled, 1.0)):
        pictures = models.generate(sentences, seed * 100 + 6, cfg, hint=used, strength=strength)
        report.add_values(f"line overlap, {name}", line_overlap(edges(pictures), wanted))
        if name == "asked":
            report.add("with lines, two", {"look": prompt_scores(scenes, reader.read(pictures))["look"]})
            report.add("with lines, layout", {"kept": layout_kept(truth(scenes), reader.read(pictures))})
    decoded = models.decode(models.encode(frames))
    report.add_values("line overlap, the picture itself through the VAE", line_overlap(edges(decoded), wanted))


def vae_section(models, reader, report: Report, n: int, seed: int) -> None:
    """Round trips of rendered pictures: error, and whether they still read right."""
    scenes = draw_scenes(n, FIRST_SEED + seed * 10 + 7, combinations="all")
    frames = frames_of(scenes, models.device)[0]
    decoded = models.decode(models.encode(frames))
    report.add_values("VAE PSNR, dB", -10 * (decoded - frames).square().mean((1, 2, 3)).clamp(min=1e-9).log10())
    from demo.eval.reading import score

    report.add("VAE round trip", score(truth(scenes), reader.read(decoded)))


def vision_section(folder: Path, device: torch.device, report: Report, seed: int, rounds: int) -> None:
    """The same character in another pose, found among 100 others."""
    from demo.train_clip_vision import build, retrieval
    from networks.demo_format import load

    network = build(device)
    network.load_state_dict(load(folder / "image_clip_vision.safetensors", "image_clip_vision")[0])
    network.to(device).eval()
    for k in range(rounds):
        share = retrieval(network, device, 128, FIRST_SEED + seed * 1000 + k * 10, "all", 100)
        report.add("clip_vision", {"retrieved among 100": Share(round(share * 400), 400, 0.01)})


def earlier(folder: Path, hashes: dict[str, str], arguments) -> tuple[dict, dict, float]:
    """Shares, means and seconds of the report that ``--lines-only`` completes.

    Raises:
        ValueError: it was made with other files than the ControlNet, or measured otherwise.
    """
    content = json.loads((folder / "image.json").read_text(encoding="ascii"))
    names = ("n", "seeds", "cfg", "sampler", "scheduler")
    same = {"readers": frozen.current()} | {name: getattr(arguments, name) for name in names}
    same |= {f"{kind}.safetensors": value for kind, value in hashes.items() if kind != LINES}
    found = content | {f"{kind}.safetensors": value for kind, value in content["checkpoints"].items()}
    if other := [name for name, value in same.items() if found[name] != value]:
        raise ValueError(f"{folder / 'image.json'} differs in {', '.join(other)}: measure the rest again, too.")
    return content["shares"], content["means"], content["seconds"]


def write_report(report: Report, arguments, seconds: float, folder: Path) -> None:
    """Writes image.json and image.md."""
    shares = {name: share.row() for name, share in report.shares.items() if share.count}
    means = report.means()
    hashes = file_hashes(arguments.models)
    if arguments.lines_only:
        old_shares, old_means, old_seconds = earlier(folder, hashes, arguments)
        shares, means, seconds = old_shares | shares, old_means | means, old_seconds + seconds
    for name, bar in BARS.items():
        for key in (name, f"{name}.retrieved among 100"):
            if key in shares:
                shares[key]["bar"] = bar
    content = {
        "checkpoints": hashes,
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "n": arguments.n,
        "seeds": arguments.seeds,
        "cfg": arguments.cfg,
        "sampler": arguments.sampler,
        "scheduler": arguments.scheduler,
        "steps": 20,
        "seconds": round(seconds),
        "edges": {"sobel_level": EDGE_LEVEL, "tolerance_pixels": EDGE_TOLERANCE},
        "layout_tolerance": LAYOUT_TOLERANCE,
        "shares": shares,
        "means": means,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
    lines = [
        "# The image models, measured",
        "",
        f"{arguments.n} pictures a row and seed, {arguments.seeds} seeds, 20 steps of {arguments.sampler}"
        f" ({arguments.scheduler}), cfg {arguments.cfg:g},"
        f" {content['device']}, {content['date']}, {seconds:.0f} s. Made by `python -m demo.eval.image_report`.",
        "",
        "| row | n | right | 95 % at least | bar | chance |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in shares.items():
        bar = f"{row['bar'] * 100:.0f} %" if "bar" in row else ""
        lines.append(
            f"| {name} | {row['n']} | {row['share'] * 100:.1f} % | {row['low'] * 100:.1f} % | {bar}"
            f" | {row['chance'] * 100:.2g} % |"
        )
    lines += ["", "| mean | n | value | 95 % at least | bar |", "|---|---|---|---|---|"]
    bars = {"line overlap, asked": LINE_BAR, "VAE PSNR, dB": PSNR_BAR}
    lines += [
        f"| {name} | {row['n']} | {row['mean']} | {row['low']} | {bars.get(name, '')} |" for name, row in means.items()
    ]
    lines += [
        "",
        f"Line overlap: edges are where a Sobel gradient is at least {EDGE_LEVEL} (of 0..1, a pixel); an edge may lie"
        f" {EDGE_TOLERANCE} pixel aside; asked are the edges of the rendered picture whose lines the ControlNet got.",
        f"Layout kept: found within {LAYOUT_TOLERANCE} of half the picture's side and with the same shape.",
        "",
    ]
    (folder / "image.md").write_text("\n".join(lines), encoding="ascii")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--sampler", choices=SAMPLERS, default=SAMPLER)
    parser.add_argument("--scheduler", choices=SCHEDULERS, default=SCHEDULER)
    parser.add_argument("--models", type=Path, default=CHECKPOINTS)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--float16-unet", type=Path, help="the same UNet before it was packed, to compare")
    parser.add_argument("--no-analytic", action="store_true", help="leave out the second reader")
    parser.add_argument("--sweep-only", action="store_true", help="only the guidance sweep, to choose the default")
    parser.add_argument("--without-lines", action="store_true", help="leave out the ControlNet, which may come later")
    parser.add_argument("--lines-only", action="store_true", help="complete the report that lies in --out")
    arguments = parser.parse_args()
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host

    use_host()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    how = {"sampler": arguments.sampler, "scheduler": arguments.scheduler}
    models, reader, report = ImageModels(arguments.models, device, **how), NetworkReader(device=device), Report()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    other = None
    if not (arguments.no_analytic or arguments.sweep_only or arguments.lines_only):
        from demo.eval.analytic_reader import AnalyticReader

        other = AnalyticReader(device)
        say("analytic reader ready")
    if not arguments.lines_only:
        sweep_section(models, reader, report, max(1, arguments.n // 2), 900)
        say("guidance")
    if not (arguments.sweep_only or arguments.lines_only):
        for seed in range(arguments.seeds):
            prompts_section(models, reader, other, report, arguments.n, seed, arguments.cfg)
            say(f"seed {seed}: prompts")
            prompt_free_section(models, reader, report, arguments.n, seed, arguments.cfg)
            layout_section(models, reader, report, arguments.n, seed, arguments.cfg)
            vae_section(models, reader, report, arguments.n, seed)
            vision_section(arguments.models, device, report, seed, max(1, arguments.n // 400))
            say(f"seed {seed}: empty and negative prompts, layout, VAE, CLIP vision")
        if arguments.float16_unet:
            exact = ImageModels(arguments.models, device, arguments.float16_unet, **how)
            for seed in range(arguments.seeds):
                scenes, sentences = scenes_of(arguments.n, seed * 10 + 2, 2, "train")
                found = reader.read(exact.generate(sentences, seed * 100 + 2, arguments.cfg))
                report.add("two, float16 weights", prompt_scores(scenes, found))
    if not (arguments.sweep_only or arguments.without_lines):
        models.load_control()
        for seed in range(arguments.seeds):
            control_section(models, reader, report, arguments.n, seed, arguments.cfg)
        say("lines")
    write_report(report, arguments, time.monotonic() - begin, arguments.out)
    print((arguments.out / "image.md").read_text(encoding="ascii"))


if __name__ == "__main__":
    main()
