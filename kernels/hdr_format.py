"""Pictures of light as bytes: Radiance .hdr and OpenEXR .exr, whose numbers go on above white.

A hostile or damaged file gives a ValueError: what a header claims is compared with the number of bytes that are there
before anything is allocated.

.hdr (Ward, "Real Pixels", Graphics Gems II, 1991): three mantissas of 8 bits and a common exponent, so that a number is
at most 1/128 of its pixel's largest too small. Read by OpenCV as stored: EXPOSURE in a header is not undone.
.exr: ``kernels/exr_format.py``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch
from torch import Tensor

from .exr_format import MAGIC, read_exr
from .file_kinds import is_ordinary_picture, looks_like

SUFFIXES = (".hdr", ".exr")
LARGEST_FILE = 2 << 30  # bytes
MOST_PIXELS = 1 << 27
"""16384 x 8192: 1.5 GB as float32."""

BRIGHTEST = 65504.0
"""The largest half float: what infinite light is taken for, as half float files write what is brighter as infinity."""

_RADIANCE = b"#?"
_LONGEST_HEADER = 1 << 16  # bytes; programs write some hundreds
_SIZE = re.compile(rb"-Y (\d{1,9}) \+X (\d{1,9})\s*")


def read_hdr(
    source: bytes | str | os.PathLike,
    *,
    name: str | None = None,
    largest: int = LARGEST_FILE,
    most_pixels: int = MOST_PIXELS,
) -> Tensor:
    """Read a picture in linear light. Which of the two formats it is, its first bytes say.

    Args:
        source: the file's bytes, or a path that the caller has already allowed.
        name: how messages call the file; None = the path's last part.
        largest: refuse files of more bytes than this.
        most_pixels: refuse pictures of more pixels than this.

    Returns:
        float32 [H, W, 3], red, green, blue, on the CPU; finite and 0 or more: negative numbers and NaN are taken for
        no light, infinite ones for ``BRIGHTEST``. Grey pictures have three equal channels; alpha is left out.

    Raises:
        ValueError: names the file, what is wrong and what was expected.
        ImportError: the library that reads the format is missing.
        OSError: the path cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = name or "picture file"
        size, data = len(source), bytes(source)
    else:
        path = Path(source)
        name = name or path.name
        size, data = path.stat().st_size, None
    if size > largest:
        raise ValueError(f"{name}: it has {size} bytes; files of at most {largest} bytes are read.")
    if data is None:
        data = path.read_bytes()
    if not data:
        raise ValueError(f"{name}: it is empty; expected a Radiance .hdr or an OpenEXR .exr file.")
    if data.startswith(MAGIC):
        light = read_exr(data, name, most_pixels)
    elif data.startswith(_RADIANCE):
        light = _read_radiance(data, name, most_pixels)
    else:
        hint = " Its colours are made for a screen; Load Image reads it." if is_ordinary_picture(data) else ""
        raise ValueError(f"{name}: not a Radiance .hdr or OpenEXR .exr file{looks_like(data)}.{hint}")
    return light.nan_to_num_(nan=0.0, posinf=BRIGHTEST).clamp_(min=0.0)


def _read_radiance(data: bytes, name: str, most_pixels: int) -> Tensor:
    height, width = _radiance_size(data, name)
    if width * height > most_pixels:
        raise ValueError(f"{name}: it has {width}x{height} pixels; at most {most_pixels} are read.")
    # At best a row is 4 bytes and, for each of 4 channels, 2 bytes for every 127 pixels.
    least = height * (4 + 8 * -(-width // 127)) if 8 <= width < 1 << 15 else height * width * 4
    if len(data) < least:
        raise ValueError(f"{name}: it is cut short: {width}x{height} pixels need at least {least} bytes.")
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "Reading .hdr files needs OpenCV, which is not installed. Run: pip install opencv-python-headless"
        ) from error
    import numpy

    # Without ANYCOLOR it would be grey, without ANYDEPTH 8 bits.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    try:
        picture = cv2.imdecode(numpy.frombuffer(data, numpy.uint8), flags)
    except cv2.error:
        picture = None
    if picture is None or picture.shape != (height, width, 3):
        raise ValueError(f"{name}: OpenCV cannot read this .hdr file: it is cut short or damaged.")
    return torch.from_numpy(picture).to(torch.float32).flip(-1)


def _radiance_size(data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of what the header says, after checking that it is of a kind that is read."""
    lines, blank, rest = data[:_LONGEST_HEADER].partition(b"\n\n")
    kind = next((line[7:].strip() for line in lines.split(b"\n") if line.startswith(b"FORMAT=")), b"")
    if not blank or kind != b"32-bit_rle_rgbe":
        shown = kind[:40].decode("latin1") or "missing"
        raise ValueError(f"{name}: the FORMAT in its .hdr header is {shown}; expected 32-bit_rle_rgbe.")
    line = rest.partition(b"\n")[0]
    size = _SIZE.fullmatch(line)
    if size is None or not all(int(edge) for edge in size.groups()):
        shown = line[:40].decode("latin1")
        raise ValueError(f'{name}: the size in its .hdr header is "{shown}"; expected "-Y height +X width".')
    height, width = (int(edge) for edge in size.groups())
    return height, width
