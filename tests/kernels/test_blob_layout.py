"""Blob layouts: the JSON there and back, every message, and the laws of how ellipses travel and are drawn."""

import json
import math

import pytest
import torch
from papernodes.kernels.blob_layout import (
    LONGEST_CAPTION,
    MOST_BLOBS,
    Blob,
    BlobLayout,
    Ellipse,
    blobs_to_json,
    parse_blobs,
)
from papernodes.kernels.blob_picture import BlobPictures, blob_colour, covering, tinted
from papernodes.kernels.ellipses import distances

FRAMES = 25
PATHS = pytest.mark.parametrize("path", ["linear", "cubic"])
PLACES = [
    {"frame": 2, "x": 0.1, "y": 0.9, "a": 0.05, "b": 0.3, "angle": 170},
    {"frame": 9, "x": 0.7, "y": 0.2, "a": 0.4, "b": 0.1, "angle": 20},
    {"frame": 14, "x": 0.4, "y": 0.5, "a": 0.1, "b": 0.1, "angle": -60},
    {"frame": 23, "x": 0.9, "y": 0.6, "a": 0.2, "b": 0.02, "angle": 85},
]


def text(*blobs, version=1):
    return json.dumps({"version": version, "blobs": list(blobs)})


def read(*blobs, frames=FRAMES, size=(320, 200)):
    return parse_blobs(text(*blobs), *size, frames)


def moved(keys, path, frames=FRAMES):
    """float64 [frames, 5] of one blob."""
    return read({"keys": keys, "path": path}, frames=frames).geometry()[:, 0]


def apart(first, second):
    """How far two geometries are from each other, a half turn being nothing."""
    angle = (first[..., 4] - second[..., 4]) / math.pi
    return float(max((first - second)[..., :4].abs().max(), (angle - angle.round()).abs().max() * math.pi))


def test_there_and_back():
    layout = read(
        {"id": "a", "caption": "one \u00e9", "x": 0.2, "angle": 30, "weight": 0.5, "path": "cubic", "keys": PLACES},
        {"id": 7, "there": False, "captions": [{"frame": 0, "text": "x"}, {"frame": 3, "text": "y"}], "unknown": 1},
        {"keys": [{"frame": 1, "there": False}, {"frame": 4, "way": "hold"}]},
    )
    assert parse_blobs(blobs_to_json(layout), 320, 200, FRAMES) == layout
    assert [blob.id for blob in layout.blobs] == ["a", "7", "3"]
    assert layout.presence()[:6, 2].tolist() == [False] * 4 + [True] * 2 and not layout.presence()[:, 1].any()
    assert [layout.blobs[1].caption_at(frame) for frame in (0, 2, 3, 20)] == ["x", "x", "y", "y"]
    assert layout.blobs[2].keys[0].ellipse == Ellipse(), "what a key does not say is as in its blob"
    for empty in ("", "  ", text()):
        none = parse_blobs(empty, 8, 8, 3)
        assert none.blobs == () and none.geometry().shape == (3, 0, 5) and none.presence().shape == (3, 0)
    assert (
        len(read(*[{}] * MOST_BLOBS).blobs) == MOST_BLOBS and len(read({"caption": "x" * LONGEST_CAPTION}).blobs) == 1
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("blobs", r"layout: this is not JSON"),
        ("[]", r"layout: .*expected an object|layout: .*a list"),
        (text(version=2), r"layout: it was written by a newer version of this pack \(format 2, .*Update"),
        (text(version=True), r'layout: "version" is true; expected 1'),
        ('{"version": 1, "blobs": 3}', r'layout: "?blobs"? is'),
        (text(*[{}] * 101), r"layout: there are 101 blobs; at most 100"),
        (text(4), r"layout: blob 1 is a number; expected an object with id, caption"),
        (text({"id": ""}), r'layout: blob 1: "id" is ""; expected a text of 1 to 100 characters'),
        (text({"id": "x"}, {}, {"id": "x"}), r'layout: blobs 1 and 3 both have the "id" "x"; expected different'),
        (text({}, {"caption": 5}), r'layout: blob 2: "caption" is a number; expected a text'),
        (text({"caption": "x" * 2001}), r'layout: blob 1: "caption" has 2001 characters; at most 2000'),
        (text({"a": 0}), r'layout: blob 1: "a" is 0; expected .*0\.001 to 10'),
        (text({"b": -1}), r'layout: blob 1: "b" is -1; expected'),
        (text({"x": "left"}), r'layout: blob 1: "x" is "left"; expected'),
        ('{"version": 1, "blobs": [{"y": NaN}]}', r"layout: .*NaN"),
        (text({"angle": 1e9}), r'layout: blob 1: "angle" is'),
        (text({"weight": -1}), r'layout: blob 1: "weight" is -1; expected'),
        (text({"path": "round"}), r'layout: blob 1: "path" is "round"; expected one of linear, cubic'),
        (text({"there": 1}), r'layout: blob 1: "there" is 1; expected true or false'),
        (text({"keys": [3]}), r"layout: blob 1: key 1 is a number; expected an object with frame"),
        (text({"keys": [{"frame": 5}, {"frame": 5}]}), r"layout: blob 1: .*frames must increase from key to key"),
        (text({"keys": [{"frame": 25}]}), r"layout: blob 1: key 1 is at frame 25, beyond the clip of 25 frames"),
        (text({"keys": [{"frame": 0.5}]}), r'layout: blob 1: key 1: "frame" is 0\.5'),
        (text({"keys": [{"frame": 1, "way": "jump"}]}), r'layout: blob 1: key 1: "way" is "jump"'),
        (text({"keys": [{"frame": 1, "b": 0}]}), r'layout: blob 1: key 1: "b" is 0'),
        (text({"captions": [{"frame": 1}]}), r'layout: blob 1: captions: key 1: "text" is missing; expected a text'),
        (text({"captions": [{"frame": 2, "text": ""}, {"frame": 1, "text": ""}]}), r"captions: .*must increase"),
    ],
)
def test_bad_json_is_named(content, message):
    with pytest.raises(ValueError, match=message):
        parse_blobs(content, 320, 200, FRAMES)


def test_bad_layouts_are_named():
    with pytest.raises(ValueError, match="a layout has two blobs of id 'x'"):
        BlobLayout((Blob("x", ""), Blob("x", "")), 8, 8)
    with pytest.raises(ValueError, match="a layout has 101 blobs"):
        BlobLayout(tuple(Blob(str(number), "") for number in range(101)), 8, 8)
    with pytest.raises(ValueError, match="a layout's width is 0; expected 1 to"):
        BlobLayout((), 0, 8)
    with pytest.raises(ValueError, match="a layout's frames is 1001; expected 1 to 1000"):
        BlobLayout((), 8, 8, 1001)


@PATHS
def test_how_ellipses_travel(path):
    found = moved(PLACES, path)
    for key in PLACES:
        wanted = torch.tensor([key["x"], key["y"], key["a"], key["b"], math.radians(key["angle"])], dtype=torch.float64)
        assert apart(found[key["frame"]], wanted) < 1e-12, "through its keys"
    assert (found[:2] == found[2]).all() and (found[24] == found[23]).all(), "it rests outside them"
    assert (found[:, 2:4] > 0).all(), "axes stay above 0"
    turns = [float(found[b, 4] - found[a, 4]) for a, b in ((2, 9), (9, 14), (14, 23))]
    assert torch.allclose(torch.tensor(turns), torch.deg2rad(torch.tensor([30.0, -80.0, -35.0])), atol=1e-6), (
        "the shorter way, modulo a half turn"
    )
    # Backwards in time, its frames are the same in the other order.
    back = [{**key, "frame": FRAMES - 1 - key["frame"]} for key in reversed(PLACES)]
    assert apart(moved(back, path).flip(0), found) < 1e-9
    # A mirror image travels as the mirror image.
    mirrored = [{**key, "x": 1 - key["x"], "angle": -key["angle"]} for key in PLACES]
    flipped = found * torch.tensor([-1.0, 1, 1, 1, -1]) + torch.tensor([1.0, 0, 0, 0, 0])
    assert apart(moved(mirrored, path), flipped) < 1e-6
    # Keys that are mirror images in time and place make a path that is.
    arch = [{"frame": 0, "x": 0.2, "y": 0.8}, {"frame": 12, "x": 0.5, "y": 0.1}, {"frame": 24, "x": 0.8, "y": 0.8}]
    x, y = moved(arch, path)[:, :2].T
    assert torch.allclose(x + x.flip(0), torch.ones(25, dtype=torch.float64)) and torch.allclose(y, y.flip(0))
    # Half turns of keys change nothing that is seen.
    turned = [{**key, "angle": key["angle"] + 180 * index} for index, key in enumerate(PLACES)]
    assert apart(moved(turned, path), found) < 1e-9
    # Two keys: straight and even on both paths, but for axes, which grow by factors on the cubic one.
    pair = moved([PLACES[0] | {"frame": 0}, PLACES[1] | {"frame": 24}], path)
    assert pair[:, [0, 1, 4]].diff(dim=0).std(0).max() < 1e-9
    assert float(pair[12, 2]) == pytest.approx(0.225 if path == "linear" else math.sqrt(0.05 * 0.4))
    hold = moved([PLACES[0], PLACES[1] | {"way": "hold"}, *PLACES[2:]], path)
    assert (hold[2:9] == hold[2]).all() and apart(hold[9:], moved(PLACES, path)[9:]) < 1e-12


def test_a_cubic_path_is_smooth_and_keeps_even_motion_even():
    steps = moved(PLACES, "cubic", 1000)[:, :2]  # the same frames; the law is looked at finely below
    assert torch.equal(steps[:24], moved(PLACES, "cubic")[:24, :2])
    fine = [{**key, "frame": key["frame"] * 40} for key in PLACES]
    speed = moved(fine, "cubic", 1000)[80:921, [0, 1]].diff(dim=0)
    bend = speed.diff(dim=0).abs().max()
    corner = moved(fine, "linear", 1000)[80:921, [0, 1]].diff(dim=0).diff(dim=0).abs().max()
    assert bend < corner / 20, "no corner at a key"
    line = [{"frame": frame, "x": 0.02 * frame, "y": 1 - 0.03 * frame} for frame in (0, 3, 11, 24)]
    assert apart(moved(line, "cubic"), moved(line, "linear")) < 1e-12


def test_drawn_ellipses():
    """Tint inside, nothing outside, the line on the rim; the last one on top; any that are outside leave no trace."""
    ground = torch.full((60, 90, 3), 0.5)
    ellipses = torch.tensor([[0.4, 0.5, 0.4, 0.2, 0.6], [0.6, 0.5, 0.3, 0.3, 0.0], [9.0, 9.0, 0.3, 0.3, 0.0]])
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    found = tinted(ground, ellipses, colours, 1.5, 0.5)
    assert (ground == 0.5).all() and found.min() >= 0 and found.max() <= 1
    first, second, _ = distances(ellipses, 60, 90)
    away = (first > 1.4) & (second > 1.4)
    assert (found[away] == 0.5).all()
    only = (first < 0.6) & (second > 1.4)
    assert torch.allclose(found[only], torch.tensor([0.75, 0.25, 0.25]))
    both = (first < 0.6) & (second < 0.6)
    assert torch.allclose(found[both], torch.tensor([0.375, 0.625, 0.125]))
    line = (second - 1).abs() < 0.02
    assert line.sum() > 20 and (found[line][:, 1] > 0.8).all()
    assert torch.equal(tinted(ground, ellipses[:0], colours[:0], 1.0), ground)
    tiny = torch.tensor([[0.5, 0.5, 1e-3, 1e-3, 0.0], [0.5, 0.5, 1e-3, 10.0, 0.3], [0.5, 0.5, 10.0, 10.0, 0.0]])
    assert tinted(ground, tiny, colours, 1.0).isfinite().all()


def test_pictures_of_a_layout():
    layout = read(
        {
            "id": "z",
            "caption": "a " * 900,
            "x": 0.99,
            "a": 0.1,
            "b": 0.1,
            "keys": [{"frame": 0}, {"frame": 3, "there": False}],
        }
    )
    pictures = BlobPictures(layout)
    here, gone = pictures.frame(0), pictures.frame(3)
    assert here.shape == (1, 200, 320, 3) and here.dtype == torch.float32
    assert (gone == gone[0, 0, 0]).all() and (here[0, 100, 300] - gone[0, 0, 0]).abs().max() > 0.1
    colour = torch.tensor(blob_colour("z")) / 255
    assert (here[0] - colour).abs().amax(-1).lt(0.02).sum() > 100, "a tag of its colour"
    assert blob_colour("1") != blob_colour("2")
    behind = torch.rand(200, 320, 3)
    assert torch.equal(pictures.frame(3, behind)[0], behind)
    for size in ((1, 1), (9, 400)):
        assert BlobPictures(BlobLayout((Blob("1", "ball"),), *size)).frame(0).shape == (1, size[1], size[0], 3)


def test_pictures_cover_the_size():
    ramp = torch.linspace(0, 1, 40)[None, None, :, None].expand(2, 10, 40, 3)
    assert covering(ramp, 10, 40) is ramp
    found = covering(ramp, 20, 20)
    assert found.shape == (2, 20, 20, 3) and 0.37 < found.min() < 0.4 < 0.6 < found.max() < 0.63, "the middle"
    assert covering(torch.rand(1, 1, 1, 3), 30, 7).shape == (1, 30, 7, 3)
