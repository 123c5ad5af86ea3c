"""Load HDR and Environment Light as the host runs them, and what they say of bad input."""

import math

import cv2
import folder_paths
import pytest
import torch
from papernodes.kernels.environment_light import grey_exposure, tone_map
from papernodes.nodes.environment_light import EnvironmentLight, LoadHDR

SETTINGS = {
    "encoding": "linear", "width": 24, "height": 16, "frames": 1, "yaw": "0", "pitch": "0", "field_of_view": 75.0,
    "exposure": "0", "auto_exposure": False, "curve": "clip",
}  # fmt: skip


def sky(height=16):
    """Dark surroundings with a bright patch to the right, [1, H, 2 H, 3]."""
    picture = torch.full((1, height, 2 * height, 3), 0.1)
    picture[:, height // 2 - 2 : height // 2 + 2, height + height // 2 - 2 : height + height // 2 + 2] = 20.0
    return picture


def lit(environment=None, **changes):
    return EnvironmentLight.execute(sky() if environment is None else environment, **(SETTINGS | changes)).args


@pytest.fixture
def input_folder(tmp_path, monkeypatch):
    """ComfyUI's input folder, empty."""
    for name in ("input", "output"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path / "input"


@pytest.fixture
def hdr_file(input_folder):
    """A name in ComfyUI's input folder, and what was written."""
    picture = torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(0)) * 50
    assert cv2.imwrite(str(input_folder / "sky.hdr"), picture.flip(-1).numpy())
    return "sky.hdr", picture


def test_a_file_is_read_in_linear_light(hdr_file):
    name, written = hdr_file
    image, exposure = LoadHDR.execute(name).args
    assert image.shape == (1, 8, 16, 3) and image.max() > 40
    assert ((image[0] - written).abs() <= written.amax(-1, keepdim=True) / 100).all()
    assert exposure == pytest.approx(grey_exposure(image[0]))
    middle = image[0].mean(-1).log2().mean()
    assert abs(float(middle) + exposure - math.log2(0.18)) < 0.5


def test_a_file_written_anew_is_read_anew(hdr_file, input_folder):
    name, _ = hdr_file
    before = LoadHDR.fingerprint_inputs(name)
    assert LoadHDR.fingerprint_inputs(name) == before and LoadHDR.validate_inputs(name) is True
    cv2.imwrite(str(input_folder / name), torch.rand(16, 32, 3).numpy())
    assert LoadHDR.fingerprint_inputs(name) != before


def test_what_load_hdr_says_of_bad_files(input_folder):
    (input_folder / "broken.hdr").write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 8 +X 16\n")
    with pytest.raises(ValueError, match=r"'file': broken\.hdr: .*cut short"):
        LoadHDR.execute("broken.hdr")
    (input_folder / "photo.hdr").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    with pytest.raises(ValueError, match=r"'file': photo\.hdr: not a Radiance .* Load Image reads it"):
        LoadHDR.execute("photo.hdr")
    for name in ("../sky.hdr", "missing.hdr", "photo.png"):
        assert isinstance(LoadHDR.validate_inputs(name), str)
        with pytest.raises(ValueError, match=name.rpartition("/")[2].partition(".")[0]):
            LoadHDR.execute(name)
    assert LoadHDR.validate_inputs(None) is True


def test_light_comes_from_where_the_surroundings_are_bright():
    maps, backgrounds = lit(width=25, height=25)
    assert maps.shape == backgrounds.shape == (1, 25, 25, 3)
    assert maps[0, 12, 22].mean() > maps[0, 12, 12].mean() + 0.1 > maps[0, 12, 2].mean() + 0.2
    turned, _ = lit(width=25, height=25, yaw="180")
    torch.testing.assert_close(turned, maps.flip(2), atol=2e-3, rtol=0)
    # A quarter turn to the left brings what was on the right straight ahead.
    _, ahead = lit(width=25, height=25, yaw="-90")
    assert ahead[0, 12, 12].mean() == 1 and backgrounds[0, 12, 12].mean() < 0.4


def test_everything_may_change_over_the_frames():
    maps, backgrounds = lit(frames=5, yaw="0:0, 4:360", exposure="0:0, 4:-2")
    first, _ = lit()
    torch.testing.assert_close(maps[:1], first)
    darker, _ = lit(exposure="-2")
    torch.testing.assert_close(maps[4:], darker, atol=1e-5, rtol=0)
    quarter, seen = lit(yaw="90", exposure="-0.5")
    torch.testing.assert_close(maps[1:2], quarter, atol=1e-5, rtol=0)
    torch.testing.assert_close(backgrounds[1:2], seen, atol=1e-5, rtol=0)


def test_exposure_finds_the_unit_of_the_file():
    one, thousand = (lit(sky() * factor, auto_exposure=True) for factor in (1.0, 1000.0))
    for a, b in zip(one, thousand, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    brighter, _ = lit(auto_exposure=True, exposure="1")
    assert (brighter >= one[0]).all() and brighter.mean() > one[0].mean() + 0.02
    soft, _ = lit(auto_exposure=True, curve="soft")
    assert (soft <= one[0] + 1e-6).all() and soft.mean() < one[0].mean()


def test_an_even_sky_shows_as_itself_in_either_encoding():
    even = torch.full((1, 16, 32, 3), 0.25)
    maps, backgrounds = lit(even)
    expected = float(tone_map(even)[0, 0, 0, 0])
    for some in (maps, backgrounds):
        torch.testing.assert_close(some, torch.full_like(some, expected), atol=1e-4, rtol=0)
    for picture in lit(torch.full((1, 16, 32, 3), 0.6), encoding="sRGB"):
        torch.testing.assert_close(picture, torch.full_like(picture, 0.6), atol=1e-3, rtol=0)


def test_a_normal_map_is_lit_in_the_place_of_the_dome():
    facing = torch.full((1, 16, 24, 3), 0.5)
    facing[..., 0] = 1.0  # everything looks to the right, at the bright patch
    maps, _ = lit(normals=facing)
    assert maps.shape == (1, 16, 24, 3) and float(maps.std()) < 1e-6
    dome, _ = lit()
    assert maps[0, 0, 0].mean() > dome.mean() + 0.1
    grey = torch.full((1, 16, 24, 3), 127 / 255)
    ahead = torch.tensor([0.5, 0.5, 1.0]).expand(1, 16, 24, 3)
    assert torch.equal(lit(normals=grey)[0], lit(normals=ahead)[0]), "no direction looks at the viewer"
    two = torch.cat((facing, ahead))
    both, _ = lit(normals=two, frames=2)
    torch.testing.assert_close(both[:1], maps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": torch.rand(1, 16, 24, 3)}, r"'environment' is 24x16 pixels; .* twice as wide as high"),
        ({"environment": torch.rand(2, 8, 16, 3)}, r"'environment' holds 2 pictures; .* ImageFromBatch"),
        ({"environment": torch.full((1, 8, 16, 3), -1.0)}, r"'environment' holds negative numbers"),
        ({"environment": torch.full((1, 8, 16, 3), float("inf"))}, r"'environment' holds NaN or infinite"),
        ({"yaw": "0:0, x"}, r"yaw"),
        ({"pitch": "99999"}, r"pitch"),
        ({"exposure": "100"}, r"exposure"),
        ({"encoding": "gamma"}, r"'encoding' is 'gamma'; expected one of: linear, sRGB"),
        ({"curve": "film"}, r"'curve' is 'film'"),
        ({"field_of_view": 180.0}, r"'field_of_view' is 180.0; expected a number from 1 to 170"),
        ({"width": 8}, r"'width' is 8; expected a number from 16"),
        ({"frames": 0}, r"'frames' is 0"),
        (
            {"normals": torch.rand(3, 16, 24, 3), "frames": 2},
            r"'normals' holds 3 pictures; expected one, or one for each of 2",
        ),
    ],
)
def test_bad_input_of_environment_light(changes, message):
    with pytest.raises(ValueError, match=message):
        lit(**changes)


def test_schedules_are_checked_before_anything_runs():
    assert EnvironmentLight.validate_inputs("0:0, 4:360", None, "1") is True
    assert "pitch" in EnvironmentLight.validate_inputs("0", "up", "0")
