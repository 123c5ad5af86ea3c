"""Imagine360's network: a UNet of the panorama and a UNet of perspective views of it, which exchange what they hold.

Tan et al., Imagine360: Immersive 360 Video Generation from Perspective Anchor, 2024. Both are SD2.1-class UNets with
motion modules and image tokens, walked in lock step; after each downsampler, after the middle and before each upsampler
an exchange block lets them attend to each other. All sizes are arguments, so that a small one is the same class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.ops
import comfy.patcher_extension
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample
from torch import Tensor, nn

from ..kernels.exchange_masks import Camera, check_cameras, exchange_masks
from ..kernels.spherical_encoding import panorama_angles, spherical_encoding, view_angles
from .exchange import ExchangeBlock
from .panorama_branch import IMAGE_TOKENS, Branch, BranchSizes, Walk

PANORAMA, VIEWS = "panorama", "views"
PART = 1 << 25
"""Numbers that a layer takes at a time in a sampler: enough to keep a GPU busy, half a GiB with all that is around."""

BRANCH = "papernodes_branch"
"""Where transformer_options say which branch a block belongs to."""


@dataclass(frozen=True)
class Condition:
    """What the network is told beside text, for each of B rows."""

    panorama: Tensor
    """[B, 5, F, H, W]: mask (1 = to generate), and the masked latent."""

    views: Tensor
    """[B, 5, V * F, h, w], view by view."""

    cameras: tuple[Camera, ...]
    """Of the V views: yaw, pitch and horizontal field of view, degrees."""

    fps: float = 8.0
    anchor_features: Tensor | None = None
    """[B, F, C, h, w]: the image encoder's, of the known part of the panorama; None = no image tokens there."""

    frame_features: Tensor | None = None
    """The same of the frames, for the views."""

    position: Tensor | None = None
    """[B, F, 6], see image_tokens.POSITION_NUMBERS."""

    pitch: Tensor | None = None
    """[B, F], degrees."""


@dataclass(frozen=True)
class StepDraws:
    """What is drawn anew at every step."""

    antipodal: tuple[bool, ...] = ()
    """For each exchange block, in the order they run: whether its masks are the antipodal ones; () = none."""

    token_noise: tuple[Tensor, Tensor] | None = None
    """[queries, context_dim] each, added to the image tokens of the panorama and of the views; None = nothing."""


class Imagine360Network(nn.Module):
    """Two UNets in lock step."""

    def __init__(
        self,
        sizes: BranchSizes,
        encoding: torch.dtype = torch.bfloat16,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        operations: type = comfy.ops.disable_weight_init,
    ) -> None:
        """
        Args:
            sizes: of both branches; the exchange blocks' widths follow from them.
            encoding: arithmetic of the spherical encoding, which is part of what a network was trained with.
            dtype, device: of the weights, which are not set.
            operations: ComfyUI's namespace of layers.
        """
        super().__init__()
        options = {"dtype": dtype, "device": device, "operations": operations}
        self.sizes, self.encoding, self.dtype = sizes, encoding, dtype
        self.panorama = Branch(sizes, True, **options)
        self.views = Branch(sizes, False, **options)
        self.exchange = nn.ModuleList(ExchangeBlock(width, **options) for width in exchange_widths(sizes.unet))
        self.limit: int | None = None
        self._held: dict[tuple, tuple[Tensor, Tensor]] = {}

    def forget(self) -> None:
        """Lets go of the masks and encodings that calls have left."""
        self._held = {}

    def forward(
        self,
        latents: Sequence[Tensor],
        timesteps: Tensor,
        context: Tensor,
        condition: Condition,
        draws: StepDraws | None = None,
        transformer_options: dict | None = None,
        control: object | None = None,
    ) -> list[Tensor]:
        """What the network predicts, of the kind it was trained for (published: v).

        ``self.limit`` bounds how many numbers a layer takes at a time, by parts of views, frames and places; the result
        does not depend on it. None = all at once.

        Args:
            latents: panorama [B, 4, F, H, W] and views [B, 4, V * F, h, w], view by view; H, W, h, w multiples of the
                UNet's smallest level.
            timesteps: [B], 0..999.
            context: [B, T, context_dim], text.
            condition: see Condition.
            draws: see StepDraws; None = nothing is drawn.
            transformer_options: ComfyUI's.
            control: ComfyUI hands one over; only None is known here.

        Returns:
            Two tensors of the latents' shapes and dtypes.

        Raises:
            ValueError: shapes that do not fit together, or more frames than the network knows.
        """
        if control is not None:
            raise ValueError("control: Imagine360 knows no ControlNets.")
        options = {} if transformer_options is None else transformer_options
        wrappers = comfy.patcher_extension.get_all_wrappers(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, options)
        executor = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._forward, self, wrappers)
        return executor.execute(latents, timesteps, context, condition, draws or StepDraws(), options)

    def _forward(
        self,
        latents: Sequence[Tensor],
        timesteps: Tensor,
        context: Tensor,
        condition: Condition,
        draws: StepDraws,
        options: dict,
    ) -> list[Tensor]:
        self._check(latents, condition, draws)
        frames = latents[0].shape[2]
        noise = draws.token_noise or (None, None)
        told = (
            (self.panorama, PANORAMA, condition.panorama, condition.anchor_features, noise[0]),
            (self.views, VIEWS, condition.views, condition.frame_features, noise[1]),
        )
        walks = []
        for latent, (branch, name, known, features, drawn) in zip(latents, told, strict=True):
            pictures = torch.cat([latent, known.to(latent)], 1).transpose(1, 2).flatten(0, 1)
            seen, count = context, 0
            if branch.sizes.tokens is not None and features is not None:
                tokens = branch.image_tokens(features.to(latent), drawn, condition.position, condition.pitch)
                seen, count = torch.cat([context, tokens.to(context)], 1), tokens.shape[1]
            own = {**options, BRANCH: name, IMAGE_TOKENS: count, "transformer_index": 0,
                   "original_shape": list(pictures.shape)}  # fmt: skip
            embedding = branch.embedded(timesteps, condition.fps, latent.dtype)
            walks.append(Walk(branch, pictures, embedding, seen, frames, own, self.limit))
        self._run(walks, condition.cameras, draws.antipodal)
        return [
            walk.end().to(latent.dtype).unflatten(0, (latent.shape[0], -1)).transpose(1, 2)
            for walk, latent in zip(walks, latents, strict=True)
        ]

    def _run(self, walks: list[Walk], cameras: tuple[Camera, ...], antipodal: tuple[bool, ...]) -> None:
        done = 0
        unet = self.panorama.unet
        for number, block in enumerate(unet.input_blocks):
            for walk in walks:
                walk.start(number)
            if isinstance(block[0], Downsample):
                self._exchange(done, walks, cameras, antipodal)
                done += 1
        for walk in walks:
            walk.middle()
        self._exchange(done, walks, cameras, antipodal)
        done += 1
        for number in range(len(unet.output_blocks)):
            upsamplers = [walk.back(number) for walk in walks]
            if upsamplers[0] is not None:
                self._exchange(done, walks, cameras, antipodal)
                done += 1
                for walk, upsampler in zip(walks, upsamplers, strict=True):
                    walk.grow(upsampler)

    def _exchange(
        self, number: int, walks: list[Walk], cameras: tuple[Camera, ...], antipodal: tuple[bool, ...]
    ) -> None:
        """One exchange block, frame by frame."""
        panorama, views = walks
        block, frames = self.exchange[number], panorama.frames
        x, y = panorama.pictures, views.pictures
        sizes = tuple(x.shape[2:]), tuple(y.shape[2:])
        encodings, biases = self._geometry(block, sizes, cameras, bool(antipodal and antipodal[number]), x)
        flat = x.flatten(2).transpose(1, 2)
        # [rows, views, frames, C, places] -> [rows * frames, views * places, C]
        beside = (
            y.flatten(2).unflatten(0, (-1, len(cameras), frames)).permute(0, 2, 1, 4, 3).flatten(2, 3).flatten(0, 1)
        )
        limit = self.limit
        step = len(flat) if limit is None else max(1, limit // (flat[0].numel() + beside[0].numel()))
        options = panorama.options
        parts = [
            block(one, other, encodings, biases, options)
            for one, other in zip(flat.split(step), beside.split(step), strict=True)
        ]
        flat, beside = (torch.cat(halves) for halves in zip(*parts, strict=True))
        panorama.pictures = flat.transpose(1, 2).reshape(x.shape)
        apart = beside.unflatten(0, (-1, frames)).unflatten(2, (len(cameras), -1)).permute(0, 2, 1, 4, 3)
        views.pictures = apart.reshape(y.shape)

    def _geometry(
        self, block: ExchangeBlock, sizes: tuple, cameras: tuple[Camera, ...], antipodal: bool, x: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Encodings and biases of a resolution, kept between calls."""
        panorama, views = sizes
        kind = x.device, x.dtype
        key = ("encoding", block.width, sizes, cameras, *kind)
        if key not in self._held:
            # On the CPU: what is rounded in bfloat16 must not depend on the device.
            angles = panorama_angles(panorama, self.encoding), view_angles(cameras, views, self.encoding)
            bands = block.bands.cpu()
            self._held[key] = tuple(spherical_encoding(one, bands).to(*kind) for one in angles)
        mask = ("mask", antipodal, sizes, cameras, *kind)
        if mask not in self._held:
            self._held[mask] = exchange_masks(cameras, views, panorama, antipodal, *kind)
        return self._held[key], self._held[mask]

    def _check(self, latents: Sequence[Tensor], condition: Condition, draws: StepDraws) -> None:
        """Raises ValueError for what cannot be run."""
        panorama, views = latents
        check_cameras(condition.cameras)
        frames, count = panorama.shape[2], len(condition.cameras)
        if panorama.ndim != 5 or views.ndim != 5 or views.shape[2] != count * frames:
            raise ValueError(
                f"latents: got a panorama of {list(panorama.shape)} and views of {list(views.shape)}; expected "
                f"[B, 4, F, H, W] and [B, 4, {count} F, h, w] for {count} cameras."
            )
        factor = 2 ** (len(self.sizes.unet["channel_mult"]) - 1)
        for name, latent, known in ((PANORAMA, panorama, condition.panorama), (VIEWS, views, condition.views)):
            if latent.shape[3] % factor or latent.shape[4] % factor:
                raise ValueError(
                    f"{name}: the latent is {latent.shape[4]}x{latent.shape[3]}; expected multiples of {factor}."
                )
            if known.shape[2:] != latent.shape[2:]:
                raise ValueError(
                    f"{name}: the condition has shape {list(known.shape)}, the latent {list(latent.shape)}."
                )
        if panorama.shape[4] < 2 * factor:
            raise ValueError(f"panorama: the latent is {panorama.shape[4]} wide; expected at least {2 * factor}.")
        if frames > self.most_frames:
            raise ValueError(f"latents: {frames} frames; the network knows {self.most_frames}.")
        if draws.antipodal and len(draws.antipodal) != len(self.exchange):
            raise ValueError(f"draws: {len(draws.antipodal)} for {len(self.exchange)} exchange blocks.")

    @property
    def most_frames(self) -> int:
        """The most frames that the motion modules and the image tokens tell apart."""
        known = [module.sizes.positions for module in self.panorama.motion.by_place().values()]
        if self.sizes.tokens is not None:
            known.append(self.sizes.tokens.queries)
        return min(known, default=1 << 30)


def exchange_widths(unet: dict) -> list[int]:
    """Channels of each exchange block, in the order they run: after each downsampler, the middle, before upsamplers."""
    widths = [unet["model_channels"] * times for times in unet["channel_mult"]]
    return [*widths[:-1], widths[-1], *widths[:0:-1]]


def held_numbers(unet: dict, places: float, limit: int | None) -> float:
    """Numbers that a call holds at its height, beside the weights.

    Args:
        unet: ComfyUI's description.
        places: of the latents of all rows: of the panorama and of the views, over all frames.
        limit: see Imagine360Network.forward.
    """
    widest = 2 * unet["model_channels"] * places
    # Within a part: a feed-forward layer's hidden numbers are 8 times its input's, and then half of them once more.
    return places * kept_channels(unet) + 20 * (widest if limit is None else min(limit, widest))


def kept_channels(unet: dict) -> float:
    """Numbers held at a time for each place of the latents: what waits for the way back, and the layer at hand.

    Most are held in the middle, or where the last upsampler's parts are put together beside the largest level's.
    """
    widths = [unet["model_channels"] * times for times in unet["channel_mult"]]
    waiting = widths[0]
    for level, (width, count) in enumerate(zip(widths, unet["num_res_blocks"], strict=True)):
        waiting += width * count / 4**level
        if level + 1 < len(widths):
            waiting += width / 4 ** (level + 1)
    largest = widths[0] * (unet["num_res_blocks"][0] + 1)
    return max(waiting + 4 * widths[-1] / 4 ** (len(widths) - 1), largest + (2 + 1 / 4) * widths[1])
