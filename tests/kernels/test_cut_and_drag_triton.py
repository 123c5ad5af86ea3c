"""Cut-and-drag's Triton path against the eager reference: on a CPU under Triton's interpreter, on a GPU as it is."""

import json

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")

from papernodes.kernels.cut_and_drag import CutAndDrag
from papernodes.kernels.drag_motion import parse_motion

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []  # with a GPU, "make test-gpu" runs all of this on it
DEVICE = torch.device("cuda" if CUDA else "cpu")
FRAMES = 5
ODD = (29, 67)  # the interpreter is slow

KEYS = [
    {"frame": 1},
    {"frame": 3, "x": 0.25, "y": -0.1, "angle": 40, "scale": 1.4, "way": "ease"},
    {"frame": 4, "x": -0.3, "y": 0.4, "angle": -30, "scale": 0.6},
]
STAR = [[0.5, 0.1], [0.65, 0.6], [0.3, 0.3], [0.7, 0.3], [0.35, 0.6]]  # crosses itself
SQUARE = [[0.1, 0.2], [0.5, 0.15], [0.55, 0.7], [0.12, 0.66]]
SCENES = {
    "nothing": [],
    "at rest": [(SQUARE, []), (STAR, [])],
    "whole pixels": [(SQUARE, [{"frame": 0}, {"frame": 4, "x": 8 / 67, "y": -4 / 29}])],
    "several": [(SQUARE, KEYS), (STAR, KEYS[1:2]), ([[0.8, 0.5], [1.4, 0.6], [0.9, 1.3]], KEYS)],
    "outside": [(SQUARE, [{"frame": 1}, {"frame": 2, "x": 5, "y": -3}]), ([[1.2, 1.2], [1.9, 1.2], [1.5, 1.9]], KEYS)],
    "extreme": [(SQUARE, [{"frame": 0}, {"frame": 4, "scale": 200}]), (STAR, [{"frame": 0, "scale": 0.01}])],
}  # fmt: skip


def clips(name, size, hole="fill"):
    """The same clip by Triton and by eager torch."""
    image = torch.rand(*size, 3, generator=torch.Generator().manual_seed(3))
    # Smooth, so that a position that is off by 1e-4 pixel changes little.
    image = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), 3, 1, 1, count_include_pad=False).permute(1, 2, 0)
    entries = [{"id": f"o{k}", "polygon": polygon, "keys": keys} for k, (polygon, keys) in enumerate(SCENES[name])]
    motion = parse_motion(json.dumps({"version": 1, "objects": entries}), FRAMES)
    return [
        CutAndDrag(image, motion, FRAMES, hole=hole, device=DEVICE, backend=backend) for backend in ("triton", "eager")
    ]


CASES = [(name, ODD, "fill") for name in SCENES] + [("several", ODD, "keep")]
CASES += [("several", size, "fill") for size in [(1, 1), (1, 9), (7, 2)] + [(270, 480)] * CUDA]


@pytest.mark.parametrize(("name", "size", "hole"), CASES)
def test_both_paths_agree(name, size, hole):
    fast, slow = clips(name, size, hole)
    assert (fast.backend, slow.backend) == ("triton", "eager")
    ours, theirs = fast.render(), slow.render()
    assert (ours.composites - theirs.composites).abs().max() < 2e-3
    assert (ours.masks - theirs.masks).abs().max() < 2e-3
    # A pixel whose alpha is one half, give or take a rounding error, may belong to either side.
    differ = (ours.vectors != theirs.vectors).any(dim=1)
    assert differ.float().mean() < 2e-3
    assert (ours.occlusion != theirs.occlusion).float().mean() < 4e-3
    if name != "nothing" and min(size) > 9:
        assert theirs.masks.max() == 1.0


@pytest.mark.parametrize("name", ["at rest", "whole pixels", "nothing"])
def test_what_is_exact_is_exact_on_both(name):
    fast, slow = (clip.render() for clip in clips(name, ODD, "keep"))
    for field in ("composites", "masks", "vectors", "occlusion"):
        assert torch.equal(getattr(fast, field), getattr(slow, field)), field


def test_flow_is_the_same_bit_for_bit_where_labels_are():
    fast, slow = clips("several", ODD)
    for index in range(FRAMES - 1):
        here, there = slow.frame(index), slow.frame(index + 1)
        for ours, theirs in zip(fast.flow(index, here, there), slow.flow(index, here, there), strict=True):
            assert torch.equal(ours, theirs)
        assert slow.flow(index, here, there)[0].any() == (index > 0)


def test_two_runs_give_the_same_bits():
    first, second = (clips("several", ODD)[0].render() for _ in range(2))
    for field in ("composites", "masks", "vectors", "occlusion"):
        assert torch.equal(getattr(first, field), getattr(second, field)), field


@pytest.mark.skipif(not CUDA, reason="without a GPU nothing travels")
@pytest.mark.gpu
@pytest.mark.parametrize("backend", [0, 1])
def test_results_in_main_memory_are_the_devices(backend):
    clip = clips("several", (270, 480))[backend]
    there, here = clip.render(), clip.render(device="cpu")
    for field in ("composites", "masks", "vectors", "occlusion"):
        assert getattr(here, field).device.type == "cpu"
        assert torch.equal(getattr(there, field).cpu(), getattr(here, field)), field
