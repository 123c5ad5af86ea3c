"""Detail from one picture, light from another: what must be kept exactly, and what comes back."""

import pytest
import torch
from papernodes.kernels.detail_transfer import MODES, detail_transfer, gaussian_blur

RADIUS = 4.0


def noise(seed=0, shape=(1, 40, 48, 3)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.2 + 0.3


def slope():
    """Light that grows from left to right."""
    return torch.linspace(0.3, 0.7, 48)[None, None, :, None].expand(1, 40, 48, 3).contiguous()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_do(mode):
    pictures = noise()
    assert detail_transfer(pictures, noise(1), RADIUS, mode=mode, strength=0.0) is pictures
    torch.testing.assert_close(detail_transfer(pictures, pictures, RADIUS, mode=mode), pictures, atol=1e-5, rtol=0)
    nothing = torch.zeros(1, 40, 48)
    assert torch.equal(detail_transfer(pictures, noise(1), RADIUS, mode=mode, mask=nothing), pictures)


@pytest.mark.parametrize("mode", MODES)
def test_light_stays_and_detail_comes(mode):
    """A print under even light, and the same without its print under a slope of light."""
    print_ = torch.zeros(1, 40, 48, 3)
    print_[:, ::4] = 0.1
    source, relit = 0.5 + print_, slope()
    found = detail_transfer(relit, source, RADIUS, mode=mode)
    middle = (slice(None), slice(12, -12), slice(12, -12))
    torch.testing.assert_close(gaussian_blur(found, 6.0)[middle], gaussian_blur(relit, 6.0)[middle], atol=0.01, rtol=0)
    lines = found[0, 20, 12:-12, 0] - found[0, 22, 12:-12, 0]
    if mode == "add":
        torch.testing.assert_close(lines, torch.full_like(lines, 0.1), atol=1e-4, rtol=0)
    else:  # as much lighter as the paper is
        torch.testing.assert_close(lines / relit[0, 20, 12:-12, 0], torch.full_like(lines, 0.2), atol=0.02, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_the_relit_pictures_own_detail_goes(mode):
    relit, source = noise(2), torch.full((1, 40, 48, 3), 0.5)
    found = detail_transfer(relit, source, RADIUS, mode=mode)
    torch.testing.assert_close(found, gaussian_blur(relit, RADIUS), atol=1e-3, rtol=0)
    half = detail_transfer(relit, source, RADIUS, mode=mode, strength=0.5)
    assert (half - relit).abs().mean() < 0.6 * (found - relit).abs().mean()


def test_a_blur():
    grey = torch.full((2, 9, 300, 3), 0.4)
    for radius in (0.3, 2.0, 500.0):
        torch.testing.assert_close(gaussian_blur(grey, radius), grey)
    point = torch.zeros(1, 41, 41, 1)
    point[:, 20, 20] = 1
    spread = gaussian_blur(point, 3.0)[0, ..., 0]
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(spread, spread.T)
    line = torch.arange(41.0) - 20
    assert float((spread.sum(0) * line**2).sum()) ** 0.5 == pytest.approx(3.0, rel=0.03)
    assert gaussian_blur(torch.rand(1, 1, 1, 3), 2.0).shape == (1, 1, 1, 3)


def test_batches_are_pictures_by_themselves():
    relit, source = noise(3, (2, 20, 20, 3)), noise(4, (2, 20, 20, 3))
    both = detail_transfer(relit, source, RADIUS)
    for k in range(2):
        assert torch.equal(both[k : k + 1], detail_transfer(relit[k : k + 1], source[k : k + 1], RADIUS))


def test_wrong_values():
    pictures = noise()
    with pytest.raises(ValueError, match="expected two alike"):
        detail_transfer(pictures, pictures[:, :20], RADIUS)
    with pytest.raises(ValueError, match="mode is 'screen'"):
        detail_transfer(pictures, pictures, RADIUS, mode="screen")
    with pytest.raises(ValueError, match="radius is 0"):
        detail_transfer(pictures, pictures, 0.0)
    with pytest.raises(ValueError, match="mask has shape"):
        detail_transfer(pictures, pictures, RADIUS, mask=torch.ones(1, 2, 2))
