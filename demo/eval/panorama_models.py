"""Panoramas by the image model on a machine with little but PyTorch, as Panorama Model and Panorama Views draw them.

Sampling is ComfyUI's "euler" on "normal"; tests/demo/test_panorama_effects.py compares both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.eval.image_models import STEPS, ImageModels, noise_levels, schedule
from demo.training import autocast, batches

COLUMNS = 4
UNIT = 8


@dataclass(frozen=True)
class Arm:
    """How panoramas are drawn and decoded."""

    model: str = "plain"
    """"plain", "round" (Panorama Model) or "views" (Panorama Views)."""

    decode: str = "round"
    """"plain" (VAE Decode), or "round" (Panorama VAE Decode in one piece), or "tiles" (the same in tiles of a flat
    picture's size).
    """

    count: int = 3
    fov: float = 100.0
    pitches: tuple[float, ...] = (50.0, 0.0, -50.0)
    columns: int = 16
    sharpness: float = 4.0
    pictures: bool = True
    """Views are fused as pictures, with the VAE; otherwise as latents."""


def views_of(arm: Arm):
    """The views of an arm."""
    from papernodes.kernels.view_coverage import rings
    from papernodes.kernels.view_fusion import Views

    yaw, pitch = rings(arm.count, arm.fov, 0.25, arm.pitches)
    return Views(yaw, pitch, arm.fov, arm.columns, len(yaw), arm.sharpness)


@torch.no_grad()
def draw(
    models: ImageModels,
    prompts: Sequence[str],
    seed: int,
    arm: Arm,
    height: int,
    cfg: float,
    *,
    steps: int = STEPS,
    batch: int = 64,
) -> Tensor:
    """Panoramas float32 [B, 3, 8 height, 16 height] in 0..1.

    Args:
        prompts: B sentences.
        seed: of the noise, the same in every arm.
        arm: how.
        height: of the latents.
        cfg: guidance, at the empty prompt.
        steps: of the sampler.
        batch: panoramas at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(prompts), 4, height, 2 * height, generator=generator)
    positive, unwanted, found = models.encode_prompts(prompts), models.encode_prompts([""]), []
    for part in batches(len(prompts), batch):
        given = (noise[part].to(models.device), positive[part], unwanted.expand_as(positive[part]), cfg, steps)
        found.append(decode(models, sample(models, *given, arm, seed), arm.decode).cpu())
    return torch.cat(found)


def sample(
    models: ImageModels, noise: Tensor, positive: Tensor, unwanted: Tensor, cfg: float, steps: int, arm: Arm, seed: int
) -> Tensor:
    """Latents of some panoramas."""
    from papernodes.patches.panorama_padding import wrapped

    sigmas = schedule("normal", steps)
    if arm.model == "views":
        return sample_views(models, noise, positive, unwanted, cfg, sigmas, arm, seed)
    with wrapped(models.unet, 1.0 if arm.model == "round" else 0.0):
        return models.sample(noise, positive, unwanted, cfg, sigmas, None, None)


def sample_views(
    models: ImageModels,
    noise: Tensor,
    positive: Tensor,
    unwanted: Tensor,
    cfg: float,
    sigmas: Tensor,
    arm: Arm,
    seed: int,
) -> Tensor:
    """As patches/panorama_views.py does, with "euler"."""
    from papernodes.kernels.view_fusion import ViewFusion

    unit = UNIT if arm.pictures else 1
    fusion = ViewFusion(views_of(arm), *noise.shape[-2:], unit, seed, models.device)
    levels, x = noise_levels().log(), noise * (1 + sigmas[0] ** 2).sqrt()
    whole, clean, shown = slice(0, len(fusion.cameras[0])), None, None
    both = torch.cat([text.repeat(len(fusion.cameras[0]), 1, 1) for text in (positive, unwanted)])
    for now, later in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        seen = fusion.see_noise(x if clean is None else x - clean, now, whole)
        if shown is not None:
            views = fusion.see(shown, whole)
            seen = seen + (models.encode(views) if arm.pictures else views)
        time = float((levels - torch.tensor(now).log()).abs().argmin())
        errors = []
        for rows in batches(seen.shape[0], 1024):
            scaled = (seen[rows] / (now * now + 1) ** 0.5).repeat(2, 1, 1, 1).to(models.working)
            texts = torch.cat([text[rows] for text in both.chunk(2)])
            times = torch.full((texts.shape[0],), time, device=models.device)
            with autocast(models.device):
                wanted, other = models.unet(scaled, times, texts).float().chunk(2)
            errors.append(other + cfg * (wanted - other))
        made = seen - torch.cat(errors) * now
        shown = fusion.place(models.decode(made) if arm.pictures else made, whole)
        clean = encode(models, shown, arm.columns) if arm.pictures else shown
        x = clean + (x - clean) * (later / now)
    return x


def encode(models: ImageModels, pictures: Tensor, tile: int) -> Tensor:
    """Latents of panoramas, in tiles of a view's size."""
    from papernodes.kernels.round_tiles import in_round_tiles

    axes = {"axes": (-2, -1), "result_axes": (-2, -1)}
    return in_round_tiles(models.encode, pictures, tile, tile // 4, 1 / UNIT, step=UNIT, **axes)


def decode(models: ImageModels, latents: Tensor, how: str) -> Tensor:
    """Pictures by one of Arm.decode."""
    from papernodes.kernels.round_tiles import in_round_tiles

    if how == "plain":
        return models.decode(latents)
    tile, fade = (16, 4) if how == "tiles" else (max(latents.shape[-2:]), 0)
    axes = {"axes": (-2, -1), "result_axes": (-2, -1)}
    return in_round_tiles(models.decode, latents, tile, fade, UNIT, columns=COLUMNS, **axes)


def look(panoramas: Tensor, yaws: Sequence[float], pitch: float, size: int = 128, fov: float = 90.0) -> Tensor:
    """Views float32 [B * N, 3, size, size] of panoramas in N directions, a panorama's one after the other."""
    from papernodes.kernels.panorama import equirect_to_perspective

    yaw = torch.tensor(yaws, dtype=torch.float32)
    cameras = (yaw, torch.full_like(yaw, pitch), torch.zeros_like(yaw), torch.full_like(yaw, fov))
    seen = equirect_to_perspective(panoramas.flatten(0, 1)[None], *cameras, size, size)
    return seen.unflatten(1, (-1, 3)).transpose(0, 1).flatten(0, 1)


def rendered_views(pictures: Tensor, arm: Arm, height: int) -> Tensor:
    """What could be read at best: flat pictures [B * V, 3, h, h] of a view's size laid where an arm's views look."""
    from papernodes.kernels.view_fusion import ViewFusion

    fusion = ViewFusion(views_of(arm), height, 2 * height, UNIT, 0, pictures.device)
    views = len(fusion.cameras[0])
    by_view = pictures.unflatten(0, (-1, views)).transpose(0, 1).flatten(0, 1)
    return fusion.place(by_view, slice(0, views))


def ring_yaws(arm: Arm, pitch: float) -> list[float]:
    """Where the views of the ring nearest to an elevation look."""
    views = views_of(arm)
    nearest = min(views.pitch.tolist(), key=lambda one: abs(one - pitch))
    return [yaw for yaw, own in zip(views.yaw.tolist(), views.pitch.tolist(), strict=True) if own == nearest]
