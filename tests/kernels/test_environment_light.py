"""Light from all around: closed forms of irradiance, how far nine numbers go, turns, and tone mapping."""

import math

import pytest
import torch
from papernodes.kernels.environment_light import (
    CURVES,
    dome_normals,
    environment_light_maps,
    from_srgb,
    grey_exposure,
    irradiance,
    irradiance_coefficients,
    tone_map,
)
from papernodes.kernels.equirectangular import rotate_environment, rotations, solid_angles, texel_directions

NORMALS = texel_directions(13, 24)
ZERO = torch.zeros(1)


def lit(environment, normals=NORMALS):
    return irradiance(irradiance_coefficients(environment), normals)


def unit(*components):
    return torch.nn.functional.normalize(torch.tensor(components), dim=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2), (5, 9), (64, 128), (300, 600)])
@pytest.mark.parametrize("radiance", [1e-4, 1.0, 1e5])
def test_an_even_sky_gives_pi_times_its_radiance(size, radiance):
    environment = torch.full((*size, 3), radiance) * torch.tensor([1.0, 0.5, 0.0])
    expected = torch.tensor([1.0, 0.5, 0.0]) * radiance * math.pi
    torch.testing.assert_close(lit(environment), expected.expand(13, 24, 3), rtol=2e-6, atol=radiance * 2e-6)
    maps = environment_light_maps(environment, ZERO, ZERO, dome_normals(3, 4))
    torch.testing.assert_close(maps, environment[:1, :1].expand(1, 3, 4, 3), rtol=2e-6, atol=radiance * 2e-6)


@pytest.mark.parametrize("towards", [(1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0), (0.3, -0.5, 0.8)])
def test_skies_of_the_first_and_second_order_are_exact(towards):
    axis = unit(*towards)
    along = texel_directions(256, 512) @ axis
    for sky, expected in (
        (1 + along, math.pi + 2 * math.pi / 3 * (NORMALS @ axis)),
        # c^2 = 1/3 + 2/3 P_2(c), and A_2 = pi / 4
        (along.square(), math.pi / 3 + math.pi / 6 * (1.5 * (NORMALS @ axis).square() - 0.5)),
    ):
        found = lit(sky[..., None].expand(-1, -1, 3))
        torch.testing.assert_close(found, expected[..., None].expand(-1, -1, 3), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (52, 20), (128, 256), (160, 511), (255, 360)])
def test_one_texel_is_a_lamp(row, column):
    """The order 2 form of a clamped cosine, and how far that is from the cosine itself."""
    environment = torch.zeros(256, 512, 3)
    environment[row, column] = 1e5
    falling = 1e5 * float(solid_angles(256, 512)[row])
    cosine = NORMALS @ texel_directions(256, 512)[row, column]
    closed = (0.25 + cosine / 2 + 5 / 32 * (3 * cosine.square() - 1)).clamp(min=0)
    found = lit(environment)[..., 1] / falling
    torch.testing.assert_close(found, closed, atol=2e-3, rtol=0)  # a texel is a small patch, not a point
    error = found - cosine.clamp(min=0)
    assert error.max() < 3 / 32 + 2e-3 and error.min() > -0.0396 - 2e-3
    assert error.max() > 0.08, "the bound is reached"


@pytest.mark.parametrize("seed", range(3))
def test_rough_skies_come_close_to_the_exact_integral(seed):
    environment = torch.rand(24, 48, 3, generator=torch.Generator().manual_seed(seed)) ** 4
    directions = texel_directions(24, 48).flatten(0, 1)
    weights = solid_angles(24, 48).float().repeat_interleave(48)
    cosines = (NORMALS.flatten(0, 1) @ directions.T).clamp(min=0) * weights
    exact = (cosines @ environment.flatten(0, 1)).view(13, 24, 3)
    assert ((lit(environment) - exact) / exact).abs().max() < 0.03


def test_colours_do_not_mix():
    environment = torch.rand(8, 16, 3, generator=torch.Generator().manual_seed(1))
    single = torch.zeros_like(environment)
    single[..., 2] = environment[..., 2]
    assert torch.equal(lit(single)[..., 2], lit(environment)[..., 2])
    assert (lit(single)[..., :2] == 0).all()


def test_never_negative_and_finite():
    environment = torch.zeros(32, 64, 3)
    environment[16, 3] = 3e38
    found = lit(environment)
    assert found.isfinite().all() and (found >= 0).all() and (found == 0).any()


def test_a_lamp_lights_its_side_of_the_dome():
    normals = dome_normals(33, 33)
    for yaw, pitch, brightest in (
        (90.0, 0.0, (16, 32)),
        (-90.0, 0.0, (16, 0)),
        (0.0, 90.0, (0, 16)),
        (0.0, -90, (32, 16)),
    ):
        environment = torch.zeros(64, 128, 3)
        environment[31:33, 63:65] = 100.0  # straight ahead, then turned
        found = environment_light_maps(environment, torch.tensor([yaw]), torch.tensor([pitch]), normals)[0, ..., 0]
        row, column = brightest
        middles = {place: float(found[place]) for place in ((16, 32), (16, 0), (0, 16), (32, 16))}
        assert max(middles, key=middles.get) == (row, column)
    behind = environment_light_maps(environment, torch.tensor([180.0]), ZERO, normals)[0, ..., 0]
    assert behind.argmax() == 16 * 33 + 16, "from behind the camera it falls on the middle"


def test_turning_the_map_is_turning_the_light():
    environment = torch.rand(16, 32, 3, generator=torch.Generator().manual_seed(2)) ** 6 * 1e5
    normals = dome_normals(9, 13)
    for texels in (0, 5, -11, 32):
        yaw = torch.tensor([texels * 360 / 32])
        direct = environment_light_maps(environment, yaw, ZERO, normals)
        moved = environment_light_maps(environment.roll(texels, 1), ZERO, ZERO, normals)
        torch.testing.assert_close(direct, moved, rtol=1e-5, atol=1e-5 * float(moved.max()))
    whole = environment_light_maps(environment, torch.tensor([0.0, 360.0]), torch.zeros(2), normals)
    assert torch.equal(whole[0], whole[1])
    sky = 1 + texel_directions(128, 256)
    tipped = rotate_environment(sky, torch.tensor([20.0]), torch.tensor([35.0]))[0]
    direct = environment_light_maps(sky, torch.tensor([20.0]), torch.tensor([35.0]), normals)
    torch.testing.assert_close(environment_light_maps(tipped, ZERO, ZERO, normals), direct, atol=2e-3, rtol=0)


def test_turned_light_in_closed_form():
    axis = unit(0.2, 0.6, -0.7)
    sky = (1 + texel_directions(128, 256) @ axis)[..., None].expand(-1, -1, 3)
    yaw, pitch = torch.tensor([70.0, -15.0]), torch.tensor([-40.0, 80.0])
    normals = dome_normals(7, 6)
    found = environment_light_maps(sky, yaw, pitch, normals)
    for frame, matrix in enumerate(rotations(yaw, pitch)):
        expected = 1 + 2 / 3 * (normals @ (matrix.float() @ axis))
        torch.testing.assert_close(found[frame, ..., 0], expected, atol=2e-4, rtol=0)


def test_every_frame_may_have_its_own_normals():
    sky = 1 + texel_directions(8, 16)
    normals = torch.stack([dome_normals(4, 5), dome_normals(4, 5).flip(1)])
    seen = []
    found = environment_light_maps(sky, torch.zeros(2), torch.zeros(2), normals, on_frame=lambda *f: seen.append(f))
    assert torch.equal(found[1], found[0].flip(1)) and not torch.equal(found[0], found[1])
    assert seen == [(0, 2), (1, 2)]
    with pytest.raises(ValueError, match=r"normals: got \[2, 4, 5, 3\]; expected \[height, width, 3\] or \[3, height"):
        environment_light_maps(sky, torch.zeros(3), torch.zeros(3), normals)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 33)])
def test_the_dome(size):
    normals = dome_normals(*size)
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(size))
    assert (normals[..., 2] > 0).all()
    torch.testing.assert_close(normals.flip(1) * torch.tensor([-1.0, 1, 1]), normals)
    torch.testing.assert_close(normals.flip(0) * torch.tensor([1.0, -1, 1]), normals)
    if size == (33, 33):
        assert torch.equal(normals[16, 16], torch.tensor([0.0, 0, 1]))
        assert normals[16, 32, 0] > 0.68 and normals[0, 16, 1] > 0.68, "x to the right, y up"
    with pytest.raises(ValueError, match="dome: got 4x0 pixels"):
        dome_normals(0, 4)


def test_tone_mapping():
    light = torch.tensor([0.0, 0.001, 0.18, 0.5, 1.0, 7.0, 1e5, 3e38]).view(1, 1, 8, 1).expand(2, 1, 8, 3)
    found = tone_map(light)[0, 0, :, 0]
    expected = [0, 0.001 * 12.92, 1.055 * 0.18 ** (1 / 2.4) - 0.055, 1.055 * 0.5 ** (1 / 2.4) - 0.055, 1, 1, 1, 1]
    torch.testing.assert_close(found, torch.tensor(expected))
    soft = tone_map(light, 0.0, "soft")[0, 0, :, 0]
    assert soft[4] == pytest.approx(1.055 * 0.5 ** (1 / 2.4) - 0.055)
    assert (soft[:6].diff() > 0).all() and soft[5] < 1
    for curve in CURVES:
        shown = tone_map(light, 64.0, curve)
        assert shown.isfinite().all() and shown.min() == 0 and shown.max() == 1
        torch.testing.assert_close(tone_map(light, -1.5, curve), tone_map(light * 2**-1.5, curve=curve))


def test_an_exposure_for_every_frame():
    light = torch.full((3, 2, 2, 3), 0.1)
    found = tone_map(light, torch.tensor([0.0, 1.0, -2.0]))
    for frame, factor in enumerate((1, 2, 0.25)):
        torch.testing.assert_close(found[frame], tone_map(light[:1] * factor)[0])
    with pytest.raises(ValueError, match=r"exposure: got \[2\]; expected one number, or one for each of 3"):
        tone_map(light, torch.zeros(2))
    for wrong in (65.0, -65.0, math.nan):
        with pytest.raises(ValueError, match="exposure: got a value out of range; expected -64 to 64 stops"):
            tone_map(light, wrong)
    with pytest.raises(ValueError, match="curve: got 'log'; expected one of clip, soft"):
        tone_map(light, 0.0, "log")


def test_the_exposure_to_middle_grey():
    for radiance in (1e-3, 0.18, 1.0, 1e5):
        assert grey_exposure(torch.full((9, 18, 3), radiance)) == pytest.approx(math.log2(0.18 / radiance), abs=1e-4)
    environment = torch.rand(32, 64, 3, generator=torch.Generator().manual_seed(4)) + 0.1
    stops = grey_exposure(environment)
    assert grey_exposure(environment * 8) == pytest.approx(stops - 3, abs=1e-4)
    sunny = environment.clone()
    sunny[10, 10] = 1e4
    assert abs(grey_exposure(sunny) - stops) < 0.05, "a small sun hardly moves it"
    # The poles' rows are small: that they are bright counts for little.
    poles, equator = torch.full((2, 32, 64, 3), 0.1)
    poles[:2], equator[15:17] = 10.0, 10.0
    assert grey_exposure(equator) < grey_exposure(poles) - 0.2
    assert grey_exposure(torch.zeros(4, 8, 3)) == 0
    assert grey_exposure(torch.full((4, 8, 3), 1e-38)) == 64


def test_maps_that_are_no_light():
    for wrong in (torch.full((4, 8, 3), -1.0), torch.full((4, 8, 3), math.nan), torch.zeros(4, 8)):
        for call in (irradiance_coefficients, grey_exposure):
            with pytest.raises(ValueError, match=r"^environment: "):
                call(wrong)


def test_srgb_is_undone():
    light = torch.linspace(0, 1, 257)[:, None, None, None].expand(-1, 1, 1, 3)
    torch.testing.assert_close(from_srgb(tone_map(light)), light, atol=1e-6, rtol=1e-5)
    assert float(from_srgb(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)
