"""Perspective views of one panorama, denoised together: a GUIDER that works with the MODELs that draw flat pictures.

After Bar-Tal et al., MultiDiffusion, ICML 2023: of many views' wishes for the next picture the one taken agrees best
with all, a weighted mean. There views are cuts, here they are resampled, and noise must not be: averages of noise are
too quiet for a network. So two things differ.

What is fused is each view's estimate of the clean picture. A sampler's step is x' = a x + b D(x), and where views are
cuts it makes no difference: sum w (a x + b D) / sum w = a x + b sum w D / sum w. Where they are not, the panorama's own
noise stays as it is, every sampler works, and only clean pictures are ever interpolated.

What a view sees is put together of two parts: the last estimate S of the clean panorama, seen bilinearly, and the rest,
x - s S, seen by nearest neighbour (s = the signal's share at this noise level), which keeps its variance. A view shows
a texel of the panorama several times where it is finer than the panorama. There each copy is divided by the square root
of their number, and independent noise without a mean makes up for the rest: noise seen at a finer scale.

Latents of most VAEs are no pictures: turned or interpolated they decode to a blur. With a VAE, estimates are decoded,
fused as pictures, and encoded again, the panorama's and each view's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import comfy.model_management
import comfy.samplers
import torch
from torch import Tensor

from ..kernels.round_tiles import in_round_tiles
from ..kernels.view_coverage import check_coverage
from ..kernels.view_fusion import ViewFusion, Views
from .panorama_model import is_panorama

PLACED = ("control", "area", "mask", "concat_latent_image", "concat_mask", "noise_concat")
"""What in a condition has places of the whole panorama, which views do not have."""


class PanoramaGuider(comfy.samplers.CFGGuider):
    """A GUIDER that samples a panorama by its views.

    Args:
        model: a ModelPatcher.
        views: which.
        vae: of the MODEL, to fuse pictures; None = latents are fused.

    Raises:
        ValueError: a MODEL that goes round by itself; views that do not see everything.
    """

    def __init__(self, model: object, views: Views, vae: object | None = None) -> None:
        super().__init__(model)
        if is_panorama(model):
            raise ValueError(
                "'model' comes from Panorama Model, and views are no panoramas: their edges do not meet. Connect the "
                "MODEL from before it."
            )
        check_coverage(views.yaw, views.pitch, views.fov)
        self.views, self.vae = views, vae

    def set_conds(self, positive: list, negative: list) -> None:
        """Raises ValueError for conditions that have places."""
        for name, conditioning in (("positive", positive), ("negative", negative)):
            check_unplaced(conditioning, name)
        super().set_conds(positive, negative)

    def sample(self, noise: Tensor, latent_image: Tensor, *arguments, **rest) -> Tensor:
        """Raises ValueError for a latent of another shape than a panorama's."""
        check_latent(noise)
        return super().sample(noise, latent_image, *arguments, **rest)

    def inner_sample(
        self, noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **rest
    ):
        """Samples with what depends on the latent's size in place."""
        unit = 1 if self.vae is None else self.vae.spacial_compression_decode()
        self.fusion = ViewFusion(self.views, *noise.shape[-2:], unit, seed or 0, device)
        self.pictures = None if self.vae is None else ViewPictures(self.vae, self.inner_model, self.fusion)
        self.clean = self.shown = None
        if latent_image is not None and bool(torch.count_nonzero(latent_image)):
            self.clean = self.inner_model.process_latent_in(latent_image)
            self.shown = self.clean if self.pictures is None else self.pictures.decode(self.clean).to(noise)
        # A view is a picture of its own: sizes in conditions are its own, too.
        one = noise.new_zeros(*noise.shape[:-2], self.fusion.columns, self.fusion.columns)
        conditions = {name: [entry.copy() for entry in entries] for name, entries in self.conds.items()}
        self.view_conds = comfy.samplers.process_conds(
            self.inner_model, one, conditions, device, torch.zeros_like(one), None, seed
        )
        try:
            return super().inner_sample(
                noise, latent_image, device, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **rest
            )
        finally:
            del self.fusion, self.pictures, self.clean, self.shown, self.view_conds

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None
    ) -> Tensor:
        """The clean panorama as the views together estimate it."""
        fusion, level = self.fusion, float(timestep[0])
        sampling, total = self.inner_model.model_sampling, None
        noise = x if self.clean is None else x - _signal(sampling, timestep, self.clean.to(x))
        for chunk in fusion.chunks():
            comfy.model_management.throw_exception_if_processing_interrupted()
            seen = fusion.see_noise(noise, level, chunk)
            if self.shown is not None:
                clean = fusion.see(self.shown, chunk)
                clean = clean if self.pictures is None else self.pictures.encode(clean)
                seen = seen + _signal(sampling, timestep, clean.to(seen))
            made = comfy.samplers.sampling_function(
                self.inner_model,
                seen,
                timestep.repeat(seen.shape[0] // x.shape[0]),
                self.view_conds.get("negative"),
                self.view_conds.get("positive"),
                self.cfg,
                model_options={} if model_options is None else model_options,
                seed=seed,
            )
            made = made if self.pictures is None else self.pictures.decode(made).to(x)
            share = fusion.place(made, chunk)
            total = share if total is None else total + share
        self.shown = total
        self.clean = total if self.pictures is None else self.pictures.encode(total).to(x)
        return self.clean


def _signal(sampling: object, timestep: Tensor, clean: Tensor) -> Tensor:
    """What a noisy latent has of a clean one at a noise level."""
    return sampling.noise_scaling(timestep.flatten()[:1].to(clean), torch.zeros_like(clean), clean)


class ViewPictures:
    """Latents as the network has them to pictures [B, 3, (frames,) H, W] and back, by a VAE, in tiles of a view's size.

    Args:
        vae: of the host.
        base_model: scales latents.
        fusion: knows how large views are.
    """

    def __init__(self, vae: object, base_model: object, fusion: ViewFusion) -> None:
        self.vae, self.base_model = vae, base_model
        self.tile, self.fade, self.unit = fusion.columns, fusion.columns // 4, fusion.unit

    def decode(self, latents: Tensor) -> Tensor:
        latents = self.base_model.process_latent_out(latents).float()
        with _others_stay_loaded():
            made = self._in_tiles(self.vae.decode, latents, self.unit, (-2, -1), (-3, -2))
        return made.movedim(-1, 1)

    def encode(self, pictures: Tensor) -> Tensor:
        pictures, found = pictures.float().clamp(0, 1).movedim(1, -1), []
        with _others_stay_loaded():
            # A VAE for videos takes the batch for the frames of one.
            for part in pictures.split(1) if pictures.ndim == 5 else (pictures,):
                part = part[0] if pictures.ndim == 5 else part
                found.append(self._in_tiles(self.vae.encode, part, 1 / self.unit, (-3, -2), (-2, -1), self.unit))
        return self.base_model.process_latent_in(torch.cat(found))

    def _in_tiles(self, function, x: Tensor, scale: float, axes, result_axes, step: int = 1) -> Tensor:
        if x.shape[axes[0]] == x.shape[axes[1]] == self.tile * step:
            return function(x)
        tiles = (self.tile, self.fade, scale)
        return in_round_tiles(function, x, *tiles, axes=axes, result_axes=result_axes, step=step)


@contextlib.contextmanager
def _others_stay_loaded() -> Iterator[None]:
    """The host may make room for a VAE; the network that samples is back afterwards."""
    loaded = comfy.model_management.loaded_models(only_currently_used=True)
    yield
    comfy.model_management.load_models_gpu(loaded)


def check_unplaced(conditioning: list, name: str) -> None:
    """Raises ValueError for a CONDITIONING that has places of the whole panorama."""
    for _, extra in conditioning:
        for key in PLACED:
            if extra.get(key) is not None:
                raise ValueError(
                    f"'{name}' has '{key}', which belongs to places of the panorama, and its views have others. "
                    "Connect a conditioning of text alone."
                )


def check_latent(noise: Tensor) -> None:
    """Raises ValueError unless a latent is a panorama's, or a video's of one."""
    if getattr(noise, "is_nested", False):
        raise ValueError("Panorama Views: the latent has several parts. Connect one of a picture or of a video.")
    if noise.ndim not in (4, 5) or noise.shape[-1] != 2 * noise.shape[-2]:
        raise ValueError(
            f"Panorama Views: the latent has shape {list(noise.shape)}; expected a picture's or a video's that is "
            "twice as wide as high, such as 1024x512 pixels."
        )
