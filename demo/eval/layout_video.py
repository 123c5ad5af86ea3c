"""Measures layouts that move: ``python -m demo.eval.layout_video --n 60 --seeds 3``.

Held-out characters, two of them, one at least on its way, before a camera that stands still; captions without motion
words. Each is asked for by the ellipses of what is seen of it in the rendered clip, frame by frame. The frozen reader
says what stands where in every frame: the IoU of asked and read (a missing character, or one of another shape or
colour, counts 0), how far from its ellipse's middle a character is, and whether it moves as its ellipse does. How much
a character's colour changes is the deviation over the frames of the mean colour in the middle of its ellipse, and in
the middle of where it is read, in levels of 255. Writes layout_video.json (keyed by each file's SHA-256) and
layout_video.md.
"""

import argparse
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from torch import Tensor

from demo.blob_scenes import label_ellipses
from demo.eval import frozen
from demo.eval.image_report import REPORTS
from demo.eval.layout_measures import SIZE, per_object, read_overlaps
from demo.eval.layout_report import prompts_of
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import Reading, match, truth
from demo.eval.video_measures import difference_interval, mean_interval, ratio_interval, read_frames
from demo.eval.video_models import CHECKPOINTS, LATENT, STEPS, TIMES, VideoModels, file_hashes, file_path, networks_of
from demo.training import autocast
from demo.training_drawings import save_grid
from demo.video_data import FRAMES
from demo.world.attributes import MOTIONS
from demo.world.captions import object_captions
from demo.world.render import render
from demo.world.scene import Scenes, draw_scenes, still_camera
from demo.world_tokens import END, token_rows, vocabulary
from kernels.ellipses import distances

FIRST_SEED = 860_000_000
CFG = 3.0
FILES = ("video_unet", "video_text_encoder", "video_vae")
MOVING = [MOTIONS.index(name) for name in ("left", "right", "up", "down")]
COLOUR_ROWS = ("colour change", "colour change, read")
LEAST_WAY = 8.0
"""Pixels that an ellipse must travel for its direction to count."""

PLAIN, WHOLE, RENDERED = "prompt alone", "masked, the whole prompt throughout", "rendered"
MASKED, APART = "masked", "masked, 3-D attention"
THREE_DIS = "3dis rules"


@dataclass(frozen=True)
class Arm:
    """How clips are drawn: fields of BlobSettings; None = the prompt alone."""

    settings: Mapping[str, object] | None = None
    end: float = 1.0
    """Until which part of the sampling blobs hold."""

    place: float = 0.0
    """Until which part of the sampling the prompt tells no more than the place and the light."""

    later: Mapping[str, object] | None = None
    """Fields of BlobSettings from ``end`` to ``later_end``; None = no blobs there."""

    later_end: float = 1.0


ARMS = {
    PLAIN: Arm(),
    WHOLE: Arm({"strength": 0.8}),
    MASKED: Arm({}, end=0.5, place=0.5),
    APART: Arm({"self_attention": True, "first_blocks": 0, "self_end": 0.5}, end=0.5, place=0.5),
    THREE_DIS: Arm({"rules": "3dis", "first_blocks": 0, "self_end": 0.5}, end=0.5, place=0.5),
}
"""Blobs hold in the first half of the sampling, in which the prompt tells the place alone; then comes the prompt."""


def scenes_of(count: int, seed: int) -> Scenes:
    """Two held-out characters each, one of which at least goes somewhere, before a camera that does not move."""
    scenes = draw_scenes(8 * count, seed, characters=2, frames=FRAMES, combinations="held_out")
    goes = (torch.isin(scenes.motion, torch.tensor(MOVING)) & scenes.present).any(1).nonzero()[:count, 0]
    return still_camera(scenes.select(goes))


def clip_ellipses(scenes: Scenes, device: torch.device, part: int = 32) -> tuple[Tensor, Tensor]:
    """The ellipse of what is seen of each character in each frame: float32 [B, T, K, 5], and bool [B, T, K]."""
    found, there = [], []
    for start in range(0, scenes.size, part):
        some = scenes.select(slice(start, start + part)).to(device)
        labels = render(some, SIZE, SIZE, layers=("labels",)).labels
        for frame in labels.unbind(1):
            ellipses, present = label_ellipses(frame, some.present)
            found.append(ellipses), there.append(present)
    frames, parts = scenes.frames, len(found) // scenes.frames
    stacked = [torch.stack(list_[k * frames : (k + 1) * frames], 1) for list_ in (found, there) for k in range(parts)]
    return torch.cat(stacked[:parts]), torch.cat(stacked[parts:])


class LayoutVideo:
    """The video model with blobs.

    Args:
        folder: of the video model's files.
        device: where; in bfloat16 on a GPU.
        steps: of the sampler.
    """

    def __init__(self, folder: Path, device: torch.device, steps: int = STEPS):
        from networks.demo_format import load
        from networks.demo_video import build_network

        states = {kind: load(file_path(folder, kind), kind)[0] for kind in FILES}
        self.models = VideoModels(networks_of(states, device), device, steps=steps)
        self.network = build_network(device)
        self.network.load_state_dict(states["video_unet"])
        self.network.to(device).eval().requires_grad_(False)
        self.device = device
        self.working = torch.bfloat16 if device.type == "cuda" else torch.float32

    def caption_states(self, texts: list[str]) -> list[Tensor]:
        """What the text encoder says of captions, float [n, 4096], up to the end token."""
        end = vocabulary().index(END)
        counts = [rows.index(end) + 1 for rows in token_rows(texts).tolist()]
        return [states[:count] for states, count in zip(self.models.networks.encode_text(texts), counts, strict=True)]

    @torch.no_grad()
    def draw(
        self, prompts, places, captions_, ellipses, present, seed: int, arm: Arm, cfg: float, batch: int = 32
    ) -> Tensor:
        """Clips uint8 [B, T, 3, 128, 128].

        Args:
            prompts: B sentences; places: B that tell the place alone; captions_: of each clip's blobs.
            ellipses: float32 [B, T, K, 5]; present: bool [B, T, K].
            seed: of the noise, which is the same for every arm.
            arm, cfg: how.
            batch: clips at a time.
        """
        noise = torch.randn(len(prompts), *LATENT, generator=torch.Generator().manual_seed(seed))
        found = []
        for start in range(0, len(prompts), batch):
            part = slice(start, start + batch)
            given = (prompts[part], places[part], captions_[part], ellipses[part].cpu(), present[part].cpu())
            found.append(self.models.decode(self._sample(noise[part].to(self.device), *given, arm, cfg)))
        return torch.cat(found)

    def _texts(self, prompts, captions_, ellipses, present, fields: Mapping[str, object]) -> tuple[Tensor, list]:
        from papernodes.patches.blobs import BlobSettings, blob_text

        settings, given = BlobSettings(**fields), []
        for states, texts, shapes, there in zip(
            self.models.networks.encode_text(prompts), captions_, ellipses, present, strict=True
        ):
            anchors = [[(0, some)] for some in self.caption_states(texts)]
            if settings.rules == "none":  # captions would be seen by all
                anchors = [[] for _ in texts]
            count = len(texts)
            given.append((states, anchors, (shapes[:, :count], there[:, :count]), settings))
        rows = -(-max(blob_text(*some)[1].length for some in given) // 8) * 8
        states, texts = zip(*(blob_text(*some, pad_to=rows) for some in given), strict=True)
        return torch.stack(states), list(texts)

    def _sample(self, noise, prompts, places, captions_, ellipses, present, arm: Arm, cfg: float) -> Tensor:
        from papernodes.patches.blobs import options_with_blobs

        encode, sigmas = self.models.networks.encode_text, self.models.sigmas.tolist()
        plain, empty, cache = encode(prompts), encode([""]), {}
        blobs = (captions_, ellipses, present)
        told = place = after = None
        if arm.settings is not None:
            told = self._texts(prompts, *blobs, arm.settings)
            place = self._texts(places, *blobs, arm.settings)
        if arm.later is not None:
            after = self._texts(prompts, *blobs, arm.later)
        x = noise * sigmas[0]

        def velocity(context: Tensor, sigma: float, options: dict) -> Tensor:
            times = torch.full((x.shape[0],), sigma * TIMES, device=x.device)
            with autocast(self.device):
                return self.network(
                    x.to(self.working), times, context.to(self.working), transformer_options=options
                ).float()

        for step, (now, later) in enumerate(itertools.pairwise(sigmas)):
            progress, options, context = step / (len(sigmas) - 1), {}, plain
            if told is not None and progress < arm.end:
                context, texts = place if progress < arm.place else told
                options = options_with_blobs(texts, {}, self.network, x.shape, progress=progress, cache=cache)
            elif after is not None and progress < arm.later_end:
                context, texts = after
                options = options_with_blobs(texts, {}, self.network, x.shape, progress=progress, cache=cache)
            wanted = velocity(context, now, options)
            other = velocity(empty.expand_as(plain), now, {})
            x = x + (other + cfg * (wanted - other)) * (later - now)
        return x


def read_places(found: list[Reading], scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Where the reader sees each character in each frame, pixels float32 [B, T, K, 2], NaN where missing or of another
    shape or colour; and how large, pixels float32 [B, T, K].
    """
    places, sizes = [], []
    for frame, reading in enumerate(found):
        wanted = truth(scenes, frame)
        # Matched by looks: where it stands is what is asked.
        nowhere = replace(wanted, position=torch.full_like(wanted.position, torch.nan))
        same = reading.pick(match(nowhere, reading))
        right = same.present & (same.shape == wanted.shape) & (same.colour == wanted.colour) & scenes.present
        places.append(torch.where(right[..., None], (same.position + 1) * SIZE / 2, torch.nan))
        sizes.append(same.radius * SIZE / 2)
    return torch.stack(places, 1), torch.stack(sizes, 1)


def overlaps(found: list[Reading], scenes: Scenes, ellipses: Tensor, present: Tensor) -> Tensor:
    """IoU of asked and read, mean over the frames in which a character is to be seen: float32 [B, K]."""
    every = [
        read_overlaps(reading, scenes.at(slice(frame, frame + 1)), ellipses[:, frame], present[:, frame])
        for frame, reading in enumerate(found)
    ]
    there = present.cpu().float()
    return (torch.stack(every, 1) * there).sum(1) / there.sum(1).clamp_min(1)


def colour_change(clips: Tensor, ellipses: Tensor, known: Tensor) -> Tensor:
    """How much the mean colour in ellipses changes over the frames, in levels of 255: float32 [B, K].

    Args:
        clips: uint8 [B, T, 3, H, W].
        ellipses: float32 [B, T, K, 5]; the inner 60 % of each are looked at.
        known: bool [B, T, K]: at which frames there is one; NaN where at fewer than three.
    """
    disc = torch.cat((ellipses[..., :2], 0.6 * ellipses[..., 2:4], ellipses[..., 4:]), -1)
    disc = torch.where(known[..., None], disc, 0.5)
    total = torch.zeros(*known.shape, 3)
    for frame in range(clips.shape[1]):
        mask = (distances(disc[:, frame].to(clips.device), SIZE, SIZE) <= 1).float()
        area = mask.sum((-2, -1)).clamp_min(1)
        total[:, frame] = (torch.einsum("bkhw,bchw->bkc", mask, clips[:, frame].float()) / area[..., None]).cpu()
    count = known.sum(1).clamp_min(1)[..., None]
    mean = (total * known[..., None]).sum(1) / count
    spread = ((total - mean[:, None]).square() * known[..., None]).sum(1) / count
    return torch.where(known.sum(1) >= 3, spread.mean(-1).sqrt(), torch.nan)


def measured(clips: Tensor, reader, scenes: Scenes, ellipses: Tensor, present: Tensor) -> dict[str, Tensor]:
    """Row -> values [B, K] of clips; NaN where it cannot be said."""
    found = read_frames(reader, clips)
    places, sizes = read_places(found, scenes)
    asked = torch.where(present[..., None], ellipses[..., :2] * SIZE, torch.nan).cpu()
    away = (places - asked).norm(dim=-1)
    way = asked[:, -1] - asked[:, 0]
    moved = places[:, -1] - places[:, 0]
    same = (way * moved).sum(-1) / (way.norm(dim=-1) * moved.norm(dim=-1)).clamp_min(1e-6)
    same = torch.where(way.norm(dim=-1) >= LEAST_WAY, same, torch.nan)
    read = torch.stack((places[..., 0], places[..., 1], sizes, sizes, torch.zeros_like(sizes)), -1) / SIZE
    return {
        "overlap": overlaps(found, scenes, ellipses, present),
        "away": away.nanmean(1),
        "read": places.isfinite().all(-1).float().mean(1),
        "same way": same,
        "colour change": colour_change(clips, ellipses.cpu(), present.cpu()),
        "colour change, read": colour_change(clips, read, places.isfinite().all(-1)),
    }


def measure(model: LayoutVideo, reader, arguments, seeds: list[int], arms: Mapping[str, Arm], say) -> tuple[dict, list]:
    """Arm -> row -> values [N, K]; and frames of the first clips of each arm."""
    table: dict[str, dict[str, list[Tensor]]] = {}
    shown = []
    for seed in seeds:
        scenes = scenes_of(arguments.n, seed)
        still = scenes.at(slice(0, 1))
        ellipses, present = clip_ellipses(scenes, model.device)
        told = prompts_of(still, seed)
        given = (told["whole"], told["scene"], object_captions(still), ellipses, present, seed)
        drawn = {RENDERED: (render(scenes.to(model.device), SIZE, SIZE).frames * 255).round().byte()}
        for name, arm in arms.items():
            drawn[name] = model.draw(*given, arm, arguments.cfg, arguments.batch)
            say(f"seed {seed}: {name}")
        for name, clips in drawn.items():
            rows = table.setdefault(name, {})
            for row, values in measured(clips, reader, scenes, ellipses, present).items():
                rows.setdefault(row, []).append(torch.where(scenes.present, values, torch.nan))
        times = torch.linspace(0, FRAMES - 1, 4).round().long()
        shown = shown or [clips[:3, times].flatten(0, 1).float() / 255 for clips in drawn.values()]
    return {name: {row: torch.cat(some) for row, some in rows.items()} for name, rows in table.items()}, shown


def summary(found: dict) -> dict:
    """Means and intervals; what changes against the prompt alone, and against masked, of characters told of in both."""
    table = {}
    for name, rows in found.items():
        asked = found[RENDERED]["overlap"].isfinite()
        overlap = {key: per_object(found[key]["overlap"].nan_to_num(0.0), asked) for key in (name, PLAIN)}
        entry = {"overlap": mean_interval(overlap[name]).row()}
        entry["gain"] = difference_interval(overlap[name], overlap[PLAIN]).row()
        for row in ("away", "read", "same way", *COLOUR_ROWS):
            values = rows[row][rows[row].isfinite()]
            entry[row] = {**mean_interval(values).row(), "n": int(values.numel())}
        for row in COLOUR_ROWS:
            both = rows[row].isfinite() & found[MASKED][row].isfinite()
            entry[f"{row}, ratio"] = ratio_interval(rows[row][both], found[MASKED][row][both]).row()
        table[name] = entry
    return table


def markdown(content: dict) -> str:
    """The report for people."""
    lines = [
        "# Layouts that move, measured",
        "",
        f"{content['n']} clips of {FRAMES} frames a row and seed, {content['seeds']} seeds, two characters of held-out"
        f" looks, {content['steps']} steps of euler (simple), cfg {content['cfg']:g}, {content['device']},"
        f" {content['date']}. Made by `python -m demo.eval.layout_video`. No training.",
        "",
        "| drawn | mean IoU over the frames | over the prompt alone | pixels from the ellipse's middle | moves its way"
        " (cosine) | frames in which it is read | change of colour in the ellipse, levels | over masked | of what is"
        " read | over masked |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["table"].items():
        colours = " | ".join(
            f"{row[key]['value']:.1f} | {row[f'{key}, ratio']['value']:.2f} ({row[f'{key}, ratio']['high']:.2f})"
            for key in COLOUR_ROWS
        )
        lines.append(
            f"| {name} | {row['overlap']['value']:.3f} ({row['overlap']['low']:.3f}) | {row['gain']['value']:+.3f}"
            f" ({row['gain']['low']:+.3f}) | {row['away']['value']:.1f} | {row['same way']['value']:.2f}"
            f" ({row['same way']['low']:.2f}) | {row['read']['value'] * 100:.0f} % | {colours} |"
        )
    lines += [
        "",
        "A character that is missing, or of another shape or colour, has an IoU of 0 and no place. In brackets the end"
        " of the 95 % interval that counts against what is claimed. The cosine is of the way that a character goes and"
        f" its ellipse's, for ellipses that go {LEAST_WAY:g} pixels or more (chance 0). Blobs hold in the first half of"
        " the sampling, while the prompt tells the place alone; then the whole prompt is all that is told; but for the"
        " row that says otherwise (strength 0.8).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=85, help="clips a row and seed, with two characters each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="of those, beyond the report's own")
    parser.add_argument("--cfg", type=float, default=CFG)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch", type=int, default=32, help="clips at a time")
    parser.add_argument("--models", type=Path, default=CHECKPOINTS)
    parser.add_argument("--out", type=Path, default=REPORTS)
    parser.add_argument("--arms", type=Path, help="JSON of other arms, name -> BlobSettings, to try them")
    parser.add_argument("--tiny", action="store_true", help="1 clip, 1 seed, 2 steps: whether it runs at all")
    arguments = parser.parse_args()
    if arguments.tiny:
        arguments.n, arguments.seeds, arguments.steps = 1, 1, 2
    begin = time.monotonic()
    frozen.check()
    from demo.bare_machine import use_host, use_pack

    use_host()
    use_pack()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = LayoutVideo(arguments.models, device, arguments.steps)
    arms = dict(ARMS)
    if arguments.arms:
        for name, settings in json.loads(arguments.arms.read_text(encoding="utf-8")).items():
            rest = {key: settings.pop(key) for key in ("end", "place", "later", "later_end") if key in settings}
            arms[name] = Arm(settings, **rest)

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:6.1f} s] {text}", flush=True)

    content = {
        "checkpoints": file_hashes(arguments.models, FILES),
        "readers": frozen.current(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        **{name: getattr(arguments, name) for name in ("n", "seeds", "cfg", "steps")},
    }
    seeds = [FIRST_SEED + arguments.first_seed + 10 * seed for seed in range(arguments.seeds)]
    found, shown = measure(model, NetworkReader(device=device), arguments, seeds, arms, say)
    content["table"] = summary(found)
    content["seconds"] = round(time.monotonic() - begin)
    print(markdown(content))
    if not arguments.tiny:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "layout_video.json").write_text(json.dumps(content, indent=1) + "\n", encoding="ascii")
        (arguments.out / "layout_video.md").write_text(markdown(content), encoding="ascii")
        save_grid(shown, arguments.out / "layout_video_pictures.png")


if __name__ == "__main__":
    main()
