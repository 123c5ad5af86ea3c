"""DIS on pictures whose motion is known, on tiny and odd clips, and its messages."""

import sys
import types

import pytest
import torch
import torch.nn.functional as functional
from papernodes.kernels.optical_flow import PRESETS, check_frames, dis_flow

pytest.importorskip("cv2")


def texture(height, width, seed=0):
    """A smooth random picture [height, width]: something to hold on to at every place."""
    noise = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed))
    noise = functional.avg_pool2d(functional.pad(noise, (3, 3, 3, 3), mode="replicate"), 7, stride=1)
    noise = noise - noise.min()
    return (noise / noise.max().clamp(min=1e-6))[0, 0]


def moving(dx, dy, frames=3, size=(96, 128), channels=3):
    """A clip whose content moves by (dx, dy) whole pixels a frame."""
    big = texture(size[0] + 64, size[1] + 64)
    views = [big[32 - dy * t : 32 - dy * t + size[0], 32 - dx * t : 32 - dx * t + size[1]] for t in range(frames)]
    return torch.stack(views).unsqueeze(-1).expand(-1, -1, -1, channels).contiguous()


def middle(vectors):
    height, width = vectors.shape[2:]
    return vectors[:, :, height // 4 : -(height // 4), width // 4 : -(width // 4)]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("motion", [(3, 0), (-2, 4)])
def test_finds_the_motion_in_both_directions(preset, motion):
    clip, expected = moving(*motion), torch.tensor(motion, dtype=torch.float32).view(1, 2, 1, 1)
    forward = dis_flow(clip, preset=preset)
    assert forward.shape == (2, 2, 96, 128) and forward.dtype == torch.float32
    assert (middle(forward) - expected).abs().mean() < 0.25
    backward = dis_flow(clip, direction="backward", preset=preset)
    assert (middle(backward) + expected).abs().mean() < 0.25


@pytest.mark.parametrize("factor", [0.5, 0.37, 1.0, 2.0])
def test_the_flow_is_in_pixels_of_the_given_frames_whatever_the_factor(factor):
    result = dis_flow(moving(4, -2), factor=factor)
    assert result.shape == (2, 2, 96, 128)
    assert (middle(result) - torch.tensor([4.0, -2.0]).view(1, 2, 1, 1)).abs().mean() < 0.3


def test_gray_and_alpha_give_the_same_as_color():
    clip = moving(2, 1)
    expected = dis_flow(clip)
    alpha = torch.rand(*clip.shape[:3], 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(dis_flow(torch.cat([clip, alpha], dim=-1)), expected)
    assert (dis_flow(clip[..., :1]) - expected).abs().max() < 0.05
    assert (dis_flow(clip.half()) - expected).abs().mean() < 0.05


def test_two_runs_agree():
    clip = moving(3, 1)
    assert torch.equal(dis_flow(clip), dis_flow(clip))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (7, 7), (12, 9), (31, 33), (97, 61)])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_tiny_and_odd_sizes(size, factor):
    still = texture(*size).unsqueeze(0).unsqueeze(-1).expand(3, -1, -1, 3)
    result = dis_flow(still, factor=factor)
    assert result.shape == (2, 2, *size)
    assert result.abs().max() < 0.05
    changing = torch.rand(3, *size, 3, generator=torch.Generator().manual_seed(1))
    assert bool(torch.isfinite(dis_flow(changing, factor=factor)).all())


def test_small_pictures_still_find_their_motion():
    result = dis_flow(moving(2, 0, size=(24, 24)))
    assert (middle(result)[:, 0] - 2).abs().mean() < 0.5


def test_callback_is_asked_before_every_pair_and_may_stop():
    seen = []
    dis_flow(moving(1, 0, frames=4), on_frame=lambda pair, total: seen.append((pair, total)))
    assert seen == [(0, 3), (1, 3), (2, 3)]

    class StopError(Exception):
        pass

    def stop(pair, total):
        if pair == 1:
            raise StopError

    with pytest.raises(StopError):
        dis_flow(moving(1, 0, frames=4), on_frame=stop)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (torch.zeros(1, 8, 8, 3), {}, "frames: got 1 frame; optical flow needs at least 2. Connect a video"),
        (torch.zeros(0, 8, 8, 3), {}, "frames: got 0 frames; optical flow needs at least 2"),
        (torch.zeros(2, 8, 8), {}, r"frames: got \[2, 8, 8\]; expected a clip"),
        (torch.zeros(2, 8, 8, 2), {}, r"frames: got \[2, 8, 8, 2\]; expected a clip .* with 1, 3 or 4 channels"),
        (torch.zeros(2, 0, 8, 3), {}, "frames: got 0x8 pixels"),
        (None, {}, "frames: got NoneType"),
        (torch.zeros(2, 8, 8, 3), {"direction": "up"}, "direction: got 'up'; expected 'forward' or 'backward'"),
        (torch.zeros(2, 8, 8, 3), {"factor": 0.0}, "resize factor: got 0; expected more than 0 and at most 4"),
        (torch.zeros(2, 8, 8, 3), {"factor": float("nan")}, "resize factor: got nan"),
        (torch.zeros(2, 8, 8, 3), {"preset": "best"}, "preset: got 'best'; expected one of ultrafast, fast, medium"),
        (torch.full((2, 8, 8, 3), float("nan")), {}, "frames: frame 0 holds NaN"),
    ],
)
def test_messages(frames, options, message):
    with pytest.raises(ValueError, match=message):
        dis_flow(frames, **options)


def test_missing_opencv_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(
        ImportError, match=r"needs OpenCV, which is not installed. Run: pip install opencv-python-headless"
    ):
        dis_flow(moving(1, 0))
    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(__version__="2.4"))
    with pytest.raises(ImportError, match=r"This OpenCV \(2.4\) has no DISOpticalFlow"):
        dis_flow(moving(1, 0))


def test_frames_are_checked_without_opencv():
    with pytest.raises(ValueError, match="resize factor"):
        check_frames(torch.zeros(2, 8, 8, 3), "forward", 5.0)
