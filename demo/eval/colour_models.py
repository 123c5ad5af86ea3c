"""MangaNinja's demonstration on a machine with little but PyTorch: pictures drawn in batches, as the nodes draw them.

Sampling is ComfyUI's "euler" on "normal" and its DualCFGGuider; tests/demo/test_colour_effects.py compares both.
"""

from pathlib import Path

import torch
from torch import Tensor

from demo.eval.image_models import CHECKPOINTS, STEPS, noise_levels, schedule
from demo.train_clip_vision import preprocess
from demo.train_manga_ninja import Networks, as_hint
from demo.training import autocast, batches
from demo.training_data import to_bytes

SCHEDULER = "normal"


def dual_scales(reference_scale: float, point_scale: float) -> tuple[float, float]:
    """The authors' two scales as factors of (reference - nothing) and of (points - reference)."""
    return (1 + reference_scale) / 2, point_scale / 2


class ColourModels:
    """The image model with MangaNinja's four files.

    Args:
        device: where.
        models: folder of the image model's files.
        folder: of MangaNinja's.
    """

    def __init__(self, device: torch.device, models: Path = CHECKPOINTS, folder: Path = CHECKPOINTS):
        from demo import train_vae
        from networks.demo_format import load
        from networks.demo_manga_ninja import KINDS, load_small
        from networks.demo_vision import build_clip_vision

        state = {
            f"{kind}/{name}": value.to(device)
            for kind in KINDS
            for name, value in load_small(folder / f"{kind}.safetensors", kind).items()
        }
        self.device, self.networks = device, Networks(models, device, state)
        with torch.no_grad():
            self.unet = self.networks.tuned("manga_ninja_denoising")
            self.reference_unet = self.networks.tuned("manga_ninja_reference")
            self.control = self.networks.control_weights()
        self.vae = train_vae.read(models / "image_vae.safetensors", device)
        self.vision = build_clip_vision(device).requires_grad_(False)
        self.vision.load_state_dict(load(models / "image_clip_vision.safetensors", "image_clip_vision")[0])

    @torch.no_grad()
    def draw(
        self,
        references: Tensor,
        lines: Tensor,
        maps: tuple[Tensor, Tensor] | None,
        seed: int,
        scales: tuple[float, float],
        *,
        steps: int = STEPS,
        batch: int = 256,
    ) -> Tensor:
        """Pictures float32 [B, 3, H, W] in 0..1.

        Args:
            references: [B, 3, H, W], 0..1.
            lines: [B, 1, H, W], 0..1, 1 on a line.
            maps: numbered points of target and reference, each [B, 1, H, W]; None for maps without points.
            seed: of the noise.
            scales: factors of (reference - nothing) and of (points - reference), see dual_scales; at (0, 0) no
                reference is looked at, and with the second 0 no points are.
            steps: of the sampler.
            batch: pictures at a time.
        """
        count, height, width = lines.shape[0], *lines.shape[2:]
        noise = torch.randn(count, 4, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
        found = []
        for part in batches(count, batch):
            given = None if maps is None else [some[part].to(self.device) for some in maps]
            some = (item[part].to(self.device) for item in (references, lines, noise))
            found.append(self._draw(*some, given, scales, steps))
        return torch.cat(found)

    @torch.no_grad()
    def embed(self, references: Tensor) -> Tensor:
        """CLIP's embeddings [B, 128] of references [B, 3, H, W]."""
        return self.vision(pixel_values=preprocess(to_bytes(references)))[2]

    @torch.no_grad()
    def read(self, latents: Tensor, embeddings: Tensor) -> dict:
        """The bank of references, see Networks.read_reference."""
        return self.networks.read_reference(self.reference_unet, latents, embeddings)

    def _draw(self, references: Tensor, lines: Tensor, noise: Tensor, maps, scales, steps: int) -> Tensor:
        from papernodes.patches.reference_attention import NO_REFERENCE, REFERENCE, WITH_POINTS

        networks, count = self.networks, noise.shape[0]
        roles = [NO_REFERENCE, *([REFERENCE] if any(scales) else []), *([WITH_POINTS] if scales[1] else [])]
        embeddings = self.embed(references)
        contexts = [networks.nothing.expand(count, -1, -1), *[embeddings[:, None]] * (len(roles) - 1)]
        rows, context = [role for role in roles for _ in range(count)], torch.cat(contexts)
        hint = as_hint(to_bytes(lines)).repeat(len(roles), 1, 1, 1)
        with autocast(self.device):
            bank = self.read(self.vae.encode(references).float(), embeddings)
            maps = maps or [torch.zeros_like(lines)] * 2
            points = [networks.embed_points(some) for some in maps]
        levels, sigmas = noise_levels().log(), schedule(SCHEDULER, steps)
        x = noise * (1 + sigmas[0] ** 2).sqrt()
        for now, later in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            time = float((levels - torch.tensor(now).log()).abs().argmin())
            scaled = (x / (now * now + 1) ** 0.5).repeat(len(roles), 1, 1, 1)
            times = torch.full((len(rows),), time, device=self.device)
            with autocast(self.device):
                errors = networks.predict(self.unet, self.control, scaled, times, context, hint, bank, rows, points)
            errors = errors.float().chunk(len(roles))
            error = errors[0]
            for scale, before, after in zip(scales, errors, errors[1:], strict=False):
                error = error + scale * (after - before)
            x = x + error * (later - now)
        return self.vae.decoder(x).float().clamp(0, 1)
