"""What Imagine360 Conditioning takes, and what it says of what cannot be."""

from __future__ import annotations

from torch import Tensor

from ..kernels.known_panorama import Camera
from ..kernels.schedule import Schedule
from ..kernels.view_coverage import seen_of_sphere
from ..kernels.view_rings import cube_views, icosahedron_views
from ..patches.imagine360_conditioning import spread_frames
from .sockets import check_choice, check_pictures, check_range

RINGS = {"icosahedron 20": icosahedron_views, "cube 6": cube_views}
"""Choice of 'view_ring' -> yaw and pitch of its cameras."""

MOST_FRAMES = 64
FRAME_STEP = 16
"""Image tokens are averaged over 4 frames, twice."""

HEIGHTS = (128, 2048)
HEIGHT_STEP = 128
"""The views' latents, a sixteenth as high, are halved three times."""

SMALLEST = 32
FIELDS_OF_VIEW = (20.0, 150.0)
_WHOLE = 0.999


def read_angle(text: str, name: str, most: float) -> Schedule:
    """The schedule of a widget, degrees from -most to most; its errors name it."""
    return Schedule.parse(text, f"'{name}'", minimum=-most, maximum=most)


def check_height(height: int) -> None:
    """Raises ValueError unless a panorama's height is one whose views the network can halve three times."""
    check_range(height, "panorama_height", *HEIGHTS)
    if height % HEIGHT_STEP:
        near = max(HEIGHTS[0], round(height / HEIGHT_STEP) * HEIGHT_STEP)
        raise ValueError(f"'panorama_height' is {height}; expected a multiple of {HEIGHT_STEP}, such as {near}.")


def view_cameras(ring: str, fov: float) -> tuple[Camera, ...]:
    """The cameras of a ring.

    Raises:
        ValueError: another ring; views that leave a part of the sphere unseen.
    """
    check_choice(ring, "view_ring", list(RINGS))
    yaw, pitch = RINGS[ring]()
    cameras = tuple((*angles, float(fov)) for angles in zip(yaw.tolist(), pitch.tolist(), strict=True))
    seen = seen_of_sphere(cameras)
    if seen < _WHOLE:
        raise ValueError(
            f"'view_fov' is {fov:g}: the {len(cameras)} views of {ring} see {seen:.0%} of what is around. Widen it; 90 "
            "is what Imagine360 was trained with."
        )
    return cameras


def check_video(video: Tensor, fov: float) -> Tensor:
    """A clip's pictures, float32 [T, H, W, 3].

    Raises:
        ValueError: no pictures, too small ones, or such that are too tall for their field of view.
    """
    clip = check_pictures(video, "video")
    height, width = clip.shape[1:3]
    if min(height, width) < SMALLEST:
        raise ValueError(f"'video' is {width}x{height} pixels; expected at least {SMALLEST} on each side.")
    tall = height / width * fov
    if tall > FIELDS_OF_VIEW[1]:
        raise ValueError(
            f"'video' is {width}x{height} pixels: {fov:g} degrees across are {tall:g} from top to bottom in "
            f"Imagine360's way of counting; expected at most {FIELDS_OF_VIEW[1]:g}. Crop it or lessen 'fov'."
        )
    return clip


def choose_frames(clip: Tensor, frames: int, tokens: bool) -> Tensor:
    """int64 [frames]: the numbers of a clip's frames that are used.

    Args:
        clip: [T, ...].
        frames: how many.
        tokens: whether there is an image encoder.

    Raises:
        ValueError: a number that the network cannot take, or more than there are.
    """
    check_range(frames, "frames", 1, MOST_FRAMES)
    if tokens and frames % FRAME_STEP:
        raise ValueError(
            f"'frames' is {frames}; with an image encoder the network takes a multiple of {FRAME_STEP} up to "
            f"{MOST_FRAMES}: it averages what the encoder saw over {FRAME_STEP} frames. Set it to 16, 32, 48 or 64."
        )
    try:
        return spread_frames(len(clip), frames)
    except ValueError:
        fewer = [count for count in (16, 32, 48) if count <= len(clip)]
        hint = f"Set it to {fewer[-1]}, or connect a longer video." if fewer else "Connect a longer video."
        raise ValueError(f"'video' holds {len(clip)} frames, and 'frames' is {frames}. {hint}") from None
