"""NOISE objects made of other noise, and noise carried in a LATENT for samplers that take none.

The host's samplers need of a NOISE: an attribute ``seed`` and ``generate_noise(latent) -> Tensor`` in the shape of
``latent["samples"]``, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import comfy.model_sampling
import comfy.nested_tensor
import comfy.sample
import torch
from torch import Tensor

from ..kernels.noise_mix import mix_noise
from ..kernels.schedule import Schedule
from .latent_layout import LatentLayout, item_seed, read_batch_index, read_layout

NORMALISE = ("as is", "unit variance per frame")


def map_parts(function: Callable[..., Tensor], *samples: Tensor) -> Tensor:
    """Calls ``function`` on plain tensors, or part by part on packed (nested) ones."""
    if not any(getattr(sample, "is_nested", False) for sample in samples):
        return function(*samples)
    parts = zip(*(sample.unbind() for sample in samples), strict=True)
    return comfy.nested_tensor.NestedTensor([function(*part) for part in parts])


class SeededNoise:
    """A NOISE of independent normal numbers: what the host's RandomNoise would hand out for the same seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def generate_noise(self, latent: dict) -> Tensor:
        """In the shape of the latent, on the CPU; ``batch_index`` is honoured."""
        return comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))


def story_noise(seed: int, frames: int, same: float) -> list[object]:
    """A NOISE for each frame of a story, more or less alike.

    Args:
        seed: of the noise that they share; the first frame has it alone, whatever ``same`` is.
        frames: how many, at least 1.
        same: 0: independent noises; 1: the same for all; between: mixed, with unit variance (kernels/noise_mix.py).
    """
    shared = SeededNoise(seed)
    own = [SeededNoise(item_seed(seed, frame)) for frame in range(frames)]
    if same >= 1:
        return [shared] * frames
    if same <= 0:
        return own
    weight = Schedule.parse(str(same))
    return [shared, *(MixedNoise(noise, shared, weight, batch_4d="pictures") for noise in own[1:])]


class LatentNoise:
    """A NOISE that hands out what a LATENT holds.

    Args:
        samples: the noise, in the shape of the latent it will be used with.
        seed: for samplers that draw more noise while they run.
    """

    def __init__(self, samples: Tensor, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def generate_noise(self, latent: dict) -> Tensor:
        """The stored noise in the latent's dtype, on the CPU.

        Raises:
            ValueError: the latent's shape is another one; both shapes are named.
        """
        samples = latent["samples"]
        if getattr(samples, "is_nested", False) != getattr(self.samples, "is_nested", False):
            raise ValueError(
                "Latent To Noise: one of the noise and the latent to be sampled is packed of several parts (picture "
                "and sound, say) and the other is not. Make the noise from a latent of the same kind."
            )
        if getattr(samples, "is_nested", False) and len(samples.unbind()) != len(self.samples.unbind()):
            raise ValueError(
                f"Latent To Noise: the noise has {len(self.samples.unbind())} packed parts, the latent to be sampled "
                f"{len(samples.unbind())}."
            )
        return map_parts(lambda own, wanted: self._fit(own, wanted, latent), self.samples, samples)

    def _fit(self, own: Tensor, wanted: Tensor, latent: dict) -> Tensor:
        if own.ndim == 4 and wanted.ndim == 5 and wanted.shape[2] == 1:
            own = own.unsqueeze(2)  # the sampler itself gives a picture latent a time axis for video models
        index = read_batch_index(latent, wanted.shape[0])
        if index is not None and own.shape[1:] == wanted.shape[1:] and max(index) < own.shape[0]:
            own = own[index]
        if own.shape != wanted.shape:
            raise ValueError(
                f"Latent To Noise: the noise has shape {list(own.shape)}, but the latent to be sampled has "
                f"{list(wanted.shape)}. Make the noise from a latent of the same batch, channels, frames and size."
            )
        return own.to("cpu", wanted.dtype, copy=True)


class MixedNoise:
    """A NOISE between two others, with unit variance kept.

    Args:
        first: handed out where the weight is 0; its ``seed`` is the mix's.
        second: handed out where the weight is 1.
        weight: numbers in [0, 1] over the latent's frames.
        batch_4d: whether a four-dimensional batch is ``frames`` or ``pictures`` (which all get the weight of frame 0).
        layout_5d: ``auto``, ``B,C,T,H,W`` or ``B,T,C,H,W``.
    """

    def __init__(
        self,
        first: object,
        second: object,
        weight: Schedule,
        *,
        batch_4d: str = "frames",
        layout_5d: str = "auto",
    ) -> None:
        self.first = first
        self.second = second
        self.weight = weight
        self.batch_4d = batch_4d
        self.layout_5d = layout_5d
        self.seed = first.seed

    def generate_noise(self, latent: dict) -> Tensor:
        """The mix for a LATENT; see ``kernels.noise_mix.mix_noise``."""
        first, second = self.first.generate_noise(latent), self.second.generate_noise(latent)
        try:
            return map_parts(self._mix, first, second)
        except ValueError as error:
            raise ValueError(f"Mix Noise: {error}. Connect two independent noises for the same latent.") from None

    def _mix(self, first: Tensor, second: Tensor) -> Tensor:
        if first.shape != second.shape:
            raise ValueError(f"noise_a gave shape {list(first.shape)} and noise_b {list(second.shape)}")
        if first.ndim not in (4, 5):  # sound and the like in a packed latent: no frames
            return mix_noise(first, second, self.weight.at(1))
        layout = read_layout(first, batch_4d=self.batch_4d, layout_5d=self.layout_5d)
        weight = self.weight.at(layout.frames)
        clips = zip(layout.split(first), layout.split(second), strict=True)
        return layout.assemble([mix_noise(a, b, weight) for a, b in clips])


def normalise_frames(samples: Tensor, layout: LatentLayout) -> Tensor:
    """Every frame of every item shifted and scaled to mean 0 and variance 1 over its channels and pixels.

    Raises:
        ValueError: a frame is constant, so nothing can scale it.
    """
    clips = []
    for clip in layout.split(samples.float()):
        deviation, mean = torch.std_mean(clip, dim=(1, 2, 3), keepdim=True, correction=0)
        if not bool((deviation > 0).all()):
            raise ValueError(
                "Latent To Noise: a frame of the LATENT is constant (an empty latent, perhaps), so it cannot be scaled "
                "to unit variance. Connect a latent that holds noise, or set normalise to 'as is'."
            )
        clips.append((clip - mean) / deviation)
    return layout.assemble(clips)


def scale_for_eps_sampler(model: object, sigmas: Tensor, noise: Tensor, samples: Tensor) -> Tensor:
    """Noise and picture as one LATENT tensor, for KSamplerAdvanced with ``add_noise`` disabled.

    What the sampler would compute from a NOISE at its first sigma, taken back out of the model's latent space, because
    the sampler will take the LATENT in again.

    Args:
        model: a MODEL of a family that predicts noise (EPS) or velocity (v) on a variance-exploding scale.
        sigmas: the SIGMAS the sampler will run; only the first is used.
        noise: unit variance, the shape of ``samples``.
        samples: the LATENT's tensor, zeros for an empty one.

    Raises:
        ValueError: a flow-matching family, or sigmas that are empty or start at 0.
    """
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, comfy.model_sampling.EPS):
        raise ValueError(
            f"Noise To Latent: {type(model.model).__name__} is a flow-matching model. It starts from sigma * noise + "
            "(1 - sigma) * latent, so at sigma 1 noise that is carried inside the LATENT is multiplied by 0. Connect "
            "the NOISE itself to SamplerCustomAdvanced, and leave 'model' and 'sigmas' of this node unconnected."
        )
    if sigmas.numel() == 0 or float(sigmas[0]) <= 0:
        first = "none at all" if sigmas.numel() == 0 else f"a first sigma of {float(sigmas[0]):g}"
        raise ValueError(
            f"Noise To Latent: 'sigmas' holds {first}; it must start above 0. Connect the sigmas that the sampler will "
            "run."
        )
    first_sigma, largest = float(sigmas[0]), float(sampling.sigma_max)
    from_the_top = first_sigma > largest or math.isclose(first_sigma, largest, rel_tol=1e-5)
    process_in = model.get_model_object("process_latent_in")
    process_out = model.get_model_object("process_latent_out")

    def scale(noise_part: Tensor, samples_part: Tensor) -> Tensor:
        if torch.count_nonzero(samples_part) > 0:  # the sampler does not shift an empty latent either
            samples_part = process_in(samples_part)
        return process_out(sampling.noise_scaling(sigmas[0], noise_part.clone(), samples_part, from_the_top))

    return map_parts(scale, noise, samples)
