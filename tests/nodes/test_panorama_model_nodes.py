"""Panorama Model, Panorama Views and the panorama VAE nodes as the host runs them, and what they say of bad input."""

import comfy.samplers
import pytest
import torch
from papernodes.kernels.round_tiles import tile_starts
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.nodes.panorama_model import PanoramaModel, PanoramaViews
from papernodes.nodes.panorama_vae import PanoramaVAEDecode, PanoramaVAEEncode
from papernodes.patches.panorama_model import is_panorama
from tiny_models import tiny_conditioning, tiny_model

VIEWS = {
    "cfg": 2.0, "count": 0, "fov": 100.0, "overlap": 0.2, "pitches": "", "view_columns": 8, "views_at_a_time": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def image():
    return DemoCheckpoint.execute("image").args[:3]


def views(model=None, text=None, vae=None, **changes):
    text = tiny_conditioning("sd3") if text is None else text
    return PanoramaViews.execute(
        tiny_model("sd3") if model is None else model, text, text, **(VIEWS | changes), vae=vae
    )


def seam(picture):
    """How much more the picture [1, H, W, 3] changes across its edges than elsewhere."""
    across = (picture[:, :, 0] - picture[:, :, -1]).abs().mean()
    return float(across / (picture[:, :, 1:] - picture[:, :, :-1]).abs().mean())


def test_model():
    model = tiny_model("sd3")
    (found,) = PanoramaModel.execute(model, "automatic", "as trained", 1.0, 0.0, 1.0).args
    assert is_panorama(found) and not is_panorama(model)
    for wrong, message in (
        (("round", "as trained", 1.0, 0.0, 1.0), "'method' is 'round'"),
        (("automatic", "flat", 1.0, 0.0, 1.0), "'poles' is 'flat'"),
        (("automatic", "as trained", float("nan"), 0.0, 1.0), "'strength' is nan"),
        (("automatic", "as trained", 1.0, -0.1, 1.0), "'start_percent' is -0.1"),
        (("rotary wrap", "as trained", 1.0, 0.0, 1.0), "no rotary positions"),
    ):
        with pytest.raises(ValueError, match=message):
            PanoramaModel.execute(model, *wrong)


def test_views():
    (guider,) = views().args
    assert isinstance(guider, comfy.samplers.CFGGuider) and guider.cfg == 2.0 and len(guider.views.yaw) == 15
    for wrong, message in (
        ({"pitches": "up"}, "'pitches' is 'up'; expected degrees"),
        ({"pitches": "0, 95"}, "'pitches' is 95"),
        ({"pitches": "0"}, r"Panorama Views: \d+ views of 100 degrees .* latitudes -90 to -\d+"),
        ({"fov": 10.0}, "'fov' is 10"),
        ({"overlap": 1.0}, "'overlap' is 1"),
        ({"count": 65}, "'count' is 65"),
        ({"view_columns": 4}, "'view_columns' is 4"),
        ({"views_at_a_time": 0}, "'views_at_a_time' is 0"),
        ({"vae": object()}, "'vae' holds a object that is not for pictures"),
    ):
        with pytest.raises(ValueError, match=message):
            views(**wrong)
    with pytest.raises(ValueError, match="comes from Panorama Model"):
        views(PanoramaModel.execute(tiny_model("sd3"), "automatic", "as trained", 1.0, 0.0, 1.0).args[0])
    assert PanoramaViews.validate_inputs(4, 90.0, 0.2, "60, 0, -60") is True
    assert "do not see the whole sphere" in PanoramaViews.validate_inputs(4, 90.0, 0.2, "0")
    assert PanoramaViews.validate_inputs(4, None, 0.2, "0") is True


@pytest.fixture(scope="module")
def drawn(image):
    """The latent [1, 4, 16, 32] of a forest all the way round."""
    model, clip, _ = image
    (model,) = PanoramaModel.execute(model, "automatic", "as trained", 1.0, 0.0, 1.0).args
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*(clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("in a forest", "")))
    guider.set_cfg(3.0)
    noise = torch.randn(1, 4, 16, 32, generator=torch.Generator().manual_seed(3))
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 8)
    euler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, torch.zeros_like(noise), euler, sigmas, disable_pbar=True, seed=0)


def differ(one, other):
    return float((one - other).abs().mean() / other.std())


@torch.no_grad()
def test_decode_without_a_seam(image, drawn):
    """Whole and in tiles alike; a turned latent gives a turned picture."""
    vae = image[2]

    def decode(latent, *settings):
        return PanoramaVAEDecode.execute({"samples": latent}, vae, *settings).args[0]

    plain, found = vae.decode(drawn), decode(drawn, 4, 0, 0)
    assert torch.allclose(decode(drawn, 0, 0, 0), plain, atol=1e-4)
    assert found.shape == (1, 128, 256, 3) and seam(found) < 0.5 * seam(plain) and seam(found) < 2
    half = slice(112, 144)
    error = differ(decode(drawn.roll(16, -1), 4, 0, 0)[:, :, half], found.roll(128, 2)[:, :, half])
    assert error < 0.5 * differ(vae.decode(drawn.roll(16, -1))[:, :, half], plain.roll(128, 2)[:, :, half])
    for settings in ((4, 96, 48), (4, 128, 32)):
        tiled = decode(drawn, *settings)
        assert tiled.shape == found.shape and differ(tiled, found) < 0.15 and seam(tiled) < 2
    step = tile_starts(32, 12, 6, around=True)[1]
    again = decode(drawn.roll(step, -1), 4, 96, 48)
    assert differ(again, decode(drawn, 4, 96, 48).roll(8 * step, 2)) < 0.05


@torch.no_grad()
def test_encode_without_a_seam(image, drawn):
    vae = image[2]
    picture = PanoramaVAEDecode.execute({"samples": drawn}, vae, 4, 0, 0).args[0]

    def encode(pixels, *settings):
        return PanoramaVAEEncode.execute(pixels, vae, *settings).args[0]["samples"]

    plain, found = vae.encode(picture), encode(picture, 4, 0, 0)
    assert torch.allclose(encode(picture, 0, 0, 0), plain, atol=1e-3)
    error = differ(encode(picture.roll(128, 2), 4, 0, 0)[..., 14:18], found.roll(16, -1)[..., 14:18])
    assert error < 0.5 * differ(vae.encode(picture.roll(128, 2))[..., 14:18], plain.roll(16, -1)[..., 14:18])
    for settings in ((4, 96, 48), (4, 128, 32)):
        tiled = encode(picture, *settings)
        assert tiled.shape == found.shape and differ(tiled, found) < 0.15


@torch.no_grad()
def test_videos():
    vae = DemoCheckpoint.execute("video").args[2]
    frames = torch.rand(5, 32, 64, 3, generator=torch.Generator().manual_seed(0))
    for settings in ((4, 0, 0), (4, 32, 16)):
        latent = PanoramaVAEEncode.execute(frames, vae, *settings).args[0]["samples"]
        assert latent.shape == (1, 16, 2, 4, 8)
        (found,) = PanoramaVAEDecode.execute({"samples": latent}, vae, *settings).args
        assert found.shape == (5, 32, 64, 3) and found.isfinite().all()


def test_what_the_vae_nodes_say_of_bad_input(image):
    vae = image[2]
    with pytest.raises(ValueError, match=r"'pixels' is 130x64; this VAE wants .* multiples of 8.* to 128x64"):
        PanoramaVAEEncode.execute(torch.rand(1, 64, 130, 3), vae, 4, 0, 0)
    for settings, message in (((-1, 0, 0), "'columns' is -1"), ((4, 64, 48), "'tile' is 64 pixels with an 'overlap'")):
        with pytest.raises(ValueError, match=message):
            PanoramaVAEDecode.execute({"samples": torch.zeros(1, 4, 8, 16)}, vae, *settings)
    with pytest.raises(ValueError, match="expected the latent of pictures"):
        PanoramaVAEDecode.execute({"samples": torch.zeros(1, 4, 8)}, vae, 4, 0, 0)
    with pytest.raises(ValueError, match="'samples' holds NaN"):
        PanoramaVAEDecode.execute({"samples": torch.full((1, 4, 8, 16), float("nan"))}, vae, 4, 0, 0)
    with pytest.raises(ValueError, match="'vae' holds a object"):
        PanoramaVAEEncode.execute(torch.rand(1, 64, 128, 3), object(), 4, 0, 0)
