"""Imagine360 Conditioning and Unpack as the host runs them: what is laid where, what travels, and bad input."""

import comfy.nested_tensor
import pytest
import torch
from papernodes.kernels.anchor_view import largest_rectangles, relative_positions
from papernodes.kernels.view_rings import icosahedron_views
from papernodes.nodes import imagine360_conditioning as module
from papernodes.nodes.imagine360_conditioning import Imagine360Conditioning, Imagine360Unpack
from papernodes.nodes.sockets import NothingThere
from papernodes.patches import imagine360_conditioning as patch
from papernodes.patches.imagine360 import Draws
from papernodes.patches.panorama_latent import PanoramaNoise, pack
from sam_files import TINY, sam

SCALE = 0.18215


class Averages:
    """A VAE whose latents are the averages of 8x8 pixels from -1 to 1, the last one the first again."""

    def __init__(self, channels=4):
        self.pictures, self.channels = [], channels

    def encode(self, pictures):
        assert pictures.device.type == "cpu" and float(pictures.min()) >= 0 and float(pictures.max()) <= 1
        self.pictures.append(pictures)
        latents = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1) * 2 - 1, 8)
        return torch.cat([latents, latents[:, :1]], 1)[:, : self.channels]


def clip(frames=4, height=48, width=48, seed=0):
    coarse = torch.rand(frames, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)


def text(seed=0):
    return [[torch.randn(1, 3, 8, generator=torch.Generator().manual_seed(seed)), {"kept": seed}]]


def conditioned(vae=None, **more):
    given = {
        "video": clip(),
        "pitch": "0",
        "frames": 4,
        "panorama_height": 128,
        "fov": 90.0,
        "view_ring": "icosahedron 20",
        "view_fov": 90.0,
        "fps": 8.0,
        "seed": 7,
        "antipodal_probability": 0.4,
        "token_noise": 0.1,
        "draw_seed": 11,
        **more,
    }
    return Imagine360Conditioning.execute(text(0), text(1), vae or Averages(), **given).args


def conds_of(conditioning):
    return {name: held.cond for name, held in conditioning[0][1]["model_conds"].items()}


def known_texels(pitch, aspect=1.0, height=128):
    """By Imagine360's grids: both ends of the grid inclusive, the camera's height by angle."""
    longitude = torch.linspace(-180, 180, 2 * height, dtype=torch.float64).deg2rad()
    latitude = torch.linspace(90, -90, height, dtype=torch.float64).deg2rad()[:, None]
    ahead, up = latitude.cos() * longitude.cos(), latitude.sin().expand(-1, 2 * height)
    side, angle = latitude.cos() * longitude.sin(), torch.tensor(pitch, dtype=torch.float64).deg2rad()
    ahead, up = ahead * angle.cos() + up * angle.sin(), up * angle.cos() - ahead * angle.sin()
    tall = torch.tan(torch.deg2rad(torch.tensor(90 * aspect, dtype=torch.float64)) / 2)
    return (ahead > 0) & ((side / ahead).abs() < 1) & ((up / ahead).abs() < tall)


def test_what_travels():
    vae, encoder = Averages(), sam()
    video = clip(35)
    positive, negative, latent, noise = conditioned(
        vae, video=video, frames=16, pitch="0:0, 34:34", image_encoder=encoder
    )
    assert positive[0][1]["kept"] == 0 and negative[0][1]["kept"] == 1
    assert torch.equal(positive[0][0], text(0)[0][0])
    found, other = conds_of(positive), conds_of(negative)
    shapes = {name: list(value.shape) for name, value in found.items() if isinstance(value, torch.Tensor)}
    assert shapes == {
        "imagine360_panorama": [1, 5, 16, 16, 32],
        "imagine360_views": [1, 5, 320, 8, 8],
        "imagine360_position": [1, 16, 6],
        "imagine360_pitch": [1, 16],
        "imagine360_anchor_features": [1, 16, TINY.channels, TINY.grid, TINY.grid],
        "imagine360_frame_features": [1, 16, TINY.channels, TINY.grid, TINY.grid],
    }
    assert all(other[name] is found[name] for name in shapes), "both rows see the same"
    assert torch.equal(found["imagine360_pitch"][0], torch.arange(0.0, 32.0, 2.0)), "every second frame, its own pitch"
    assert found["imagine360_draws"] == Draws(11, 0.4, 0.1) and found["imagine360_fps"] == 8.0
    yaw, pitch = icosahedron_views()
    assert found["imagine360_cameras"] == tuple((a, b, 90.0) for a, b in zip(yaw.tolist(), pitch.tolist(), strict=True))
    assert isinstance(noise, PanoramaNoise) and noise.seed == 7
    for part, empty in zip(noise.generate_noise(latent).unbind(), latent["samples"].unbind(), strict=True):
        assert part.shape == empty.shape and not empty.any()
    # The frames that the encoder saw are the clip's own.
    seen = module.encode_pictures(encoder, video[::2][:16])
    assert torch.equal(found["imagine360_frame_features"][0], seen)
    assert not torch.equal(found["imagine360_anchor_features"][0], seen)


@pytest.mark.parametrize(("pitch", "height", "width"), ((0, 48, 48), (25, 32, 64), (-60, 48, 48)))
def test_laid_where_the_camera_looked(pitch, height, width):
    vae = Averages()
    positive, *_ = conditioned(vae, video=clip(4, height, width), pitch=str(pitch))
    found = conds_of(positive)
    known = known_texels(pitch, height / width)
    mask, latents = found["imagine360_panorama"][0].split([1, 4])
    # Nearest: the first of every 8 texels.
    assert torch.equal(mask[0, 0], 1 - known[::8, ::8].float()) and torch.equal(mask[0, 0], mask[0, 3])
    panorama = vae.pictures[0][0]
    assert panorama.shape == (128, 256, 3) and (panorama[~known] == 0.5).all()
    assert (panorama[known] != 0.5).float().mean() > 0.99
    assert torch.allclose(latents[:, 0] / SCALE, vae.encode(panorama[None])[0], atol=1e-5)
    # Views see the panorama: the one ahead and 10.81 degrees up (number 7) holds what lies there.
    views, view_mask = vae.pictures[1].unflatten(0, (20, 4)), found["imagine360_views"][0, 0].unflatten(0, (20, 4))
    row, column = round((1 - 10.81 / 90) * 127 / 2), round(127.5)
    assert torch.allclose(
        views[7, 0, 31:33, 31:33].mean((0, 1)),
        panorama[row - 1 : row + 1, column - 1 : column + 1].mean((0, 1)),
        atol=0.1,
    )
    unseen = views[~torch.nn.functional.interpolate(1 - view_mask, scale_factor=8).bool()]
    assert unseen.shape[0] > 0 and 0 < view_mask.mean() < 1
    assert (views[17, 0] == 0.5).all() == bool(view_mask[17, 0].all())
    # What is told of the anchor is a rectangle that a square view of this pitch holds.
    rectangles = largest_rectangles(known_texels(pitch)[None])
    assert torch.equal(found["imagine360_position"][0, 2:3], relative_positions(rectangles, 128, 256))


def test_a_camera_turned_clockwise():
    """Its picture is turned the other way; the panorama is as of an upright one, but for half a pixel."""
    upright, turned = Averages(), Averages()
    conditioned(upright, pitch="20")
    conditioned(turned, pitch="20", roll="90", video=clip().rot90(1, (1, 2)))
    one, other = upright.pictures[0], turned.pictures[0]
    assert (one - other).abs().mean() < 0.01 < (one - one.flip(2)).abs().mean()


def test_fine_clips_are_averaged_first():
    """Stripes of a pixel become grey; on a clip as fine as the published ones they are read as they are."""
    stripes = torch.arange(320).remainder(2).float()[None, None, :, None].expand(2, 320, 320, 3)
    vae = Averages()
    conditioned(vae, video=stripes, frames=2)
    assert (vae.pictures[0] - 0.5).abs().max() < 0.1
    conditioned(vae, video=stripes[:, :128, :128], frames=2)
    assert (vae.pictures[2] - 0.5).abs().max() > 0.4


def test_parts_do_not_show(monkeypatch):
    whole = conds_of(conditioned(pitch="0:-30, 3:50")[0])
    monkeypatch.setattr(patch, "AT_ONCE", 3 * 128 * 256)
    vae = Averages()
    parts = conds_of(conditioned(vae, pitch="0:-30, 3:50")[0])
    assert [len(pictures) for pictures in vae.pictures] == [3, 60, 1, 20]
    for name in ("imagine360_panorama", "imagine360_views", "imagine360_position"):
        assert torch.equal(whole[name], parts[name]), name
    assert "imagine360_frame_features" not in whole, "no image encoder"


@pytest.mark.parametrize(
    ("given", "words"),
    (
        ({"panorama_height": 500}, "'panorama_height' is 500; expected a multiple of 128, such as 512"),
        ({"panorama_height": 64}, "'panorama_height' is 64; expected a number from 128 to 2048"),
        ({"fov": 0.0}, "'fov' is 0.0"),
        ({"fov": 180.0}, "'fov' is 180.0"),
        ({"view_fov": 60.0}, r"'view_fov' is 60: the 20 views of icosahedron 20 see 9\d% of what is around"),
        ({"view_ring": "cube"}, "'view_ring' is 'cube'; expected one of: icosahedron 20, cube 6"),
        ({"frames": 5}, "'video' holds 4 frames, and 'frames' is 5. Connect a longer video"),
        ({"frames": 32, "video": clip(20)}, "holds 20 frames, and 'frames' is 32. Set it to 16"),
        ({"frames": 24, "video": clip(24), "image_encoder": sam()}, "'frames' is 24; .* multiple of 16 up to 64"),
        ({"frames": 65}, "'frames' is 65; expected a number from 1 to 64"),
        ({"video": clip(4, 31, 64)}, "'video' is 64x31 pixels; expected at least 32"),
        ({"video": clip(4, 96, 48)}, "'video' is 48x96 pixels: 90 degrees across are 180 from top to bottom"),
        ({"video": clip()[0]}, "'video' has shape"),
        ({"video": clip() * float("nan")}, "'video' holds NaN"),
        ({"pitch": "up"}, "'pitch': \"up\" is not a number"),
        ({"pitch": "0:0, 3:91"}, "'pitch': the value 91"),
        ({"pitch": ""}, "'pitch': it is empty"),
        ({"roll": "0:0, 3:200"}, "'roll': the value 200"),
        ({"fps": float("nan")}, "'fps' is nan"),
        ({"antipodal_probability": 1.5}, "'antipodal_probability' is 1.5"),
        ({"token_noise": -0.1}, "'token_noise' is -0.1"),
        ({"image_encoder": NothingThere("There is no encoder.")}, "^There is no encoder"),
        ({"image_encoder": "sam"}, "'image_encoder' holds a str; connect the image_encoder output"),
        ({"vae": Averages(3)}, r"'vae' gives latents of shape \[4, 3, 16, 32\]; expected \[4, 4, 16, 32\]"),
    ),
)
def test_bad_input(given, words):
    with pytest.raises(ValueError, match=words):
        conditioned(**given)


def test_said_before_anything_runs():
    assert Imagine360Conditioning.validate_inputs(pitch="0:0, 9:30", panorama_height=512) is True
    assert Imagine360Conditioning.validate_inputs(pitch=None, panorama_height=None) is True
    assert "'pitch'" in Imagine360Conditioning.validate_inputs(pitch="x", panorama_height=512)
    assert "'panorama_height'" in Imagine360Conditioning.validate_inputs(pitch="0", panorama_height=100)


def test_unpacked():
    panorama, views = torch.rand(1, 4, 3, 8, 16), torch.rand(1, 4, 6, 4, 4)
    latent = {**pack(panorama, views), "noise_mask": torch.ones(1)}
    first, second = Imagine360Unpack.execute(latent).args
    assert first.keys() == second.keys() == {"samples"}
    assert first["samples"].shape == (3, 4, 8, 16) and second["samples"].shape == (6, 4, 4, 4)
    assert torch.equal(first["samples"][1], panorama[0, :, 1]) and torch.equal(second["samples"][4], views[0, :, 4])
    for other, words in (
        ({"samples": torch.zeros(1, 4, 8, 8)}, "one tensor"),
        ({"samples": torch.zeros(1, 1, 100)}, "denoised_output"),
        ({"samples": comfy.nested_tensor.NestedTensor([panorama])}, "1 packed parts"),
        ("latent", "a str without samples"),
    ):
        with pytest.raises(ValueError, match=f"^'latent' is none that Imagine360 sampled: .*{words}"):
            Imagine360Unpack.execute(other)
