"""Noise that moves with optical flow and stays white Gaussian noise.

Burgert et al., "Go-with-the-Flow", CVPR 2025 (arXiv 2501.08331): each frame's noise is the last frame's, carried
along the flow on a grid finer than the output. Where pixels crowd together their values are summed and rescaled;
where the grid opens up, a value is split into several that are jointly Gaussian and sum to it; so every frame keeps
mean 0, variance 1 and no correlation between neighbours, whatever the flow.

Three algorithms share this interface:

* ``subpixel`` (the default): the whole-pixel warp of the paper, but every value also carries where in its pixel it
  lies, so that fractional motion adds up over frames instead of being rounded away in each, and a gap takes a share
  of the value that landed nearest to it. This goes beyond the paper; the noise statistics are the same because the
  bookkeeping never looks at the noise.
* ``nearest``: the paper's warp: targets rounded to whole pixels in every frame, gaps filled from ``p - round(F(p))``.
* ``particle``: Deng et al., "Infinite-Resolution Integral Noise Warping for Diffusion Models", ICLR 2025: every new
  pixel asks its four bilinear neighbours in the old frame for a share, and the shares of an old pixel cut its
  Brownian motion.

This module is the public door. ``noise_warp_eager`` is the reference, right on any device; ``noise_warp_triton`` is
the fast path on CUDA. ``backend`` forces one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from .flow import check_vectors, invert_flow, resize_flow

Algorithm = Literal["subpixel", "nearest", "particle"]
Backend = Literal["auto", "eager", "triton"]
ALGORITHMS: tuple[Algorithm, ...] = ("subpixel", "nearest", "particle")
BACKENDS: tuple[Backend, ...] = ("auto", "eager", "triton")
MAX_SLACK = 8.0  # state pixels; the fast path's integer sums are sized for it
MAX_STATE_PIXELS = 2**28  # pixel numbers are int32 in the fast path, with room for flags


def slack_for(oversample: int) -> float:
    """The slack of ``NoiseWarper`` for an output of ``1 / oversample`` of its grid: a quarter of an output pixel."""
    return min(max(0.5, oversample / 4), MAX_SLACK)


def triton_is_available() -> bool:
    """Whether the Triton fast path can be imported on this machine."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def choose_backend(backend: Backend, device: torch.device) -> Literal["eager", "triton"]:
    """Resolves ``auto``: Triton on a CUDA device where it can be imported, else eager torch.

    Raises:
        ValueError: an unknown backend, or ``triton`` asked for where it cannot be imported.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")
    if backend == "auto":
        return "triton" if device.type == "cuda" and triton_is_available() else "eager"
    if backend == "triton" and not triton_is_available():
        raise ValueError("backend 'triton' was asked for, but Triton cannot be imported here; use 'eager' or 'auto'")
    return backend


class NoiseWarper:
    """The state of one noise field that is carried along flow, one frame at a time.

    The state is a grid of ``height * width`` pixels, each with ``channels`` values, a weight (``nearest``,
    ``subpixel``) and an offset inside its pixel (``subpixel``). A new warper holds plain noise: the first frame.

    Args:
        channels: values a pixel, at least 1.
        height: rows of the state grid.
        width: columns of the state grid.
        seed: any integer of 64 bits; the same seed gives the same noise on every run of the same device and backend.
        device: where the state lives.
        algorithm: one of ``ALGORITHMS``.
        backend: ``auto``, ``eager`` or ``triton``.
        slack: how far (state pixels, 0.5 to 8) ``subpixel`` lets a value lag behind its true position before
            it moves by itself. Neighbours then keep step longer, so fewer values meet and fewer gaps open.

    Raises:
        ValueError: sizes below 1, a grid of more than 2**28 pixels, a slack outside 0.5 to 8, an unknown algorithm
            or backend.
    """

    def __init__(
        self,
        channels: int,
        height: int,
        width: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        algorithm: Algorithm = ALGORITHMS[0],
        backend: Backend = "auto",
        slack: float = 0.5,
    ) -> None:
        if min(channels, height, width) < 1:
            raise ValueError(f"channels, height and width must be at least 1; got {channels}, {height}, {width}")
        if height * width > MAX_STATE_PIXELS:
            raise ValueError(
                f"the noise grid of {height} x {width} pixels is too large (at most 2**28); use a smaller oversample"
            )
        if algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be one of {', '.join(ALGORITHMS)}; got {algorithm!r}")
        if not 0.5 <= slack <= MAX_SLACK:
            raise ValueError(f"slack must lie between 0.5 and {MAX_SLACK} pixels; got {slack}")
        self.channels, self.height, self.width = channels, height, width
        self.device = torch.device(device)
        self.algorithm: Algorithm = algorithm
        self.backend = choose_backend(backend, self.device)
        if self.backend == "triton":
            from .noise_warp_triton import TritonState as State
        else:
            from .noise_warp_eager import EagerState as State
        self._state = State(
            channels, height, width, seed=seed & (2**64 - 1), device=self.device, algorithm=algorithm, slack=slack
        )

    @property
    def values(self) -> Tensor:
        """The noise at full resolution, float32 ``[channels, height, width]`` (a copy)."""
        return self._state.values.view(self.height, self.width, self.channels).permute(2, 0, 1).contiguous()

    @property
    def weights(self) -> Tensor:
        """The weights at full resolution, float32 ``[height, width]``; mean about 1 (a copy)."""
        return self._state.weights.clone().view(self.height, self.width)

    def step(self, flow: Tensor, size: tuple[int, int] | None = None) -> Tensor | None:
        """Carries the noise one frame on.

        Args:
            flow: ``[2, H, W]``, forward, in pixels of its own grid (channel 0 = dx, right; 1 = dy, down); resized to
                the state grid when its size differs. A pixel whose vector is NaN or infinite counts as leaving the
                image.
            size: where given, also returns ``noise(size)`` of the new frame; the fast path does both in one pass.

        Returns:
            ``None``, or float32 ``[channels, h, w]``.

        Raises:
            ValueError: a flow of another shape, or with NaN (``particle``: it has no inverse then), or a ``size``
                that does not divide the grid.
        """
        if flow.ndim != 3 or flow.shape[0] != 2:
            raise ValueError(f"flow of one step must have shape [2, H, W]; got {list(flow.shape)}")
        if size is not None:
            self._check_size(size)
        vectors = flow[None].to(self.device, torch.float32)
        if self.algorithm == "particle":
            vectors = invert_flow(vectors)
        if vectors.shape[2:] != (self.height, self.width):
            vectors = resize_flow(vectors, (self.height, self.width))
        return self._state.step(vectors[0].contiguous(), size)

    def noise(self, size: tuple[int, int]) -> Tensor:
        """This frame's noise at an output size, by weighted area sums: variance 1, neighbours uncorrelated.

        Each output pixel is ``sum(w * x) / sqrt(sum(w^2))`` over its cell of the state grid.

        Args:
            size: ``(h, w)``; must divide the state grid.

        Returns:
            float32 ``[channels, h, w]``.
        """
        self._check_size(size)
        return self._state.noise(size)

    def _check_size(self, size: tuple[int, int]) -> None:
        h, w = size
        if h < 1 or w < 1 or self.height % h or self.width % w:
            raise ValueError(f"size {h} x {w} does not divide the noise grid of {self.height} x {self.width}")

    @staticmethod
    def state_bytes(
        channels: int, height: int, width: int, *, algorithm: Algorithm = ALGORITHMS[0], backend: Backend = "triton"
    ) -> int:
        """About the peak bytes that stepping a state of this size needs, with its lists and one flow field.

        Measured at 16 channels; the eager path keeps several copies of the values, and the particle algorithm four
        random numbers for each of them.
        """
        if backend == "triton":
            numbers = 2 * channels + 24
        elif algorithm == "particle":
            numbers = 18 * channels + 80
        else:
            numbers = 6 * channels + 56
        return height * width * numbers * 4


def warp_noise(
    flow: Tensor,
    channels: int,
    size: tuple[int, int],
    *,
    seed: int,
    oversample: int = 8,
    algorithm: Algorithm = ALGORITHMS[0],
    device: torch.device | str = "cpu",
    backend: Backend = "auto",
    on_frame: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Noise frames that follow a flow.

    The noise is warped on a grid of ``oversample`` times the output size and then summed down. The published
    CogVideoX setting (flow at half of 480 x 720, noise warped at 1920 x 2880, latents of 60 x 90) is ``size=(60, 90),
    oversample=32``.

    Args:
        flow: ``[T-1, 2, H, W]``, forward, in pixels (channel 0 = dx, right; 1 = dy, down), any resolution.
        channels: channels of the output.
        size: ``(h, w)`` of the output.
        seed: any integer of 64 bits.
        oversample: state pixels along each side of an output pixel, at least 1. More follows fine motion better.
        algorithm: one of ``ALGORITHMS``.
        device: where to compute.
        backend: ``auto``, ``eager`` or ``triton``.
        on_frame: called as ``on_frame(index, frames)`` before each frame; may raise to stop.

    Returns:
        float32 ``[T, channels, h, w]`` on ``device``; frame 0 is plain noise.

    Raises:
        ValueError: an empty or malformed flow, NaN in it, sizes below 1.
    """
    check_vectors(flow, "flow")
    if flow.shape[0] < 1:
        raise ValueError("flow has no step: at least two frames are needed")
    if oversample < 1:
        raise ValueError(f"oversample must be at least 1; got {oversample}")
    h, w = size
    frames = flow.shape[0] + 1
    warper = NoiseWarper(
        channels,
        h * oversample,
        w * oversample,
        seed=seed,
        device=device,
        algorithm=algorithm,
        backend=backend,
        slack=slack_for(oversample),
    )
    out = torch.empty(frames, channels, h, w, dtype=torch.float32, device=warper.device)
    for index in range(frames):
        if on_frame is not None:
            on_frame(index, frames)
        out[index] = warper.noise(size) if index == 0 else warper.step(flow[index - 1], size)
    return out
