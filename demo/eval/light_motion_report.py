"""Measures relit clips: ``python -m demo.eval.light_motion_report --n 60 --seeds 3``.

Held-out characters on the world's places. Where nothing moves, flicker is how far the light's direction jumps from a
frame to the next; where the light goes round, counted are the frames in which it is within 25 degrees of the asked
direction. With motion modules against frame by frame, from the same noise: the same network without them, each frame
by itself. Writes light_motion.json (keyed by each file's SHA-256) and light_motion.md.
"""

import argparse
import hashlib
import json
import math
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor, nn

from demo.eval import frozen
from demo.eval.image_models import CHECKPOINTS, SIZE, ImageModels, file_hashes, schedule
from demo.eval.image_report import REPORTS, SAMPLER, SCHEDULER
from demo.eval.light_measures import CHANCE, TOLERANCE, degrees_between, found_azimuth, kept
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import CHANCE as READ_CHANCE
from demo.eval.reading import share_of
from demo.eval.story_report import interval
from demo.eval.video_measures import ratio_interval
from demo.light_pairs import SEEN, Pictures, azimuth, draw_pairs, encode_pairs, frames_apart, with_azimuth
from demo.train_light_motion import FRAMES, RelitClip, build_motion
from demo.world.attributes import BACKGROUNDS
from demo.world.captions import PLACES
from demo.world.scene import Scenes, draw_scenes, still_characters

FIRST_SEED = 830_000_000
FLICKER_BAR = 0.5
CHANCES = {f"{name} right": READ_CHANCE[name] for name in ("shape", "colour", "pattern", "accessory")}
CHANCES["orbit followed"] = CHANCE
GUIDANCE = (2.0, 1.2)
"""Over text and over pictures."""

MOTION, ALONE, WANTED = "motion modules", "frame by frame", "wanted, autoencoder"


class GuidedClip(nn.Module):
    """The noise of clips by RelightVid's guidance over text and pictures (relight.md, 4.1, 6), as a UNet gives it.

    Args:
        relit: train_light_motion.RelitClip.
        beside: [B, T, 8, h, w].
        empty: states of the empty prompt [1, 77, 128].
        guidance: over text, and over pictures.
    """

    def __init__(self, relit: nn.Module, beside: Tensor, empty: Tensor, guidance: tuple[float, float]):
        super().__init__()
        self.relit, self.beside, self.empty, self.guidance = relit, beside, empty, guidance

    def forward(self, x: Tensor, times: Tensor, context: Tensor, **_) -> Tensor:
        """[B T, 4, h, w] with times [B T] and context [B T, 77, 128]."""
        frames, clips = self.relit.frames, self.beside.shape[0]
        x, beside = x.unflatten(0, (clips, frames)), self.beside.to(x.dtype)
        times, context = times[::frames], context[::frames]
        empty = self.empty.to(context.dtype).expand_as(context)
        rows = torch.cat((context, empty, empty)), torch.cat((beside, beside, torch.zeros_like(beside)))
        found = self.relit(x.repeat(3, 1, 1, 1, 1), rows[1], times.repeat(3), rows[0])
        told, shown, neither = found.chunk(3)
        text, picture = self.guidance
        return (neither + picture * (shown - neither) + text * (told - shown)).flatten(0, 1)


def clips_of(count: int, seed: int, frames: int, device: torch.device, *, orbit: bool) -> Scenes:
    """Held-out characters in clips: their frames apart, lit as is wanted.

    Without ``orbit`` nothing moves; with it the light goes round once and characters and camera move.
    """
    clips = draw_scenes(count, seed, characters=1, combinations="held_out", frames=frames).to(device)
    if not orbit:
        clips = still_characters(clips)
        held = {name: getattr(clips, name)[:, :1].expand_as(getattr(clips, name)) for name in ("camera", "angle")}
        clips = replace(clips, **held)
    turn = torch.arange(frames, device=device) * (2 * math.pi / frames) * orbit
    angles = azimuth(clips)[:, None] + turn
    return with_azimuth(frames_apart(clips), angles.flatten())


@torch.no_grad()
def draw_clips(models: ImageModels, relit, pictures: Pictures, lit: Scenes, seed: int, arguments) -> Tensor:
    """Relit clips [B T, 3, H, W]."""
    frames, part = relit.frames, arguments.batch
    _, beside = encode_pairs(models.vae, pictures, True)
    beside = beside.float().unflatten(0, (-1, frames))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(lit.size, 4, SIZE // 8, SIZE // 8, generator=generator).to(models.device)
    positive = models.encode_prompts([PLACES[BACKGROUNDS[place]] for place in lit.background.tolist()])
    empty, plain, found = models.encode_prompts([""]), models.unet, []
    try:
        for start in range(0, beside.shape[0], part):
            models.unet = GuidedClip(relit, beside[start : start + part], empty, arguments.guidance)
            rows = slice(start * frames, (start + part) * frames)
            sigmas = schedule(SCHEDULER, arguments.steps)
            found.append(models.decode(models.sample(noise[rows], positive[rows], empty, 1.0, sigmas, None, None)))
    finally:
        models.unet = plain
    return torch.cat(found)


def read_arms(models: ImageModels, folder: Path, frames: int) -> dict[str, RelitClip]:
    """The image model tuned by a folder's files, with motion modules and without."""
    from networks.demo_format import load
    from networks.demo_light import apply_light
    from networks.demo_motion import KIND

    light, state = (load(folder / f"{kind}.safetensors", kind)[0] for kind in ("ic_light_fbc", KIND))
    light = {name: value.to(models.device) for name, value in light.items()}
    weights = models.unet.state_dict() | apply_light(light, models.unet.state_dict())
    motion = build_motion(state, models.device).requires_grad_(False)
    return {
        MOTION: RelitClip(models.unet, weights, motion, frames),
        ALONE: RelitClip(models.unet, weights, None, frames, joint_norm=False),
    }


def jumps(angles: Tensor) -> Tensor:
    """float32 [B], degrees: the mean change of directions [B, T] from a frame to the next."""
    return degrees_between(angles[:, 1:], angles[:, :-1]).mean(1)


def measure(models: ImageModels, arms: dict, reader, arguments, seeds: list[int], say) -> dict:
    """Arm -> rows."""
    device = models.device
    values: dict[str, dict[str, list[Tensor]]] = {name: {} for name in (*arms, WANTED)}
    for seed in seeds:
        for orbit in (False, True):
            lit = clips_of(arguments.n, seed + orbit * 1000, arguments.frames, device, orbit=orbit)
            generator = torch.Generator().manual_seed(seed)
            pictures = draw_pairs(lit, SIZE, generator, 0.0, arguments.frames, SEEN)
            for name in values:
                if name == WANTED:
                    drawn = models.decode(models.encode(pictures.wanted))
                else:
                    drawn = draw_clips(models, arms[name], pictures, lit, seed, arguments)
                angles = found_azimuth(drawn, lit)
                rows = {f"{key} right": flags for key, flags in kept(reader.read(drawn), lit).items()}
                del rows["light right"]
                if orbit:
                    rows["orbit followed"] = degrees_between(angles, azimuth(lit)).cpu() <= TOLERANCE
                else:
                    rows["flicker"] = jumps(angles.view(-1, arguments.frames)).cpu()
                for key, some in rows.items():
                    values[name].setdefault(key, []).append(some)
            say(f"seed {seed}, {'orbit' if orbit else 'still'}")
    joined = {name: {key: torch.cat(some) for key, some in rows.items()} for name, rows in values.items()}
    table = {
        name: {
            key: interval(some)
            if key == "flicker"
            else share_of(some, CHANCE if key == "orbit followed" else 0.0).row()
            for key, some in rows.items()
        }
        for name, rows in joined.items()
    }
    ratio = ratio_interval(joined[MOTION]["flicker"], joined[ALONE]["flicker"])
    table["flicker ratio"] = ratio.row()
    return table


def markdown(content: dict) -> str:
    """The report for people."""
    rows = content["arms"]
    keys = ["orbit followed", "shape right", "colour right", "pattern right", "accessory right"]
    lines = [
        "# Relit clips, measured",
        "",
        f"{content['n']} held-out clips of {content['frames']} frames a row and seed, {content['seeds']} seeds,"
        f" {content['steps']} steps of {SAMPLER} ({SCHEDULER}), guidance {content['guidance'][0]:g} (text) and"
        f" {content['guidance'][1]:g} (pictures),"
        f" {content['device']}, {content['date']}. Made by `python -m demo.eval.light_motion_report`.",
        "",
        f"| clips | flicker, degrees a frame | {' | '.join(keys)} |",
        f"|---|---|{'---|' * len(keys)}",
    ]
    for name in (MOTION, ALONE, WANTED):
        shares = [f"{rows[name][key]['share'] * 100:.1f} % ({rows[name][key]['low'] * 100:.1f})" for key in keys]
        lines.append(f"| {name} | {rows[name]['flicker']['mean']:.2f} | {' | '.join(shares)} |")
    ratio = rows["flicker ratio"]
    lines += [
        "",
        f"Flicker with motion modules over that frame by frame: {ratio['value']:.2f} (95 %: {ratio['low']:.2f} to"
        f" {ratio['high']:.2f}; bar {FLICKER_BAR:g}), where nothing moves. Orbit followed: frames whose light is within"
        f" {TOLERANCE:g} degrees of the asked direction while it goes round (chance {CHANCE * 100:.1f} %). In brackets"
        " at least so many (95 %, of frames).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=60, help="clips a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=FRAMES, help="of a clip")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=30, help="clips at a time")
    parser.add_argument("--guidance", type=float, nargs=2, default=GUIDANCE, help="over text, over pictures")
    parser.add_argument("--models", type=Path, default=CHECKPOINTS, help="folder of the image models")
    parser.add_argument("--lights", type=Path, default=CHECKPOINTS, help="folder of the light and motion files")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument(
        "--tiny", action="store_true", help="a clip of 4 frames, 1 seed, 2 steps: whether it runs at all"
    )
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.n, arguments.seeds, arguments.steps, arguments.frames = 1, 1, 2, 4
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    from networks.demo_motion import KIND

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = ImageModels(arguments.models, device, sampler=SAMPLER, scheduler=SCHEDULER)
    paths = {kind: arguments.lights / f"{kind}.safetensors" for kind in ("ic_light_fbc", KIND)}
    arms = read_arms(models, arguments.lights, arguments.frames)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    content = {
        "checkpoints": file_hashes(arguments.models),
        "lights": {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in paths.items()},
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "strengths": list(SEEN),
        **{name: getattr(arguments, name) for name in ("n", "seeds", "frames", "steps", "guidance")},
    }
    seeds = [FIRST_SEED + seed for seed in range(arguments.seeds)]
    content["arms"] = measure(models, arms, NetworkReader(device=device), arguments, seeds, say)
    content["seconds"] = round(time.monotonic() - begin)
    print(markdown(content))
    if not arguments.tiny:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "light_motion.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "light_motion.md").write_text(markdown(content), encoding="ascii")


if __name__ == "__main__":
    main()
