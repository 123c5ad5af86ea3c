"""Brightness of one picture, colours of another: what must stay exactly; colours along a motion."""

import pytest
import torch
from papernodes.kernels.flow import Flow
from papernodes.kernels.luma import GAMUTS, SPACES, UPSAMPLING, chroma_smooth, joined, luma_replace, split

SIZE = (24, 32)


def pictures(seed=0, batch=2, size=SIZE, low=0.0, high=1.0):
    return torch.rand(batch, *size, 3, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def luma_of(some, space):
    return split(some, space)[0]


@pytest.mark.parametrize("space", SPACES)
def test_splitting_loses_nothing(space):
    some = pictures()
    for gamut in GAMUTS:
        torch.testing.assert_close(joined(*split(some, space), space, gamut), some, atol=2e-4, rtol=0)
    grey = torch.full((1, 2, 2, 3), 0.3)
    luma, chroma = split(grey, space)
    assert float(chroma.abs().max()) < 0.02
    if space == "YCbCr":
        torch.testing.assert_close(luma, torch.full_like(luma, 0.3))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", range(3))
def test_the_brightness_is_the_sources_and_doing_it_again_changes_nothing(space, seed):
    generated, source = pictures(seed), pictures(10 + seed)
    found = luma_replace(generated, source, space=space)
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    torch.testing.assert_close(luma_of(found, space), luma_of(source, space), atol=1e-3, rtol=0)
    torch.testing.assert_close(luma_replace(found, source, space=space), found, atol=1e-3, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_colours_that_exist_are_kept(space):
    """Pale pictures of middling brightness: nothing leaves the gamut, so hue and chroma are the generated picture's."""
    generated, source = (pictures(seed, low=0.45, high=0.55) for seed in (0, 1))
    found = luma_replace(generated, source, space=space)
    wanted = split(generated, space)[1]
    torch.testing.assert_close(split(found, space)[1], wanted, atol=5e-3 * float(wanted.abs().max()) + 1e-4, rtol=0)
    clipped = luma_replace(generated, source, space=space, gamut="clip")
    torch.testing.assert_close(clipped, found, atol=1e-5, rtol=0)


def test_clipping_changes_the_brightness_and_desaturating_does_not():
    red, white = torch.tensor([1.0, 0.0, 0.0]).expand(1, 4, 4, 3), torch.full((1, 4, 4, 3), 0.95)
    for space in SPACES:
        wanted = luma_of(white, space)
        clipped = luma_replace(red, white, space=space, gamut="clip")
        kept = luma_replace(red, white, space=space)
        assert float((luma_of(clipped, space) - wanted).abs().max()) > 0.02
        assert float((luma_of(kept, space) - wanted).abs().max()) < 1e-3
        assert float(kept[..., 0].mean()) > float(kept[..., 2].mean()), "still reddish"


def test_strength():
    generated, source = pictures(), pictures(1, batch=1)
    assert luma_replace(generated, source, strength=0.0) is generated
    half = luma_of(luma_replace(generated, source, space="YCbCr", strength=0.5), "YCbCr")
    wanted = (luma_of(generated, "YCbCr") + luma_of(source, "YCbCr")) / 2
    torch.testing.assert_close(half, wanted, atol=1e-4, rtol=0)


def test_flicker_falls_to_the_sources():
    """A clip whose brightness jumps from frame to frame, over a source that is still."""
    still = pictures(3, batch=1).expand(6, -1, -1, -1)
    jumping = pictures(4, batch=1) * torch.linspace(0.5, 1.0, 6)[torch.tensor([0, 5, 1, 4, 2, 3])].view(6, 1, 1, 1)

    def flicker(some):
        return float(luma_of(some, "YCbCr").mean((1, 2, 3)).diff().abs().mean())

    assert flicker(jumping) > 0.1
    assert flicker(luma_replace(jumping, still, space="YCbCr")) < 1e-4


@pytest.mark.parametrize("upsampling", UPSAMPLING)
def test_colours_of_another_size(upsampling):
    """Two colours that meet at an edge of the source: guided keeps them on their sides best."""
    source = torch.full((1, 64, 64, 3), 0.3)
    source[:, :, 32:] = 0.7
    small = torch.zeros(1, 8, 8, 3) + torch.tensor([0.8, 0.3, 0.3])
    small[:, :, 4:] = torch.tensor([0.3, 0.3, 0.8])
    found = luma_replace(small, source, space="YCbCr", upsampling=upsampling)
    assert found.shape == source.shape
    torch.testing.assert_close(luma_of(found, "YCbCr"), luma_of(source, "YCbCr"), atol=1e-3, rtol=0)
    redness = (found[0, 32, :, 0] - found[0, 32, :, 2]).double()
    bled = float((redness[28:32] - redness[4]).abs().mean() + (redness[32:36] - redness[60]).abs().mean())
    assert bled < 0.15 if upsampling == "guided" else bled > 0.3, "plain enlarging bleeds over the edge"
    assert luma_replace(source, small).shape == small.shape


def shifted_clip(frames=5, step=2, noise=0.1):
    """A textured picture that moves right, its colours disturbed anew in each frame."""
    base = pictures(7, batch=1, size=(16, 48), low=0.3, high=0.7)
    clip = torch.cat([base.roll(step * t, 2) for t in range(frames)])[:, :, 12:36]
    luma, chroma = split(clip, "YCbCr")
    shift = torch.randn(frames, 3, 1, 1, generator=torch.Generator().manual_seed(1)) * noise
    shift = shift - (shift * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    disturbed = joined(luma, chroma + shift, "YCbCr", "desaturate")
    vectors = torch.zeros(frames - 1, 2, 16, 24)
    vectors[:, 0] = step
    return clip, disturbed, Flow(vectors)


@pytest.mark.parametrize("space", SPACES)
def test_colours_steady_along_the_motion(space):
    clean, disturbed, flow = shifted_clip()
    found = chroma_smooth(disturbed, flow, strength=1.0, space=space)
    torch.testing.assert_close(luma_of(found, space), luma_of(disturbed, space), atol=1e-3, rtol=0)

    def flicker(some):
        """How differently each frame's colours deviate from the clean ones."""
        away = (split(some, space)[1] - split(clean, space)[1])[:, :, :, 8:16].mean((2, 3))
        return float((away - away.mean(0)).abs().mean())

    assert flicker(found) < 0.25 * flicker(disturbed)
    # The texture's own colours are not blurred: they move with the flow.
    kept = split(chroma_smooth(clean, flow, strength=1.0, space=space), space)[1]
    torch.testing.assert_close(kept[:, :, :, 9:15], split(clean, space)[1][:, :, :, 9:15], atol=2e-2, rtol=0.02)


def test_either_direction_of_flow_gives_the_same():
    _, disturbed, flow = shifted_clip()
    backward = Flow(-flow.vectors, "backward")
    found = [chroma_smooth(disturbed, some)[:, :, 9:15] for some in (flow, backward)]
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)


def test_nothing_to_smooth():
    _, disturbed, flow = shifted_clip()
    assert chroma_smooth(disturbed, flow, strength=0.0) is disturbed
    hidden = torch.ones(1, 16, 24)
    torch.testing.assert_close(chroma_smooth(disturbed, flow, hidden, 1.0), disturbed, atol=1e-3, rtol=0)
    partly = torch.zeros(4, 16, 24)
    partly[1] = 1  # frame 2 takes nothing from before, and frame 2 gives nothing to frame 1's future
    found = chroma_smooth(disturbed, flow, partly, 1.0)
    assert float((found - chroma_smooth(disturbed, flow, None, 1.0)).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: luma_replace(pictures(), pictures(batch=3)), "source holds 3 pictures and generated 2"),
        (lambda: luma_replace(pictures()[..., :1], pictures()), r"generated has shape \[2, 24, 32, 1\]"),
        (lambda: luma_replace(pictures(), pictures(), space="HSV"), "space is 'HSV'; expected one of Lab, YCbCr"),
        (lambda: luma_replace(pictures(), pictures(), gamut="x"), "gamut is 'x'"),
        (lambda: luma_replace(pictures(), pictures(), upsampling="x"), "upsampling is 'x'"),
        (lambda: chroma_smooth(pictures(), shifted_clip()[2]), "the flow connects 5 frames"),
        (lambda: chroma_smooth(pictures()[0], shifted_clip()[2]), r"video has shape \[24, 32, 3\]"),
        (lambda: chroma_smooth(*shifted_clip()[1:], strength=1.5), "strength is 1.5"),
        (lambda: chroma_smooth(*shifted_clip()[1:], torch.ones(3, 16, 24)), "occlusion has shape"),
        (lambda: chroma_smooth(*shifted_clip()[1:], space="x"), "space is 'x'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
