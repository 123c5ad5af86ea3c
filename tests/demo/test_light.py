"""IC-Light's demonstration: pairs of pictures, the small file against a published one, training and measures."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call

from demo.eval import light_report
from demo.eval.light_measures import TOLERANCE, degrees_between, found_azimuth, kept, light_errors
from demo.eval.network_reader import NetworkReader
from demo.light_pairs import (
    BRIGHTEST,
    DARKEST,
    GREY_LEVELS,
    azimuth,
    draw_pairs,
    falloff,
    light_maps,
    lit_pictures,
    pair_maker,
    with_azimuth,
)
from demo.train_image import load_models
from demo.world.attributes import LIGHT_ANGLES
from demo.world.render import render
from demo.world.scene import draw_scenes
from kernels.pixel_coding import GREY
from networks import demo_format, demo_light
from networks.demo_image import load_model
from networks.ic_light import FIRST, read_offsets

CPU = torch.device("cpu")
KINDS = tuple(demo_light.FILE_KINDS)
SIZE = 64


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(12, 3, characters=1)


def random_light(kind: str, seed: int = 1, size: float = 0.05) -> dict:
    generator = torch.Generator().manual_seed(seed)
    begun = demo_light.initial_light(demo_light.FILE_KINDS[kind], 0)
    return {name: torch.randn(value.shape, generator=generator) * size for name, value in begun.items()}


@pytest.fixture(scope="module")
def light_folder(tmp_path_factory):
    """Both files, of random numbers."""
    folder = tmp_path_factory.mktemp("lights")
    for kind in KINDS:
        demo_format.save(folder / f"{kind}.safetensors", random_light(kind), {"kind": kind})
    return folder


def test_grounds_show_as_much_of_the_light_as_is_asked(scenes):
    """Strength 0 leaves places as they are; 1 darkens the far side to DARKEST."""

    def ground(strength):
        generator = torch.Generator().manual_seed(1)
        return draw_pairs(scenes, SIZE, generator, 0.0, strengths=(strength, strength)).background

    plain = render(replace(scenes, count=torch.zeros_like(scenes.count)), SIZE, SIZE).frames[:, 0]
    torch.testing.assert_close(ground(0.0), plain)
    ends = (torch.full((scenes.size,), value) for value in (DARKEST, BRIGHTEST))
    torch.testing.assert_close(ground(1.0), (plain * falloff(azimuth(scenes), SIZE, SIZE, *ends)).clamp(0, 1))


def test_lit_pictures_are_of_four_kinds(scenes):
    found = lit_pictures(scenes, SIZE, torch.Generator().manual_seed(2))
    assert found.shape == (scenes.size, 3, SIZE, SIZE) and 0 <= float(found.min()) <= float(found.max()) <= 1
    corners = found[0::4, :, 0, 0]
    torch.testing.assert_close(corners, torch.full_like(corners, GREY), msg="foregrounds lie on grey")
    assert torch.equal(found, lit_pictures(scenes, SIZE, torch.Generator().manual_seed(2)))
    maps = found[3::4]
    # One or two straight gradients: the second difference along either side is 0 but for where they reach white.
    inside = maps.amax((1, 2, 3)) < 1
    assert bool(inside.any()) and float(maps[inside].diff(dim=-1).diff(dim=-1).abs().max()) < 1e-5
    assert light_maps(5, 8, torch.Generator()).shape == (5, 3, 8, 8)


def test_falloff_is_brightest_where_the_light_is():
    angles = torch.tensor([0.0, math.pi / 2, math.pi, -math.pi / 2, math.pi / 4])
    found = falloff(angles, 9, 9, torch.full((5,), 0.2), torch.full((5,), 0.8))[:, 0]
    brightest = [(4, 8), (8, 4), (4, 0), (0, 4), (8, 8)]  # y points down
    for picture, (row, column) in zip(found, brightest, strict=True):
        assert picture[row, column] == pytest.approx(0.8, abs=1e-6) == float(picture.max())
        assert picture[8 - row, 8 - column] == pytest.approx(0.2, abs=1e-6) == float(picture.min())
    torch.testing.assert_close(found[0].flip(1), found[2])
    torch.testing.assert_close(found[0].T, found[1])


def test_lit_from_elsewhere_is_all_that_changes(scenes):
    angles = torch.linspace(-3, 3, 12)
    found = with_azimuth(scenes, angles)
    torch.testing.assert_close(azimuth(found), angles)
    torch.testing.assert_close(found.light_direction[:, 2], scenes.light_direction[:, 2])
    torch.testing.assert_close(found.light_direction.norm(dim=1), torch.ones(12))
    nearest = [min(range(4), key=lambda k: float(degrees_between(a, torch.tensor(LIGHT_ANGLES[k])))) for a in angles]
    assert found.light.tolist() == nearest
    again = with_azimuth(found, azimuth(scenes))
    assert torch.equal(again.light, scenes.light) and torch.equal(again.position, scenes.position)


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_a_pair_is_one_character_under_two_lights(scenes, grey):
    pictures = draw_pairs(scenes, SIZE, torch.Generator().manual_seed(2), grey)
    drawn = render(scenes, SIZE, SIZE, layers=("frames", "masks"))
    inside = (pictures.mask > 0.99).expand(-1, 3, -1, -1)
    outside = (pictures.mask == 0).expand(-1, 3, -1, -1)
    assert inside.float().mean() > 0.05
    torch.testing.assert_close(pictures.wanted[inside], drawn.frames[:, 0][inside], atol=0.01, rtol=0)
    torch.testing.assert_close(pictures.foreground[outside], torch.full_like(pictures.foreground[outside], GREY))
    lights = degrees_between(found_azimuth(pictures.foreground, scenes), azimuth(scenes))
    assert lights.max() > 60, "foregrounds have a light of their own"
    assert light_errors(pictures.wanted, scenes).max() < 5
    # On the ground nothing gets brighter than the background: the character's shadow lies on it.
    ratio = (pictures.wanted / pictures.background.clamp_min(1e-3))[outside]
    assert ratio.max() < 1.01 and ratio.min() < 0.9
    side = torch.stack((azimuth(scenes).cos(), azimuth(scenes).sin()), 1)
    if grey:
        assert torch.equal(pictures.background[:, 0], pictures.background[:, 2])
        assert pictures.background.amax() <= GREY_LEVELS[1] + 1e-6
        half = pictures.background[:, 0, :, SIZE // 2 :].mean((1, 2)) - pictures.background[:, 0, :, : SIZE // 2].mean(
            (1, 2)
        )
        assert torch.equal(half > 0, side[:, 0] > 0)


def test_what_lies_beside_the_noise(scenes):
    from demo import train_vae
    from demo.eval.image_models import CHECKPOINTS

    vae = train_vae.read(CHECKPOINTS / "image_vae.safetensors", CPU)
    tokens = torch.arange(12 * 2 * 77, dtype=torch.int16).view(12, 2, 77)
    for background, channels in ((False, 4), (True, 8)):
        clean, beside, kept_tokens = pair_maker(vae, CPU, SIZE, 0, background)(scenes, tokens)
        assert clean.shape == (12, 4, 8, 8) and beside.shape == (12, channels, 8, 8)
        assert torch.equal(kept_tokens, tokens)
        assert (clean - beside[:, :4]).abs().max() > 0.5
    assert (beside[:, :4] - beside[:, 4:]).abs().max() > 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_file_is_a_published_one(kind, light_folder):
    """The expanded offsets are read as a user's file is, and give the UNet that was trained."""
    model = load_model(light_report.CHECKPOINTS / "image_unet.safetensors")
    unet, _ = load_models(light_report.CHECKPOINTS, CPU)
    offsets = demo_light.load_light(light_folder / f"{kind}.safetensors", kind)
    found = read_offsets(kind, offsets, unet.state_dict(), model.model.model_config.unet_config)
    assert found.channels == demo_light.FILE_KINDS[kind] and len(offsets) == len(unet.state_dict())
    stored, _ = demo_format.load(light_folder / f"{kind}.safetensors", kind)
    tuned = demo_light.apply_light(stored, unet.state_dict())
    changed = 0
    for name, value in unet.state_dict().items():
        if name == FIRST:
            value = torch.nn.functional.pad(value, (0, 0, 0, 0, 0, found.channels - 4))
        torch.testing.assert_close(value + offsets[name], tuned.get(name, value), atol=1e-6, rtol=1e-5)
        changed += bool(offsets[name].any())
    assert changed == len(demo_light.tuned_layers(unet.state_dict())) + 1


def test_training_starts_from_the_image_model():
    unet, _ = load_models(light_report.CHECKPOINTS, CPU)
    for channels in (8, 12):
        begun = demo_light.initial_light(channels, 0)
        weights = demo_light.apply_light(begun, unet.state_dict())
        x = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(channels))
        context = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(1))
        times = torch.tensor([3.0, 700.0])
        found = functional_call(unet, weights, (x, times, context), {"transformer_options": {}})
        plain = unet(x[:, :4], times, context, transformer_options={})
        torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="channels is 9; expected 8 or 12"):
        demo_light.initial_light(9, 0)


def test_a_file_that_lacks_a_weight(light_folder, tmp_path):
    kind = KINDS[0]
    state, _ = demo_format.load(light_folder / f"{kind}.safetensors", kind)
    del state[FIRST]
    demo_format.save(tmp_path / f"{kind}.safetensors", state, {"kind": kind})
    with pytest.raises(demo_format.DemoFileError, match="1 missing"):
        demo_light.load_light(tmp_path / f"{kind}.safetensors", kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_script_trains_and_goes_on(repository, kind, tmp_path):
    command = [sys.executable, "-m", "demo.train_light", "--kind", kind, "--tiny", "--final", "--state", str(tmp_path)]
    file = tmp_path / f"{kind}.safetensors"
    for more, steps in ([], "3"), (["--begin-with", str(file)], "6"):
        process = subprocess.run([*command, *more], cwd=repository, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        assert demo_format.read_metadata(file, kind)["steps"] == steps
    assert (tmp_path / "samples.png").is_file()
    assert any(value.any() for name, value in demo_format.load(file, kind)[0].items() if name.endswith("lora_B.weight"))


def test_the_light_of_a_picture_is_found(scenes):
    pictures = render(scenes, SIZE, SIZE).frames[:, 0]
    assert light_errors(pictures, scenes).max() <= 5
    assert light_errors((pictures * 0.7).clamp(0, 1), scenes).max() <= 10, "darker altogether is no other light"
    turned = with_azimuth(scenes, azimuth(scenes) + 1.0)
    found = light_errors(render(turned, SIZE, SIZE).frames[:, 0], scenes)
    assert ((found - math.degrees(1.0)).abs() <= 5).all()
    assert degrees_between(torch.tensor(3.1), torch.tensor(-3.1)) == pytest.approx(
        math.degrees(2 * math.pi - 6.2), abs=1e-3
    )
    flat = render(scenes, SIZE, SIZE, layers=("flat",)).flat[:, 0]
    assert (light_errors(flat, scenes) <= TOLERANCE).float().mean() < 0.7, "a picture without light has none"


def test_what_is_kept(scenes):
    reader = NetworkReader(device=CPU)
    found = reader.read(render(scenes, 128, 128).frames[:, 0])
    assert all(bool(flags.all()) for flags in kept(found, scenes).values())
    other = replace(scenes, colour=(scenes.colour + 1) % 10, light=(scenes.light + 1) % 4)
    rows = kept(found, other)
    assert not rows["colour"].any() and not rows["light"].any() and rows["shape"].all()


def test_the_report_runs_on_both_files(light_folder, monkeypatch, capsys, tmp_path):
    arms = {name: arm for name, arm in light_report.ARMS.items() if name in ("fbc, grey", "fc, caption")}
    arms["fc, map"] = light_report.ARMS["fc, map of light, denoise 0.8"]
    monkeypatch.setattr(light_report, "ARMS", arms)
    command = ["light_report", "--tiny", "--lights", str(light_folder), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    light_report.main()
    text = capsys.readouterr().out
    assert text.count("wanted, autoencoder") == text.count("image model alone |") == 3
    wanted = [line for line in text.splitlines() if "wanted, autoencoder" in line]
    assert all("| 3 | 100.0 %" in line for line in wanted), "the measures hold on what was wanted"
    assert not list(tmp_path.iterdir()), "a trial writes no report"
    monkeypatch.setattr("sys.argv", [*command[:3], str(tmp_path), *command[4:]])
    with pytest.raises(SystemExit, match=r"ic_light_fc\.safetensors"):
        light_report.main()


def test_arms_ask_for_what_they_say(scenes):
    told = light_report.scenes_of(8, 5, light_report.Arm("ic_light_fc", told=True), CPU)
    torch.testing.assert_close(
        degrees_between(azimuth(told), torch.tensor(LIGHT_ANGLES)[told.light]), torch.zeros(8), atol=1e-2, rtol=0
    )
    prompts = light_report.prompts_of(told, light_report.ARMS["fc, caption"])
    assert all(", lit from " in prompt for prompt in prompts)
    assert light_report.prompts_of(told, light_report.ARMS["fbc, grey"]) == [""] * 8
    assert not any("lit" in prompt for prompt in light_report.prompts_of(told, light_report.ARMS["fbc, a place"]))
