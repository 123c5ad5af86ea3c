"""Panorama Preview as the host runs it: the files that it writes, read back, and what it says of bad input."""

import io
import json
from fractions import Fraction
from types import SimpleNamespace

import av
import folder_paths
import numpy
import pytest
import torch
from papernodes.kernels.panorama_tags import SPHERICAL_UUID
from papernodes.nodes import panorama_preview
from papernodes.nodes.panorama_preview import PanoramaPreview
from PIL import Image

PROMPT = {"1": {"class_type": "PaperNodes_PanoramaPreview", "inputs": {}}}
GRAPH = {"prompt": PROMPT, "workflow": {"nodes": [], "version": 0.4}}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """ComfyUI's (output, temporary) folders, empty; the node knows of a graph."""
    made = [tmp_path / name for name in ("output", "temp")]
    for folder, name in zip(made, ("output_directory", "temp_directory"), strict=True):
        folder.mkdir()
        monkeypatch.setattr(folder_paths, name, str(folder))
    hidden = SimpleNamespace(prompt=PROMPT, extra_pnginfo={"workflow": GRAPH["workflow"]})
    monkeypatch.setattr(PanoramaPreview, "hidden", hidden)
    return made


def pictures(count=1, height=32, channels=3):
    """Colours that change slowly, each picture brighter than the last."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, 2 * height), indexing="ij")
    one = torch.stack([y, x, (x - y).abs(), torch.ones_like(x)][:channels], -1)
    return torch.stack([one * (number + 1) / count for number in range(count)])


def run(images, filename_prefix="panoramas/view", format="automatic", frame_rate=8.0):
    return PanoramaPreview.execute(images, filename_prefix, format, frame_rate).ui


def levels(image) -> torch.Tensor:
    return torch.from_numpy(numpy.array(image.convert("RGB"))).float() / 255


def files(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("format", "ending"), [("automatic", ".jpg"), (".jpg", ".jpg"), (".png", ".png")])
def test_a_picture_is_saved_as_a_panorama(folders, format, ending):
    images = pictures(channels=4)
    shown = run(images, "panoramas/%width%x%height%", format)
    size = {"width": 64, "height": 32, "frame_rate": 8.0}
    name = f"64x32_00001_{ending}"
    assert shown == {"panorama": [{"filename": name, "subfolder": "panoramas", "type": "output"} | size]}
    assert files(folders[0]) == [f"panoramas/{name}"] and files(folders[1]) == []
    content = (folders[0] / "panoramas" / name).read_bytes()
    for words in (b'GPano:ProjectionType="equirectangular"', b'FullPanoWidthPixels="64"', b'FullPanoHeightPixels="32"'):
        assert words in content
    with Image.open(io.BytesIO(content)) as image:
        away = (levels(image) - images[0, ..., :3]).abs().max()
        assert away <= (0.5 / 255 + 1e-6 if ending == ".png" else 10 / 255)
        if ending == ".png":
            kept = {name: json.loads(image.text[name]) for name in GRAPH}
        else:
            values = (image.getexif()[tag].partition(":") for tag in (0x0110, 0x010F))
            kept = {name: json.loads(value) for name, _, value in values}
        assert kept == GRAPH
    run(images, "panoramas/%width%x%height%", format)
    assert len(files(folders[0])) == 2, "nothing is overwritten"


def test_each_picture_of_a_batch_gets_a_file(folders):
    shown = run(pictures(3), "each_%batch_num%", ".png")["panorama"]
    assert [entry["filename"] for entry in shown] == [f"each_{number}_0000{number + 1}_.png" for number in range(3)]
    assert files(folders[0]) == sorted(entry["filename"] for entry in shown)


def test_frames_are_saved_as_one_panoramic_video(folders):
    images = pictures(5)
    shown = run(images, "clip", frame_rate=12.5)
    assert shown["videos"] == [{"filename": "clip_00001_.mp4", "subfolder": "", "type": "output"}]
    assert files(folders[0]) == ["clip_00001_.mp4"]
    path = folders[0] / "clip_00001_.mp4"
    assert SPHERICAL_UUID in (content := path.read_bytes()) and b"sv3d" in content
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == Fraction(25, 2)
        assert {name: json.loads(container.metadata[name]) for name in GRAPH} == GRAPH
        seen = [torch.from_numpy(frame.to_ndarray(format="rgb24")).float() / 255 for frame in container.decode(video=0)]
    assert len(seen) == 5 and (torch.stack(seen) - images).abs().mean() < 0.03
    # What the viewer in the node plays: each frame, in the temporary folder.
    assert [entry["type"] for entry in shown["panorama"]] == ["temp"] * 5
    for entry, picture in zip(shown["panorama"], images, strict=True):
        with Image.open(folders[1] / entry["filename"]) as image:
            assert (levels(image) - picture).abs().mean() < 0.01
    assert len(files(folders[1])) == 5


def test_a_preview_alone_saves_nothing_and_is_not_too_large(folders, monkeypatch):
    monkeypatch.setattr(panorama_preview, "_WIDEST_FRAME", 16)
    shown = run(pictures(2), format="preview only")
    assert set(shown) == {"panorama"} and files(folders[0]) == [] and len(files(folders[1])) == 2
    with Image.open(folders[1] / shown["panorama"][1]["filename"]) as image:
        assert image.size == (16, 8) and shown["panorama"][1]["width"] == 64
        reduced = torch.nn.functional.avg_pool2d(pictures(2)[1:].movedim(-1, 1), 4)[0].movedim(0, -1)
        assert (levels(image) - reduced).abs().mean() < 0.02
    assert len(run(pictures(1), format="preview only")["panorama"]) == 1


def test_a_graph_that_fits_no_jpeg_is_left_out(folders, monkeypatch, caplog):
    monkeypatch.setattr(PanoramaPreview.hidden, "extra_pnginfo", {"workflow": "x" * 70000})
    run(pictures(), "large")
    assert ".png keeps it" in caplog.text
    with Image.open(folders[0] / "large_00001_.jpg") as image:
        assert dict(image.getexif()) == {} and image.info["xmp"]
    monkeypatch.setattr(panorama_preview.args, "disable_metadata", True)
    run(pictures(), "silent", ".png")
    with Image.open(folders[0] / "silent_00001_.png") as image:
        assert set(image.text) == {"XML:com.adobe.xmp"}


def test_an_interrupted_run_leaves_nothing(folders, monkeypatch):
    calls = []

    def interrupt():
        calls.append(0)
        if len(calls) == 2:
            raise InterruptedError

    monkeypatch.setattr(panorama_preview.comfy.model_management, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(InterruptedError):
        run(pictures(3), format=".png")
    monkeypatch.setattr(panorama_preview, "tag_mp4", lambda content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(pictures(3), format=".mp4")
    assert files(folders[0]) == files(folders[1]) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.rand(1, 40, 64, 3)}, r"'images' are 64x40 pixels; .* twice as wide .* instance to 80x40"),
        ({"images": torch.rand(2, 1, 2, 3)}, r"'images' are 2x1 pixels, a single row; .* such as 1024x512"),
        ({"images": torch.full((1, 4, 8, 3), float("nan"))}, r"'images' holds NaN"),
        ({"images": torch.rand(4, 8, 3)}, r"'images' has shape \[4, 8, 3\]"),
        ({"images": torch.rand(2, 33, 66, 3)}, r"'images' are 66x33 pixels; a video needs an even height. .* 68x34"),
        ({"format": "gif"}, r"'format' is 'gif'; expected one of: automatic"),
        ({"frame_rate": 0.0}, r"'frame_rate' is 0.0; expected a number from 0.1 to 240"),
        ({"filename_prefix": "../view"}, r"'filename_prefix' '../view' leaves"),
        ({"filename_prefix": "views/"}, r"'filename_prefix' is 'views/'; expected a file name"),
    ],
)
def test_bad_input_of_panorama_preview(folders, changes, message):
    with pytest.raises(ValueError, match=message):
        run(**({"images": pictures(1)} | changes))
    assert files(folders[0]) == files(folders[1]) == []


def test_what_can_be_known_is_said_before_anything_runs():
    check = PanoramaPreview.validate_inputs
    assert check("views/a", ".jpg", 16.0) is True and check(None, None, None) is True
    assert "leaves ComfyUI's output folder" in check("/views", ".jpg", 16.0)
    assert "'format'" in check("view", "gif", 16.0)
    assert "'frame_rate'" in check("view", ".jpg", float("nan"))
