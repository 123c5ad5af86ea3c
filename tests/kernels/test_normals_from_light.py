"""Normals from four lights: their formula's own cases, and a lit sphere."""

import math

import pytest
import torch
from papernodes.kernels.normals_from_light import normal_picture, normals_from_light, picture_normals


def flat(*levels):
    return [torch.full((1, 2, 3, 3), level) for level in levels]


def test_evenly_lit_looks_at_the_viewer():
    normals = normals_from_light(*flat(0.4, 0.4, 0.4, 0.4))
    assert torch.equal(normals, torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 3, 3))
    assert torch.equal(normal_picture(normals), torch.tensor([0.5, 0.5, 1.0]).expand(1, 2, 3, 3))


@pytest.mark.parametrize("sigma", [2.0, 10.0])
def test_the_formula(sigma):
    left, right, above, below = 0.3, 0.5, 0.45, 0.35
    mean = (left + right + above + below) / 4 + 1e-5
    u, v = (right - left) / mean / 2, (above - below) / mean / 2
    h = (1 - u * u - v * v) ** (sigma / 2)
    length = math.sqrt(u * u + v * v + h * h)
    found = normals_from_light(*flat(left, right, above, below), sigma=sigma)
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([u, v, h]) / length)


def test_a_mirrored_set_of_lights_mirrors_the_normal():
    pictures = torch.rand(4, 2, 5, 6, 3, generator=torch.Generator().manual_seed(0))
    left, right, above, below = pictures
    found = normals_from_light(left, right, above, below)
    signs = torch.tensor([-1.0, -1.0, 1.0])
    torch.testing.assert_close(normals_from_light(right, left, below, above), found * signs)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 5, 6))
    # Exposure does not matter, as all are seen against their mean.
    torch.testing.assert_close(normals_from_light(*(pictures * 0.5 + 1e-4)), found, atol=2e-3, rtol=0)


def test_black_and_glaring_pixels_stay_finite():
    assert normals_from_light(*flat(0.0, 0.0, 0.0, 0.0)).isfinite().all()
    found = normals_from_light(*flat(0.0, 1.0, 0.0, 0.0))
    assert found.isfinite().all() and found[0, 0, 0, 0] > 0.99


def test_a_mask_lays_the_rest_flat():
    pictures, mask = flat(0.2, 0.6, 0.4, 0.4), torch.zeros(1, 2, 3)
    mask[:, 0], mask[:, 1, 0] = 1, 0.5
    found, whole = normals_from_light(*pictures, mask), normals_from_light(*pictures)
    assert torch.equal(found[:, 0], whole[:, 0])
    assert (found[0, 1, 1:] == torch.tensor([0.0, 0.0, 1.0])).all()
    torch.testing.assert_close(found[0, 1, 0], (whole[0, 1, 0] + torch.tensor([0.0, 0.0, 1.0])) / 2)


def test_a_lit_ball():
    """A matt ball with some light all round: the directions are right within a few degrees where it is not steep."""
    line = torch.linspace(-1, 1, 65)
    x, y = line[None, :].expand(65, 65), -line[:, None].expand(65, 65)
    inside = (x * x + y * y) < 0.5
    z = (1 - x * x - y * y).clamp(min=0).sqrt()
    truth = torch.stack((x, y, z), -1)
    lights = [torch.tensor(light) for light in ((-1.0, 0, 1), (1.0, 0, 1), (0, 1.0, 1), (0, -1.0, 1))]
    pictures = []
    for light in lights:
        lit = 0.25 + 0.5 * (truth @ (light / light.norm())).clamp(min=0)
        pictures.append(lit[None, ..., None].expand(1, 65, 65, 3))
    found = normals_from_light(*pictures, sigma=2.0)[0]
    turned = torch.atan2(found[..., 1], found[..., 0]) - torch.atan2(y, x)
    turned = torch.remainder(turned + math.pi, 2 * math.pi) - math.pi
    clear = inside & ((x * x + y * y) > 0.02)
    assert turned[clear].abs().max() < math.radians(3), "to which side they lean"
    lean = found[..., :2].norm(dim=-1)
    assert (lean[32, 33:50].diff() > 0).all(), "more towards the rim"


def test_wrong_sizes():
    good = flat(0.1, 0.2, 0.3, 0.4)
    with pytest.raises(ValueError, match=r"above has shape \[1, 2, 2, 3\]"):
        normals_from_light(good[0], good[1], good[2][:, :, :2], good[3])
    with pytest.raises(ValueError, match=r"mask has shape \[2, 2, 3\]; expected \[1, 2, 3\]"):
        normals_from_light(*good, torch.ones(2, 2, 3))
    with pytest.raises(ValueError, match="sigma is 0"):
        normals_from_light(*good, sigma=0)


def test_a_normal_map_is_read_back_and_grey_looks_at_the_viewer():
    normals = torch.nn.functional.normalize(torch.randn(1, 6, 5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.testing.assert_close(picture_normals(normal_picture(normals)), normals)
    eight_bit = (normal_picture(normals) * 255).round() / 255
    assert (picture_normals(eight_bit) * normals).sum(-1).min() > 0.9999
    for grey in (127 / 255, 0.5, 128 / 255):
        found = picture_normals(torch.full((1, 1, 1, 3), grey))
        assert found.flatten().tolist() == [0.0, 0.0, 1.0]
