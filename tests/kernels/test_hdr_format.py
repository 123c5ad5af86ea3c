"""Pictures of light: read back within their format's precision, and no damaged or hostile file gets past its header."""

import struct
import sys

import numpy
import pytest
import torch
from exr_files import attribute, exr
from papernodes.kernels.hdr_format import BRIGHTEST, MOST_PIXELS, read_hdr

cv2 = pytest.importorskip("cv2")
pytest.importorskip("av")


def light(height=20, width=33, brightest=1e5):
    """Numbers over many powers of ten, saturated colours among them."""
    generator = numpy.random.default_rng(0)
    values = 10 ** generator.uniform(-4, 1, (height, width, 3)).astype(numpy.float32)
    values[0, 0] = brightest
    values[-1, -1] = (3.0, 0.0, 0.5)
    return values


def hdr(values, path):
    """The bytes of a .hdr file that OpenCV wrote at a path."""
    assert cv2.imwrite(str(path), values[..., ::-1])
    return path.read_bytes()


def planes(values, dtype=numpy.float32):
    return {name: values[..., index].astype(dtype) for index, name in enumerate("RGB")}


@pytest.mark.parametrize("size", [(20, 33), (1, 1), (3, 7), (1, 300), (64, 8)])
def test_radiance_files_come_back_within_their_precision(size, tmp_path):
    values = light(*size)
    path = tmp_path / "sky.hdr"
    data = hdr(values, path)
    found = read_hdr(path)
    assert found.shape == (*size, 3) and found.dtype == torch.float32 and found.is_contiguous()
    allowed = torch.from_numpy(values).amax(-1, keepdim=True) / 128
    error = torch.from_numpy(values) - found
    assert (error.abs() <= allowed).all()
    assert found[-1, -1, 0] > 2.9 and found[-1, -1, 1] == 0, "red is the first channel"
    for source in (str(path), data, memoryview(data)):
        assert torch.equal(read_hdr(source), found)


def test_radiance_files_of_other_programs():
    """Not run-length encoded, with a comment, and by the other name in the first line."""
    pixels = bytes([128, 64, 0, 129, 0, 0, 0, 0])
    for start in (b"#?RADIANCE", b"#?RGBE"):
        data = start + b"\n# made by hand\nFORMAT=32-bit_rle_rgbe\nEXPOSURE=2\n\n-Y 1 +X 2\n" + pixels
        assert read_hdr(data).tolist() == [[[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]]


@pytest.mark.parametrize("compression", [0, 2, 3])
@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32])
@pytest.mark.parametrize("size", [(20, 33), (1, 1), (17, 5), (64, 128)])
def test_exr_files_come_back_bit_for_bit(size, dtype, compression, tmp_path):
    values = light(*size, brightest=6e4).astype(dtype)
    path = tmp_path / "sky.exr"
    path.write_bytes(exr(planes(values, dtype), compression=compression))
    found = read_hdr(path)
    assert found.dtype == torch.float32 and found.is_contiguous()
    assert numpy.array_equal(found.numpy(), values.astype(numpy.float32))
    assert torch.equal(read_hdr(path.read_bytes()), found)


def test_smooth_exr_files_are_really_packed():
    values = numpy.broadcast_to(numpy.linspace(0, 3, 64, dtype=numpy.float32)[:, None, None], (64, 128, 3))
    data = exr(planes(values))
    assert len(data) < values.nbytes / 4
    assert numpy.array_equal(read_hdr(data).numpy(), values)


@pytest.mark.parametrize("dtype", [numpy.float16, numpy.float32])
def test_exr_channels(dtype):
    values = light(brightest=6e4).astype(dtype)
    colours = planes(values, dtype)
    expected = torch.from_numpy(values.astype(numpy.float32))
    assert torch.equal(read_hdr(exr({**colours, "A": colours["R"] * 0})), expected), "alpha is left out"
    assert torch.equal(read_hdr(exr({**colours, "Z": colours["G"]})), expected), "depth is left out"
    grey = read_hdr(exr({"Y": colours["G"]}))
    assert torch.equal(grey, expected[..., 1:2].expand(-1, -1, 3))


def test_exr_tiles():
    values = light(50, 71)
    for compression in (0, 3):
        found = read_hdr(exr(planes(values), compression=compression, tile=(16, 32)))
        assert numpy.array_equal(found.numpy(), values)


def test_exr_windows():
    """The display window is the picture; what the file holds of it lies where it belongs."""
    values = light(20, 33)
    found = read_hdr(exr(planes(values), window=(5, 7), shown=(0, 0, 49, 39)))
    assert found.shape == (40, 50, 3)
    assert numpy.array_equal(found[7:27, 5:38].numpy(), values)
    assert found[:7].abs().sum() == 0 and found[27:].abs().sum() == 0 and found[:, 38:].abs().sum() == 0
    found = read_hdr(exr(planes(values), window=(-3, -2), shown=(0, 0, 9, 8)))
    assert numpy.array_equal(found.numpy(), values[2:11, 3:13])


def test_numbers_that_are_no_light():
    values = light()
    values[2, 3] = (-1, 2, numpy.nan)
    values[4, 5] = (numpy.inf, -numpy.inf, 1e30)
    found = read_hdr(exr(planes(values)))
    assert found[2, 3].tolist() == [0, 2, 0]
    assert found[4, 5].tolist() == [BRIGHTEST, 0, pytest.approx(1e30)]
    rest = numpy.ones(values.shape[:2], bool)
    rest[2, 3] = rest[4, 5] = False
    assert numpy.array_equal(found.numpy()[rest], values[rest])


def test_the_format_is_known_by_its_first_bytes(tmp_path):
    values = light()
    path = tmp_path / "sky.exr"
    path.write_bytes(hdr(values, tmp_path / "sky.hdr"))
    assert torch.equal(read_hdr(path), read_hdr(tmp_path / "sky.hdr"))


SKY = planes(light(brightest=6e4))
GOOD_EXR = exr(SKY)
PLAIN_EXR = exr(SKY, compression=0)


def radiance(size=b"-Y 20 +X 40", kind=b"32-bit_rle_rgbe", body=bytes(3200)):
    return b"#?RADIANCE\nFORMAT=" + kind + b"\n\n" + size + b"\n" + body


def with_bytes(data, place, value):
    return data[:place] + value + data[place + len(value) :]


def encoded(suffix, values):
    return cv2.imencode(suffix, values)[1].tobytes()


PIECES = GOOD_EXR.index(b"screenWindowWidth\0float\0") + 24 + 8 + 1  # where the table of pieces starts
HOSTILE = {
    "empty": (b"", "it is empty; expected a Radiance .hdr or an OpenEXR .exr file."),
    "text": (b"hello", "not a Radiance .hdr or OpenEXR .exr file."),
    "zip": (b"PK\3\4" + bytes(99), "not a Radiance .hdr or OpenEXR .exr file; it looks like a zip archive"),
    "png": (
        encoded(".png", numpy.zeros((4, 4, 3), numpy.uint8)),
        "not a Radiance .hdr or OpenEXR .exr file; it looks like a PNG picture. Its colours are made for a screen; Load"
        " Image reads it.",
    ),
    "jpeg": (encoded(".jpg", numpy.zeros((8, 8, 3), numpy.uint8)), "it looks like a JPEG picture. Its colours are"),
    "hdr head only": (b"#?RADIANCE", "the FORMAT in its .hdr header is missing; expected 32-bit_rle_rgbe."),
    "hdr xyz": (radiance(kind=b"32-bit_rle_xyze"), "header is 32-bit_rle_xyze; expected 32-bit_rle_rgbe."),
    "hdr without size": (radiance(size=b""), 'the size in its .hdr header is ""; expected "-Y height +X width".'),
    "hdr turned": (radiance(size=b"+X 40 -Y 20"), 'is "+X 40 -Y 20"; expected "-Y height'),
    "hdr zero": (radiance(size=b"-Y 0 +X 40"), 'is "-Y 0 +X 40"; expected'),
    "hdr negative": (radiance(size=b"-Y -4 +X 40"), 'is "-Y -4 +X 40"; expected'),
    "hdr absurd": (radiance(size=b"-Y 99999 +X 99999"), f"it has 99999x99999 pixels; at most {MOST_PIXELS} are read."),
    "hdr short": (radiance(size=b"-Y 8000 +X 8000"), "it is cut short: 8000x8000 pixels need at least 4064000 bytes."),
    "hdr narrow and short": (radiance(size=b"-Y 800 +X 7"), "it is cut short: 7x800 pixels need at least 22400 bytes."),
    "hdr damaged": (
        radiance(body=bytes([2, 2, 0, 40, 255]) * 640),
        "OpenCV cannot read this .hdr file: it is cut short or damaged.",
    ),
    "exr magic only": (b"\x76\x2f\x31\x01", "its .exr header is damaged or cut short."),
    "exr head cut": (GOOD_EXR[:200], "its .exr header is damaged or cut short."),
    "exr without size": (GOOD_EXR.replace(b"dataWindow", b"dataWidnow"), "its .exr header is damaged or cut short."),
    "exr attribute too long": (
        GOOD_EXR.replace(attribute("lineOrder", "lineOrder", b"\0"), b"x\0y\0" + struct.pack("<i", 2**31 - 1)),
        "its .exr header is damaged or cut short.",
    ),
    "exr attribute negative": (
        GOOD_EXR.replace(attribute("lineOrder", "lineOrder", b"\0"), b"x\0y\0" + struct.pack("<i", -5)),
        "its .exr header is damaged or cut short.",
    ),
    "exr channels cut": (
        GOOD_EXR.replace(b"R\0\2\0\0\0", b"RRRRRR"),
        "its .exr header is damaged or cut short.",
    ),
    "exr parts": (exr(SKY, flags=0x1000), "it has several parts or deep pixels; expected one flat picture."),
    "exr deep": (exr(SKY, flags=0x800), "it has several parts or deep pixels; expected one flat picture."),
    "exr depth only": (exr({"Z": SKY["R"]}), "its channels are Z; expected R, G and B, or Y."),
    "exr without blue": (exr({"R": SKY["R"], "G": SKY["G"]}), "its channels are G, R; expected R, G and B, or Y."),
    "exr luma and chroma": (
        exr({"Y": SKY["R"], "RY": SKY["G"], "BY": SKY["B"]}),
        "its channels are BY, RY, Y; expected",
    ),
    "exr sampled": (exr(SKY, sampling=2), "not all its channels have a number for every pixel"),
    "exr mixed": (
        exr({**SKY, "A": SKY["R"].astype(numpy.float16)}),
        "its channels differ in type or are whole numbers",
    ),
    "exr integers": (exr({k: v.astype(numpy.uint32) for k, v in SKY.items()}), "channels differ in type or are whole"),
    "exr unknown compression": (
        GOOD_EXR.replace(
            attribute("compression", "compression", b"\3"), attribute("compression", "compression", b"\x0b")
        ),
        "its compression (number 11) is not read; expected one of NONE, RLE, ZIPS, ZIP, PIZ, PXR24, B44, B44A, DWAA,",
    ),
    "exr empty window": (exr(SKY, shown=(0, 0, -1, 5)), "its header says 33x20 pixels; expected at least 1 of each."),
    "exr absurd": (exr(SKY, shown=(0, 0, 99998, 99998)), f"it has 99999x99999 pixels; at most {MOST_PIXELS} are read."),
    "exr no pieces": (GOOD_EXR[: PIECES + 4], "it is cut short: the 2 pieces of its picture need more than"),
    "exr cut": (GOOD_EXR[:-1], "piece 2 of 2 of its picture is missing; it is cut short or damaged."),
    "exr plain cut": (PLAIN_EXR[:-1], "piece 20 of 20 of its picture is missing; it is cut short or damaged."),
    "exr wild piece": (with_bytes(GOOD_EXR, PIECES, b"\xff" * 8), "piece 1 of 2 of its picture is missing"),
    "exr piece in the header": (with_bytes(GOOD_EXR, PIECES, bytes(8)), "piece 1 of 2 of its picture is missing"),
    "exr levels": (
        exr(SKY, tile=(16, 16)).replace(struct.pack("<2IB", 16, 16, 0), struct.pack("<2IB", 16, 16, 1)),
        "it has tiles in several sizes of the picture; expected one.",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files(case):
    data, message = HOSTILE[case]
    with pytest.raises(ValueError) as caught:
        read_hdr(data, name="sky")
    text = str(caught.value)
    assert text.startswith("sky: ") and message in text and "\n" not in text
    if message.endswith("."):
        assert text.endswith(message)


def test_a_damaged_piece_is_noticed():
    values = numpy.broadcast_to(numpy.linspace(0, 3, 64, dtype=numpy.float32)[:, None, None], (64, 128, 3))
    data = exr(planes(values))
    for place in (len(data) - 2, len(data) - 40):
        broken = with_bytes(data, place, bytes([data[place] ^ 255]))
        with pytest.raises(ValueError, match=r"^sky: piece 4 of 4 of its picture is damaged\.$"):
            read_hdr(broken, name="sky")


@pytest.mark.parametrize("kind", ["hdr", "exr"])
def test_no_cut_file_is_read_or_crashes(kind, tmp_path):
    values = light(9, 12)
    data = hdr(values, tmp_path / "sky.hdr") if kind == "hdr" else exr(planes(values))
    assert read_hdr(data).shape == (9, 12, 3)
    for length in range(0, len(data), 7):
        with pytest.raises(ValueError):
            read_hdr(data[:length])


@pytest.mark.parametrize("kind", ["hdr", "exr", "plain exr", "tiled exr"])
def test_flipped_bytes_are_read_or_refused(kind, tmp_path):
    generator = numpy.random.default_rng(5)
    values = light(9, 12)
    options = {"exr": {}, "plain exr": {"compression": 0}, "tiled exr": {"tile": (5, 4)}}
    data = hdr(values, tmp_path / "sky.hdr") if kind == "hdr" else exr(planes(values), **options[kind])
    for place in [*range(min(400, len(data) - 3)), *generator.integers(0, len(data) - 3, 100)]:
        broken = with_bytes(data, int(place), generator.integers(0, 256, 3, dtype=numpy.uint8).tobytes())
        try:
            found = read_hdr(broken, most_pixels=10_000)
        except ValueError:
            continue
        assert found.isfinite().all() and (found >= 0).all() and found.shape[-1] == 3


def test_limits(tmp_path):
    path = tmp_path / "sky.exr"
    path.write_bytes(GOOD_EXR)
    with pytest.raises(ValueError, match=rf"sky\.exr: it has {len(GOOD_EXR)} bytes; files of at most 100 bytes are"):
        read_hdr(path, largest=100)
    for data in (GOOD_EXR, hdr(light(), tmp_path / "sky.hdr")):
        assert read_hdr(data, most_pixels=20 * 33).shape == (20, 33, 3)
        with pytest.raises(ValueError, match="it has 33x20 pixels; at most 659 are read"):
            read_hdr(data, most_pixels=20 * 33 - 1)
    with pytest.raises(OSError):
        read_hdr(tmp_path / "missing.hdr")


def test_missing_libraries_are_one_sentence(monkeypatch, tmp_path):
    data = hdr(light(), tmp_path / "sky.hdr")
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"needs OpenCV, which is not installed. Run: pip install opencv-python-head"):
        read_hdr(data)
    with pytest.raises(ImportError, match=r"needs PyAV, which is not installed. Run: pip install av"):
        read_hdr(GOOD_EXR)
