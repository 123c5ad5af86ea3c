"""The NOISE object that follows a clip's optical flow, for any picture or video model of the host.

Burgert et al., "Go-with-the-Flow", CVPR 2025 (arXiv 2501.08331). The samplers ask a NOISE object for noise once,
before they start, and show it the LATENT; so the object reads frame count, channels and size from there and nobody
types them.
"""

from __future__ import annotations

import functools
import logging

import comfy.model_management
import comfy.nested_tensor
import comfy.utils
import torch
from torch import Tensor

from ..kernels.flow import Flow, invert_flow
from ..kernels.noise_mix import mix_noise, temporal_downsample
from ..kernels.noise_warp import NoiseWarper, choose_backend, warp_noise
from ..kernels.schedule import Schedule
from .latent_layout import (
    FRAME_RATIOS,
    LatentLayout,
    derived_seed,
    item_seed,
    plain_noise,
    read_batch_index,
    read_layout,
)

ASPECT_TOLERANCE = 0.1  # flow and latent may differ by this share in width / height before a line is logged


class WarpedNoise:
    """A NOISE: Gaussian noise that moves with a flow (``generate_noise(latent)``, ``seed``).

    Args:
        flow: ``T`` frames; a backward flow is turned forward.
        seed: of the first batch item; the others use seeds derived from it.
        degradation: numbers in [0, 1] over the clip's frames: 0 = all motion, 1 = plain noise.
        temporal: how ``T`` frames become fewer latent frames, one of ``kernels.noise_mix.TEMPORAL_MODES``.
        algorithm: one of ``kernels.noise_warp.ALGORITHMS``.
        oversample: pixels of the warped grid along each side of a latent pixel.
        batch_4d: whether a four-dimensional batch is the ``frames`` of one clip or separate ``pictures``.
        layout_5d: ``auto``, ``B,C,T,H,W`` or ``B,T,C,H,W``.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        seed: int,
        degradation: Schedule,
        temporal: str,
        algorithm: str,
        oversample: int,
        batch_4d: str = "frames",
        layout_5d: str = "auto",
    ) -> None:
        self.flow = flow
        self.seed = seed
        self.degradation = degradation
        self.temporal = temporal
        self.algorithm = algorithm
        self.oversample = oversample
        self.batch_4d = batch_4d
        self.layout_5d = layout_5d

    def generate_noise(self, latent: dict) -> Tensor:
        """Noise for a LATENT, in its shape and dtype, on the CPU like the host's own.

        Args:
            latent: ``samples`` of shape ``[B, C, h, w]``, ``[B, C, T, h, w]``, ``[B, T, C, h, w]`` or several packed
                in a NestedTensor; ``batch_index`` is honoured, ``noise_mask`` is the sampler's business.

        Raises:
            ValueError: the latent has more frames than the flow, or a shape that is no picture and no video.
        """
        samples = latent["samples"]
        if not samples.is_nested:
            return self._noise(samples, latent, 0)
        parts = samples.unbind()
        # Beside video, a part of another rank is sound or the like: noise that follows a picture has no meaning there.
        video = 5 if any(part.ndim == 5 for part in parts) else 4
        return comfy.nested_tensor.NestedTensor(
            [
                self._noise(part, latent, number) if part.ndim == video else self._plain(part, latent, number)
                for number, part in enumerate(parts)
            ]
        )

    @functools.cached_property
    def _forward_vectors(self) -> Tensor:
        """float32 ``[T-1, 2, H, W]``; a backward flow is inverted once, pair by pair so that an interrupt is heard."""
        if self.flow.direction == "forward":
            return self.flow.vectors
        device = comfy.model_management.get_torch_device()
        turned = []
        for pair in self.flow.vectors.split(1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            turned.append(invert_flow(pair.to(device)).cpu())
        return torch.cat(turned)

    def _plain(self, samples: Tensor, latent: dict, part: int) -> Tensor:
        items = read_batch_index(latent, samples.shape[0]) or range(samples.shape[0])
        noise = [plain_noise([1, *samples.shape[1:]], item_seed(self.seed, item, part)) for item in items]
        return torch.cat(noise).to(samples.dtype)

    def _noise(self, samples: Tensor, latent: dict, part: int) -> Tensor:
        layout = read_layout(samples, batch_4d=self.batch_4d, layout_5d=self.layout_5d, clip_frames=self.flow.frames)
        index = read_batch_index(latent, samples.shape[0])
        if layout.kind == "frames":
            items, frames = [0], index
        else:
            items, frames = index or list(range(layout.items)), None
        self._check_fits(layout, frames)

        distinct = sorted(set(items))
        progress = comfy.utils.ProgressBar(len(distinct) * self.flow.frames)
        clips = {item: self._clip(layout, item, part, frames, progress) for item in distinct}
        return layout.assemble([clips[item] for item in items]).to(samples.dtype)

    def _clip(
        self, layout: LatentLayout, item: int, part: int, frames: list[int] | None, progress: comfy.utils.ProgressBar
    ) -> Tensor:
        """One item's noise ``[L, C, h, w]``, float32 on the CPU; ``frames`` picks frames of the clip."""
        seed = item_seed(self.seed, item, part)
        clip_frames = self.flow.frames
        noise = self._warp(layout, seed, progress)
        if layout.frames == 1 and self.batch_4d == "pictures":  # also pictures that the sampler gave a time axis
            noise, positions = noise[-1:], torch.tensor([clip_frames - 1.0])
        else:
            count = layout.frames if frames is None else clip_frames
            noise = temporal_downsample(noise, count, self.temporal, seed=derived_seed(seed, "temporal"))
            # Where in the clip each latent frame stands: the first at its start, the last at its end.
            positions = torch.arange(count) * (clip_frames - 1) / max(1, count - 1)

        weight = self.degradation.at(positions, length=clip_frames)
        if bool((weight > 0).any()):
            # After the frames were thinned out, so that 1 is plain noise whatever the temporal mode does to variance.
            fresh = plain_noise(noise.shape, derived_seed(seed, "degradation"))
            noise = mix_noise(noise, fresh, weight)
        return noise if frames is None else noise[frames]

    def _warp(self, layout: LatentLayout, seed: int, progress: comfy.utils.ProgressBar) -> Tensor:
        """The warped noise of every frame of the clip, float32 ``[T, C, h, w]`` on the CPU."""
        device = comfy.model_management.get_torch_device()
        height, width = layout.height * self.oversample, layout.width * self.oversample
        output = self.flow.frames * layout.channels * layout.height * layout.width * 4
        backend = choose_backend("auto", device)
        needed = output + NoiseWarper.state_bytes(
            layout.channels, height, width, algorithm=self.algorithm, backend=backend
        )
        total = comfy.model_management.get_total_memory(device)
        if needed > total:
            raise ValueError(
                f"Warp Noise: oversample {self.oversample} makes a noise grid of {height} x {width} x "
                f"{layout.channels}, which needs about {needed / 2**30:.1f} GB; {device} has {total / 2**30:.1f} GB. "
                "Use a smaller oversample."
            )
        comfy.model_management.free_memory(needed, device)

        def on_frame(index: int, frames: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            progress.update(1)

        noise = warp_noise(
            self._forward_vectors,
            layout.channels,
            (layout.height, layout.width),
            seed=seed,
            oversample=self.oversample,
            algorithm=self.algorithm,
            device=device,
            on_frame=on_frame,
        )
        return noise.cpu()

    def _check_fits(self, layout: LatentLayout, frames: list[int] | None) -> None:
        """Raises where flow and latent cannot match, and logs where they match badly."""
        clip_frames = self.flow.frames
        if frames is not None:
            if max(frames) >= clip_frames:
                raise ValueError(
                    f"Warp Noise: the LATENT's batch_index asks for frame {max(frames)}, but the flow covers frames 0 "
                    f"to {clip_frames - 1}. Compute the flow from at least {max(frames) + 1} frames, or set batch_4d "
                    "to 'pictures' if these latents are separate pictures."
                )
        elif layout.frames > clip_frames:
            raise ValueError(_too_many_frames(layout, clip_frames))
        elif 1 < layout.frames < clip_frames and (clip_frames - 1) not in [
            r * (layout.frames - 1) for r in FRAME_RATIOS
        ]:
            logging.info("%s", _stretched(layout, clip_frames))
        height, width = self.flow.vectors.shape[-2:]
        ratio = (width / height) / (layout.width / layout.height)
        if max(ratio, 1 / ratio) > 1 + ASPECT_TOLERANCE:
            logging.warning(
                "Warp Noise: the flow is %d x %d (width / height %.2f) and the latent %d x %d (%.2f); the motion is "
                "squeezed to fit. Crop the clip to the latent's shape to avoid that.",
                width, height, width / height, layout.width, layout.height, layout.width / layout.height,
            )  # fmt: skip


def _video_frames(latent_frames: int) -> str:
    """How many video frames some latent frames are, by family."""
    wan, ltxv = ((latent_frames - 1) * ratio + 1 for ratio in FRAME_RATIOS)
    return f"{wan} video frames for Wan, HunyuanVideo and CogVideoX or {ltxv} for LTXV"


def _stretched(layout: LatentLayout, clip_frames: int) -> str:
    """What to know of a flow that is longer or shorter than the video, or of a length that no video can have."""
    text = (
        f"Warp Noise: the flow covers {clip_frames} video frames and is spread over {layout.frames} latent frames, the "
        "first on the first and the last on the last; the motion is stretched to fit. "
    )
    if layout.kind == "frames":
        return f"{text}To avoid that, compute the flow from {layout.frames} frames."
    return (
        f"{text}To avoid that, compute the flow from as many frames as the video has: {_video_frames(layout.frames)}. "
        f"Lengths that these families can have: 4 k + 1 ({_lengths(clip_frames, FRAME_RATIOS[0])}); LTXV: 8 k + 1 "
        f"({_lengths(clip_frames, FRAME_RATIOS[1])})."
    )


def _lengths(clip_frames: int, ratio: int) -> str:
    """The two lengths of video on either side of a clip's length that a family can have."""
    below = (clip_frames - 1) // ratio * ratio + 1
    return f"{below}, {below + ratio}"


def _too_many_frames(layout: LatentLayout, clip_frames: int) -> str:
    if layout.kind == "frames":
        return (
            f"Warp Noise: the LATENT is a batch of {layout.frames} frames, but the flow covers {clip_frames}. Compute "
            f"the flow from at least {layout.frames} frames, use a smaller batch, or set batch_4d to 'pictures' if "
            "these latents are separate pictures."
        )
    wan, ltxv = ((clip_frames - 1) // ratio * ratio + 1 for ratio in FRAME_RATIOS)
    return (
        f"Warp Noise: the LATENT has {layout.frames} latent frames (read as {layout.kind}), which is "
        f"{_video_frames(layout.frames)}, but the flow covers {clip_frames}. Compute the flow from that many frames, "
        f"or make the video shorter: {wan} frames (LTXV: {ltxv}) fit this flow. If the axes were read the wrong way "
        "round, set layout_5d."
    )
