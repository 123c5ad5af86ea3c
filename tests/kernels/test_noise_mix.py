"""Mixing keeps variance; thinning out frames keeps what each mode promises."""

import pytest
import torch
from papernodes.kernels.noise_mix import TEMPORAL_MODES, mix_noise, temporal_downsample


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


A, B = noise(0, 5, 4, 40, 50), noise(1, 5, 4, 40, 50)


def test_the_ends_are_exact():
    assert torch.equal(mix_noise(A, B, 0.0), A)
    assert torch.equal(mix_noise(A, B, 1.0), B)


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.5, 0.8])
def test_independent_noises_keep_unit_variance(weight):
    mixed = mix_noise(A, B, weight)
    expected = ((1 - weight) * A + weight * B) / ((1 - weight) ** 2 + weight**2) ** 0.5
    assert torch.allclose(mixed, expected, atol=1e-6)
    assert mixed.std() == pytest.approx(1, abs=0.02)


def test_a_weight_for_each_frame():
    mixed = mix_noise(A, B, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert torch.equal(mixed[0], A[0]) and torch.equal(mixed[4], B[4])
    share = [float((mixed[t] * A[t]).mean()) for t in range(5)]
    assert share == sorted(share, reverse=True)
    assert share[2] == pytest.approx(0.5**0.5, abs=0.03)


def test_correlated_noises_keep_unit_variance_too():
    assert torch.allclose(mix_noise(A, A, 0.5), A, atol=1e-5)
    related = (A + B) / 2**0.5
    assert mix_noise(A, related, 0.5).std() == pytest.approx(1, abs=0.02)


def test_half_precision_stays_half_precision():
    assert mix_noise(A.half(), B.half(), 0.4).dtype == torch.float16


@pytest.mark.parametrize(
    ("a", "b", "weight", "message"),
    [
        (A, B[:4], 0.5, "same shape"),
        (A, B, 1.5, r"\[0, 1\]"),
        (A, B, float("nan"), r"\[0, 1\]"),
        (A, B, torch.zeros(3), "one number or one for each of 5 frames"),
        (A, -A, 0.5, "cancel"),
    ],
)
def test_bad_mixes_are_named(a, b, weight, message):
    with pytest.raises(ValueError, match=message):
        mix_noise(a, b, weight)


def test_nearest_picks_the_published_frames():
    clip = torch.arange(49.0).view(49, 1, 1, 1)
    picked = temporal_downsample(clip, 13, "nearest").flatten().tolist()
    assert picked == [4.0 * i for i in range(13)]  # 49 frames, 13 latent frames of CogVideoX
    uneven = temporal_downsample(clip, 10, "nearest").flatten().tolist()
    assert uneven == [0, 5, 11, 16, 21, 27, 32, 37, 43, 48]
    assert temporal_downsample(clip, 1, "nearest").flatten().tolist() == [0]


def test_blend_takes_means_of_groups():
    clip = noise(2, 16, 2, 30, 40)
    blended = temporal_downsample(clip, 4, "blend")
    assert torch.allclose(blended[1], clip[4:8].mean(0))
    assert blended.std() == pytest.approx(0.5, abs=0.03)
    assert temporal_downsample(clip, 4, "blend_norm").flatten(1).std(1, correction=0).tolist() == pytest.approx([1] * 4)


def test_randn_is_independent_and_reproducible():
    clip = noise(2, 16, 4, 30, 40)
    drawn = temporal_downsample(clip, 4, "randn", seed=2**64 - 1)
    assert torch.equal(drawn, temporal_downsample(clip, 4, "randn", seed=2**64 - 1))
    assert not torch.equal(drawn, temporal_downsample(clip, 4, "randn", seed=1))
    assert abs(float((drawn * clip[:4]).mean())) < 0.05


@pytest.mark.parametrize("mode", TEMPORAL_MODES[:3])
def test_as_many_frames_as_there_are_change_nothing(mode):
    assert torch.equal(temporal_downsample(A, 5, mode), A)


@pytest.mark.parametrize(
    ("clip", "frames", "mode", "message"),
    [
        (A, 6, "nearest", "6 latent frames from 5"),
        (A, 0, "nearest", "expected 1 to 5"),
        (A, 2, "mean", "nearest, blend, blend_norm, randn"),
        (A[0], 2, "nearest", r"\[T, C, h, w\]"),
    ],
)
def test_bad_counts_are_named(clip, frames, mode, message):
    with pytest.raises(ValueError, match=message):
        temporal_downsample(clip, frames, mode)
