"""Normals From Light and Detail Transfer as the host runs them, and what they say of bad input."""

import pytest
import torch
from papernodes.kernels.detail_transfer import detail_transfer
from papernodes.nodes.light_pictures import DetailTransfer, NormalsFromLight

NAMES = ("left", "right", "above", "below")


def ball(size=33):
    """Normals [size, size, 3] of a ball, x to the right, y up, and where it is."""
    y, x = torch.meshgrid(torch.linspace(1, -1, size), torch.linspace(-1, 1, size), indexing="ij")
    inside = x.square() + y.square() < 0.8
    z = (1 - x.square() - y.square()).clamp(min=0).sqrt()
    return torch.stack((x, y, z), -1), inside


def lit(normals, batch=1):
    """The four pictures of a grey thing with these normals."""
    sides = {"left": (-1, 0), "right": (1, 0), "above": (0, 1), "below": (0, -1)}
    pictures = {}
    for name, (x, y) in sides.items():
        light = 0.5 + 0.25 * (normals[..., 0] * x + normals[..., 1] * y)
        pictures[name] = light[None, ..., None].expand(batch, -1, -1, 3).contiguous()
    return pictures


def pictures(size=(16, 20), batch=1, seed=0):
    return torch.rand(batch, *size, 3, generator=torch.Generator().manual_seed(seed))


def test_a_balls_normals_point_where_its_surface_does():
    normals, inside = ball()
    (found,) = NormalsFromLight.execute(**lit(normals), sigma=10.0).args
    found = found[0] * 2 - 1
    side = inside & (normals[..., :2].norm(dim=-1) > 0.3)
    cosine = torch.nn.functional.cosine_similarity(found[..., :2], normals[..., :2], dim=-1)
    assert cosine[side].min() > 0.999
    assert found[16, 16, 2] == pytest.approx(1.0, abs=1e-3)
    mask = torch.zeros(1, 33, 33)
    (flat,) = NormalsFromLight.execute(**lit(normals), sigma=10.0, mask=mask).args
    torch.testing.assert_close(flat, torch.tensor([0.5, 0.5, 1.0]).expand(1, 33, 33, 3))


def test_more_sigma_is_a_deeper_relief():
    normals, inside = ball()
    shallow, deep = (NormalsFromLight.execute(**lit(normals), sigma=sigma).args[0] for sigma in (2.0, 30.0))
    assert (deep[0, ..., 2] <= shallow[0, ..., 2] + 1e-6)[inside].all()
    assert deep[0, ..., 2][inside].min() < shallow[0, ..., 2][inside].min() - 0.02


def test_single_pictures_and_masks_go_with_a_batch():
    normals, _ = ball(17)
    many, one = lit(normals, 3), lit(normals)
    (expected,) = NormalsFromLight.execute(**many, sigma=10.0).args
    mixed = {**many, "above": one["above"], "below": one["below"]}
    for mask in (torch.ones(17, 17), torch.ones(1, 17, 17), torch.ones(3, 17, 17)):
        assert torch.equal(NormalsFromLight.execute(**mixed, sigma=10.0, mask=mask).args[0], expected)
    with_alpha = {name: torch.cat((value, torch.zeros_like(value[..., :1])), -1) for name, value in many.items()}
    assert torch.equal(NormalsFromLight.execute(**with_alpha, sigma=10.0).args[0], expected)


@pytest.mark.parametrize("mode", ["multiply", "add"])
def test_detail_comes_from_the_source_and_light_stays(mode):
    y = torch.linspace(0, 1, 32)[:, None].expand(32, 32)
    stripes = ((torch.arange(32) // 2 % 2) * 0.1).expand(32, 32)
    relit = (0.3 + 0.4 * y)[None, ..., None].expand(1, 32, 32, 3)
    source = (0.45 + stripes)[None, ..., None].expand(1, 32, 32, 3)
    (found,) = DetailTransfer.execute(relit, source, 4.0, mode, 1.0).args
    inner = found[0, 8:-8, 8:-8, 0]
    assert (inner[:, 2:] - inner[:, :-2]).abs().min() > 0.03, "the stripes are there"
    torch.testing.assert_close(inner.mean(1), relit[0, 8:-8, 8:-8, 0].mean(1), atol=0.02, rtol=0)
    assert torch.equal(found, detail_transfer(relit, source, 4.0, mode=mode))


def test_strength_0_and_a_black_mask_are_off():
    relit, source = pictures(seed=1), pictures(seed=2)
    assert torch.equal(DetailTransfer.execute(relit, source, 3.0, "multiply", 0.0).args[0], relit)
    mask = torch.zeros(1, 16, 20)
    assert torch.equal(DetailTransfer.execute(relit, source, 3.0, "add", 1.0, mask).args[0], relit)
    assert (DetailTransfer.execute(relit, source, 3.0, "add", 1.0).args[0] - relit).abs().max() > 0.1


def test_one_source_goes_with_a_batch():
    relit, source = pictures(batch=3, seed=1), pictures(seed=2)
    (found,) = DetailTransfer.execute(relit, source, 3.0, "multiply", 1.0).args
    for number in range(3):
        (alone,) = DetailTransfer.execute(relit[number : number + 1], source, 3.0, "multiply", 1.0).args
        torch.testing.assert_close(found[number], alone[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": pictures((16, 24))}, r"'source' is 24x16 pixels and 'relit' 20x16; .* Put Upscale Image between"),
        ({"source": pictures(batch=2)}, r"'source' holds 2 pictures and 'relit' 1"),
        ({"mask": torch.ones(1, 8, 8)}, r"'mask' is 8x8 pixels and 'relit' 20x16"),
        ({"mask": torch.ones(1, 1, 16, 20)}, r"'mask' has shape \[1, 1, 16, 20\]; expected \[batch, height, width\]"),
        ({"mask": torch.full((1, 16, 20), float("nan"))}, r"'mask' holds NaN"),
        ({"relit": torch.full((1, 16, 20, 3), float("inf"))}, r"'relit' holds NaN or infinite pixels"),
        ({"relit": torch.zeros(16, 20, 3)}, r"'relit' has shape \[16, 20, 3\]; expected a batch of images"),
        ({"radius": 0.0}, r"'radius' is 0.0; expected a number from 0.1 to 256"),
        ({"strength": float("nan")}, r"'strength' is nan"),
        ({"mode": "screen"}, r"'mode' is 'screen'; expected one of: multiply, add"),
    ],
)
def test_bad_input_of_detail_transfer(changes, message):
    good = {"relit": pictures(), "source": pictures(), "radius": 3.0, "mode": "add", "strength": 1.0}
    DetailTransfer.execute(**good)
    with pytest.raises(ValueError, match=message):
        DetailTransfer.execute(**(good | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"above": pictures((8, 8))}, r"'above' is 8x8 pixels and 'left' 20x16"),
        ({"below": pictures(batch=4)}, r"'below' holds 4 pictures and 'left' 1"),
        ({"sigma": 0.0}, r"'sigma' is 0.0; expected a number from 0.1 to 100"),
        ({"right": torch.zeros(0, 16, 20, 3)}, r"'right' has shape \[0, 16, 20, 3\]"),
        ({"mask": torch.ones(2, 16, 20)}, r"'mask' holds 2 pictures and 'left' 1"),
    ],
)
def test_bad_input_of_normals_from_light(changes, message):
    good = {**{name: pictures() for name in NAMES}, "sigma": 10.0}
    NormalsFromLight.execute(**good)
    with pytest.raises(ValueError, match=message):
        NormalsFromLight.execute(**(good | changes))
