"""OpenEXR files as bytes: one flat picture of half or single floats, in any compression up to DWAB.

The opencv-python-headless wheels of version 5 are built without OpenEXR, and OpenCV reads it only where an environment
variable was set before. FFmpeg decodes it too, and PyAV, which carries FFmpeg, is among ComfyUI's own requirements.
FFmpeg leaves black what it cannot read, so the file's structure is checked here first: all its pieces must be there,
and those that zlib packed (ZIP, ZIPS, PXR24) must be whole by their checksums. Damage inside others is not noticed.

The format: https://openexr.com/en/latest/OpenEXRFileLayout.html.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from .file_kinds import looks_like

MAGIC = b"\x76\x2f\x31\x01"

_HALF, _FLOAT = 1, 2
# By number: name, rows in a piece.
_COMPRESSIONS = (
    ("NONE", 1),
    ("RLE", 1),
    ("ZIPS", 1),
    ("ZIP", 16),
    ("PIZ", 32),
    ("PXR24", 16),
    ("B44", 32),
    ("B44A", 32),
    ("DWAA", 32),
    ("DWAB", 256),
)
_ZLIB = ("ZIPS", "ZIP", "PXR24")
_TILED, _NOT_FLAT = 0x200, 0x800 | 0x1000
# FFmpeg's pixel formats: bytes of a number, and which plane holds red, green and blue.
_PLANES = {
    "gbrpf32le": (torch.float32, (2, 0, 1)),
    "gbrapf32le": (torch.float32, (2, 0, 1)),
    "grayf32le": (torch.float32, (0, 0, 0)),
    "gbrpf16le": (torch.float16, (2, 0, 1)),
    "gbrapf16le": (torch.float16, (2, 0, 1)),
    "grayf16le": (torch.float16, (0, 0, 0)),
}


@dataclass(frozen=True)
class _Header:
    width: int  # of the data window
    height: int
    top: int  # its first row
    shown: tuple[int, int]  # width and height of the display window
    compression: str
    rows: int  # in a piece, or a tile's
    columns: int  # of a piece: all, or a tile's
    tiled: bool
    pixel_bytes: int
    end: int  # where the table of pieces starts


def read_exr(data: bytes, name: str, most_pixels: int) -> Tensor:
    """The picture of an OpenEXR file: its R, G and B, or its Y three times; other channels are left out.

    Args:
        data: the file.
        name: how messages call it.
        most_pixels: refuse larger pictures.

    Returns:
        float32 [H, W, 3]: the display window; what the file holds no pixels for is 0. NaN and infinities are as
        stored.

    Raises:
        ValueError: names the file, what is wrong and what was expected.
        ImportError: PyAV is missing.
    """
    header = _header(data, name)
    for edges in ((header.width, header.height), header.shown):
        if edges[0] * edges[1] > most_pixels:
            raise ValueError(f"{name}: it has {edges[0]}x{edges[1]} pixels; at most {most_pixels} are read.")
    _check_pieces(data, header, name)
    return _decode(data, name)


def _decode(data: bytes, name: str) -> Tensor:
    try:
        import av
    except ImportError as error:
        raise ImportError("Reading .exr files needs PyAV, which is not installed. Run: pip install av") from error
    try:
        decoder = av.CodecContext.create("exr", "r")
        frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except av.FFmpegError as error:
        raise ValueError(f"{name}: FFmpeg cannot read this .exr file ({error.strerror}).") from None
    if len(frames) != 1 or frames[0].format.name not in _PLANES:
        came = frames[0].format.name if frames else "nothing"
        raise ValueError(f"{name}: FFmpeg made {came} of this .exr file; expected floating colours or grey.")
    dtype, order = _PLANES[frames[0].format.name]
    planes = []
    for plane in frames[0].planes:
        numbers = torch.frombuffer(bytearray(plane), dtype=dtype)
        planes.append(numbers.view(plane.height, -1)[:, : plane.width].to(torch.float32))
    return torch.stack([planes[index] for index in order], -1)


def _header(data: bytes, name: str) -> _Header:
    if data[:4] != MAGIC:
        raise ValueError(f"{name}: not an .exr file{looks_like(data)}; expected the bytes 76 2f 31 01 at its start.")
    try:
        (flags,) = struct.unpack_from("<I", data, 4)
        if flags & _NOT_FLAT:
            raise ValueError(f"{name}: it has several parts or deep pixels; expected one flat picture.")
        attributes, end = _attributes(data)
        windows = [struct.unpack("<4i", attributes[window]) for window in (b"dataWindow", b"displayWindow")]
        channels = _channels(attributes[b"channels"])
        (compression,) = attributes[b"compression"]
        tile = struct.unpack("<2IB", attributes[b"tiles"]) if flags & _TILED else None
    except (struct.error, KeyError, IndexError, TypeError):
        raise ValueError(f"{name}: its .exr header is damaged or cut short.") from None
    (width, height), shown = [(right - left + 1, bottom - top + 1) for left, top, right, bottom in windows]
    if min(width, height, *shown) < 1:
        raise ValueError(f"{name}: its header says {width}x{height} pixels; expected at least 1 of each.")
    if compression >= len(_COMPRESSIONS):
        known = ", ".join(kind for kind, _ in _COMPRESSIONS)
        raise ValueError(f"{name}: its compression (number {compression}) is not read; expected one of {known}.")
    kind, rows = _COMPRESSIONS[compression]
    columns = width
    if tile is not None:
        columns, rows, levels = tile
        if levels & 15 or min(columns, rows) < 1:
            raise ValueError(f"{name}: it has tiles in several sizes of the picture; expected one.")
    top, size = windows[0][1], _pixel_bytes(channels, name)
    return _Header(width, height, top, shown, kind, rows, columns, tile is not None, size, end)


def _attributes(data: bytes) -> tuple[dict[bytes, bytes], int]:
    """The header's values by name, and where it ends."""
    values, place = {}, 8
    while data[place] != 0:  # IndexError at the file's end
        key, _, rest = data[place : place + 256].partition(b"\0")
        kind = rest.partition(b"\0")[0]
        place += len(key) + len(kind) + 2
        (size,) = struct.unpack_from("<i", data, place)
        value = data[place + 4 : place + 4 + size]
        if size < 0 or len(value) != size:
            raise IndexError
        values[key] = value
        place += 4 + size
    return values, place + 1


def _channels(value: bytes) -> dict[str, tuple[int, int, int]]:
    """Type of the numbers, and every how many columns and rows there is one, by channel."""
    channels, place = {}, 0
    while value[place] != 0:
        channel = value[place:].partition(b"\0")[0]
        kind, _, across, down = struct.unpack_from("<4i", value, place + len(channel) + 1)
        channels[channel.decode("latin1")] = (kind, across, down)
        place += len(channel) + 17
    return channels


def _pixel_bytes(channels: dict[str, tuple[int, int, int]], name: str) -> int:
    """Bytes of a pixel, after checking that its channels are such as are read."""
    colours = "RGB" if "R" in channels else "Y"
    if not set(colours) <= set(channels) or "RY" in channels:
        raise ValueError(f"{name}: its channels are {', '.join(channels)[:80]}; expected R, G and B, or Y.")
    if any(channel[1:] != (1, 1) for channel in channels.values()):
        raise ValueError(f"{name}: not all its channels have a number for every pixel; expected that they do.")
    kinds = {kind for kind, _, _ in channels.values()}
    if len(kinds) != 1 or not kinds <= {_HALF, _FLOAT}:
        raise ValueError(f"{name}: its channels differ in type or are whole numbers; expected all half or all float.")
    return len(channels) * (2 if kinds == {_HALF} else 4)


def _check_pieces(data: bytes, header: _Header, name: str) -> None:
    """Raises ValueError unless every piece that the table names is there and, where zlib packed it, whole."""
    down, across = -(-header.height // header.rows), -(-header.width // header.columns)
    head = 20 if header.tiled else 8  # its place and its size
    count = down * across
    if header.end + count * (8 + head) > len(data):
        raise ValueError(
            f"{name}: it is cut short: the {count} pieces of its picture need more than {len(data)} bytes."
        )
    for index, offset in enumerate(struct.unpack_from(f"<{count}Q", data, header.end), start=1):
        size = -1
        if header.end <= offset <= len(data) - head:
            *place, size = struct.unpack_from(f"<{head // 4}i", data, offset)
        if size < 0 or offset + head + size > len(data):
            raise ValueError(f"{name}: piece {index} of {count} of its picture is missing; it is cut short or damaged.")
        if header.compression not in _ZLIB:
            continue
        raw = _raw_size(header, place)
        if size < raw and not _is_whole(data[offset + head : offset + head + size], raw):
            raise ValueError(f"{name}: piece {index} of {count} of its picture is damaged.")


def _raw_size(header: _Header, place: list[int]) -> int:
    """Bytes of a piece before packing; pieces that packing does not make smaller are stored as they are."""
    left = place[0] * header.columns if header.tiled else 0
    above = place[1] * header.rows if header.tiled else place[0] - header.top
    columns = min(header.columns, header.width - left)
    rows = min(header.rows, header.height - above)
    return max(columns, 0) * max(rows, 0) * header.pixel_bytes


def _is_whole(packed: bytes, most: int) -> bool:
    stream = zlib.decompressobj()
    try:
        stream.decompress(packed, most + 1)  # never more than the piece can hold
    except zlib.error:
        return False
    return stream.eof
