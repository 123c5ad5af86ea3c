"""Light Source as the host runs it: the kernel's light, the VAE's latent of it, and what it says of bad input."""

import json

import pytest
import torch
from papernodes.kernels.light_source import STYLES, light_maps, parse_lights
from papernodes.kernels.pixel_coding import coded
from papernodes.networks.demo_image import load_vae
from papernodes.nodes.demo_checkpoint import FOLDER
from papernodes.nodes.light_source import FROM_THE_LEFT, LightSource

LAMP = {"kind": "point", "x": 0.3, "y": 0.6, "radius": 0.3, "colour": "#ff8040"}
MOVING = {**LAMP, "keys": [{"frame": 0, "x": 0.1}, {"frame": 4, "x": 0.9, "colour": "#00ff00", "way": "ease"}]}


@pytest.fixture(scope="module")
def vae():
    """The demonstration's own, as shipped."""
    return load_vae(FOLDER / "image_vae.safetensors")


def text(*lights):
    return json.dumps({"version": 1, "lights": list(lights)})


def execute(lights=FROM_THE_LEFT, width=48, height=32, frames=1, style="fc", **more):
    return LightSource.execute(lights=lights, width=width, height=height, frames=frames, style=style, **more)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("frames", [1, 5])
def test_it_draws_the_kernels_light(style, frames):
    lights = text({"kind": "side", "angle": 30, "intensity": 0.4}, MOVING if frames > 1 else LAMP)
    image, _ = execute(lights, frames=frames, style=style).args
    assert image.shape == (frames, 32, 48, 3) and image.dtype == torch.float32
    assert torch.equal(image, light_maps(parse_lights(lights, frames), frames, 32, 48, style))
    assert frames == 1 or (image[1:] != image[:-1]).flatten(1).any(1).all(), "every frame differs from the last"


def test_the_default_is_the_spec_s_light_from_the_left():
    image, _ = execute().args
    assert torch.equal(image[0, 0, :, 0] * 255, torch.linspace(255, 0, 48, dtype=torch.float64).floor().float())
    assert LightSource.GET_SCHEMA().inputs[0].default == FROM_THE_LEFT
    (dark, _) = execute("").args
    assert (dark == 0).all()


@pytest.mark.parametrize("frames", [1, 16])
def test_the_latent_is_what_the_vae_makes_of_the_coded_picture(vae, frames):
    image, latent = execute(text(LAMP), width=64, height=64, frames=frames, vae=vae).args
    assert list(latent) == ["samples"] and latent["samples"].shape == (frames, 4, 8, 8)
    torch.testing.assert_close(latent["samples"], vae.encode(coded(image, "official")), rtol=0, atol=0)
    torch.testing.assert_close(latent["samples"], vae.encode(image * 255 / 254), rtol=1e-4, atol=1e-4)
    assert (latent["samples"] - vae.encode(image)).abs().max() > 1e-3, "the coding matters"


def test_without_a_vae_the_latent_says_so_when_it_is_used():
    latent = execute().args[1]
    with pytest.raises(ValueError, match=r"'latent' of Light Source is used, but nothing is connected to.*'vae'"):
        latent["samples"]
    with pytest.raises(AttributeError, match="'vae'"):
        latent.copy()


def test_the_background_is_shown_and_changes_nothing():
    background = torch.rand(3, 20, 30, 4)
    output = execute(background=background)
    assert torch.equal(output.args[0], execute().args[0])
    (entry,) = output.ui["background"]
    assert entry["type"] == "temp"
    assert execute().ui is None


def bad(message, **inputs):
    return pytest.param(inputs, message, id=message[:40])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        bad(r"lights: this is not JSON", lights="light"),
        bad(r'lights: light 2: "kind" is "sun"; expected one of side, point', lights=text(LAMP, {"kind": "sun"})),
        bad(r"lights: light 1: key 2 is at frame 4, beyond the clip of 3 frames", lights=text(MOVING), frames=3),
        bad(r"'frames' is 0; expected a number from 1 to 1000", frames=0),
        bad(r"'style' is 'day'; expected one of: fc, fbc", style="day"),
        bad(r"'width' is 0; expected a number from 1 to 8192", width=0),
        bad(r"'height' is 9000; expected a number from 1 to 8192", height=9000),
        bad(r"'background' has shape \[4, 4\]; expected a batch of images", background=torch.zeros(4, 4)),
    ],
)
def test_bad_input_is_named(inputs, message):
    with pytest.raises(ValueError, match=message):
        execute(**inputs)


@pytest.mark.parametrize(("side", "size", "near"), [("width", 50, 48), ("height", 3, 8), ("height", 61, 64)])
def test_with_a_vae_the_size_must_fit_it(vae, side, size, near):
    with pytest.raises(ValueError, match=rf"'{side}' is {size}; with a VAE.*multiple of 8, such as {near}\."):
        execute(**{side: size}, vae=vae)
    image, _ = execute(**{side: size}).args
    assert size in image.shape[1:3], "without one any size is drawn"


def test_what_can_be_known_is_said_before_anything_runs():
    check = LightSource.validate_inputs
    assert check(FROM_THE_LEFT, 1) is True and check("", 5) is True
    assert "beyond the clip of 3 frames" in check(text(MOVING), 3)
    assert check(text(MOVING), None) is True and check(None, 3) is True, "linked inputs are not known yet"
    assert check(FROM_THE_LEFT, 0).startswith("'frames' is 0")
