"""Layouts on a machine with little but PyTorch: pictures drawn in batches, as Apply Blobs and Blob Adapter draw them.

Sampling is ComfyUI's "euler" on "normal"; tests/demo/test_layout_effects.py compares both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.blob_scenes import word_states
from demo.eval.image_models import CHECKPOINTS, SIZE, STEPS, ImageModels, noise_levels, schedule
from demo.training import autocast, batches
from demo.world_tokens import token_rows

SCHEDULER = "normal"
PROMPT_ROWS = 77


@dataclass(frozen=True)
class Arm:
    """How pictures are drawn."""

    rules: str | None = None
    """Of Apply Blobs; None = without it: the prompt alone."""

    adapter: str | None = None
    """Name of one of the models' adapters; None = without one."""

    settings: tuple[tuple[str, float], ...] = ()
    """Further fields of BlobSettings."""

    prompt: str = "whole"
    """What the prompt tells: the "whole" picture, the "scene" alone (place and light), or "nothing"."""

    scene_until: float = 0.0
    """Until which part of the sampling the prompt tells the scene alone, whatever it tells afterwards."""


class LayoutModels:
    """The image model with blob adapters.

    Args:
        device: where.
        models: folder of the image model's files.
        adapters: name -> file; the name says what it lacks: "masks", "geometry", or nothing.
    """

    def __init__(self, device: torch.device, adapters: dict[str, Path], models: Path = CHECKPOINTS):
        import comfy.ops
        from papernodes.networks.blob_adapter import read_blob_adapter
        from papernodes.networks.demo_blob_adapter import load_adapter

        from demo.train_blob_adapter import take_away

        self.device, self.image = device, ImageModels(models, device)
        self.adapters = {}
        for name, path in adapters.items():
            network = read_blob_adapter(path.name, load_adapter(path), comfy.ops.disable_weight_init).to(device)
            take_away(network, name)
            self.adapters[name] = network

    @torch.no_grad()
    def caption_states(self, captions: Sequence[str]) -> list[Tensor]:
        """What the text encoder says of each caption, float [n, 128], up to the end token."""
        rows = torch.from_numpy(token_rows(captions)).long().to(self.device)
        states, words = word_states(self.image.text, rows)
        return [some[: int(count)].cpu() for some, count in zip(states, words.sum(1), strict=True)]

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        captions: Sequence[Sequence[str]],
        ellipses: Tensor,
        present: Tensor,
        seed: int,
        arm: Arm,
        cfg: float,
        *,
        steps: int = STEPS,
        batch: int = 256,
        scenes: Sequence[str] | None = None,
    ) -> Tensor:
        """Pictures float32 [B, 3, 128, 128] in 0..1.

        Args:
            prompts: B sentences.
            captions: of each picture's blobs, as many as ``present`` says from the first on, or more.
            ellipses: float32 [B, K, 5]; present: bool [B, K].
            seed: of the noise.
            arm: how.
            cfg: guidance; the negative prompt is empty and has no blobs.
            steps: of the sampler.
            batch: pictures at a time.
            scenes: B sentences that tell the scene alone, for arms that begin with it.
        """
        scenes = prompts if scenes is None else scenes
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(prompts), 4, SIZE // 8, SIZE // 8, generator=generator)
        found = []
        for part in batches(len(prompts), batch):
            some = noise[part].to(self.device)
            told = list(prompts[part]), list(scenes[part])
            layouts = list(zip(captions[part], ellipses[part].cpu(), present[part].cpu(), strict=True))
            found.append(self.image.decode(self._sample(some, *told, layouts, arm, cfg, steps)))
        return torch.cat(found)

    def _texts(self, prompts: list[str], layouts: list, arm: Arm) -> tuple[Tensor, list]:
        """States [B, L, 128] of the prompts, blobs' captions behind them, and a BlobText of each."""
        from papernodes.patches.blobs import BlobSettings, blob_text

        shared = self.image.encode_prompts(prompts).cpu().float()
        settings = BlobSettings(rules=arm.rules, **dict(arm.settings))
        known: dict[str, Tensor] = {}
        every = sorted({text for captions, _, _ in layouts for text in captions if text})
        known = dict(zip(every, self.caption_states(every), strict=True))
        given = []
        for states, (captions, ellipses, there) in zip(shared, layouts, strict=True):
            kept = [k for k in range(there.shape[0]) if there[k]]
            anchors = [[(0, known[captions[k]])] for k in kept]
            given.append((states, anchors, (ellipses[kept][None], there[kept][None])))
        rows = max(blob_text(*some, settings)[1].length for some in given)
        rows = -(-rows // PROMPT_ROWS) * PROMPT_ROWS
        states, texts = zip(*(blob_text(*some, settings, pad_to=rows) for some in given), strict=True)
        return torch.stack(states).to(self.device, self.image.working), list(texts)

    def _sample(
        self, noise: Tensor, prompts: list[str], scenes: list[str], layouts: list, arm: Arm, cfg: float, steps: int
    ) -> Tensor:
        from papernodes.patches.blob_adapter import AdapterPatch
        from papernodes.patches.blobs import options_with_blobs

        image, count = self.image, noise.shape[0]
        empty = image.encode_prompts([""])

        def with_negative(told: list[str]) -> tuple[Tensor, list | None]:
            positive, texts = (
                (image.encode_prompts(told), None) if arm.rules is None else self._texts(told, layouts, arm)
            )
            unwanted = empty.repeat(1, positive.shape[1] // PROMPT_ROWS, 1).expand_as(positive)
            return torch.cat((positive, unwanted)), texts

        later_on = with_negative(prompts)
        at_first = with_negative(scenes) if arm.scene_until else later_on
        plain: dict = {}
        if arm.adapter is not None:
            plain = {"patches": {"middle_patch": [AdapterPatch(self.adapters[arm.adapter], 1.0)]}}
        levels, sigmas = noise_levels().log(), schedule(SCHEDULER, steps)
        x, cache = noise * (1 + sigmas[0] ** 2).sqrt(), {}
        for number, (now, later) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
            time = float((levels - torch.tensor(now).log()).abs().argmin())
            scaled = (x / (now * now + 1) ** 0.5).repeat(2, 1, 1, 1).to(image.working)
            times = torch.full((2 * count,), time, device=self.device)
            options = dict(plain)
            both, texts = at_first if number / steps < arm.scene_until else later_on
            if texts is not None:
                rows = [*texts, *[None] * count]
                options = options_with_blobs(
                    rows, options, image.unet, scaled.shape, progress=number / steps, cache=cache
                )
            with autocast(self.device):
                error = image.unet(scaled, times, both, transformer_options=options).float()
            wanted, other = error.chunk(2)
            x = x + (other + cfg * (wanted - other)) * (later - now)
        return x
