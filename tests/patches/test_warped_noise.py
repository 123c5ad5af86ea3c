"""WarpedNoise against the kernel: layouts, batches, seeds, degradation, interrupt, and what is refused."""

import logging

import comfy.model_management
import comfy.nested_tensor
import comfy.utils
import pytest
import torch
from flows import pan, swirl
from papernodes.kernels.noise_warp import NoiseWarper, warp_noise
from papernodes.kernels.schedule import Schedule
from papernodes.patches import warped_noise
from papernodes.patches.latent_layout import derived_seed, item_seed, read_layout
from papernodes.patches.warped_noise import WarpedNoise

OVERSAMPLE = 2


def make(flow, seed=7, degradation=0.0, **settings):
    defaults = {"temporal": "nearest", "algorithm": "subpixel", "oversample": OVERSAMPLE}
    return WarpedNoise(flow, seed=seed, degradation=Schedule.parse(degradation), **(defaults | settings))


def latent(*shape, **extra):
    return {"samples": torch.zeros(shape), **extra}


def kernel(flow, channels, size, seed, **settings):
    device = comfy.model_management.get_torch_device()
    return warp_noise(flow.vectors, channels, size, seed=seed, oversample=OVERSAMPLE, device=device, **settings).cpu()


def statistics_are_normal(noise):
    count = noise.numel()
    assert abs(noise.mean()) < 5 / count**0.5
    assert abs(noise.var() - 1) < 5 * (2 / count) ** 0.5


@pytest.mark.parametrize("channels", [4, 16, 128])
@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 1)])
def test_frames_as_batch_are_the_kernels_frames(channels, size):
    flow = swirl(6)
    noise = make(flow).generate_noise(latent(6, channels, *size))
    assert torch.equal(noise, kernel(flow, channels, size, 7))


def test_a_shorter_clip_of_pictures_lasts_as_long():
    """AnimateDiff's 16 pictures over 49 frames: round(3.2 i)."""
    flow = swirl(49)
    noise = make(flow).generate_noise(latent(16, 4, 6, 6))
    picked = [0, 3, 6, 10, 13, 16, 19, 22, 26, 29, 32, 35, 38, 42, 45, 48]
    assert torch.equal(noise, kernel(flow, 4, (6, 6), 7)[picked])


def test_noise_moves_with_the_flow_and_plain_noise_does_not():
    flow = pan(5, dx=4.0)  # 4 pixels of 32 are one latent pixel of 8
    noise = make(flow).generate_noise(latent(5, 64, 8, 8))
    torch.testing.assert_close(noise[1, :, :, 2:], noise[0, :, :, 1:-1], rtol=0, atol=1e-5)
    assert (noise[1] - noise[0]).abs().mean() > 0.5


def test_video_picks_the_frames_that_latent_frames_stand_for():
    flow = swirl(17)
    noise = make(flow).generate_noise(latent(1, 16, 5, 6, 8))
    expected = kernel(flow, 16, (6, 8), 7)[[0, 4, 8, 12, 16]]
    assert torch.equal(noise, expected.transpose(0, 1)[None])


@pytest.mark.parametrize("temporal", ["nearest", "blend", "blend_norm", "randn"])
@pytest.mark.parametrize("shape", [(1, 16, 5, 6, 8), (1, 128, 3, 6, 8), (1, 16, 7, 6, 8), (1, 16, 1, 6, 8)])
def test_every_temporal_mode_gives_the_latents_shape(temporal, shape):
    noise = make(swirl(17), temporal=temporal).generate_noise(latent(*shape))
    assert noise.shape == shape
    assert noise.isfinite().all()
    if temporal != "blend":
        statistics_are_normal(noise)


def test_cogvideox_layout_holds_the_same_frames():
    flow = swirl(17)
    ours = make(flow).generate_noise(latent(2, 16, 5, 6, 8))
    theirs = make(flow).generate_noise(latent(2, 5, 16, 6, 8))
    assert theirs.shape == (2, 5, 16, 6, 8)
    assert torch.equal(theirs, ours.transpose(1, 2))
    forced = make(flow, layout_5d="B,T,C,H,W").generate_noise(latent(2, 5, 16, 6, 8))
    assert torch.equal(forced, theirs)


@pytest.mark.parametrize(
    ("shape", "clip_frames", "kind"),
    [
        ((1, 16, 13, 60, 90), 49, "B,C,T,H,W"),
        ((1, 13, 16, 60, 90), 49, "B,T,C,H,W"),
        ((1, 16, 16, 8, 8), 61, "B,C,T,H,W"),
        ((1, 48, 21, 8, 8), 81, "B,C,T,H,W"),
        ((1, 128, 16, 8, 8), 121, "B,C,T,H,W"),
        ((1, 12, 16, 8, 8), 45, "B,T,C,H,W"),
        ((1, 12, 16, 8, 8), 61, "B,C,T,H,W"),
        ((1, 1, 16, 8, 8), 49, "B,T,C,H,W"),
    ],
)
def test_auto_layout(shape, clip_frames, kind):
    assert read_layout(torch.zeros(shape), clip_frames=clip_frames).kind == kind


@pytest.mark.parametrize("shape", [(3, 16, 5, 6, 8), (3, 5, 16, 6, 8)])
def test_every_item_of_a_batch_has_its_own_noise(shape):
    flow = swirl(17)
    noise = make(flow).generate_noise(latent(*shape))
    alone = make(flow).generate_noise(latent(1, *shape[1:]))
    assert torch.equal(noise[:1], alone)
    pairs = torch.corrcoef(noise.reshape(3, -1))
    assert (pairs - torch.eye(3)).abs().max() < 0.1
    for item in noise:
        statistics_are_normal(item)


def test_pictures_are_the_clips_last_frame_each_with_its_own_seed():
    flow = swirl(6)
    noise = make(flow, batch_4d="pictures").generate_noise(latent(3, 4, 8, 8))
    expected = [kernel(flow, 4, (8, 8), item_seed(7, item))[-1] for item in range(3)]
    assert torch.equal(noise, torch.stack(expected))


def test_seeds():
    flow = swirl(5)
    first = make(flow, seed=1).generate_noise(latent(2, 16, 5, 6, 8))
    again = make(flow, seed=1).generate_noise(latent(2, 16, 5, 6, 8))
    second = make(flow, seed=2).generate_noise(latent(2, 16, 5, 6, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], second[0])
    # seed 1's second item is not seed 2's first
    assert not torch.equal(first[1], second[0])
    assert make(flow, seed=1).seed == 1
    make(flow, seed=2**64 - 1).generate_noise(latent(1, 4, 5, 2, 2))


def test_derived_seeds_are_fixed_numbers():
    # A change here changes every picture that people made: do not.
    assert derived_seed(7, "item", 1, 0) == derived_seed(7, "item", 1, 0) != derived_seed(8, "item", 1, 0)
    assert item_seed(7, 0) == 7
    assert 0 <= derived_seed(2**64 - 1, "degradation") < 2**63


@pytest.mark.parametrize("settings", [{"batch_4d": "pictures"}, {}])
def test_batch_index_takes_a_batch_apart(settings):
    shape = (4, 4, 8, 8) if settings else (4, 16, 5, 8, 8)
    noise = make(swirl(17), **settings)
    whole = noise.generate_noise(latent(*shape))
    for index in ([2], [1, 3], [3, 0, 3]):
        part = noise.generate_noise(latent(len(index), *shape[1:], batch_index=index))
        assert torch.equal(part, whole[index])


@pytest.mark.parametrize("degradation", [0.0, 0.4])
@pytest.mark.parametrize("temporal", ["nearest", "randn"])
def test_batch_index_picks_frames_of_the_clip(degradation, temporal):
    noise = make(swirl(6), degradation=degradation, temporal=temporal)
    whole = noise.generate_noise(latent(6, 4, 8, 8))
    for index in ([2], [4, 5], [5, 0, 5]):
        part = noise.generate_noise(latent(len(index), 4, 8, 8, batch_index=index))
        assert torch.equal(part, whole[index])


def test_noise_mask_changes_nothing():
    noise = make(swirl(5))
    plain = noise.generate_noise(latent(5, 4, 8, 8))
    masked = noise.generate_noise(latent(5, 4, 8, 8, noise_mask=torch.zeros(1, 64, 64)))
    assert torch.equal(plain, masked)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtype_device_and_the_latent_itself(dtype):
    given = {"samples": torch.ones(5, 4, 8, 8, dtype=dtype), "other": "kept"}
    noise = make(swirl(5)).generate_noise(given)
    assert noise.dtype == dtype
    assert noise.device.type == "cpu"
    assert set(given) == {"samples", "other"}
    assert torch.equal(given["samples"], torch.ones(5, 4, 8, 8, dtype=dtype))


def test_packed_latent():
    video, sound = torch.zeros(2, 16, 5, 6, 8), torch.zeros(2, 8, 40)
    packed = {"samples": comfy.nested_tensor.NestedTensor([video, sound])}
    noise = make(swirl(17))
    result = noise.generate_noise(packed)
    assert result.is_nested
    first, second = result.unbind()
    assert torch.equal(first, noise.generate_noise({"samples": video}))
    assert second.shape == sound.shape
    statistics_are_normal(second)
    assert not torch.equal(second[0], second[1])
    # a part of another rank beside video is sound, also where it has four dimensions
    packed = {"samples": comfy.nested_tensor.NestedTensor([video, torch.zeros(2, 8, 40, 16)])}
    assert noise.generate_noise(packed).unbind()[1].shape == (2, 8, 40, 16)


def test_degradation_0_is_the_warped_noise_and_1_is_plain_noise():
    flow = pan(9, dx=0.0)
    warped = make(flow).generate_noise(latent(9, 16, 8, 8))
    torch.testing.assert_close(warped[0], warped[8], rtol=0, atol=1e-5)
    plain = make(flow, degradation=1.0).generate_noise(latent(9, 16, 8, 8))
    statistics_are_normal(plain)
    pairs = torch.corrcoef(plain.reshape(9, -1))
    assert (pairs - torch.eye(9)).abs().max() < 5 / plain[0].numel() ** 0.5
    assert torch.corrcoef(torch.stack([plain.flatten(), warped.flatten()]))[0, 1].abs() < 0.05
    half = make(flow, degradation=0.5).generate_noise(latent(9, 16, 8, 8))
    statistics_are_normal(half[0])
    assert 0.4 < torch.corrcoef(half[:2].reshape(2, -1))[0, 1] < 0.6


@pytest.mark.parametrize("temporal", ["nearest", "blend"])
def test_full_degradation_is_plain_noise_in_every_temporal_mode(temporal):
    noise = make(swirl(17), degradation=1.0, temporal=temporal).generate_noise(latent(1, 16, 5, 8, 8))
    statistics_are_normal(noise)


def test_randn_is_plain_noise_also_frame_by_frame():
    noise = make(pan(5, dx=0.0), temporal="randn").generate_noise(latent(5, 16, 8, 8))
    statistics_are_normal(noise)
    assert (torch.corrcoef(noise.reshape(5, -1)) - torch.eye(5)).abs().max() < 0.2


def test_degradation_is_read_at_the_clips_frames():
    flow = pan(17, dx=0.0)
    noise = make(flow, degradation="0:0, 8:1 hold")
    result = noise.generate_noise(latent(1, 16, 5, 8, 8))[0].transpose(0, 1)  # latent frames 0, 4, 8, 12, 16
    torch.testing.assert_close(result[0], result[1], rtol=0, atol=1e-5)
    assert torch.corrcoef(result[1:3].reshape(2, -1))[0, 1].abs() < 0.2


def test_backward_flow_is_turned_round():
    # backward vectors of (-4, 0): the content of frame t+1 lies 4 pixels to the left in frame t, so it moved right
    noise = make(pan(5, dx=-4.0, direction="backward")).generate_noise(latent(5, 16, 8, 8))
    inner = noise[1, :, :, 2:-1] - noise[0, :, :, 1:-2]
    assert inner.abs().max() < 1e-3


def test_everything_leaves_the_picture():
    noise = make(pan(5, dx=1e6)).generate_noise(latent(5, 16, 8, 8))
    statistics_are_normal(noise)
    assert torch.corrcoef(noise.reshape(5, -1))[0, 1].abs() < 0.2


@pytest.mark.parametrize("flow_size", [(1, 1), (1, 40), (37, 3)])
def test_odd_flow_sizes(flow_size):
    noise = make(pan(5, *flow_size, dx=0.5)).generate_noise(latent(5, 4, 7, 5))
    assert noise.shape == (5, 4, 7, 5)
    assert noise.isfinite().all()


def test_too_many_latent_frames():
    with pytest.raises(ValueError, match=r"13 latent frames.* 49 video frames .* 97 for LTXV.* flow covers 12"):
        make(swirl(12)).generate_noise(latent(1, 16, 13, 4, 4))
    with pytest.raises(ValueError, match=r"batch of 13 frames.* flow covers 12"):
        make(swirl(12)).generate_noise(latent(13, 4, 4, 4))


@pytest.mark.parametrize(
    ("clip_frames", "shape", "told"),
    [
        (12, (1, 16, 13, 4, 4), [r"49 video frames", r"97 for LTXV", r"covers 12", r"9 frames \(LTXV: 9\) fit"]),
        (24, (1, 16, 25, 4, 4), [r"97 video frames", r"193 for LTXV", r"covers 24", r"21 frames \(LTXV: 17\) fit"]),
        (2, (1, 16, 5, 4, 4), [r"17 video frames", r"covers 2", r"1 frames \(LTXV: 1\) fit"]),
    ],
)
def test_a_flow_with_fewer_frames_than_the_latent_says_what_fits(clip_frames, shape, told):
    with pytest.raises(ValueError, match=r".*".join(told)):
        make(swirl(clip_frames)).generate_noise(latent(*shape))


@pytest.mark.parametrize(
    ("clip_frames", "shape", "lengths"),
    [
        (50, (1, 16, 13, 4, 4), ["49 video frames", "97 for LTXV", "4 k + 1 (49, 53)", "8 k + 1 (49, 57)"]),
        (20, (1, 16, 5, 4, 4), ["17 video frames", "4 k + 1 (17, 21)", "8 k + 1 (17, 25)"]),
        (20, (1, 5, 16, 4, 4), ["17 video frames", "4 k + 1 (17, 21)"]),
        (20, (7, 4, 4, 4), ["compute the flow from 7 frames"]),
    ],
)
def test_a_length_that_does_not_fit_says_which_do(clip_frames, shape, lengths, caplog):
    with caplog.at_level(logging.INFO):
        make(swirl(clip_frames)).generate_noise(latent(*shape))
    (record,) = caplog.records
    assert f"covers {clip_frames} video frames" in record.getMessage()
    for text in lengths:
        assert text in record.getMessage()


@pytest.mark.parametrize("clip_frames", [6, 12, 20, 33])
def test_a_flow_longer_or_shorter_than_the_video_is_spread_over_it(clip_frames):
    """5 latent frames are 17 video frames; the first is the clip's first, the last its last, the others between."""
    flow = swirl(clip_frames)
    noise = make(flow).generate_noise(latent(1, 16, 5, 4, 4))[0].transpose(0, 1)
    chosen = [int(i * (clip_frames - 1) / 4 + 0.5) for i in range(5)]
    assert chosen[0] == 0 and chosen[-1] == clip_frames - 1
    assert torch.equal(noise, kernel(flow, 16, (4, 4), 7)[chosen])


@pytest.mark.parametrize("shape", [(2, 16, 1, 6, 6), (1, 1, 16, 6, 6), (1, 4, 6, 6)])
@pytest.mark.parametrize("clip_frames", [2, 17, 20])
def test_one_frame_is_the_clips_first(clip_frames, shape, caplog):
    flow = swirl(clip_frames)
    with caplog.at_level(logging.INFO):
        noise = make(flow, degradation="0:0, 1:1 hold").generate_noise(latent(*shape))
    assert not caplog.records
    assert noise.shape == shape
    channels = 4 if len(shape) == 4 else 16
    assert torch.equal(noise[:1].reshape(channels, 6, 6), kernel(flow, channels, (6, 6), 7)[0])
    last = make(flow, batch_4d="pictures").generate_noise(latent(*shape))
    assert torch.equal(last[:1].reshape(channels, 6, 6), kernel(flow, channels, (6, 6), 7)[-1])


def test_logs_stretched_motion_and_another_aspect(caplog):
    with caplog.at_level(logging.INFO):
        make(swirl(17)).generate_noise(latent(1, 16, 5, 8, 8))
        make(swirl(17)).generate_noise(latent(1, 128, 3, 8, 8))
        assert not caplog.records
        make(swirl(20)).generate_noise(latent(1, 16, 5, 8, 8))
        assert [r.levelname for r in caplog.records] == ["INFO"]
        assert "stretched" in caplog.text
        make(swirl(17)).generate_noise(latent(1, 16, 5, 4, 8))
        assert caplog.records[-1].levelname == "WARNING"
        assert "squeezed" in caplog.text


def test_interrupt_stops_within_one_frame():
    steps = []

    def hook(value, total, preview, node_id=None):
        steps.append(value)
        if value == 3:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            make(swirl(40)).generate_noise(latent(40, 4, 8, 8))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    assert max(steps) == 3


def test_room_is_made_before_the_noise_is_computed(monkeypatch):
    calls = []
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda needed, device: calls.append(needed))
    real = warped_noise.warp_noise
    monkeypatch.setattr(warped_noise, "warp_noise", lambda *a, **k: calls.append("computed") or real(*a, **k))
    make(swirl(5)).generate_noise(latent(5, 4, 8, 8))
    assert calls[-1] == "computed"
    assert calls[0] >= NoiseWarper.state_bytes(4, 8 * OVERSAMPLE, 8 * OVERSAMPLE)


def test_a_grid_larger_than_memory_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda device: 1000)
    monkeypatch.setattr(warped_noise, "warp_noise", lambda *args, **settings: pytest.fail("was computed"))
    with pytest.raises(ValueError, match="smaller oversample"):
        make(swirl(5)).generate_noise(latent(5, 4, 8, 8))


@pytest.mark.parametrize("shape", [(4, 8), (1, 8, 40), (1, 2, 3, 4, 5, 6), (0, 4, 8, 8), (2, 4, 0, 8)])
def test_what_is_no_picture_and_no_video_is_refused(shape):
    with pytest.raises(ValueError, match=r"LATENT has shape"):
        make(swirl(5)).generate_noise({"samples": torch.zeros(shape)})


@pytest.mark.parametrize(("index", "message"), [([9], "frame 9"), ([0, 1], "names 2"), ([-1], "negative")])
def test_bad_batch_index(index, message):
    with pytest.raises(ValueError, match=message):
        make(swirl(5)).generate_noise(latent(1, 4, 8, 8, batch_index=index))
