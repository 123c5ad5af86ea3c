"""A video panorama and its views in one LATENT, and noise that is the same on both.

Tan et al.: Imagine360, 2024. The parts of the packed latent: the panorama [B, C, F, H, W], and views of it
[B, C, V * F, h, w] with index v * F + f. Of every point of the sphere both begin with the same noise: the views' is the
panorama's, read where their pixels look, without interpolation, which would shrink it.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.nested_tensor
import comfy.sample
import torch
from torch import Tensor

from ..kernels.known_panorama import Camera, seen_by


def pack(panorama: Tensor, views: Tensor) -> dict:
    """A LATENT of a panorama and its views.

    Args:
        panorama: [B, C, F, H, W].
        views: [B, C, V * F, h, w], view by view.

    Raises:
        ValueError: shapes that are no panorama's with its views.
    """
    _check(panorama, views)
    return {"samples": comfy.nested_tensor.NestedTensor([panorama, views])}


def unpack(latent: object) -> tuple[Tensor, Tensor]:
    """The panorama [B, C, F, H, W] and the views [B, C, V * F, h, w] of a LATENT from ``pack``.

    Raises:
        ValueError: another LATENT, or none.
    """
    samples = latent.get("samples") if isinstance(latent, dict) else None
    if samples is None:
        raise ValueError(f"it is a {type(latent).__name__} without samples; expected a LATENT")
    if not getattr(samples, "is_nested", False):
        shape = list(samples.shape)
        if len(shape) == 3 and shape[1] == 1:
            raise ValueError(
                f"it holds one row of numbers {shape}, as the sampler's denoised_output gives for packed latents; "
                "connect the sampler's output instead"
            )
        raise ValueError(f"it holds one tensor {shape}; expected a panorama and its views, packed")
    parts = samples.unbind()
    if len(parts) != 2:
        raise ValueError(f"it holds {len(parts)} packed parts; expected a panorama and its views")
    _check(*parts)
    return parts[0], parts[1]


def views_of(panorama: Tensor, cameras: Sequence[Camera], height: int, width: int, mode: str) -> Tensor:
    """What cameras see of each frame of panoramas, on Imagine360's grids.

    Args:
        panorama: float [B, C, F, H, W].
        cameras: V of them.
        height, width: of the views.
        mode: "nearest", "bilinear" or "bicubic".

    Returns:
        [B, C, V * F, height, width], view by view.
    """
    seen = (seen_by(one.flatten(0, 1), cameras, height, width, mode).unflatten(1, one.shape[:2]) for one in panorama)
    return torch.stack([found.transpose(0, 1).flatten(1, 2) for found in seen])


class PanoramaNoise:
    """A NOISE for packed latents: independent numbers on the panorama, and the views see the same ones.

    Args:
        seed: of the panorama's noise, which is what the host's RandomNoise would give for it alone.
        cameras: of the views, in their order.
    """

    def __init__(self, seed: int, cameras: Sequence[Camera]) -> None:
        self.seed = seed
        self.cameras = tuple(cameras)

    def generate_noise(self, latent: dict) -> comfy.nested_tensor.NestedTensor:
        """In the shapes of the latent's parts, on the CPU; ``batch_index`` is honoured.

        Raises:
            ValueError: no packed latent, or one of another number of views.
        """
        try:
            panorama, views = unpack(latent)
        except ValueError as error:
            raise ValueError(
                f"Imagine360's noise is for the LATENT of Imagine360 Conditioning, and what came is another: {error}."
            ) from None
        count = views.shape[2] // panorama.shape[2]
        if count != len(self.cameras):
            raise ValueError(
                f"Imagine360's noise is for {len(self.cameras)} views, and the LATENT holds {count}. Connect noise and "
                "latent of the same Imagine360 Conditioning."
            )
        noise = comfy.sample.prepare_noise(panorama, self.seed, latent.get("batch_index"))
        return comfy.nested_tensor.NestedTensor(
            [noise, views_of(noise, self.cameras, *views.shape[-2:], mode="nearest").to(noise.dtype)]
        )


def _check(panorama: Tensor, views: Tensor) -> None:
    shapes = f"a panorama {list(panorama.shape)} and views {list(views.shape)}"
    if panorama.ndim != 5 or views.ndim != 5 or 0 in (*panorama.shape, *views.shape):
        raise ValueError(f"it holds {shapes}; expected [batch, channels, frames, height, width] of both")
    if panorama.shape[:2] != views.shape[:2] or views.shape[2] % panorama.shape[2]:
        raise ValueError(
            f"it holds {shapes}; expected views of the same batch and channels, and a whole number of them for each "
            "frame"
        )
