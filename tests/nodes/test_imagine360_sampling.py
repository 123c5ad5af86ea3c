"""From a clip to a panorama: conditioning, the host's sampler on a random network in miniature, unpacking, decoding."""

import dataclasses

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import RandomNoise, SamplerCustomAdvanced
from panorama_models import CONTEXT, fill, sizes, token_sizes
from papernodes.networks.imagine360 import Imagine360Network
from papernodes.networks.sam_encoder import SamSizes
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.imagine360_conditioning import Imagine360Conditioning, Imagine360Unpack
from papernodes.patches.imagine360 import model_of
from sam_files import sam

SAM = SamSizes(width=16, heads=2, inner=24, channels=6, patch=4, grid=8, windows=(3, 8))


@pytest.fixture(scope="module")
def model():
    tokens = dataclasses.replace(token_sizes(), features=SAM.channels, queries=16)
    return model_of(fill(Imagine360Network(sizes(tokens=tokens))))


class Averages:
    """A VAE in no time: averages of 8x8 pixels."""

    def encode(self, pictures):
        return torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1) * 2 - 1, 8)[:, [0, 1, 2, 0]]


AVERAGES = Averages()


def text(seed):
    return [[torch.randn(1, 7, CONTEXT, generator=torch.Generator().manual_seed(seed)), {}]]


def conditioned(seed=0, vae=AVERAGES, **more):
    video = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    video = torch.nn.functional.interpolate(video, (48, 64), mode="bilinear").movedim(1, -1)
    given = {
        "pitch": "0:-20, 15:20",
        "frames": 2,
        "panorama_height": 128,
        "fov": 90.0,
        "view_ring": "icosahedron 20",
        "view_fov": 90.0,
        "fps": 8.0,
        "seed": seed,
        "antipodal_probability": 0.4,
        "token_noise": 0.1,
        "draw_seed": 5,
    }
    return Imagine360Conditioning.execute(text(seed), text(seed + 50), vae, video, **(given | more)).args


def sample(model, positive, negative, latent, noise, steps=1):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(7.5)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "ddim_uniform", steps)
    out, _ = SamplerCustomAdvanced.execute(noise, guider, comfy.samplers.sampler_object("euler"), sigmas, latent).args
    return out


def parts(latent):
    return [part["samples"] for part in Imagine360Unpack.execute(latent).args]


def apart(one, other):
    return float((one - other).abs().max() / other.abs().max())


def test_from_a_clip_to_a_panorama(model):
    """With image tokens, which want 16 frames."""
    given = conditioned(frames=16, image_encoder=sam(SAM))
    panorama, views = parts(sample(model, *given))
    assert panorama.shape == (16, 4, 16, 32) and views.shape == (320, 4, 8, 8)
    assert torch.isfinite(panorama).all() and torch.isfinite(views).all() and panorama.std() > 0.01


def test_with_a_real_vae(model):
    vae = DemoCheckpoint.execute("image").args[2]
    panorama, views = parts(sample(model, *conditioned(vae=vae, frames=1), steps=2))
    assert vae.decode(panorama).shape == (1, 128, 256, 3) and vae.decode(views[:2]).shape == (2, 64, 64, 3)


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_the_same_again_and_rows_apart(model, monkeypatch, seed):
    first = parts(sample(model, *conditioned(seed)))
    rows, spy = [], model.clone()
    spy.set_model_unet_function_wrapper(
        lambda apply, call: rows.append(call["cond_or_uncond"]) or apply(call["input"], call["timestep"], **call["c"])
    )
    again = parts(sample(spy, *conditioned(seed)))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    monkeypatch.setattr(model.model, "memory_required", lambda *_, **__: 1e30)
    alone = parts(sample(spy, *conditioned(seed)))
    assert [len(row) for row in rows] == [2, 1, 1]
    assert all(apart(one, other) < 1e-3 for one, other in zip(alone, first, strict=True))


def test_what_changes_the_panorama(model):
    positive, negative, latent, noise = conditioned()
    first = parts(sample(model, positive, negative, latent, noise))[0]
    others = {
        "another clip": (*conditioned(3)[:2], latent, noise),
        "the place half way round, always": conditioned(antipodal_probability=1.0),
        "noise of another seed": (positive, negative, latent, conditioned(3)[3]),
        "RandomNoise": (positive, negative, latent, RandomNoise.execute(0).args[0]),
    }
    for name, given in others.items():
        found = parts(sample(model, *given))[0]
        assert torch.isfinite(found).all() and apart(found, first) > 1e-4, name
