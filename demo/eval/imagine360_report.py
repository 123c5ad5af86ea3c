"""Measures completed panoramas: ``python -m demo.eval.imagine360_report --n 170 --seeds 3``.

A viewer walks through places with held-out characters, to the left, to the right, ahead or back; a camera that looks
ahead sees 90 degrees of it. Imagine360's demonstration draws the panorama. Measured is how well what was given is kept
(PSNR within it), whether what lies behind the viewer moves the other way than what lies ahead, as it must, by at least
a tenth of what it should, and the step across the seam. Writes imagine360.json (keyed by the files' SHA-256) and
imagine360.md.
"""

import argparse
import hashlib
import json
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.eval import frozen
from demo.eval.image_models import CHECKPOINTS, STEPS, ImageModels, file_hashes
from demo.eval.image_report import REPORTS
from demo.eval.imagine360_measures import AHEAD, BEHIND, inside, motion, moved, seam
from demo.eval.reading import share_of
from demo.eval.video_measures import mean_interval
from demo.panorama_clips import CHARACTERS, FRAMES, HEIGHT, MOVES, PanoramaClips, conditions, draw_clips
from demo.training_data import encode_pictures
from demo.training_drawings import save_grid
from demo.world.captions import captions
from demo.world.scene import Scenes, draw_scenes

KIND = "imagine360"
FIRST_SEED = 910_000_000
CFG = 2.0
INSIDE_BAR, OTHER_WAY_BAR = 20.0, 0.8
CHANCE = 0.5
ANTIPODAL = 0.4
ROUND = 4
"""Columns of latents that are decoded on either side and cut off."""

RENDERED, WHOLE = "rendered", "both branches"
ARMS: dict[str, tuple[str, ...]] = {
    WHOLE: (),
    "exchange blocks off": ("exchange",),
    "motion modules off": ("motion",),
    "opposite masks never": ("opposite",),
}
"""Name -> what is taken away from the trained network."""


def scenes_of(count: int, seed: int) -> Scenes:
    """Held-out characters."""
    return draw_scenes(count, seed, characters=CHARACTERS, combinations="held_out")


class Imagine360Models:
    """The demonstration's networks.

    Args:
        path: of the file.
        device: where; in bfloat16 on a GPU.
        models: folder of the image model's files.
    """

    def __init__(self, path: Path, device: torch.device, models: Path = CHECKPOINTS):
        from demo.train_imagine360 import build_network, cast_weights
        from networks.demo_format import load

        self.device, self.image = device, ImageModels(models, device)
        base = {
            name: value.to(device) for name, value in load(models / "image_unet.safetensors", "image_unet")[0].items()
        }
        state = {name: value.to(device) for name, value in load(path, KIND)[0].items()}
        self.weights = cast_weights(state, base, self.image.working)
        self.networks = {chance: build_network(device, chance) for chance in (0.0, ANTIPODAL)}

    def _without(self, parts: tuple[str, ...]) -> dict[str, Tensor]:
        """The weights with the last layers of some parts at 0, which then add nothing."""
        ends = {"exchange": (".attn1.to_out.0.", ".ff.net.2."), "motion": (".temporal_transformer.proj_out.",)}
        found = dict(self.weights)
        for part in parts:
            for name, value in self.weights.items():
                if f"{part}." in name and any(end in name for end in ends.get(part, ())):
                    found[name] = torch.zeros_like(value)
        return found

    @torch.no_grad()
    def draw(
        self, clips: PanoramaClips, prompts: list[str], seed: int, without: tuple[str, ...] = (), cfg: float = CFG,
        steps: int = STEPS, batch: int = 85,
    ) -> Tensor:  # fmt: skip
        """Panoramas float32 [B, T, 3, H, 2 H] on the CPU.

        Args:
            clips: what the camera saw.
            prompts: B sentences.
            seed: of the noise.
            without: see ARMS.
            cfg: guidance; the negative prompt is empty.
            steps: of the sampler.
            batch: clips at a time.
        """
        from demo.train_imagine360 import draw_panoramas

        weights = self._without(without)
        network = self.networks[0.0 if "opposite" in without else ANTIPODAL]
        height, frames = clips.panoramas.shape[3], clips.panoramas.shape[1]
        size = (len(prompts), 4, frames, height // 8, height // 4)
        noise = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        empty, found = self.image.encode_prompts([""]), []
        for part in torch.arange(len(prompts)).split(batch):
            video = clips.videos[part].to(self.device)
            told = conditions(video, clips.pitch, height, lambda some: encode_pictures(self.image.vae, some))
            told = tuple(some.float() for some in told)
            context = self.image.encode_prompts([prompts[row] for row in part])
            latents = draw_panoramas(network, weights, told, context, empty, noise[part].to(self.device), cfg, steps)
            pictures = self._decode(latents.transpose(1, 2).flatten(0, 1))
            found.append(pictures.unflatten(0, (len(part), frames)).cpu())
        return torch.cat(found)

    def again(self, clips: PanoramaClips) -> Tensor:
        """Rendered panoramas through the autoencoder."""
        flat = clips.panoramas.flatten(0, 1)
        parts = [self._decode(self.image.encode(some)).cpu() for some in flat.split(64)]
        return torch.cat(parts).view_as(clips.panoramas)

    def _decode(self, latents: Tensor) -> Tensor:
        """As Panorama VAE Decode does: the columns go on round the edges."""
        wide = torch.nn.functional.pad(latents, (ROUND, ROUND, 0, 0), mode="circular")
        return self.image.decode(wide)[..., 8 * ROUND : -8 * ROUND]


def measured(panoramas: Tensor, clips: PanoramaClips) -> dict[str, Tensor]:
    """Row -> values [B] of completed clips; everything on the CPU."""
    rows = {"inside": inside(panoramas, clips.videos, clips.pitch), "seam": seam(panoramas), "move": clips.moves}
    for name, view in (("ahead", AHEAD), ("behind", BEHIND)):
        found, true = (motion(some, clips.moves, view) for some in (panoramas, clips.panoramas))
        rows[f"{name} moves"] = moved(found, true)
        rows[f"{name} speed"] = found / true
    return rows


def on_host(clips: PanoramaClips) -> PanoramaClips:
    """The clips on the CPU."""
    return PanoramaClips(clips.panoramas.cpu(), clips.videos.cpu(), clips.moves.cpu(), clips.pitch)


def clips_of(count: int, seed: int, device: torch.device, part: int = 85) -> list[tuple[PanoramaClips, list[str]]]:
    """Clips and their prompts, ``part`` of one pitch at a time."""
    scenes, generator = scenes_of(count, seed), torch.Generator().manual_seed(seed)
    told = captions(scenes, seed, full=True)
    return [
        (on_host(draw_clips(scenes.select(rows).to(device), generator, FRAMES, HEIGHT)), [told[row] for row in rows])
        for rows in torch.arange(count).split(part)
    ]


def measure(models: Imagine360Models, arguments, seeds: list[int], arms: dict, say) -> tuple[dict, list[Tensor]]:
    """Arm -> row -> values of all clips; and first and last frames of the first clips."""
    table: dict[str, dict[str, list[Tensor]]] = {}
    shown: dict[str, list[Tensor]] = {}
    for seed in seeds:
        for number, (clips, prompts) in enumerate(clips_of(arguments.n, seed, models.device)):
            drawn = {RENDERED: models.again(clips)}
            for name, without in arms.items():
                drawn[name] = models.draw(clips, prompts, seed + number, without, arguments.cfg, arguments.steps)
            for name, panoramas in drawn.items():
                for row, values in measured(panoramas, clips).items():
                    table.setdefault(name, {}).setdefault(row, []).append(values)
                if number == 0 and seed == seeds[0]:
                    shown[name] = [panoramas[:6, frame] for frame in (0, -1)]
        say(f"seed {seed}")
    return (
        {name: {row: torch.cat(some) for row, some in rows.items()} for name, rows in table.items()},
        [torch.cat(some) for some in shown.values()],
    )


def summary(found: dict) -> dict:
    """What the report holds of ``measure``'s values."""
    table = {}
    for name, rows in found.items():
        entry = {
            "inside": mean_interval(rows["inside"]).row(),
            "seam": mean_interval(rows["seam"]).row(),
            "behind": share_of(rows["behind moves"], CHANCE).row(),
            "ahead": share_of(rows["ahead moves"], CHANCE).row(),
            "speed behind": float(rows["behind speed"].median()),
        }
        for number, move in enumerate(MOVES):
            chosen = rows["move"] == number
            if chosen.any():
                entry[f"behind, {move}"] = share_of(rows["behind moves"][chosen], CHANCE).row()
        table[name] = entry
    return table


def markdown(content: dict) -> str:
    """The report for people."""
    lines = [
        "# Completed panoramas, measured",
        "",
        f"{content['n']} clips a row and seed, {content['seeds']} seeds, {FRAMES} frames, held-out characters,"
        f" {content['steps']} steps of euler (normal), cfg {content['cfg']:g}, {content['device']}, {content['date']}."
        " Made by `python -m demo.eval.imagine360_report`.",
        "",
        "| drawn | what was given, dB | behind moves the other way | left | right | ahead | back | speed behind, of the"
        " true one | ahead moves right | step across the seam |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["table"].items():
        moves = " | ".join(f"{row[f'behind, {move}']['share'] * 100:.0f} %" for move in MOVES)
        lines.append(
            f"| {name} | {row['inside']['value']:.1f} ({row['inside']['low']:.1f}) |"
            f" {row['behind']['share'] * 100:.1f} % ({row['behind']['low'] * 100:.1f}) | {moves} |"
            f" {row['speed behind']:.2f} | {row['ahead']['share'] * 100:.0f} % | {row['seam']['value']:.2f}"
            f" ({row['seam']['high']:.2f}) |"
        )
    lines += [
        "",
        "In brackets the end of the 95 % interval that a bar looks at. Bars: what was given at least"
        f" {INSIDE_BAR:g} dB; behind the viewer things move the other way than ahead, by at least a tenth of what they"
        f" should, in at least {OTHER_WAY_BAR:.0%} (chance at most {CHANCE:.0%}; a picture that stands still counts as"
        " wrong). The speed is the median. The seam's step is that between the edges that meet, over the mean of"
        " neighbouring columns. Parts are taken away from the trained network, not left out in training.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=170, help="clips a row and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="of those, beyond the report's own")
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--models", type=Path, default=CHECKPOINTS, help="folder of the image model")
    parser.add_argument("--file", type=Path, default=CHECKPOINTS / f"{KIND}.safetensors")
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--only", action="store_true", help="the whole network alone, without what is taken away")
    parser.add_argument("--tiny", action="store_true", help="2 clips, 1 seed, 2 steps: whether it runs at all")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.n, arguments.seeds, arguments.steps = 2, 1, 2
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = Imagine360Models(arguments.file, device, arguments.models)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    content = {
        "checkpoints": file_hashes(arguments.models),
        "file": hashlib.sha256(arguments.file.read_bytes()).hexdigest(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **{name: getattr(arguments, name) for name in ("n", "seeds", "cfg", "steps")},
    }
    seeds = [FIRST_SEED + arguments.first_seed + 1000 * seed for seed in range(arguments.seeds)]
    arms = {WHOLE: ()} if arguments.only else ARMS
    found, shown = measure(models, arguments, seeds, arms, say)
    content["table"] = summary(found)
    content["seconds"] = round(time.monotonic() - begin)
    if not arguments.tiny:
        print(markdown(content))
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "imagine360.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "imagine360.md").write_text(markdown(content), encoding="ascii")
        save_grid(shown, arguments.out / "imagine360_pictures.png")
    else:
        print(json.dumps(content["table"], indent=1))


if __name__ == "__main__":
    main()
