"""Long clips in overlapping windows: as a whole, in parts, blended; and what cannot be cut."""

import itertools

import pytest
import torch
from motion_models import UNET, apart, ic_light, motion, noise_of, sample, text_of
from papernodes.networks.demo_controlnet import load_controlnet
from papernodes.networks.demo_image import load_model
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.patches.frame_windows import FUSE_METHODS, SCHEDULES, FrameWindows, Windows
from papernodes.patches.frames import with_motion
from papernodes.patches.ic_light import with_latents


@pytest.fixture(scope="module")
def model():
    return load_model(UNET)


@pytest.mark.parametrize("joint_norm", (True, False))
def test_a_clip_of_one_window_is_no_window(model, joint_norm):
    network = motion()
    whole = sample(with_motion(model, network, joint_norm=joint_norm))
    cut = with_motion(model, network, joint_norm=joint_norm, windows=Windows(4, 2))
    assert torch.equal(sample(cut), whole)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_windows_cover_a_long_clip(model, schedule):
    """Also samplers that look between the steps; more frames than the modules know positions."""
    found = sample(with_motion(model, motion(positions=4), windows=Windows(4, 2, schedule)), frames=7, sampler="heun")
    assert found.shape[0] == 7 and torch.isfinite(found).all()
    assert all(float(frame.std()) > 0.05 for frame in found), "each frame was computed"


@pytest.mark.parametrize("fuse", FUSE_METHODS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_windows_leave_alone_is_put_together_again(schedule, fuse):
    """A network that changes nothing: no frame lost or counted twice, however the clip is cut, at each step."""
    sigmas = torch.tensor([3.0, 2.0, 1.0, 0.0])

    def nothing(_, conditions, x, t, options):
        assert x.shape[0] == t.shape[0] <= 5
        return [x.clone() for _ in conditions]

    for length, overlap, frames, step in itertools.product((1, 2, 4, 5), range(5), (6, 7, 16), range(3)):
        if overlap < length:
            windows, x = FrameWindows(Windows(length, overlap, schedule, fuse)), noise_of(0, frames)
            options = {"transformer_options": {"sample_sigmas": sigmas}}
            found = windows.execute(nothing, None, [[], None], x, sigmas[step].expand(frames), options)
            for one in found:
                torch.testing.assert_close(one, x)


@pytest.mark.parametrize(
    ("fuse", "expected"), (("flat", (0, 0, 1 / 2, 1 / 2, 1, 1)), ("pyramid", (0, 0, 1 / 3, 2 / 3, 1, 1)))
)
def test_windows_are_blended_where_they_overlap(fuse, expected):
    """Frames 0 to 3 become 0, frames 2 to 5 become 1; a pyramid counts a window's frames 1, 2, 2, 1 times."""
    calls = itertools.count()
    windows, x = FrameWindows(Windows(4, 2, fuse=fuse)), noise_of(0, 6)
    options = {"transformer_options": {"sample_sigmas": torch.tensor([1.0, 0.0])}}
    (found,) = windows.execute(
        lambda _, conditions, x, *rest: [torch.full_like(x, next(calls))], None, [None], x, torch.ones(6), options
    )
    torch.testing.assert_close(found, torch.tensor(expected).view(6, 1, 1, 1).expand_as(x))


def test_windows_without_overlap_are_clips(model):
    """What each frame has in the conditions goes with it: its light, its text, its ControlNet picture."""
    tuned, noise, light = ic_light(with_motion(model, motion())), noise_of(0, 6), noise_of(3, 6)
    control = load_controlnet(FOLDER / "image_controlnet_lineart.safetensors", UNET)
    pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)).round()
    cut = ic_light(with_motion(model, motion(), windows=Windows(3, 0, "batched", "flat")))
    texts = [text_of(seed, 6)[0][0] for seed in (0, 100)]

    def part(frames, of):
        drawn = {"control": control.copy().set_cond_hint(pictures[frames]), "control_apply_to_uncond": False}
        conditions = tuple(with_latents([[text[frames], drawn]], light[frames]) for text in texts)
        return sample(of, noise=noise[frames], conditions=conditions)

    expected = torch.cat([part(slice(0, 3), tuned), part(slice(3, 6), tuned)])
    assert apart(part(slice(0, 6), cut), expected) < 1e-4
    assert apart(part(slice(0, 6), tuned), expected) > 1e-3


def test_wrong_windows():
    for wrong, said in (
        ((0, 0), "context length is 0; expected at least 1"),
        ((4, 4), "context overlap is 4; expected 0 to 3"),
        ((4, 1, "other"), "context schedule is 'other'; expected .*standard_static"),
        ((4, 1, "batched", "other"), "context fuse is 'other'; expected .*pyramid"),
    ):
        with pytest.raises(ValueError, match=said):
            Windows(*wrong)
