"""Flow files: what is written is read back bit for bit, and no damaged or hostile file gets past its header."""

import io
import json
import pickle
import struct
import zipfile

import numpy
import pytest
import torch
from papernodes.kernels.flow import Flow
from papernodes.kernels.flow_format import SUFFIXES, read_flow, write_flow

FLO = struct.pack("<f", 202021.25)


def flow(pairs=3, size=(5, 7), direction="forward", occlusion=False):
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(pairs, *size, generator=generator).round() if occlusion else None
    return Flow(torch.randn(pairs, 2, *size, generator=generator) * 9, direction, mask)


def npy(array):
    stream = io.BytesIO()
    numpy.save(stream, array)
    return stream.getvalue()


def safetensors(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_written_and_read_back_bit_for_bit(suffix, tmp_path):
    original = flow(pairs=1 if suffix == ".flo" else 3)
    data = write_flow(original, suffix)
    again = read_flow(data, suffix)
    assert torch.equal(again.vectors, original.vectors) and again.direction == "forward" and again.occlusion is None
    path = tmp_path / f"clip{suffix.upper()}"
    path.write_bytes(data)
    assert torch.equal(read_flow(path).vectors, original.vectors)
    assert torch.equal(read_flow(str(path)).vectors, original.vectors)
    assert read_flow(path, direction="backward").direction == ("forward" if suffix == ".safetensors" else "backward")


def test_safetensors_keep_direction_and_occlusion():
    original = flow(direction="backward", occlusion=True)
    again = read_flow(write_flow(original, ".safetensors"), ".safetensors")
    assert again.direction == "backward"
    assert torch.equal(again.vectors, original.vectors) and torch.equal(again.occlusion, original.occlusion)


def test_other_programs_read_ours(tmp_path):
    original = flow(occlusion=True)
    assert numpy.array_equal(
        numpy.load(io.BytesIO(write_flow(original, ".npy")), allow_pickle=False), original.vectors.numpy()
    )
    path = tmp_path / "flow.safetensors"
    path.write_bytes(write_flow(original, ".safetensors"))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        assert sorted(file.keys()) == ["flow", "occlusion"]
        assert file.metadata()["direction"] == "forward"
        assert torch.equal(file.get_tensor("flow"), original.vectors)
    path = tmp_path / "flow.flo"
    path.write_bytes(write_flow(original, ".flo", pair=1))
    cv2 = pytest.importorskip("cv2")
    assert numpy.array_equal(cv2.readOpticalFlow(str(path)), original.vectors[1].permute(1, 2, 0).numpy())


def test_ours_reads_other_programs(tmp_path):
    original = flow()
    import safetensors.torch

    data = safetensors.torch.save({"flow": original.vectors.half(), "more": torch.zeros(2)}, {"direction": "backward"})
    again = read_flow(data, ".safetensors")
    assert torch.equal(again.vectors, original.vectors.half().float()) and again.direction == "backward"
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "flow.flo"
    cv2.writeOpticalFlow(str(path), original.vectors[0].permute(1, 2, 0).contiguous().numpy())
    assert torch.equal(read_flow(path).vectors, original.vectors[:1])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("layout", ["T2HW", "THW2", "2HW", "HW2"])
def test_npy_layouts_and_types(dtype, order, layout):
    vectors = flow().vectors.half().float()
    array = vectors if layout.startswith("T") else vectors[0]
    array = array.movedim(-3, -1) if layout.endswith("2") else array
    again = read_flow(npy(numpy.array(array.numpy(), dtype=dtype, order=order)), ".npy")
    assert torch.equal(again.vectors, vectors if layout.startswith("T") else vectors[:1])
    assert again.vectors.is_contiguous() and again.vectors.dtype == torch.float32


def test_unknown_vectors_of_flo_are_masked():
    vectors = torch.zeros(1, 2, 3, 4)
    vectors[0, :, 1, 2] = 1.666666752e9
    again = read_flow(write_flow(Flow(vectors), ".flo"), ".flo")
    assert bool((again.vectors == 0).all())
    assert again.occlusion.nonzero().tolist() == [[0, 1, 2]]


def test_one_pair_of_several():
    original = flow(occlusion=True)
    assert torch.equal(read_flow(write_flow(original, ".flo", pair=2), ".flo").vectors, original.vectors[2:])
    part = read_flow(write_flow(original, ".safetensors", pair=0), ".safetensors")
    assert torch.equal(part.occlusion, original.occlusion[:1])
    with pytest.raises(ValueError, match=r"A \.flo file holds one pair of frames, but the flow has 3"):
        write_flow(original, ".flo")
    with pytest.raises(ValueError, match="pair: got 3; the flow has the pairs 0 to 2"):
        write_flow(original, ".npy", pair=3)
    with pytest.raises(ValueError, match=r"The type '.exr' is not known"):
        write_flow(original, ".exr")


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("flow.npy", npy(numpy.zeros((2, 4, 4), "f4")))
    return stream.getvalue()


def npy_header(text, version=(1, 0), body=b""):
    text = text.encode("latin1") if isinstance(text, str) else text
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + body


def good_npy_header(shape, dtype="<f4"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n"


HOSTILE = {
    "flo empty": (".flo", b"", "only 0 bytes"),
    "flo head only": (".flo", FLO, "only 4 bytes"),
    "flo magic": (".flo", b"PIEX" + bytes(20), "not a .flo file; expected the number 202021.25"),
    "flo is a zip": (".flo", zipped(), r"it looks like a zip archive"),
    "flo is a pickle": (".flo", pickle.dumps(list(range(99))), r"it looks like a Python pickle"),
    "flo is a npy": (".flo", npy(numpy.zeros(9)), r"it looks like a NumPy .npy file"),
    "flo negative": (".flo", FLO + struct.pack("<ii", -4, 4) + bytes(128), "width -4 and height 4"),
    "flo zero": (".flo", FLO + struct.pack("<ii", 0, 4), "width 0 and height 4"),
    "flo huge": (
        ".flo",
        FLO + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + bytes(64),
        "need more than 2.64 bytes, but 64 are there",
    ),
    "flo short": (".flo", write_flow(flow(1), ".flo")[:-1], "7x5 vectors need 280 bytes, but 279 are there: it is cut"),
    "flo long": (".flo", write_flow(flow(1), ".flo") + b"x", "more follows than its header says"),
    "flo nan": (".flo", FLO + struct.pack("<ii2f", 1, 1, float("nan"), 0), "NaN or infinite"),
    "npy empty": (".npy", b"", "not a .npy file"),
    "npy magic only": (".npy", b"\x93NUMPY", "header cannot be read"),
    "npy zip": (".npy", zipped(), "not a .npy file; it looks like a zip archive"),
    "npy pickle": (".npy", pickle.dumps([1]), "not a .npy file; it looks like a Python pickle"),
    "npy objects": (".npy", npy(numpy.array([{}, []], dtype=object)), "of type object; expected float16"),
    "npy hidden objects": (".npy", npy_header(good_npy_header((1, 2, 1, 1), "|O"), body=bytes(8)), "of type object"),
    "npy structured": (
        ".npy",
        npy(numpy.zeros((2, 3, 3), dtype=[("a", "f4")])),
        "expected float16, float32 or float64",
    ),
    "npy integers": (".npy", npy(numpy.zeros((2, 3, 3), "i4")), "of type int32"),
    "npy complex": (".npy", npy(numpy.zeros((2, 3, 3), "c8")), "of type complex64"),
    "npy huge": (".npy", npy_header(good_npy_header((2, 10**9, 10**9)), body=bytes(32)), "but 32 are there"),
    "npy huge edge": (".npy", npy_header(good_npy_header((2, 10**400, 3))), "cannot be read|but 0 are there"),
    "npy many huge edges": (".npy", npy_header(good_npy_header((2, *[10**900] * 9))), "cannot be read|more than 2"),
    "npy negative": (".npy", npy_header(good_npy_header((2, -3, 4)), body=bytes(96)), "every edge must be at least 1"),
    "npy zero": (".npy", npy(numpy.zeros((0, 2, 4, 4), "f4")), "every edge must be at least 1"),
    "npy bool edge": (".npy", npy_header(good_npy_header((2, True, 4)), body=bytes(32)), "at least 1|cannot be read"),
    "npy code": (".npy", npy_header("__import__('os').system('false')\n"), "header cannot be read"),
    "npy deep": (".npy", npy_header("(" * 9000 + "\n"), "header cannot be read"),
    "npy long header": (".npy", npy_header(" " * 60000 + good_npy_header((2, 1, 1)), body=bytes(8)), "cannot be read"),
    "npy version": (".npy", npy_header(good_npy_header((2, 1, 1)), (9, 9), bytes(8)), "header cannot be read"),
    "npy header length": (".npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{", "cannot be read"),
    "npy short": (".npy", npy(numpy.zeros((2, 4, 4), "f4"))[:-3], "it is cut short"),
    "npy long": (".npy", npy(numpy.zeros((2, 4, 4), "f4")) + bytes(3), "more follows"),
    "npy flat": (".npy", npy(numpy.zeros((4, 4), "f4")), r"its shape is \[4, 4\]; expected \[frames - 1, 2, H, W\]"),
    "npy scalar": (".npy", npy(numpy.float32(3)), r"its shape is \[\]; expected"),
    "npy rgb": (".npy", npy(numpy.zeros((4, 4, 3), "f4")), r"its shape is \[4, 4, 3\]; expected"),
    "npy 5d": (".npy", npy(numpy.zeros((1, 1, 2, 4, 4), "f4")), r"its shape is \[1, 1, 2, 4, 4\]; expected"),
    "npy ambiguous": (".npy", npy(numpy.zeros((3, 2, 5, 2), "f4")), "ambiguous: dx and dy could be axis 1 or axis 3"),
    "npy ambiguous 3d": (".npy", npy(numpy.zeros((2, 5, 2), "f4")), "ambiguous: dx and dy could be axis 0 or axis 2"),
    "npy nan": (".npy", npy(numpy.full((2, 3, 3), numpy.nan, "f4")), "NaN or infinite"),
    "npy too large for float32": (".npy", npy(numpy.full((2, 3, 3), 1e300, "f8")), "NaN or infinite"),
    "st empty": (".safetensors", b"", "only 0 bytes"),
    "st length": (".safetensors", struct.pack("<Q", 2**63) + b"{}", "not a .safetensors file"),
    "st long header": (".safetensors", safetensors(b"{" + b" " * (1 << 21) + b"}"), "not a .safetensors file"),
    "st zip": (".safetensors", zipped(), "it looks like a zip archive"),
    "st not json": (".safetensors", safetensors(b"{flow}"), "header cannot be read"),
    "st deep json": (".safetensors", safetensors(b'{"a":' * 200000), "not a .safetensors|header cannot be read"),
    "st list": (".safetensors", safetensors(b"{}"), 'holds no tensor named "flow" \\(found: none\\)'),
    "st bad text": (".safetensors", safetensors(b"{\xff\xfe}"), "header cannot be read"),
    "st other": (".safetensors", safetensors({"unet.weight": {}}), 'no tensor named "flow" \\(found: unet.weight\\)'),
    "st entry": (".safetensors", safetensors({"flow": 3}), "is of type None; expected F32"),
    "st dtype": (
        ".safetensors",
        safetensors({"flow": {"dtype": "I64", "shape": [2, 1, 1], "data_offsets": [0, 16]}}, bytes(16)),
        "is of type I64",
    ),
    "st shape": (
        ".safetensors",
        safetensors({"flow": {"dtype": "F32", "shape": [2, -1, 1], "data_offsets": [0, 8]}}, bytes(8)),
        "every edge must be at least 1",
    ),
    "st float edge": (
        ".safetensors",
        safetensors({"flow": {"dtype": "F32", "shape": [2.0, 1, 1], "data_offsets": [0, 8]}}, bytes(8)),
        "every edge must be at least 1",
    ),
    "st huge": (
        ".safetensors",
        safetensors({"flow": {"dtype": "F32", "shape": [1, 2, 2**40, 2**40], "data_offsets": [0, 8]}}, bytes(8)),
        "but 8 are there",
    ),
    "st offsets": (
        ".safetensors",
        safetensors({"flow": {"dtype": "F32", "shape": [2, 1, 1], "data_offsets": [8, 16]}}, bytes(8)),
        "but the file has 8 bytes",
    ),
    "st backwards": (
        ".safetensors",
        safetensors({"flow": {"dtype": "F32", "shape": [2, 1, 1], "data_offsets": [8, 0]}}, bytes(8)),
        "but the file has 8 bytes",
    ),
    "st direction": (
        ".safetensors",
        safetensors(
            {
                "__metadata__": {"direction": "up"},
                "flow": {"dtype": "F32", "shape": [2, 1, 1], "data_offsets": [0, 8]},
            },
            bytes(8),
        ),
        "its direction is 'up'",
    ),
    "st occlusion": (
        ".safetensors",
        safetensors(
            {
                "flow": {"dtype": "F32", "shape": [2, 1, 1], "data_offsets": [0, 8]},
                "occlusion": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            },
            bytes(8),
        ),
        r"the occlusion is float32 \[2\]; expected float32 \[1, 1, 1\]",
    ),
    "type": (".exr", b"", r"the type '.exr' is not known; expected .flo, .npy, .safetensors"),
}


@pytest.mark.parametrize("case", list(HOSTILE))
def test_hostile_files_give_a_readable_error(case):
    suffix, data, message = HOSTILE[case]
    with pytest.raises(ValueError, match=message) as caught:
        read_flow(data, suffix, name="clip.bin")
    assert str(caught.value).startswith("clip.bin: ") and len(str(caught.value)) < 600


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_and_many_flipped_bytes(suffix):
    """Whatever happens to the bytes: a flow or a ValueError, nothing else."""
    data = write_flow(flow(1, size=(2, 3), occlusion=True), suffix)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"clip"):
            read_flow(data[:length], suffix, name="clip")
    generator = numpy.random.default_rng(0)
    for _ in range(600):
        damaged = bytearray(data)
        for place in generator.integers(0, min(len(data), 260), size=generator.integers(1, 4)):
            damaged[place] = generator.integers(0, 256)
        try:
            assert isinstance(read_flow(bytes(damaged), suffix, name="clip"), Flow)
        except ValueError as error:
            assert "clip" in str(error)


def test_a_pickle_in_npy_is_never_run(tmp_path):
    target = tmp_path / "hacked"

    class Evil:
        def __reduce__(self):
            return (open, (str(target), "w"))

    stream = io.BytesIO()
    numpy.save(stream, numpy.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="of type object"):
        read_flow(stream.getvalue(), ".npy")
    with pytest.raises(ValueError, match="pickle"):
        read_flow(pickle.dumps(Evil()), ".npy")
    assert not target.exists()


def test_size_limit_is_checked_before_reading(tmp_path):
    path = tmp_path / "big.npy"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: reading it would exhaust the memory
    with pytest.raises(ValueError, match=r"^big.npy: it has 1099511627776 bytes; files of at most"):
        read_flow(path)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        read_flow(bytes(101), ".npy", largest=100)


def test_unknown_direction():
    with pytest.raises(ValueError, match="direction: got 'left'"):
        read_flow(npy(numpy.zeros((2, 4, 4), "f4")), ".npy", direction="left")
