"""Blob Layout as the host runs it: the layout, its preview and masks, blobs beneath, and what it says of bad input."""

import json

import pytest
import torch
from papernodes.kernels.blob_layout import BlobLayout, parse_blobs
from papernodes.kernels.blob_picture import BlobPictures, covering
from papernodes.kernels.ellipses import distances
from papernodes.nodes import blob_layout
from papernodes.nodes.blob_layout import TWO_BLOBS, BlobLayoutNode

BALL = {"id": "1", "caption": "ball", "x": 0.3, "a": 0.3, "b": 0.2, "angle": 20}
MOVING = {"id": "leaf", "caption": "leaf", "keys": [{"frame": 0, "x": 0.1}, {"frame": 4, "x": 0.9, "there": False}]}


def text(*blobs):
    return json.dumps({"version": 1, "blobs": list(blobs)})


def execute(layout=TWO_BLOBS, width=48, height=32, frames=1, **more):
    return BlobLayoutNode.execute(layout=layout, width=width, height=height, frames=frames, **more)


def layout_of(*blobs, frames=1, size=(64, 64)):
    return parse_blobs(text(*blobs), *size, frames)


def test_what_comes_out():
    blobs, preview, masks = execute(text(BALL, MOVING), frames=5).args
    assert blobs == parse_blobs(text(BALL, MOVING), 48, 32, 5)
    assert preview.shape == (5, 32, 48, 3) and preview.dtype == torch.float32
    assert torch.equal(preview, torch.cat([BlobPictures(blobs).frame(frame) for frame in range(5)]))
    assert masks.shape == (10, 32, 48) and masks.dtype == torch.float32
    whole = (distances(blobs.geometry().float(), 32, 48) <= 1) & blobs.presence()[..., None, None]
    assert torch.equal(masks.view(5, 2, 32, 48), whole.float()), "frames first, then blobs; not cut by one another"
    assert masks[9].sum() == 0 and masks[8].sum() > 0, "one that is not there is black"


def test_the_default_and_nothing():
    blobs, _, masks = execute().args
    assert [blob.caption for blob in blobs.blobs] == ["a red ball", "a green leaf"] and masks.shape == (2, 32, 48)
    assert BlobLayoutNode.GET_SCHEMA().inputs[0].default == TWO_BLOBS
    assert execute().ui is None
    blobs, preview, masks = execute("", frames=3).args
    assert blobs.blobs == () and preview.shape == (3, 32, 48, 3)
    assert masks.shape == (3, 32, 48) and not masks.any()


def test_a_picture_behind():
    clip = torch.rand(5, 20, 20, 4)
    for picture in (clip, clip[:1]):
        output = execute("", frames=5, picture=picture)
        assert torch.equal(output.args[1], covering(picture[..., :3], 32, 48).expand(5, -1, -1, -1))
        (entry,) = output.ui["picture"]
        assert entry["type"] == "temp"
    with_one, without = execute(picture=clip[:1]).args, execute().args
    assert with_one[0] == without[0] and torch.equal(with_one[2], without[2])


def test_blobs_beneath():
    beneath = layout_of({**BALL, "caption": "planned"}, {"id": "1-2"}, frames=5)
    output = execute(text(BALL, MOVING, {"id": "x" * 100}), frames=5, blobs=beneath)
    blobs, _, masks = output.args
    assert [blob.id for blob in blobs.blobs] == ["1", "1-2", "1-3", "leaf", "x" * 100]
    assert [blob.caption for blob in blobs.blobs[:3]] == ["planned", "", "ball"], "ours are on top"
    assert (blobs.width, blobs.height, blobs.frames) == (48, 32, 5) and masks.shape[0] == 25
    (shown,) = output.ui["beneath"]
    assert parse_blobs(shown, 64, 64, 5) == beneath
    longest = layout_of({"id": "x" * 100})
    assert execute(text({"id": "x" * 100}), blobs=longest).args[0].blobs[1].id == "x" * 98 + "-2"
    assert isinstance(execute("", blobs=BlobLayout((), 8, 8)).args[0], BlobLayout)


def test_masks_that_would_be_too_large_are_not_made(monkeypatch):
    monkeypatch.setattr(blob_layout, "MOST_MASK_BYTES", 4 * 48 * 32 * 2)
    assert execute().args[2].shape == (2, 32, 48)
    masks = execute(text(BALL, MOVING), frames=5).args[2]
    with pytest.raises(
        ValueError, match=r"'masks' of Blob Layout would hold 5 frames x 2 blobs of 48x32.*fewer frames"
    ):
        masks[0]


def bad(message, **inputs):
    return pytest.param(inputs, message, id=message[:40])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        bad(r"layout: this is not JSON", layout="ball"),
        bad(r'layout: blob 2: "a" is 0; expected', layout=text(BALL, {"a": 0})),
        bad(r"layout: blob 1: key 2 is at frame 4, beyond the clip of 3 frames", layout=text(MOVING), frames=3),
        bad(r"'frames' is 0; expected a number from 1 to 1000", frames=0),
        bad(r"'width' is 0; expected a number from 1 to", width=0),
        bad(r"'height' is 20000; expected a number from 1 to", height=20000),
        bad(r"'picture' has shape \[4, 4\]; expected a batch of images", picture=torch.zeros(4, 4)),
        bad(r"'picture' holds 2 pictures and 'frames' is 5; expected one", picture=torch.zeros(2, 4, 4, 3), frames=5),
        bad(r"'blobs' holds a str; connect the blobs output of Blob Layout", blobs="ball"),
        bad(r"'blobs' lasts 5 frames and 'frames' is 1; set frames to 5", blobs=layout_of(BALL, frames=5)),
        bad(r"'blobs' holds 99 blobs and 2 are drawn here; at most 100", blobs=layout_of(*[{}] * 99)),
    ],
)
def test_bad_input_is_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        execute(**inputs)


def test_what_can_be_known_is_said_before_anything_runs():
    check = BlobLayoutNode.validate_inputs
    assert check(TWO_BLOBS, 8, 8, 1) is True and check("", None, None, 5) is True
    assert "beyond the clip of 3 frames" in check(text(MOVING), 8, 8, 3)
    assert check(text(MOVING), 8, 8, None) is True and check(None, 8, 8, 3) is True, "linked inputs are not known yet"
    assert check(TWO_BLOBS, 8, 8, 0).startswith("'frames' is 0")
