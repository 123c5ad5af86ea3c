"""Optical Flow, Load Flow, Save Flow, Flow To Image: what they give, and what they say when they cannot."""

import os
import sys

import comfy.model_management
import comfy.utils
import folder_paths
import numpy
import pytest
import torch
from flows import pan, swirl
from papernodes.kernels.flow import Flow
from papernodes.kernels.flow_format import write_flow
from papernodes.networks.raft import FILES, build_raft
from papernodes.nodes import raft_files
from papernodes.nodes.flow_files import FORMATS, LoadFlow, SaveFlow
from papernodes.nodes.optical_flow import METHODS, FlowToImage, OpticalFlow


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """(input, output), both empty."""
    made = [tmp_path / name for name in ("input", "output")]
    for folder in made:
        folder.mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(made[0]))
    monkeypatch.setattr(folder_paths, "output_directory", str(made[1]))
    return made


@pytest.fixture
def raft_folder(tmp_path, monkeypatch):
    """models/optical_flow, empty."""
    folder = tmp_path / "optical_flow"
    folder.mkdir()
    known = ([str(folder)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "optical_flow", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return folder


def moving_clip(frames=3, height=64, width=96, dx=3):
    """Smooth blobs that move ``dx`` pixels to the right in every frame."""
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(1, 3, height // 8, (width + dx * frames) // 8 + 2, generator=generator)
    wide = torch.nn.functional.interpolate(wide, scale_factor=8, mode="bicubic").clamp(0, 1)[0].permute(1, 2, 0)
    start = dx * frames
    return torch.stack([wide[:height, start - dx * t : start - dx * t + width] for t in range(frames)])


@pytest.mark.parametrize(("direction", "sign"), [("forward", 1), ("backward", -1)])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_dis_measures_the_motion(direction, sign, factor):
    flow, occlusion, picture = OpticalFlow.execute(moving_clip(), "DIS", direction, factor).args
    assert flow.vectors.shape == (2, 2, 64, 96)
    assert flow.direction == direction
    middle = flow.vectors[:, :, 16:-16, 16:-16]
    assert (middle[:, 0].median() - sign * 3).abs() < 0.3
    assert middle[:, 1].median().abs() < 0.3
    assert occlusion.shape == (2, 64, 96)
    assert occlusion[:, 16:-16, 16:-16].mean() < 0.1
    assert torch.equal(flow.occlusion, occlusion)
    assert picture.shape == (2, 64, 96, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1


def test_occlusion_marks_what_leaves_the_picture():
    _, occlusion, _ = OpticalFlow.execute(moving_clip(dx=8), "DIS", "forward", 1.0).args
    assert occlusion[:, 16:-16, -4:].mean() > 0.8 > 0.2 > occlusion[:, 16:-16, 16:-24].mean()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (33, 31)])
def test_tiny_and_odd_clips(size):
    flow, occlusion, picture = OpticalFlow.execute(torch.rand(2, *size, 3), "DIS", "forward", 0.5).args
    assert flow.vectors.shape == (1, 2, *size)
    assert flow.vectors.isfinite().all()
    assert occlusion.shape == (1, *size)
    assert picture.shape == (1, *size, 3)


def test_alpha_is_ignored():
    clip = moving_clip()
    with_alpha = torch.cat([clip, torch.rand(*clip.shape[:-1], 1)], dim=-1)
    plain, other = (OpticalFlow.execute(c, "DIS", "forward", 1.0).args[0].vectors for c in (clip, with_alpha))
    assert torch.equal(plain, other)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.rand(1, 8, 8, 3), r"'frames' holds 1 frame; flow needs at least 2"),
        (torch.rand(8, 8, 3), r"'frames' has shape \[8, 8, 3\]"),
        (torch.rand(3, 8, 0, 3), r"'frames' has shape"),
        (torch.full((3, 8, 8, 3), float("nan")), r"'frames' holds NaN"),
        (torch.full((3, 8, 8, 3), float("inf")), r"'frames' holds NaN or infinite"),
    ],
)
def test_bad_frames(frames, message):
    with pytest.raises(ValueError, match=message):
        OpticalFlow.execute(frames, "DIS", "forward", 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("FlowNet", "forward", 0.5), "'method' is 'FlowNet'; expected one of: DIS, RAFT small, RAFT large"),
        (("DIS", "sideways", 0.5), "'direction' is 'sideways'"),
        (("DIS", "forward", 0.01), "'resize_factor' is 0.01"),
        (("DIS", "forward", float("nan")), "'resize_factor' is nan"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        OpticalFlow.execute(moving_clip(), *settings)


def test_missing_opencv_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install opencv-python-headless"):
        OpticalFlow.execute(moving_clip(), "DIS", "forward", 0.5)


def test_interrupt_stops_within_one_pair():
    steps = []

    def hook(value, total, preview, node_id=None):
        steps.append((value, total))
        if value == 2:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            OpticalFlow.execute(torch.rand(9, 32, 32, 3), "DIS", "forward", 0.5)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    assert steps == [(1, 16), (2, 16)]


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_missing_raft_file_is_named_with_its_folder_and_source(raft_folder, method):
    size = raft_files.RAFT_METHODS[method]
    (raft_folder / f"raft_{'large' if size == 'small' else 'small'}_x.pth").write_bytes(b"x")
    verdict = OpticalFlow.validate_inputs(method)
    for part in (FILES[size], str(raft_folder), "https://", "torchvision.models.optical_flow.raft_" + size):
        assert part in verdict
    with pytest.raises(FileNotFoundError, match=FILES[size]):
        OpticalFlow.execute(moving_clip(), method, "forward", 0.5)
    assert OpticalFlow.validate_inputs("DIS") is True
    assert OpticalFlow.validate_inputs(None) is True
    assert "FlowNet" in OpticalFlow.validate_inputs("FlowNet")


@pytest.mark.parametrize("name", [FILES["small"], "raft_small_mine.safetensors"])
def test_raft_runs_from_a_file(raft_folder, name):
    torch.manual_seed(0)
    weights = build_raft("small").state_dict()
    comfy.utils.save_torch_file(weights, str(raft_folder / name)) if name.endswith("s") else torch.save(
        weights, raft_folder / name
    )
    assert OpticalFlow.validate_inputs("RAFT small") is True
    flow, occlusion, _ = OpticalFlow.execute(moving_clip(2, 40, 48), "RAFT small", "forward", 0.5).args
    assert flow.vectors.shape == (1, 2, 40, 48)
    assert flow.vectors.isfinite().all()
    assert occlusion.shape == (1, 40, 48)


def test_torchvisions_own_file_is_preferred(raft_folder):
    for name in ("raft_small_a.pth", FILES["small"], "other.pth"):
        (raft_folder / name).write_bytes(b"x")
    assert os.path.basename(raft_files.find_raft_file("RAFT small")) == FILES["small"]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("papernodes-was-here",)


@pytest.mark.parametrize("content", ["pickle", "garbage", "empty", "list"])
def test_files_that_are_no_weights(raft_folder, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = raft_folder / FILES["small"]
    if content == "pickle":
        torch.save({"fnet": Hostile()}, path)
    elif content == "list":
        torch.save([torch.zeros(1)], path)
    else:
        path.write_bytes(b"" if content == "empty" else b"garbage" * 100)
    with pytest.raises(ValueError, match=FILES["small"]):
        OpticalFlow.execute(moving_clip(), "RAFT small", "forward", 0.5)
    assert not (tmp_path / "papernodes-was-here").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_save_and_load_again(folders, format):
    flow = swirl(4, 6, 9)
    flow = Flow(flow.vectors, occlusion=(flow.vectors[:, 0] > 0).float())
    output = SaveFlow.execute(flow, "flows/clip", format)
    files = output.ui["flows"]
    assert len(files) == (3 if format == ".flo" else 1)
    assert all(f["type"] == "output" and f["subfolder"] == "flows" for f in files)
    assert sorted(os.listdir(folders[1] / "flows")) == sorted(f["filename"] for f in files)

    name = f"flows/{files[0]['filename']} [output]"
    assert name in LoadFlow.define_schema().inputs[0].options
    assert LoadFlow.validate_inputs(name) is True
    (loaded,) = LoadFlow.execute(name, format == ".flo").args
    assert torch.equal(loaded.vectors, flow.vectors)
    assert loaded.direction == "forward"
    if format == ".safetensors":
        assert torch.equal(loaded.occlusion, flow.occlusion)
    if format == ".flo":
        (alone,) = LoadFlow.execute(name, False).args
        assert torch.equal(alone.vectors, flow.vectors[:1])

    again = SaveFlow.execute(flow, "flows/clip", format).ui["flows"]
    assert not {f["filename"] for f in again} & {f["filename"] for f in files}


@pytest.mark.parametrize(("format", "said"), [(".safetensors", "backward"), (".npy", "forward"), (".flo", "forward")])
def test_direction(folders, caplog, format, said):
    flow = pan(2, 6, 9, direction="backward")
    (file,) = SaveFlow.execute(flow, "clip", format).ui["flows"]
    assert ("cannot say" in caplog.text) == (format != ".safetensors")
    name = f"{file['filename']} [output]"
    assert LoadFlow.execute(name, False).args[0].direction == said
    for direction in ("forward", "backward"):
        assert LoadFlow.execute(name, False, direction).args[0].direction == direction


def test_saving_leaves_nothing_half_written(folders, monkeypatch):
    def stop():
        if list((folders[1]).rglob("*.part")):
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        SaveFlow.execute(swirl(4), "flows/clip", ".flo")
    assert [p for p in folders[1].rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("prefix", ["../clip", "/tmp/clip", ""])
def test_saving_outside_the_output_folder(folders, prefix):
    with pytest.raises(ValueError, match="'filename_prefix'"):
        SaveFlow.execute(swirl(2), prefix, ".npy")


def test_fingerprint_changes_with_the_file(folders):
    path = folders[0] / "a_1.flo"
    path.write_bytes(write_flow(pan(2, 4, 4), ".flo"))
    first = LoadFlow.fingerprint_inputs("a_1.flo", True)
    assert LoadFlow.fingerprint_inputs("a_1.flo", True) == first
    (folders[0] / "a_2.flo").write_bytes(write_flow(pan(2, 4, 4), ".flo"))
    second = LoadFlow.fingerprint_inputs("a_1.flo", True)
    path.write_bytes(write_flow(pan(2, 4, 6), ".flo"))
    assert len({first, second, LoadFlow.fingerprint_inputs("a_1.flo", True)}) == 3


def hostile_files():
    flo = write_flow(pan(2, 4, 4), ".flo")
    pickled = numpy.lib.format.magic(1, 0) + b"\x76\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}"
    return {
        "short.flo": flo[:-4],
        "long.flo": flo + b"more",
        "magic.flo": b"PIEG" + flo[4:],
        "negative.flo": flo[:4] + b"\xff\xff\xff\xff" + flo[8:],
        "absurd.flo": flo[:4] + b"\xff\xff\xff\x7f\xff\xff\xff\x7f" + flo[12:],
        "nan.flo": flo[:12] + b"\x00\x00\xc0\x7f" * 32,
        "empty.flo": b"",
        "pickle.npy": pickled.ljust(300),
        "garbage.npy": b"garbage" * 10,
        "huge.safetensors": b"\xff" * 16,
        "text.safetensors": b"hello",
    }


@pytest.mark.parametrize("name", hostile_files())
def test_hostile_files_are_named_and_refused(folders, name):
    (folders[0] / name).write_bytes(hostile_files()[name])
    with pytest.raises(ValueError, match=rf"'file': {name}"):
        LoadFlow.execute(name, False)


@pytest.mark.parametrize("name", ["../x.flo", "/etc/passwd", "missing.flo", "x.txt", ""])
def test_load_refuses_before_anything_runs(folders, name):
    verdict = LoadFlow.validate_inputs(name)
    assert isinstance(verdict, str)
    with pytest.raises(ValueError, match=r"."):
        LoadFlow.execute(name, False)
    assert LoadFlow.validate_inputs(None) is True


def test_a_sequence_of_two_sizes_is_refused(folders):
    (folders[0] / "a_1.flo").write_bytes(write_flow(pan(2, 4, 4), ".flo"))
    (folders[0] / "a_2.flo").write_bytes(write_flow(pan(2, 4, 6), ".flo"))
    with pytest.raises(ValueError, match=r"a_2.flo is 6 x 4 pixels, but a_1.flo is 4 x 4"):
        LoadFlow.execute("a_1.flo", True)


def test_flow_to_image():
    flow = swirl(3, 128, 128)
    (auto,) = FlowToImage.execute(flow, 0.0, False).args
    (slow,) = FlowToImage.execute(flow, 1000.0, False).args
    (legend,) = FlowToImage.execute(flow, 0.0, True).args
    assert auto.shape == (2, 128, 128, 3)
    assert slow.min() > 0.9 > auto.min()  # nearly at rest on that scale, so nearly white
    assert not torch.equal(legend, auto)
    with pytest.raises(ValueError, match="max_magnitude"):
        FlowToImage.execute(flow, float("nan"), True)


@pytest.mark.parametrize("node", [SaveFlow, FlowToImage])
def test_another_packs_flow_is_refused(node):
    arguments = ("clip", ".npy") if node is SaveFlow else (0.0, True)
    with pytest.raises(ValueError, match="'flow' holds a Tensor; connect"):
        node.execute(torch.zeros(1, 2, 4, 4), *arguments)
