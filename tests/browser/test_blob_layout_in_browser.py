"""web/lib/blob_layout.mjs computes what kernels/blob_layout.py computes, and any text can be opened."""

import json

import pytest
import torch
from papernodes.host import layout
from papernodes.kernels.blob_layout import parse_blobs
from papernodes.kernels.blob_picture import blob_colour

FRAMES = 41
MODULE = f"/extensions/{layout.PACK_NAME}/lib/blob_layout.mjs"
WAYS = ["linear", "ease", "ease-in", "ease-out", "hold"]

ASK = """async ([module, text, frames]) => {
  const lib = await import(module);
  const { state, problem, locked } = lib.parseBlobs(text);
  const times = Array.from({ length: frames }, (_, frame) => frame);
  return { state, problem, locked,
    geometry: times.map((frame) => state.blobs.map((blob) => {
      const { x, y, a, b, angle } = lib.ellipseAt(blob, frame);
      return [x, y, a, b, (angle * Math.PI) / 180];
    })),
    there: times.map((frame) => state.blobs.map((blob) => lib.isThere(blob, frame))),
    captions: times.map((frame) => state.blobs.map((blob) => lib.captionAt(blob, frame))),
    colours: state.blobs.map((blob) => {
      const context = new OffscreenCanvas(1, 1).getContext("2d");
      context.fillStyle = lib.blobColour(blob.id);
      context.fillRect(0, 0, 1, 1);
      return Array.from(context.getImageData(0, 0, 1, 1).data.slice(0, 3));
    }) };
}"""


@pytest.fixture(scope="module")
def page(chromium, server):
    """A page of the server's with nothing on it."""
    opened = chromium.new_page()
    opened.goto(f"{server.url}/system_stats")
    yield opened
    opened.close()


def ask(page, text, frames=0):
    return page.evaluate(ASK, [MODULE, text, frames])


def keyed(number, keys, path):
    """A blob whose keys are random, to the digits that the editor writes; quarter turns between some of them."""
    dice = torch.Generator().manual_seed(number)
    made, frame = [], number % 3
    for index in range(keys):
        x, y, a, b, turn = torch.rand(5, generator=dice).tolist()
        angle = round(turn * 720 - 360, 2) if number % 2 else 90 * round(turn * 8 - 4)
        key = {"frame": frame, "x": round(2 * x, 5), "y": round(y - 0.5, 5), "a": round(a + 0.01, 5), "angle": angle}
        if index % 3:
            key |= {"b": round(b + 0.01, 5), "way": WAYS[(number + index) % 5], "there": turn > 0.4}
        made.append(key)
        frame += 1 + int(b * 7)
    captions = [{"frame": 4 * index, "text": f"{number} {index}"} for index in range(number % 4)]
    return {"id": f"blob {number}", "caption": "one", "path": path, "keys": made, "captions": captions}


def test_browser_and_python_have_the_same_layout(page):
    blobs = [keyed(number, 1 + number % 7, ("linear", "cubic")[number // 7 % 2]) for number in range(28)]
    blobs.append({"id": "rests \u00e9 \U0001f600", "x": 0.1, "angle": 200, "there": False})
    text = json.dumps({"version": 1, "blobs": blobs})
    found, wanted = ask(page, text, FRAMES), parse_blobs(text, 640, 360, FRAMES)
    assert found["problem"] == "" and not found["locked"]
    geometry = torch.tensor(found["geometry"], dtype=torch.float64)
    assert (geometry - wanted.geometry()).abs().max() < 1e-6
    assert geometry.diff(dim=0).abs().amax((0, 2)).gt(0.05).sum() >= 20, "they move"
    assert torch.equal(torch.tensor(found["there"]), wanted.presence())
    assert found["captions"] == [[blob.caption_at(frame) for blob in wanted.blobs] for frame in range(FRAMES)]
    for blob, colour in zip(wanted.blobs, found["colours"], strict=True):
        assert max(abs(one - other) for one, other in zip(blob_colour(blob.id), colour, strict=True)) <= 1
    again = json.dumps(found["state"])
    assert torch.equal(parse_blobs(again, 640, 360, FRAMES).geometry(), wanted.geometry()), "reading changes nothing"


def test_any_text_can_be_opened(page):
    for text, locked in (
        ("", False),
        ("{", False),
        ("[1]", False),
        ('{"version": 2}', True),
        ('{"version": 1}', False),
    ):
        found = ask(page, text)
        assert found["state"] == {"version": 1, "blobs": []} and found["locked"] is locked
        assert bool(found["problem"]) == (text not in ("", '{"version": 1}')), text
    broken = [7, {"id": "", "x": "left", "a": 0, "b": 99, "weight": -1, "path": "round", "there": 1, "caption": 3}]
    broken.append({"id": 5, "keys": [{"frame": 8}, {"frame": 3}, {"frame": -1}, 4], "captions": "none"})
    broken.append({"id": "5", "note": {"kept": True}})
    found = ask(page, json.dumps({"version": 1, "blobs": broken}))
    assert found["problem"].startswith("1 blob could not be read")
    read = parse_blobs(json.dumps(found["state"]), 64, 64, 9)
    assert [blob.id for blob in read.blobs] == ["1", "5", "5-3"] and found["state"]["blobs"][2]["note"] == {
        "kept": True
    }
    assert [key.frame for key in read.blobs[1].keys] == [3, 8]
    assert len(ask(page, json.dumps({"version": 1, "blobs": [{}] * 101}))["state"]["blobs"]) == 100
