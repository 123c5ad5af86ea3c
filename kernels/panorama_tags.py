"""Marks in a file by which viewers know that it shows everything around: pictures (JPEG, PNG) and videos (MP4).

Pictures carry an XMP packet with the properties of Google's Photo Sphere schema (GPano). Videos carry it twice, because
players read one or the other: as XML in a uuid box of the video track (Spherical Video RFC, version 1), and as the
boxes st3d and sv3d in its sample description (version 2).

All functions take whole files as bytes and return whole files; what was in them stays as it was.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SOFTWARE = "ComfyUI-PaperNodes"
SPHERICAL_UUID = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
"""The uuid box of Spherical Video, version 1."""

_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_CHUNK = b"XML:com.adobe.xmp"
_LONGEST_SEGMENT = 65533
_PNG = b"\x89PNG\r\n\x1a\n"
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_SAMPLE_ENTRY = 78  # bytes of a VisualSampleEntry before its boxes (ISO/IEC 14496-12, 12.1.3)


def gpano_xmp(width: int, height: int) -> bytes:
    """The XMP packet of an equirectangular picture of the whole sphere.

    Args:
        width, height: of the picture, pixels.

    Returns:
        The packet, UTF-8.

    Raises:
        ValueError: a size below 1, or one that is not twice as wide as high.
    """
    if height < 1 or width != 2 * height:
        raise ValueError(f"size: got {width}x{height} pixels; a panorama of the whole sphere is twice as wide as high.")
    properties = {
        "UsePanoramaViewer": "True",
        "ProjectionType": "equirectangular",
        "StitchingSoftware": SOFTWARE,
        "FullPanoWidthPixels": width,
        "FullPanoHeightPixels": height,
        "CroppedAreaImageWidthPixels": width,
        "CroppedAreaImageHeightPixels": height,
        "CroppedAreaLeftPixels": 0,
        "CroppedAreaTopPixels": 0,
    }
    written = "".join(f'\n   GPano:{name}="{value}"' for name, value in properties.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">\n'
        ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">\n'
        '  <rdf:Description rdf:about="" xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
        f"{written}/>\n"
        " </rdf:RDF>\n"
        "</x:xmpmeta>\n"
        '<?xpacket end="r"?>'
    ).encode()


def tag_jpeg(content: bytes, xmp: bytes) -> bytes:
    """A JPEG file with an XMP packet (APP1), behind its JFIF and Exif segments.

    Raises:
        ValueError: no JPEG file, or a packet that no segment can hold.
    """
    if content[:2] != b"\xff\xd8":
        raise ValueError("content: got no JPEG file.")
    length = 2 + len(_XMP_SEGMENT) + len(xmp)
    if length > _LONGEST_SEGMENT + 2:
        raise ValueError(f"xmp: got {len(xmp)} bytes; a JPEG segment holds {_LONGEST_SEGMENT - len(_XMP_SEGMENT)}.")
    at = 2
    while content[at : at + 2] in (b"\xff\xe0", b"\xff\xe1"):
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return content[:at] + b"\xff\xe1" + struct.pack(">H", length) + _XMP_SEGMENT + xmp + content[at:]


def tag_png(content: bytes, xmp: bytes) -> bytes:
    """A PNG file with an XMP packet (iTXt, not compressed), behind its header.

    Raises:
        ValueError: no PNG file.
    """
    if content[:8] != _PNG or content[12:16] != b"IHDR":
        raise ValueError("content: got no PNG file.")
    body = b"iTXt" + _XMP_CHUNK + b"\0" + b"\0\0" + b"\0" + b"\0" + xmp
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    at = 8 + 12 + int.from_bytes(content[8:12], "big")
    return content[:at] + chunk + content[at:]


def spherical_xml() -> bytes:
    """What Spherical Video, version 1, writes into the uuid box: an equirectangular video, the same for both eyes."""
    properties = {
        "Spherical": "true",
        "Stitched": "true",
        "StitchingSoftware": SOFTWARE,
        "ProjectionType": "equirectangular",
    }
    written = "".join(f"<GSpherical:{name}>{value}</GSpherical:{name}>" for name, value in properties.items())
    return (
        '<?xml version="1.0"?><rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        f'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/">{written}</rdf:SphericalVideo>'
    ).encode()


def tag_mp4(content: bytes) -> bytes:
    """An MP4 file whose video tracks are known to be equirectangular, by both versions of Spherical Video.

    Marks that are there already are replaced. Where the index (moov) lies before the pictures, the places that it
    names move along.

    Raises:
        ValueError: no MP4 file, one without a video track, one in fragments, or one that is too large for its index.
    """
    tops = list(boxes(content)) if content[4:8] == b"ftyp" else []
    kinds = [kind for kind, _, _ in tops]
    if kinds.count(b"moov") != 1:
        raise ValueError("content: got no MP4 file with one index (moov).")
    if b"moof" in kinds:
        raise ValueError("content: got an MP4 file in fragments; expected one with a whole index.")
    number = kinds.index(b"moov")
    _, start, end = tops[number]
    tagged, tracks = _tagged(content[start:end], 0)
    if not tracks:
        raise ValueError("content: got an MP4 file without a video track.")
    if b"mdat" in kinds[number:]:
        tagged, _ = _tagged(content[start:end], len(tagged) - (end - start))
    return content[:start] + tagged + content[end:]


def boxes(content: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """The boxes that lie one after the other in a piece of an MP4 file: (kind, first byte, byte after the last).

    Raises:
        ValueError: a box that ends outside the piece.
    """
    end = len(content) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", content, start + 8)
        elif size == 0:
            size = end - start
        if size < 8 or start + size > end:
            raise ValueError(f"content: the box {kind!r} at byte {start} ends outside what holds it.")
        yield kind, start, start + size
        start += size


def _tagged(moov: bytes, shift: int) -> tuple[bytes, int]:
    """The index with marks, every place that it names moved by so many bytes; and how many video tracks it has."""
    children, tracks = [], 0
    for kind, start, end in boxes(moov, 8):
        child = moov[start:end]
        if kind == b"trak":
            is_video = _handler(child) == b"vide"
            tracks += is_video
            child = _rebuilt(child, shift, is_video)
        children.append(child)
    return _box(b"moov", *children), tracks


def _rebuilt(box: bytes, shift: int, is_video: bool) -> bytes:
    """A box of a track, with everything in it."""
    kind = box[4:8]
    if kind in _CONTAINERS:
        children = [box[start:end] for _, start, end in boxes(box, 8)]
        rebuilt = [_rebuilt(child, shift, is_video) for child in children if child[8:24] != SPHERICAL_UUID]
        if kind == b"trak" and is_video:
            rebuilt.append(_box(b"uuid", SPHERICAL_UUID, spherical_xml()))
        return _box(kind, *rebuilt)
    if kind == b"stsd" and is_video:
        return _box(kind, box[8:16], *(_sample_entry(box[start:end]) for _, start, end in boxes(box, 16)))
    if kind in (b"stco", b"co64") and shift:
        letter = "I" if kind == b"stco" else "Q"
        (count,) = struct.unpack_from(">I", box, 12)
        places = struct.unpack_from(f">{count}{letter}", box, 16)
        try:
            return _box(kind, box[8:16], struct.pack(f">{count}{letter}", *(place + shift for place in places)))
        except struct.error:
            raise ValueError("content: got an MP4 file that is too large for its index.") from None
    return box


def _sample_entry(entry: bytes) -> bytes:
    """The description of a track's pictures, such as avc1, with the boxes of Spherical Video, version 2."""
    at = 8 + _SAMPLE_ENTRY
    kept = [entry[start:end] for kind, start, end in boxes(entry, at) if kind not in (b"st3d", b"sv3d")]
    full = bytes(4)  # version 0, no flags
    mono = _box(b"st3d", full, b"\0")
    header = _box(b"svhd", full, SOFTWARE.encode() + b"\0")
    pose = _box(b"prhd", full, struct.pack(">iii", 0, 0, 0))  # yaw, pitch, roll
    whole = _box(b"equi", full, struct.pack(">IIII", 0, 0, 0, 0))  # nothing cut off at the four sides
    return _box(entry[4:8], entry[8:at], *kept, mono, _box(b"sv3d", header, _box(b"proj", pose, whole)))


def _handler(trak: bytes) -> bytes:
    """What a track holds: b"vide" for pictures."""
    for kind, start, end in boxes(trak, 8):
        if kind == b"mdia":
            for inner, first, _ in boxes(trak, start + 8, end):
                if inner == b"hdlr":
                    return trak[first + 16 : first + 20]
    return b""


def _box(kind: bytes, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return struct.pack(">I4s", len(payload) + 8, kind) + payload
