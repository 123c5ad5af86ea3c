"""web/lib/drag_motion.mjs computes what kernels/cut_and_drag.py computes: the editor's preview is the node's clip."""

import json

import pytest
import torch
from papernodes.host import layout
from papernodes.kernels.cut_and_drag import HOLES, CutAndDrag
from papernodes.kernels.drag_motion import parse_motion

HEIGHT, WIDTH, FRAMES = 40, 57, 7
MODULE = f"/extensions/{layout.PACK_NAME}/lib/drag_motion.mjs"

KEYS = [
    {"frame": 1, "x": 0.02, "y": 0.0, "angle": 0, "scale": 1},
    {"frame": 4, "x": 0.25, "y": -0.1, "angle": 40, "scale": 1.4, "way": "ease"},
    {"frame": 6, "x": -0.3, "y": 0.4, "angle": -30, "scale": 0.6, "way": "ease-out"},
]
STAR = [[0.5, 0.1], [0.65, 0.6], [0.3, 0.3], [0.7, 0.3], [0.35, 0.6]]  # crosses itself
MOTION = {
    "version": 1,
    "objects": [
        {"id": "a", "name": "square", "polygon": [[0.1, 0.2], [0.5, 0.15], [0.55, 0.7], [0.12, 0.66]], "keys": KEYS},
        {"id": "b", "name": "star", "polygon": STAR, "pivot": [0.5, 0.5], "keys": [{**KEYS[1], "way": "hold"}]},
        {"id": "c", "name": "whole pixels", "polygon": STAR[:3], "keys": [{"frame": 2, "x": 3 / WIDTH, "y": 0}]},
        {"id": "d", "name": "half outside", "polygon": [[0.8, 0.5], [1.4, 0.6], [0.9, 1.3]], "keys": KEYS[1:2]},
    ],
}

COMPOSITES = """async ([module, text, image, width, height, frames, hole]) => {
  const drag = await import(module);
  const { motion, problem } = drag.parseMotion(text);
  const clip = new drag.Composite(Float32Array.from(image), width, height, motion.objects, hole);
  const found = [];
  for (let frame = 0; frame < frames; frame++) found.push(Array.from(clip.frame(motion.objects, frame)));
  return { problem, found };
}"""


@pytest.fixture(scope="module")
def page(chromium, server):
    """A page of the server's with nothing on it."""
    opened = chromium.new_page()
    opened.goto(f"{server.url}/system_stats")
    yield opened
    opened.close()


def picture():
    return torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(3))


def composites(page, motion, hole):
    """float32 [FRAMES, HEIGHT, WIDTH, 3] as the browser makes them."""
    image = picture().flatten().tolist()
    made = page.evaluate(COMPOSITES, [MODULE, json.dumps(motion), image, WIDTH, HEIGHT, FRAMES, hole])
    assert made["problem"] == ""
    return torch.tensor(made["found"]).view(FRAMES, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("hole", HOLES)
def test_browser_and_python_make_the_same_pixels(page, hole):
    clip = CutAndDrag(picture(), parse_motion(json.dumps(MOTION), FRAMES), FRAMES, hole=hole)
    expected = torch.stack([clip.frame(index).composite for index in range(FRAMES)])
    assert (expected[2:] - expected[1:-1]).abs().amax(dim=(1, 2, 3)).min() > 0.1, (
        "from the first key on all frames differ"
    )
    found = composites(page, MOTION, hole)
    assert (found - expected).abs().max() < 0.5 / 255


def test_nothing_to_move_changes_nothing(page):
    found = composites(page, {"version": 1, "objects": []}, "fill")
    assert torch.equal(found, picture().expand(FRAMES, -1, -1, -1))


@pytest.mark.parametrize(
    ("text", "locked"),
    [("", False), ("{", False), ("[1]", False), ('{"version": 2, "objects": []}', True), ('{"version": 1}', False)],
)
def test_any_text_can_be_opened(page, text, locked):
    made = page.evaluate("async ([module, text]) => (await import(module)).parseMotion(text)", [MODULE, text])
    assert made["motion"] == {"version": 1, "objects": []}
    assert made["locked"] is locked, "what a newer pack made must not be overwritten"
    assert bool(made["problem"]) == (text not in ("", '{"version": 1}'))


def test_objects_that_cannot_be_drawn_are_left_out_and_said(page):
    broken = {"version": 1, "objects": [{"id": "a", "polygon": [[0, 0], [1, 1]]}, MOTION["objects"][0]]}
    text = json.dumps(broken)
    made = page.evaluate("async ([module, text]) => (await import(module)).parseMotion(text)", [MODULE, text])
    assert [entry["id"] for entry in made["motion"]["objects"]] == ["a"] and "1 object" in made["problem"]
