"""Clips of panoramas for Imagine360's demonstration: a viewer walks through a place, and a camera sees a part of it.

The characters stand ahead of the viewer, nothing moves but the viewer: to the left, to the right, ahead or back. What
the camera saw is laid into the panorama as Imagine360 Conditioning lays it; the rest is to be completed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.training_data import encode_pictures
from demo.world.panorama import render_panorama
from demo.world.scene import Scenes
from kernels.known_panorama import known_views, lay_out, seen_by, to_generate, with_grey
from kernels.panorama import equirect_to_perspective
from kernels.view_rings import cube_views

FRAMES = 8
HEIGHT = 128
"""Of panoramas, pixels; views are half as high."""

FACTOR = 8
"""Pixels for each latent."""

FOV = 90.0
MOVES = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "ahead": (0.0, 1.0), "back": (0.0, -1.0)}
"""Where the viewer goes: to the right and ahead."""

CHARACTERS = (0.55, 0.45, 0.0, 0.0)
"""Weights of how many there are."""

NEARER = 1.3
"""How much larger they are than in flat pictures: the autoencoder keeps little of what is a few latents wide."""

REACH = (0.15, 0.4)
"""How far in a clip, of the distance to what is seen."""

STEEPEST = 15.0
"""Degrees that the camera looks up or down at most."""


def cube_cameras() -> tuple[tuple[float, float, float], ...]:
    """Yaw, pitch and field of view of the six views."""
    yaw, pitch = cube_views()
    return tuple((*angles, FOV) for angles in zip(yaw.tolist(), pitch.tolist(), strict=True))


@dataclass(frozen=True)
class PanoramaClips:
    """B clips, float32, 0..1."""

    panoramas: Tensor  # [B, T, 3, H, 2 H]
    videos: Tensor  # [B, T, 3, H, H], what the camera saw
    moves: Tensor  # int64 [B], of MOVES
    pitch: float
    """Degrees that the camera looked up."""


def walks(moves: Tensor, reach: Tensor, frames: int) -> Tensor:
    """float32 [B, frames, 2]: where viewers stand, from the middle on.

    Args:
        moves: int64 [B], of MOVES.
        reach: float32 [B], how far they go.
        frames: how many.
    """
    ways = torch.tensor(list(MOVES.values()), device=moves.device)[moves]
    along = torch.linspace(0, 1, frames, device=moves.device)
    return ways[:, None] * reach[:, None, None] * along[:, None]


def draw_clips(scenes: Scenes, generator: torch.Generator, frames: int = FRAMES, height: int = HEIGHT) -> PanoramaClips:
    """Draws clips.

    Args:
        scenes: of one frame, where they are; nothing in them moves.
        generator: on the CPU; the ways, and the pitch, which is the same for all.
        frames: of each clip.
        height: of the panoramas.
    """
    device, count = scenes.count.device, scenes.size
    low, high = REACH
    moves = torch.randint(len(MOVES), (count,), generator=generator).to(device)
    reach = (low + (high - low) * torch.rand(count, generator=generator)).to(device)
    pitch = float((torch.rand((), generator=generator) * 2 - 1) * STEEPEST)
    still = {
        name: getattr(scenes, name).expand(-1, frames, *getattr(scenes, name).shape[2:])
        for name in ("position", "radius", "angle", "camera")
    }
    fine = render_panorama(replace(scenes, **still), 2 * height, viewer=walks(moves, reach, frames)).frames.flatten(
        0, 1
    )
    at, angle, fov = torch.zeros(1), torch.tensor([pitch]), torch.tensor([FOV])
    videos = equirect_to_perspective(fine, at, angle, at, fov, height, height)
    panoramas = F.avg_pool2d(fine, 2)
    return PanoramaClips(*(some.unflatten(0, (count, frames)) for some in (panoramas, videos)), moves, pitch)


def seen_ahead(panoramas: Tensor, pitch: float, edge: int) -> Tensor:
    """What the camera sees of panoramas [N, C, H, 2 H]: [N, C, edge, edge], by areas of pixels as people expect it."""
    at, angle, fov = torch.zeros(1), torch.tensor([pitch]), torch.tensor([FOV])
    flat = panoramas.flatten(0, 1)[None]  # one camera sees them all
    return equirect_to_perspective(flat, at, angle, at, fov, edge, edge, backend="eager")[0].view(
        *panoramas.shape[:2], edge, edge
    )


def views_of(panoramas: Tensor, edge: int, mode: str = "bilinear") -> Tensor:
    """What the cube's cameras see of panoramas [N, C, H, 2 H]: [N, V, C, edge, edge], on Imagine360's grids."""
    found = seen_by(panoramas.flatten(0, 1), cube_cameras(), edge, edge, mode)
    return found.unflatten(1, panoramas.shape[:2]).transpose(0, 1)


def laid_out(videos: Tensor, pitch: float, height: int) -> tuple[Tensor, Tensor]:
    """What is known of panoramas, as ``patches.imagine360_conditioning.outpainting`` has it; a test compares them.

    Args:
        videos: float32 [N, 3, h, w], 0..1.
        pitch: degrees.
        height: of the panoramas.

    Returns:
        [N, 3, H, 2 H], grey where nothing is known, and float32 [N, 1, H, 2 H], 1 where something is.
    """
    at, angle, fov = torch.zeros(1), torch.tensor([pitch]), torch.tensor([FOV])
    flat = videos.flatten(0, 1)[None]  # one camera saw them all
    laid, known = lay_out(flat, (at, angle, at, fov), height)
    return with_grey(laid[0].view(*videos.shape[:2], height, 2 * height), known), known.expand(len(videos), -1, -1, -1)


def conditions(videos: Tensor, pitch: float, height: int, encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """What the two branches are told of clips.

    Args:
        videos: float32 [B, T, 3, h, w], 0..1.
        pitch: degrees.
        height: of the panoramas.
        encode: pictures [N, 3, H, W] to latents [N, 4, H / 8, W / 8].

    Returns:
        [B, 5, T, H / 8, W / 8] and [B, 5, V T, h, w], view by view: 1 where to generate, and latents of what is known.
    """
    count, frames = videos.shape[:2]
    laid, known = laid_out(videos.flatten(0, 1), pitch, height)
    # The views frame by frame, as they are encoded in batches.
    views = (some.transpose(0, 1).flatten(0, 1) for some in known_views(laid, known, cube_cameras(), height // 2))
    told = []
    for pictures, mask in ((laid, known), tuple(views)):
        latents = encode(pictures)
        small = to_generate(mask, latents.shape[-2:])
        told.append(torch.cat((small, latents.to(small.dtype)), 1))
    panorama = told[0].unflatten(0, (count, frames)).transpose(1, 2)
    return panorama, by_views(told[1], count, frames)


def by_views(pictures: Tensor, count: int, frames: int) -> Tensor:
    """[B T V, C, h, w], frame by frame, as [B, C, V T, h, w], view by view."""
    return pictures.unflatten(0, (count, frames, -1)).permute(0, 3, 2, 1, 4, 5).flatten(2, 3)


def latents_of(clips: PanoramaClips, encode: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Latents of panoramas [B, 4, T, H / 8, W / 8] and of their views [B, 4, V T, h, w]."""
    count, frames = clips.panoramas.shape[:2]
    flat = clips.panoramas.flatten(0, 1)
    seen = views_of(flat, flat.shape[2] // 2).flatten(0, 1)
    panorama = encode(flat).unflatten(0, (count, frames)).transpose(1, 2)
    return panorama, by_views(encode(seen), count, frames)


def clip_maker(
    vae, device: torch.device, height: int, seed: int, frames: int = FRAMES
) -> Callable[[Scenes, Tensor], tuple[Tensor, ...]]:
    """A function of scenes of one frame and rows of tokens that makes clips to learn from.

    That is latents of panoramas and of views, what is told of either (see ``latents_of`` and ``conditions``), all in
    float16, and tokens int16 [N, phrasings, 77].

    Args:
        vae: encodes the pictures.
        device: where.
        height: of the panoramas.
        seed: of the ways and pitches.
        frames: of a clip.
    """
    generator = torch.Generator().manual_seed(seed)

    def encode(pictures: Tensor) -> Tensor:
        return encode_pictures(vae, pictures)

    @torch.no_grad()
    def make(scenes: Scenes, tokens: Tensor) -> tuple[Tensor, ...]:
        clips = draw_clips(scenes.to(device), generator, frames, height)
        told = conditions(clips.videos, clips.pitch, height, encode)
        return *(some.half() for some in (*latents_of(clips, encode), *told)), tokens.to(device)

    return make


def noise_index(height: int = HEIGHT) -> Tensor:
    """int64 [V, h, w]: which number of a panorama's latents each view's sees, as Imagine360's noise has it."""
    rows, edge = height // FACTOR, height // 2 // FACTOR
    numbers = torch.arange(rows * 2 * rows, dtype=torch.float32).view(1, 1, rows, 2 * rows)
    return views_of(numbers, edge, mode="nearest")[0, :, 0].round().long()


def shared_noise(panorama: Tensor, index: Tensor) -> Tensor:
    """The views' noise [B, C, V T, h, w] of the panorama's [B, C, T, H, W]."""
    seen = panorama.flatten(3)[..., index.flatten()].unflatten(-1, index.shape)
    return seen.transpose(2, 3).flatten(2, 3)
