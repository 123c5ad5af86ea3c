"""Measures the video models with the frozen reader: ``python -m demo.eval.video_report --n 170 --seeds 3``.

Writes video.json (keyed by each checkpoint's SHA-256), video.md and the clips that demo.eval.video_optical measures
where OpenCV is installed. Scenes, prompts and noise come from seeds that no training uses (demo/eval/video_scenes.py).
"Unsure" and "missing" are wrong. ``--tiny`` tries everything out on a CPU, with networks of random weights.
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from demo.eval import frozen
from demo.eval import video_measures as measures
from demo.eval.network_reader import NetworkReader
from demo.eval.video_by_hand import HAND_KINDS, hand_flows, hand_scenes
from demo.eval.video_clips import Clips, ClipWriter
from demo.eval.video_models import (
    CHECKPOINTS,
    FILES,
    LATENT,
    LORA,
    SCHEDULERS,
    SHIFT,
    STEPS,
    VideoModels,
    degraded,
    file_hashes,
    load_networks,
    random_networks,
    warped_noise,
)
from demo.eval.video_parts import SECTIONS, Part, merge, read_part, write_part
from demo.eval.video_scenes import FIRST_SEED, FRAMES, KINDS, flow_scenes, still_captions, text_scenes
from demo.eval.video_tables import (
    CLIP_STEP,
    FOLLOWED,
    OTHERS,
    RENDERED,
    REPORTS,
    STILL,
    VideoReport,
    conditions_of,
    contents,
    write,
)
from demo.world.render import render
from demo.world.scene import Scenes

CFG = 3.0
"""Default guidance; the report's sweep says how others do."""

SWEEP = (1.0, 2.0, 3.0, 4.0, 6.0)


def text_rows(
    reader, report: VideoReport, prefix: str, scenes: Scenes, frames: Tensor, by_motion: bool = False
) -> None:
    """What clips show of their captions: identity (for each motion too), motion words, and each frame's looks."""
    readings = measures.read_frames(reader, frames)
    report.add(prefix, {"identity": measures.identity_kept(scenes, readings)})
    if by_motion:
        report.add(prefix, measures.identity_by_motion(scenes, readings))
    report.add(prefix, measures.words_followed(scenes, measures.movements(readings)))
    chance = measures.looks_chance(scenes)
    report.add_values(f"{prefix}.frames right", measures.looks_right(scenes, readings), chance)


def render_bytes(scenes: Scenes, device: torch.device, part: int = 32) -> Tensor:
    """Rendered clips uint8 [B, T, 3, 128, 128] on the device."""
    rows = torch.arange(scenes.size).split(part)
    return torch.cat([(render(scenes.select(some).to(device)).frames * 255).round().byte() for some in rows])


def plain_clips(count: int, seed: int) -> Tensor:
    """Plain noise [count, 16, 5, 16, 16] of its own generator."""
    return torch.randn(count, *LATENT, generator=torch.Generator().manual_seed(FIRST_SEED + seed))


def text_section(models: VideoModels, reader, report: VideoReport, n: int, seed: int, cfg: float) -> None:
    """Captions with motion words, one and two characters, looks from training and held out; rendered clips beside."""
    for combinations in ("train", "held_out"):
        for characters, name in ((1, "one"), (2, "two")):
            own = seed * 100 + characters + (50 if combinations == "held_out" else 0)
            scenes, sentences = text_scenes(n, own, characters, combinations=combinations)
            frames = models.generate(sentences, plain_clips(n, own), cfg)
            prefix = name if combinations == "train" else f"{name}, held out"
            text_rows(reader, report, prefix, scenes, frames, by_motion=prefix == "one")
            if combinations == "train":
                few = scenes.select(slice(0, max(2, n // 5)))
                text_rows(reader, report, f"{name}, {RENDERED}", few, render_bytes(few, models.device))


def sweep_section(models: VideoModels, reader, report: VideoReport, n: int) -> None:
    """Several strengths of guidance, on scenes of their own."""
    scenes, sentences = text_scenes(n, 90_000, 1)
    for cfg in SWEEP:
        frames = models.generate(sentences, plain_clips(n, 90_000), cfg)
        text_rows(reader, report, f"cfg {cfg:g}, one", scenes, frames)


def vae_section(models: VideoModels, reader, report: VideoReport, n: int, seed: int) -> None:
    """Rendered clips through the VAE and back: error, and whether they still read right."""
    scenes = flow_scenes("object", n, seed * 100 + 7, combinations="all")
    frames = render_bytes(scenes, models.device).float() / 255
    decoded = models.round_trip(frames)
    report.add_values("VAE PSNR, dB", measures.psnr(decoded, frames))
    readings = measures.read_frames(reader, decoded)
    report.add("VAE round trip", {"identity": measures.identity_kept(scenes, readings)})
    report.add_values(
        "VAE round trip.frames right", measures.looks_right(scenes, readings), measures.looks_chance(scenes)
    )


def flow_section(
    models: dict[bool, VideoModels],
    reader,
    report: VideoReport,
    writer: ClipWriter,
    arguments: argparse.Namespace,
    seed: int,
) -> None:
    """Captions without motion words, noise that follows held-out flows: the error by the reader; clips are kept.

    The flows are the scenes' own (KINDS), or those of the nodes for motion made by hand (HAND_KINDS). Every condition
    draws the same scenes from the same captions and the same noise.
    """
    n, cfg = arguments.n, arguments.cfg
    for number, kind in enumerate((*KINDS, *HAND_KINDS)):
        own = seed * 100 + 10 + number
        scenes = hand_scenes(kind, n, own)
        sentences = still_captions(scenes, own)
        device = models[True].device
        seeds = range(FIRST_SEED + own * 100_000, FIRST_SEED + own * 100_000 + n)
        labels = measures.first_labels(scenes, device)
        moving, fresh = warped_noise(hand_flows(kind, scenes, device), seeds, device)
        kept = min(arguments.clips if kind in KINDS else (arguments.clips + 1) // 2, n)
        about = {"kind": kind, "seed": own, "scenes": n, "count": kept}
        about |= {"frames": len(range(0, FRAMES, CLIP_STEP)), "step": CLIP_STEP}

        for condition in conditions_of(kind):
            name, noise = condition.name, degraded(moving, fresh, condition.degradation)
            frames = models[condition.tuned].generate(sentences, noise, cfg)
            writer.add(Clips(name, **about), frames)
            readings = measures.read_frames(reader, frames)
            found = measures.movements(readings)
            ends = measures.end_points(scenes, found, labels)
            report.add_values(f"reader, {kind}.{name}", ends.error)
            report.add_values(f"lost, {kind}.{name}", ends.missing)
            looks = measures.looks_right(scenes, readings)
            report.add_values(f"frames right, {kind}.{name}", looks, measures.looks_chance(scenes))
            if name == FOLLOWED:
                order = torch.arange(n).roll(1)
                others = measures.end_points(scenes.select(order), found, labels[order])
                report.add_values(f"reader, {kind}.{OTHERS}", others.error)
        report.add_values(f"reader, {kind}.{STILL}", ends.asked)
        few = scenes.select(slice(0, min(n, arguments.clips)))
        ends = measures.end_points(few, measures.movements(measures.read_frames(reader, render_bytes(few, device))))
        padded = torch.full((n,), torch.nan)
        padded[: few.size] = ends.error
        report.add_values(f"reader, {kind}.{RENDERED}", padded)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=170, help="clips of a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no seed that would not end in time")
    parser.add_argument(
        "--clips",
        type=int,
        default=40,
        help="of them kept for optical flow, of a row and seed; half as many of motion made by hand",
    )
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--scheduler", choices=SCHEDULERS, default=SCHEDULERS[0])
    parser.add_argument("--shift", type=float, default=SHIFT)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--models", type=Path, default=CHECKPOINTS)
    parser.add_argument("--out", type=Path, default=REPORTS, help="folder for video.json and video.md")
    parser.add_argument("--clips-out", type=Path, help="folder for the clips; --out's where left out")
    parser.add_argument("--sections", choices=SECTIONS, nargs="+", default=SECTIONS)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--part", type=Path, help="write what was measured there, to be put together by --merge")
    parser.add_argument("--merge", type=Path, nargs="+", help="measure nothing: the report of these parts")
    parser.add_argument("--tiny", action="store_true", help="two clips and two steps on the CPU, random weights")
    arguments = parser.parse_args(words)
    if arguments.tiny:
        arguments.n, arguments.seeds, arguments.steps, arguments.clips = 2, 1, 2, 2
        torch.set_num_threads(1)
    return arguments


def measure(arguments: argparse.Namespace) -> tuple[Part, ClipWriter]:
    """Everything that the arguments ask for."""
    begin = time.monotonic()
    device = torch.device("cuda" if torch.cuda.is_available() and not arguments.tiny else "cpu")
    kinds = [kind for kind in FILES if kind != LORA or "flows" in arguments.sections]
    if arguments.tiny:
        off, on = random_networks(device)
    else:
        off, on = load_networks(arguments.models, device, LORA in kinds)
    how = {name: getattr(arguments, name) for name in ("scheduler", "steps", "shift", "batch")}
    models = {False: VideoModels(off, device, **how), True: VideoModels(on, device, **how)}
    reader, report = NetworkReader(device=device), VideoReport()
    writer = ClipWriter(arguments.clips_out or arguments.out)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    say("models ready")
    if "guidance" in arguments.sections:
        sweep_section(models[False], reader, report, max(2, arguments.n // 2))
        say("guidance")
    seeds: list[int] = []
    longest = 0.0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        start = time.monotonic()
        if seeds and start + longest - begin > arguments.minutes * 60:
            say(f"no time for seed {seed}: the report is of {len(seeds)}")
            break
        if "captions" in arguments.sections:
            text_section(models[False], reader, report, arguments.n, seed, arguments.cfg)
            say(f"seed {seed}: captions")
        if "VAE" in arguments.sections:
            vae_section(models[False], reader, report, max(2, arguments.n // 5), seed)
            say(f"seed {seed}: VAE")
        if "flows" in arguments.sections:
            flow_section(models, reader, report, writer, arguments, seed)
            say(f"seed {seed}: flows")
        seeds.append(seed)
        longest = max(longest, time.monotonic() - start)
    settings = {name: getattr(arguments, name) for name in ("n", "cfg", "scheduler", "shift", "steps")}
    settings["checkpoints"] = {} if arguments.tiny else file_hashes(arguments.models, kinds)
    settings["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    return Part(report, settings, tuple(arguments.sections), tuple(seeds), time.monotonic() - begin), writer


def main() -> None:
    """The command line."""
    arguments = parse()
    frozen.check()
    if arguments.merge:
        part, writer = merge([read_part(path) for path in arguments.merge]), None
    else:
        from demo.bare_machine import use_host

        use_host()
        part, writer = measure(arguments)
    for path in writer.write() if writer else []:
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    if arguments.part:
        write_part(part, arguments.part)
        return
    write(contents(part.report, part.how, len(part.seeds), part.seconds), arguments.out)
    print((arguments.out / "video.md").read_text(encoding="ascii"))


if __name__ == "__main__":
    main()
