"""Files of panoramas, read back by others: Pillow's XMP, OpenCV's decoder, PyAV's, and the boxes byte by byte."""

import io
import re
import struct
import xml.etree.ElementTree as ElementTree

import numpy
import pytest
from papernodes.kernels.panorama_tags import (
    SPHERICAL_UUID,
    boxes,
    gpano_xmp,
    spherical_xml,
    tag_jpeg,
    tag_mp4,
    tag_png,
)
from PIL import Image

av = pytest.importorskip("av")
GPANO = "{http://ns.google.com/photos/1.0/panorama/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
WANTED = {
    "UsePanoramaViewer": "True",
    "ProjectionType": "equirectangular",
    "FullPanoWidthPixels": "64",
    "FullPanoHeightPixels": "32",
    "CroppedAreaImageWidthPixels": "64",
    "CroppedAreaImageHeightPixels": "32",
    "CroppedAreaLeftPixels": "0",
    "CroppedAreaTopPixels": "0",
}
INSIDE = {b"moov": 8, b"trak": 8, b"mdia": 8, b"minf": 8, b"stbl": 8, b"stsd": 16, b"avc1": 86, b"sv3d": 8, b"proj": 8}


def picture(kind: str, **options) -> bytes:
    levels = numpy.random.default_rng(0).integers(0, 256, (32, 64, 3), numpy.uint8)
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, kind, **options)
    return stream.getvalue()


def described(content: bytes) -> dict:
    """The properties of a picture's XMP packet, as XML readers see them."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        packet = image.info.get("xmp") or image.info["XML:com.adobe.xmp"]
    if isinstance(packet, str):
        packet = packet.encode()
    root = ElementTree.fromstring(re.sub(rb"<\?xpacket.*?\?>", b"", packet).decode().strip())
    (found,) = root.iter(f"{RDF}Description")
    return {name.removeprefix(GPANO): value for name, value in found.attrib.items() if name.startswith(GPANO)}


@pytest.mark.parametrize(("kind", "tag"), [("JPEG", tag_jpeg), ("PNG", tag_png)])
def test_a_picture_is_a_panorama_to_others(kind, tag):
    exif = Image.Exif()
    exif[0x010F] = "workflow:{}"
    plain = picture(kind, exif=exif, **({"dpi": (72, 72)} if kind == "JPEG" else {}))
    tagged = tag(plain, gpano_xmp(64, 32))
    found = described(tagged)
    assert WANTED.items() <= found.items()
    with Image.open(io.BytesIO(plain)) as before, Image.open(io.BytesIO(tagged)) as after:
        assert numpy.array_equal(numpy.array(before), numpy.array(after))
        assert after.getexif()[0x010F] == "workflow:{}"
        try:
            import defusedxml  # noqa: F401
        except ImportError:
            return
        seen = after.getxmp()["xmpmeta"]["RDF"]["Description"]
        assert WANTED.items() <= seen.items()


def video(path, *options: str, audio: bool = False) -> bytes:
    """A clip of 5 frames in which every frame has its own brightness."""
    flags = {"movflags": "+".join(("use_metadata_tags", *options))}
    with av.open(str(path / "clip.mp4"), "w", options=flags) as container:
        container.metadata["prompt"] = '{"1": {}}'
        track = container.add_stream("h264", rate=8)
        track.width, track.height, track.pix_fmt = 64, 32, "yuv420p"
        sound = container.add_stream("aac", rate=8000) if audio else None
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(numpy.full((32, 64, 3), 40 * number, numpy.uint8), format="rgb24")
            container.mux(track.encode(frame.reformat(format="yuv420p")))
        container.mux(track.encode(None))
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(numpy.zeros((1, 4000), numpy.float32), format="flt", layout="mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return (path / "clip.mp4").read_bytes()


def tree(content: bytes, start=0, end=None) -> list:
    """[(kind, payload or children)] of an MP4 file."""
    found = []
    for kind, first, last in boxes(content, start, end):
        inside = INSIDE.get(kind)
        found.append((kind, content[first + 8 : last] if inside is None else tree(content, first + inside, last)))
    return found


def at(parts: list, *path: bytes):
    """What the first box on a path holds."""
    for kind in path:
        parts = next(held for name, held in parts if name == kind)
    return parts


def frames(content: bytes) -> tuple[numpy.ndarray, set[str]]:
    """The pictures of a video, and what FFmpeg knows of them besides."""
    with av.open(io.BytesIO(content)) as container:
        assert container.metadata["prompt"] == '{"1": {}}'
        found = list(container.decode(video=0))
        known = {held.type.name for frame in found for held in frame.side_data}
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in found]), known


@pytest.mark.parametrize("options", [(), ("faststart",)], ids=["index last", "index first"])
def test_a_video_is_a_panorama_to_others(tmp_path, options):
    plain = video(tmp_path, *options, audio=bool(options))
    tagged = tag_mp4(plain)
    order = [kind for kind, _, _ in boxes(tagged)]
    assert order == [kind for kind, _, _ in boxes(plain)]
    assert (order.index(b"moov") < order.index(b"mdat")) == bool(options)
    (before, nothing), (after, known) = frames(plain), frames(tagged)
    assert numpy.array_equal(before, after)
    assert {"SPHERICAL", "STEREO3D"} <= known and "SPHERICAL" not in nothing

    tracks = [held for kind, held in at(tree(tagged), b"moov") if kind == b"trak"]
    assert [any(kind == b"uuid" for kind, _ in track) for track in tracks] == [True, False][: len(tracks)]
    written = at(tracks[0], b"uuid")
    assert written[:16] == SPHERICAL_UUID == bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
    space = "{http://ns.google.com/videos/1.0/spherical/}"
    found = {each.tag.removeprefix(space): each.text for each in ElementTree.fromstring(written[16:])}
    assert found | {"StitchingSoftware": ""} == {
        "Spherical": "true",
        "Stitched": "true",
        "StitchingSoftware": "",
        "ProjectionType": "equirectangular",
    }
    entry = at(tracks[0], b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    assert [kind for kind, _ in entry][-2:] == [b"st3d", b"sv3d"] and entry[0][0] == b"avcC"
    assert at(entry, b"st3d") == bytes(5), "one picture for both eyes"
    assert at(entry, b"sv3d", b"proj") == [(b"prhd", bytes(16)), (b"equi", bytes(20))]
    assert at(entry, b"sv3d", b"svhd")[4:].endswith(b"\0")
    assert tag_mp4(tagged) == tagged, "marks are not written twice"


def test_what_cannot_be_marked(tmp_path):
    with pytest.raises(ValueError, match=r"size: got 66x32 pixels; .* twice as wide as high"):
        gpano_xmp(66, 32)
    with pytest.raises(ValueError, match="no JPEG file"):
        tag_jpeg(picture("PNG"), b"")
    with pytest.raises(ValueError, match="no PNG file"):
        tag_png(picture("JPEG"), b"")
    with pytest.raises(ValueError, match="a JPEG segment holds 65504"):
        tag_jpeg(picture("JPEG"), bytes(65505))
    assert tag_jpeg(picture("JPEG"), bytes(65504))
    with pytest.raises(ValueError, match="no MP4 file with one index"):
        tag_mp4(picture("PNG"))
    whole = video(tmp_path)
    with pytest.raises(ValueError, match="ends outside"):
        tag_mp4(whole[:-9])
    with pytest.raises(ValueError, match="in fragments"):
        tag_mp4(whole + struct.pack(">I4s", 8, b"moof"))
    with pytest.raises(ValueError, match="without a video track"):
        tag_mp4(whole.replace(b"vide" + bytes(12), b"text" + bytes(12)))
    assert b"equirectangular" in spherical_xml()
