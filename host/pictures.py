"""Moving pictures that a graph made: read, summed up in one small still one, compared, shown as a template's thumbnail.

Needs Pillow and NumPy, which ComfyUI brings.
"""

import io
from pathlib import Path

import numpy
from PIL import Image, ImageSequence

SHEET_FRAMES = 4
SHEET_EDGE = 44
"""Pixels that the shorter side of a sheet's frames keeps at least."""


def read_frames(content: bytes) -> numpy.ndarray:
    """The frames of a WebP, PNG, JPEG or GIF file: uint8 [T, H, W, 3]."""
    with Image.open(io.BytesIO(content)) as picture:
        return numpy.stack([numpy.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)])


def read_files(contents: list[bytes]) -> numpy.ndarray:
    """The frames of several files, one after the other: uint8 [T, H, W, 3]."""
    return numpy.concatenate([read_frames(content) for content in contents])


def read_video(source: Path | bytes) -> numpy.ndarray:
    """The frames of a video file, or of its content: uint8 [T, H, W, 3]."""
    import av

    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def shrink(frames: numpy.ndarray, edge: int = SHEET_EDGE) -> numpy.ndarray:
    """Average squares of pixels, as large ones as leave the shorter side ``edge`` pixels; uint8 [T, H, W, 3] both."""
    count, height, width, channels = frames.shape
    factor = max(1, min(height, width) // edge)
    height, width = height // factor, width // factor
    cut = frames[:, : height * factor, : width * factor].astype(numpy.float32)
    squares = cut.reshape(count, height, factor, width, factor, channels)
    return squares.mean(axis=(2, 4)).round().astype(numpy.uint8)


def sheet_tiles(frames: numpy.ndarray) -> numpy.ndarray:
    """A few frames, shrunk: what a run is compared by; uint8 [SHEET_FRAMES, h, w, 3].

    They come from the first third; where there are fewer, the last one comes again. Carried noise is chaotic: one
    number rounded the other way (another OpenCV, another processor) changes what is drawn after it, a tenth of the
    picture in ten frames and most of it in fifty.
    """
    chosen = numpy.linspace(0, max(SHEET_FRAMES - 1, (len(frames) - 1) // 3), SHEET_FRAMES).round().astype(int)
    return shrink(frames[chosen.clip(max=len(frames) - 1)])


def join_tiles(tiles: numpy.ndarray) -> Image.Image:
    """Tiles side by side in one picture."""
    return Image.fromarray(numpy.concatenate(list(tiles), axis=1))


def split_tiles(picture: Image.Image) -> numpy.ndarray:
    """The inverse of join_tiles."""
    return numpy.stack(numpy.split(numpy.array(picture.convert("RGB")), SHEET_FRAMES, axis=1))


def distances(tiles: numpy.ndarray, reference: numpy.ndarray) -> numpy.ndarray:
    """Mean absolute difference of each tile from its counterpart, in steps of 255; float [N].

    Raises:
        ValueError: they have different shapes.
    """
    if tiles.shape != reference.shape:
        raise ValueError(f"The pictures have the shape {tiles.shape}, the reference {reference.shape}.")
    return numpy.abs(tiles.astype(numpy.float32) - reference).mean(axis=(1, 2, 3))


def look_into(panorama: numpy.ndarray, yaw: float, width_of_view: float, height: int, width: int) -> numpy.ndarray:
    """What a camera in the middle of a panorama sees, level, turned to the right by ``yaw``; uint8 [height, width, 3].

    Args:
        panorama: equirectangular, uint8 [H, 2 H, 3].
        yaw, width_of_view: degrees.
        height, width: of what is seen, pixels.
    """
    finer = 3
    rows, columns = panorama.shape[:2]
    step = 2 * numpy.tan(numpy.radians(width_of_view) / 2) / (finer * width)
    x = (numpy.arange(finer * width) - (finer * width - 1) / 2) * step
    y = ((finer * height - 1) / 2 - numpy.arange(finer * height))[:, None] * step
    turn = numpy.arctan(x) / (2 * numpy.pi) + yaw / 360 + 0.5
    up = 0.5 - numpy.arctan(y / numpy.hypot(x, 1)) / numpy.pi
    seen = panorama[(up * rows).astype(int).clip(0, rows - 1), (turn * columns).astype(int) % columns]
    return seen.reshape(height, finer, width, finer, 3).mean((1, 3)).round().astype(numpy.uint8)
