"""Writes OpenEXR files after the format's description, so that what reads them is not tested against itself."""

import struct
import zlib

import numpy

ROWS = {0: 1, 2: 1, 3: 16}  # rows in a piece: not compressed, ZIPS, ZIP


def attribute(name, kind, value):
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def zipped(raw):
    """Every second byte first, differences to the byte before, then zlib; as it was where that is not shorter."""
    numbers = numpy.frombuffer(raw, numpy.uint8)
    numbers = numpy.concatenate([numbers[0::2], numbers[1::2]])
    steps = numpy.empty(len(numbers), numpy.uint8)
    steps[0], steps[1:] = numbers[0], (numbers[1:].astype(int) - numbers[:-1] + 128) % 256
    packed = zlib.compress(steps.tobytes())
    return packed if len(packed) < len(raw) else raw


def exr(channels, *, compression=3, window=None, shown=None, flags=0, sampling=1, tile=None, more=b""):
    """The bytes of a file.

    Args:
        channels: arrays [H, W] of one type (float16, float32 or uint32) by name.
        compression: 0 (none), 2 (ZIPS) or 3 (ZIP).
        window: left and top of the data window.
        shown: the display window as (left, top, right, bottom); None = the data window.
        tile: (columns, rows) of tiles.
        more: further attributes.
    """
    height, width = next(iter(channels.values())).shape
    left, top = window or (0, 0)
    data_window = struct.pack("<4i", left, top, left + width - 1, top + height - 1)
    listed = b""
    for name in sorted(channels):
        kind = {"uint32": 0, "float16": 1, "float32": 2}[channels[name].dtype.name]
        listed += name.encode() + b"\0" + struct.pack("<i4B2i", kind, 0, 0, 0, 0, sampling, sampling)
    header = b"\x76\x2f\x31\x01" + struct.pack("<I", 2 | flags | (0x200 if tile else 0))
    header += attribute("channels", "chlist", listed + b"\0")
    header += attribute("compression", "compression", bytes([compression]))
    header += attribute("dataWindow", "box2i", data_window)
    header += attribute("displayWindow", "box2i", struct.pack("<4i", *shown) if shown else data_window)
    header += attribute("lineOrder", "lineOrder", b"\0")
    header += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1))
    if tile:
        header += attribute("tiles", "tiledesc", struct.pack("<2IB", *tile, 0))
    header += more + b"\0"
    columns, rows = tile or (width, ROWS[compression])
    pieces = []
    for y in range(0, height, rows):
        for x in range(0, width, columns):
            raw = b"".join(
                channels[name][row, x : x + columns].tobytes()
                for row in range(y, min(y + rows, height))
                for name in sorted(channels)
            )
            packed = zipped(raw) if compression else raw
            place = struct.pack("<4i", x // columns, y // rows, 0, 0) if tile else struct.pack("<i", y + top)
            pieces.append(place + struct.pack("<i", len(packed)) + packed)
    offsets, offset = b"", len(header) + 8 * len(pieces)
    for piece in pieces:
        offsets += struct.pack("<Q", offset)
        offset += len(piece)
    return header + offsets + b"".join(pieces)
