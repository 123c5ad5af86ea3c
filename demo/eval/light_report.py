"""Measures IC-Light's demonstration on held-out looks: ``python -m demo.eval.light_report --n 170 --seeds 3``.

A character under one light is to be drawn under another. Variant fbc is given a background whose brightness falls off
from the light's side, a place of the world or plain grey; variant fc starts from such a map of light, or is told by
its caption. Counted are the pictures whose light is within 25 degrees of the asked one (light_measures.py), and how
often the frozen reader finds shape and colour, which may be 5 points less than in the wanted picture after the
autoencoder. The baseline is the image model alone: from the same noise it draws over the foreground. Writes light.json
(keyed by each file's SHA-256) and light.md.
"""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from demo.eval import frozen
from demo.eval.image_models import CHECKPOINTS, SIZE, ImageModels, file_hashes, schedule
from demo.eval.image_report import REPORTS, SAMPLER, SCHEDULER
from demo.eval.light_measures import CHANCE, TOLERANCE, kept, light_errors
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import CHANCE as READ_CHANCE
from demo.eval.reading import Share, share_of
from demo.light_pairs import SEEN, Pictures, azimuth, draw_pairs, falloff, with_azimuth
from demo.training import batches
from demo.world.attributes import BACKGROUNDS, LIGHT_ANGLES, LIGHTS
from demo.world.captions import LIGHTING, PLACES
from demo.world.scene import Scenes, draw_scenes
from kernels.pixel_coding import coded

FIRST_SEED = 810_000_000
LIGHT_BAR, KEPT_BAR = 0.85, 0.05
BASE_DENOISE = 0.6
"""Of the way that the image model alone goes over a foreground."""


@dataclass(frozen=True)
class Arm:
    """What a file is given."""

    kind: str  # of networks.demo_light.FILE_KINDS
    grey: bool = False  # fbc: a grey background in the place of the world's
    start: float = 1.0  # fc: the denoise with which a map of light is begun from; 1: there is none
    told: bool = False  # fc: the caption names the light


ARMS = {
    "fbc, a place": Arm("ic_light_fbc"),
    "fbc, grey": Arm("ic_light_fbc", grey=True),
    "fc, map of light, denoise 0.9": Arm("ic_light_fc", start=0.9),
    "fc, map of light, denoise 0.8": Arm("ic_light_fc", start=0.8),
    "fc, caption": Arm("ic_light_fc", told=True),
}


class Relit(nn.Module):
    """A UNet with IC-Light's offsets and the latents that lie beside the noise."""

    def __init__(self, unet: nn.Module, weights: dict[str, Tensor], beside: Tensor):
        super().__init__()
        self.unet, self.weights, self.beside = unet, weights, beside

    def forward(self, x: Tensor, times: Tensor, context: Tensor, **named) -> Tensor:
        beside = self.beside.to(x.dtype).repeat(x.shape[0] // self.beside.shape[0], 1, 1, 1)
        return functional_call(self.unet, self.weights, (torch.cat((x, beside), 1), times, context), named)


def prompts_of(scenes: Scenes, arm: Arm) -> list[str]:
    """What each picture is asked for in words: its place, and its light where the arm tells it."""
    found = []
    for place, light in zip(scenes.background.tolist(), scenes.light.tolist(), strict=True):
        words = [] if arm.grey else [PLACES[BACKGROUNDS[place]]]
        found.append(", ".join([*words, *([LIGHTING[LIGHTS[light]]] if arm.told else [])]))
    return found


def scenes_of(count: int, seed: int, arm: Arm, device: torch.device) -> Scenes:
    """Held-out characters, alone; lit from anywhere, or where words are to tell it exactly from there."""
    scenes = draw_scenes(count, seed, characters=1, combinations="held_out").to(device)
    chance = torch.rand(count, generator=torch.Generator().manual_seed(seed)).to(device)
    anywhere = (chance * 2 - 1) * torch.pi
    return with_azimuth(scenes, torch.tensor(LIGHT_ANGLES, device=device)[scenes.light] if arm.told else anywhere)


class LightModels:
    """The image models with the files of FILE_KINDS that there are.

    Args:
        models: the image models.
        folder: of the light files.
    """

    def __init__(self, models: ImageModels, folder: Path):
        from networks.demo_format import load
        from networks.demo_light import FILE_KINDS, apply_light

        self.models, self.weights = models, {}
        frozen_weights = models.unet.state_dict()
        for kind in FILE_KINDS:
            path = folder / f"{kind}.safetensors"
            if path.is_file():
                state = {name: value.to(models.device) for name, value in load(path, kind)[0].items()}
                self.weights[kind] = apply_light(state, frozen_weights)

    @torch.no_grad()
    def draw(self, pictures: Pictures, scenes: Scenes, arm: Arm, seed: int, arguments, tuned: bool) -> Tensor:
        """Pictures [B, 3, H, W]: relit, or what the image model alone draws over the foreground."""
        models, size = self.models, pictures.wanted.shape[-1]
        count, device = scenes.size, models.device
        noise = torch.randn(count, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(seed)).to(device)
        positive = models.encode_prompts(prompts_of(scenes, arm))
        unwanted = models.encode_prompts([""]).expand_as(positive)
        denoise, start = arm.start, None
        if not tuned:
            denoise = BASE_DENOISE
            ground = pictures.background
            start = models.encode(ground + (pictures.foreground - ground) * pictures.mask)
        elif arm.start < 1:
            ends = torch.zeros(count, device=device), torch.ones(count, device=device)
            light = falloff(azimuth(scenes), size, size, *ends).expand(-1, 3, -1, -1)
            start = models.encode(coded(light, "official"))
        given = [pictures.foreground] + ([pictures.background] if arm.kind == "ic_light_fbc" else [])
        beside = torch.cat([models.encode(coded(some, "official")) for some in given], 1)
        sigmas = schedule(SCHEDULER, arguments.steps, denoise)
        plain, found = models.unet, []
        try:
            for part in batches(count, arguments.batch):
                if tuned:
                    models.unet = Relit(plain, self.weights[arm.kind], beside[part])
                begin = None if start is None else start[part]
                inputs = (noise[part], positive[part], unwanted[part], arguments.cfg, sigmas, begin, None)
                found.append(models.decode(models.sample(*inputs)))
        finally:
            models.unet = plain
        return torch.cat(found)


def measure(models: LightModels, reader, arguments, seeds: list[int], say) -> dict[str, dict[str, dict]]:
    """Arm -> picture ("relit", "image model alone", "wanted, autoencoder") -> row -> what reading.Share.row gives."""
    device, table = models.models.device, {}
    for name, arm in ARMS.items():
        if arm.kind not in models.weights:
            continue
        rows: dict[str, dict[str, list[Tensor]]] = {}
        for seed in seeds:
            scenes = scenes_of(arguments.n, seed, arm, device)
            generator = torch.Generator().manual_seed(seed)
            pictures = draw_pairs(scenes, SIZE, generator, 1.0 if arm.grey else 0.0, strengths=SEEN)
            drawn = {
                "relit": models.draw(pictures, scenes, arm, seed, arguments, tuned=True),
                "image model alone": models.draw(pictures, scenes, arm, seed, arguments, tuned=False),
                "wanted, autoencoder": models.models.decode(models.models.encode(pictures.wanted)),
            }
            for what, some in drawn.items():
                seen = {"direction": light_errors(some, scenes) <= TOLERANCE, **kept(reader.read(some), scenes)}
                for row, flags in seen.items():
                    rows.setdefault(what, {}).setdefault(row, []).append(flags)
            say(f"{name}, seed {seed}")
        table[name] = {
            what: {row: _share(row, torch.cat(flags)).row() for row, flags in some.items()}
            for what, some in rows.items()
        }
    return table


def _share(row: str, flags: Tensor) -> Share:
    return share_of(flags, CHANCE if row == "direction" else READ_CHANCE[row])


def _fewer(content: dict) -> str:
    """What to say of rows that not every seed was drawn for."""
    most = content["n"] * content["seeds"]
    counts = {table["direction"]["n"] for arm in content["arms"].values() for table in arm.values()}
    return f" Rows of fewer than {most} pictures are of the first seeds only." if min(counts) < most else ""


def markdown(content: dict) -> str:
    """The report for people."""
    rows = ("direction", "light", "shape", "colour", "pattern", "accessory")
    lines = [
        "# IC-Light's demonstration, measured",
        "",
        f"{content['n']} held-out characters a row and seed, {content['seeds']} seeds, {content['steps']} steps of"
        f" {SAMPLER} ({SCHEDULER}), cfg {content['cfg']:g}, {content['device']}, {content['date']}. Made by"
        f" `python -m demo.eval.light_report`.{_fewer(content)}",
        "",
        f"| given | picture | n | {' | '.join(rows)} |",
        f"|---|---|---|{'---|' * len(rows)}",
    ]
    for name, pictures in content["arms"].items():
        for what, table in pictures.items():
            shares = [f"{table[row]['share'] * 100:.1f} % ({table[row]['low'] * 100:.1f})" for row in rows]
            lines.append(f"| {name} | {what} | {table['direction']['n']} | {' | '.join(shares)} |")
    chances = [CHANCE, *(READ_CHANCE[row] for row in rows[1:])]
    lines.append(f"| chance | | | {' | '.join(f'{value * 100:.1f} %' for value in chances)} |")
    lines += [
        "",
        f"In brackets at least so many (95 %). Direction: the light is within {TOLERANCE:g} degrees of the asked one"
        f" (bar {LIGHT_BAR * 100:.0f} %), measured by drawing the character under lights from all round; light: the"
        " frozen reader names the right one of four. Shape and colour of relit characters may be"
        f" {KEPT_BAR * 100:.0f} points less often right than those of the wanted pictures.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=170, help="characters a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=500, help="pictures at a time")
    parser.add_argument("--models", type=Path, default=CHECKPOINTS, help="folder of the image models")
    parser.add_argument("--lights", type=Path, default=CHECKPOINTS, help="folder of the light files")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--tiny", action="store_true", help="3 characters, 1 seed, 3 steps: whether it runs at all")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.n, arguments.seeds, arguments.steps = 3, 1, 3
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host

    use_host()
    from networks.demo_light import FILE_KINDS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = LightModels(ImageModels(arguments.models, device, sampler=SAMPLER, scheduler=SCHEDULER), arguments.lights)
    if not models.weights:
        raise SystemExit(f"{arguments.lights} has none of {', '.join(f'{kind}.safetensors' for kind in FILE_KINDS)}.")

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    paths = {kind: arguments.lights / f"{kind}.safetensors" for kind in models.weights}
    content = {
        "checkpoints": file_hashes(arguments.models),
        "lights": {kind: hashlib.sha256(path.read_bytes()).hexdigest() for kind, path in paths.items()},
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "strengths": list(SEEN),
        **{name: getattr(arguments, name) for name in ("n", "seeds", "cfg", "steps")},
    }
    seeds = [FIRST_SEED + seed for seed in range(arguments.seeds)]
    content["arms"] = measure(models, NetworkReader(device=device), arguments, seeds, say)
    content["seconds"] = round(time.monotonic() - begin)
    print(markdown(content))
    if not arguments.tiny:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "light.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "light.md").write_text(markdown(content), encoding="ascii")


if __name__ == "__main__":
    main()
