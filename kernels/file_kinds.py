"""What a file is by its first bytes, for messages about files that are not what was expected."""

from __future__ import annotations

import struct

_STARTS = (
    (b"PK", "a zip archive (.npz or .pth?)"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x93NUMPY", "a NumPy .npy file"),
    (struct.pack("<f", 202021.25), "a Middlebury .flo file"),
    (b"#?", "a Radiance .hdr picture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
)
_ORDINARY_PICTURES = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\x00", "a TIFF picture"),
    (b"MM\x00*", "a TIFF picture"),
)


def looks_like(data: bytes | memoryview) -> str:
    """What comes after "not a ... file": "; it looks like a PNG picture", or nothing for an unknown start."""
    start = bytes(data[:8])
    known = _STARTS + _ORDINARY_PICTURES
    return next((f"; it looks like {what}" for magic, what in known if start.startswith(magic)), "")


def is_ordinary_picture(data: bytes | memoryview) -> bool:
    """Whether a file seems to hold colours for a screen, not linear light."""
    return any(bytes(data[:8]).startswith(magic) for magic, _ in _ORDINARY_PICTURES)
