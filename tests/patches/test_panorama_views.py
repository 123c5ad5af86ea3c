"""Views of a panorama that are denoised together: noise keeps its variance, what is fused is what they agree on."""

import functools

import comfy.samplers
import pytest
import torch
from papernodes.kernels.panorama import equirect_to_perspective
from papernodes.kernels.view_coverage import rings
from papernodes.kernels.view_fusion import ViewFusion, Views
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.patches.panorama_model import Panorama, with_panorama
from papernodes.patches.panorama_views import PanoramaGuider
from tiny_models import tiny_conditioning, tiny_model


def views_of(fov=100.0, overlap=0.2, columns=8, at_a_time=4, **rest):
    yaw, pitch = rings(0, fov, overlap)
    return Views(yaw, pitch, fov, columns, at_a_time, **rest)


@functools.cache
def demo():
    return DemoCheckpoint.execute("image").args[:3]


def sample(model, guider, conditioning, shape, *, seed=0, steps=2, sampler="euler", start=None):
    guider.set_conds(conditioning, conditioning)
    guider.set_cfg(1.0)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
    start = torch.zeros(shape) if start is None else start
    return guider.sample(noise, start, comfy.samplers.sampler_object(sampler), sigmas, disable_pbar=True, seed=seed)


@pytest.mark.parametrize("columns", (8, 16, 40))
def test_noise_of_views_is_white(columns):
    """Mean 0, variance 1, neighbours independent, however often a texel is seen; copies have its share as mean."""
    fusion = ViewFusion(views_of(columns=columns), 16, 32, seed=3)
    noise = torch.randn(4, 64, 16, 32, generator=torch.Generator().manual_seed(0))
    seen = fusion.see_noise(noise, 1.0, slice(0, 4))
    assert seen.shape == (16, 64, columns, columns)
    assert abs(float(seen.mean())) < 0.01 and abs(float(seen.var()) - 1) < 0.02
    for axis in (-1, -2):
        pairs = seen.unfold(axis, 2, 1)
        assert abs(float((pairs[..., 0] * pairs[..., 1]).mean())) < 0.02
    half = fusion.see_noise(noise * 0.5, 0.5, slice(0, 4))
    assert torch.allclose(half, seen * 0.5, atol=1e-5)
    rows, numbers = seen.view(4, 4, 64, -1)[1], fusion.seen[1]
    number = int(numbers[0])
    copies = rows[:, :, numbers == number]
    expected = noise.flatten(2)[:, :, number] / copies.shape[-1] ** 0.5
    assert torch.allclose(copies.mean(-1), expected, atol=1e-4)


def test_views_that_agree_give_what_they_show():
    fusion = ViewFusion(views_of(columns=32, at_a_time=3), 32, 64)
    assert torch.allclose(fusion.weights.sum(0), torch.ones(32, 64))
    latitude = (0.5 - (torch.arange(32) + 0.5) / 32) * torch.pi
    longitude = ((torch.arange(64) + 0.5) / 64 - 0.5) * 2 * torch.pi
    x = latitude.cos()[:, None] * longitude.sin()
    smooth = torch.stack([x, latitude.sin()[:, None].expand(32, 64)])[None].repeat(2, 1, 1, 1) * torch.tensor(
        [1, 2]
    ).view(2, 1, 1, 1)
    placed = sum(fusion.place(fusion.see(smooth, chunk), chunk) for chunk in fusion.chunks())
    assert float((placed - smooth).abs().max()) < 0.03
    clip = smooth[:, :, None].expand(2, 2, 3, 32, 64)
    seen = fusion.see(clip, slice(0, 2))
    assert seen.shape == (4, 2, 3, 32, 32) and torch.equal(seen[:, :, 0], fusion.see(smooth, slice(0, 2)))
    one = [value[1:2] for value in fusion.cameras]
    assert torch.equal(seen[3, :, 0], equirect_to_perspective(smooth[1:], *one, 32, 32)[0])


def test_where_views_are_all_alike_the_guider_is_the_plain_one():
    """A network that answers every place by itself: a view's answer is its panorama's, so fusing changes nothing."""
    model = tiny_model("sd15")
    guider = PanoramaGuider(model, views_of())

    def halve(executor, x, *arguments, **rest):
        return torch.full_like(x, 0.25)

    plain = model.clone()
    plain.add_wrapper_with_key("apply_model", "constant", halve)
    guider = PanoramaGuider(plain, views_of())
    given = (tiny_conditioning("sd15"), (1, 4, 8, 16))
    found = sample(plain, guider, *given)
    assert torch.allclose(found, sample(plain, comfy.samplers.CFGGuider(plain), *given), atol=1e-4)


@pytest.mark.parametrize(("family", "shape"), [("sd3", (2, 16, 8, 16)), ("wan", (1, 16, 2, 8, 16))])
def test_any_model_and_sampler(family, shape):
    """Two runs agree, chunks do not matter, a batch is its single pictures, the input MODEL stays as it is."""
    model, given = tiny_model(family), (tiny_conditioning(family), shape)
    plain = sample(model, comfy.samplers.CFGGuider(model), *given)
    found = sample(model, PanoramaGuider(model, views_of()), *given)
    assert found.shape == shape and found.isfinite().all() and not torch.equal(found, plain)
    assert torch.equal(sample(model, PanoramaGuider(model, views_of()), *given), found)
    for count in (1, 64):
        other = sample(model, PanoramaGuider(model, views_of(at_a_time=count)), *given)
        assert float((other - found).abs().max() / found.abs().max()) < 1e-3
    assert torch.equal(sample(model, comfy.samplers.CFGGuider(model), *given), plain)
    second = sample(model, PanoramaGuider(model, views_of()), *given, sampler="dpmpp_2m")
    assert second.isfinite().all()


def test_pictures_are_fused_with_a_vae():
    model, clip, vae = demo()
    told = clip.encode_from_tokens_scheduled(clip.tokenize("a red ball in a meadow"))
    six = torch.tensor([0.0, 90, 180, -90, 0, 0]), torch.tensor([0.0, 0, 0, 0, 90, -90])
    views = Views(*six, 100.0, 8, 6)
    found = sample(model, PanoramaGuider(model, views, vae), told, (1, 4, 8, 16))
    assert found.isfinite().all()
    assert not torch.equal(found, sample(model, PanoramaGuider(model, views), told, (1, 4, 8, 16)))
    # From a picture: the views see it.
    start = sample(model, PanoramaGuider(model, views, vae), told, (1, 4, 8, 16), start=found)
    assert start.isfinite().all()


def test_what_cannot_be_is_said():
    model = tiny_model("sd15")
    with pytest.raises(ValueError, match="comes from Panorama Model"):
        PanoramaGuider(with_panorama(model, Panorama()), views_of())
    with pytest.raises(ValueError, match="do not see the whole sphere: something at latitudes -90"):
        PanoramaGuider(model, Views(torch.zeros(1), torch.zeros(1), 90.0))
    guider = PanoramaGuider(model, views_of())
    text, extra = tiny_conditioning("sd15")[0]
    with pytest.raises(ValueError, match="'positive' has 'mask'"):
        guider.set_conds([[text, {**extra, "mask": torch.ones(1, 8, 8)}]], [])
    for shape in ((1, 4, 8, 8), (1, 4, 16)):
        with pytest.raises(ValueError, match="twice as wide as high"):
            sample(model, guider, tiny_conditioning("sd15"), shape)
    assert Views(torch.zeros(1), torch.zeros(1), 90.0).columns_for(128) == 32
