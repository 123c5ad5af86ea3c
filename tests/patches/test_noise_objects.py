"""LatentNoise, MixedNoise, and the helpers behind Noise To Latent."""

import comfy.nested_tensor
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise
from papernodes.kernels.schedule import Schedule
from papernodes.patches.latent_layout import read_layout
from papernodes.patches.noise_objects import LatentNoise, MixedNoise, map_parts, normalise_frames


def latent(*shape, **extra):
    return {"samples": torch.zeros(shape), **extra}


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 16, 5, 4, 4), (2, 5, 16, 4, 4)])
@pytest.mark.parametrize("batch_4d", ["frames", "pictures"])
def test_split_and_assemble_are_each_others_reverse(shape, batch_4d):
    samples = torch.randn(shape)
    layout = read_layout(samples, batch_4d=batch_4d)
    clips = layout.split(samples)
    assert len(clips) == layout.items
    assert all(clip.shape == (layout.frames, layout.channels, layout.height, layout.width) for clip in clips)
    assert torch.equal(layout.assemble(clips), samples)


def test_latent_noise_is_handed_out_as_a_copy():
    samples = torch.randn(2, 4, 8, 8)
    noise = LatentNoise(samples, seed=5)
    assert noise.seed == 5
    given = noise.generate_noise(latent(2, 4, 8, 8))
    assert torch.equal(given, samples)
    given.zero_()
    assert samples.abs().sum() > 0
    assert noise.generate_noise({"samples": torch.zeros(2, 4, 8, 8).half()}).dtype == torch.float16


def test_latent_noise_batch_index_and_picture_for_a_video_model():
    samples = torch.randn(4, 16, 8, 8)
    noise = LatentNoise(samples, seed=0)
    assert torch.equal(noise.generate_noise(latent(2, 16, 8, 8, batch_index=[3, 1])), samples[[3, 1]])
    assert torch.equal(noise.generate_noise(latent(4, 16, 1, 8, 8)), samples[:, :, None])
    # a latent taken apart together with its noise: the index speaks of the batch they both came from
    assert torch.equal(LatentNoise(samples[2:3], 0).generate_noise(latent(1, 16, 8, 8, batch_index=[2])), samples[2:3])


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (2, 16, 8, 8), (2, 4, 8, 9), (2, 4, 5, 8, 8)])
def test_latent_noise_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"noise has shape \[2, 4, 8, 8\].*latent to be sampled has"):
        LatentNoise(torch.randn(2, 4, 8, 8), 0).generate_noise(latent(*shape))


def test_latent_noise_packed():
    parts = [torch.randn(1, 4, 3, 4, 4), torch.randn(1, 8, 10)]
    nested = comfy.nested_tensor.NestedTensor
    result = LatentNoise(nested(parts), 0).generate_noise({"samples": nested([torch.zeros_like(p) for p in parts])})
    assert all(torch.equal(a, b) for a, b in zip(result.unbind(), parts, strict=True))
    with pytest.raises(ValueError, match="packed"):
        LatentNoise(nested(parts), 0).generate_noise(latent(1, 4, 3, 4, 4))
    with pytest.raises(ValueError, match="2 packed parts"):
        LatentNoise(nested(parts), 0).generate_noise({"samples": nested(parts[:1])})


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (2, 16, 5, 4, 4), (2, 5, 16, 4, 4)])
def test_normalise_frames(shape):
    samples = torch.randn(shape) * 3 + 2
    before = samples.clone()
    result = normalise_frames(samples, read_layout(samples))
    assert torch.equal(samples, before)
    for clip in read_layout(samples).split(result):
        for frame in clip:
            assert abs(frame.mean()) < 1e-4
            assert abs(frame.var(correction=0) - 1) < 1e-3
    with pytest.raises(ValueError, match="constant"):
        normalise_frames(torch.zeros(shape), read_layout(samples))


def mixed(weight, first=1, second=2, **settings):
    return MixedNoise(Noise_RandomNoise(first), Noise_RandomNoise(second), Schedule.parse(weight), **settings)


@pytest.mark.parametrize("shape", [(4, 4, 16, 16), (2, 16, 5, 8, 8), (2, 5, 16, 8, 8)])
def test_mixed_noise_ends_and_variance(shape):
    first = Noise_RandomNoise(1).generate_noise(latent(*shape))
    second = Noise_RandomNoise(2).generate_noise(latent(*shape))
    assert torch.equal(mixed(0.0).generate_noise(latent(*shape)), first)
    assert torch.equal(mixed(1.0).generate_noise(latent(*shape)), second)
    half = mixed(0.5).generate_noise(latent(*shape))
    assert abs(half.var() - 1) < 0.1
    for own in (first, second):
        assert 0.6 < torch.corrcoef(torch.stack([half.flatten(), own.flatten()]))[0, 1] < 0.8
    assert mixed(0.5).seed == 1


def test_mixed_noise_weight_runs_over_frames():
    ramp = "0:0, 4:1"
    shape = (2, 16, 5, 8, 8)
    first = Noise_RandomNoise(1).generate_noise(latent(*shape))
    second = Noise_RandomNoise(2).generate_noise(latent(*shape))
    result = mixed(ramp).generate_noise(latent(*shape))
    assert torch.equal(result[:, :, 0], first[:, :, 0])
    assert torch.equal(result[:, :, 4], second[:, :, 4])
    assert not torch.equal(result[:, :, 2], first[:, :, 2])
    pictures = mixed(ramp, batch_4d="pictures").generate_noise(latent(3, 4, 8, 8))
    assert torch.equal(pictures, Noise_RandomNoise(1).generate_noise(latent(3, 4, 8, 8)))


def test_mixed_noise_of_different_shapes_is_refused():
    class Odd:
        seed = 0

        def generate_noise(self, latent):
            return torch.zeros(1, 4, 2, 2)

    with pytest.raises(ValueError, match="noise_a gave shape"):
        MixedNoise(Noise_RandomNoise(1), Odd(), Schedule.parse(0.5)).generate_noise(latent(1, 4, 8, 8))


def test_map_parts():
    nested = comfy.nested_tensor.NestedTensor([torch.ones(1), torch.ones(2)])
    assert [p.sum().item() for p in map_parts(lambda a, b: a + b, nested, nested).unbind()] == [2, 4]
    assert map_parts(lambda a: a * 3, torch.ones(1)).item() == 3


def test_mixed_noise_that_cancels_is_refused():
    class Negative:
        seed = 0

        def generate_noise(self, latent):
            return -Noise_RandomNoise(1).generate_noise(latent)

    mix = MixedNoise(Noise_RandomNoise(1), Negative(), Schedule.parse(0.5))
    with pytest.raises(ValueError, match=r"Mix Noise: .*cancel.*independent"):
        mix.generate_noise(latent(1, 4, 8, 8))
