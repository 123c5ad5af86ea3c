"""Equirect To Perspective and Perspective To Equirect as the host runs them: round trips, masks, what they refuse."""

import math

import pytest
import torch
from papernodes.kernels.equirectangular import solid_angles, texel_directions
from papernodes.kernels.panorama import CONVENTIONS, MODES, equirect_to_perspective
from papernodes.nodes.perspective_views import ALL, EACH, EquirectToPerspective, PerspectiveToEquirect

CAMERA = {
    "field_of_view": "90", "yaw": "0", "pitch": "0", "roll": "0", "interpolation": MODES[0],
    "convention": CONVENTIONS[0],
}  # fmt: skip
CUBE = {"yaw": "0:0, 1:90, 2:180, 3:270, 4:0 hold, 5:0", "pitch": "0:0, 3:0, 4:90, 5:-90"}


def looked(panorama=None, **changes):
    return EquirectToPerspective.execute(
        **({"width": 64, "height": 64, "frames": 0, "panorama": panorama} | CAMERA | changes)
    ).args


def laid(image=None, **changes):
    return PerspectiveToEquirect.execute(**({"height": 64, "join": EACH, "image": image} | CAMERA | changes)).args


def smooth(batch=1, height=64):
    """Panoramas [B, H, 2 H, 3] that change slowly with the direction and with time."""
    x, y, z = texel_directions(height, 2 * height).unbind(-1)
    first = torch.stack([0.5 + 0.4 * (3 * x + 1).sin(), 0.5 + 0.4 * (2 * y + z).cos(), 0.5 + 0.3 * z], -1)
    return torch.stack([first * (1 - 0.1 * number) for number in range(batch)])


def decibels(one, other, where):
    return float(-10 * (((one - other).square() * where[..., None]).sum() / (3 * where.sum())).log10())


def test_there_and_back():
    panorama, turns = (
        smooth(),
        {"yaw": "0:0, 2:120", "pitch": "0:-30, 2:50", "roll": "20", "field_of_view": "0:60, 2:100"},
    )
    views, unknown = looked(panorama, frames=3, **turns)
    assert views.shape == (3, 64, 64, 3) and unknown.shape == (3, 64, 64) and not bool(unknown.any())
    angles = [torch.tensor(some) for some in ([0.0, 60, 120], [-30.0, 10, 50], [20.0] * 3, [60.0, 80, 100])]
    wanted = equirect_to_perspective(panorama.movedim(-1, 1), *angles, 64, 64)
    torch.testing.assert_close(views, wanted.movedim(1, -1))
    back, unknown = laid(views, **turns)
    assert back.shape == (3, 64, 128, 3)
    for frame in range(3):
        assert decibels(back[frame], panorama[0], 1 - unknown[frame]) > 40
        assert not bool((back[frame] * unknown[frame, ..., None]).any())


def test_six_views_join_to_the_whole():
    panorama = smooth()
    views, _ = looked(panorama, frames=6, **CUBE)
    for mode in MODES:
        whole, unknown = laid(views, join=ALL, interpolation=mode, **CUBE)
        assert whole.shape == (1, 64, 128, 3) and not bool(unknown.any())
        assert decibels(whole, panorama, torch.ones(1, 64, 128)) > (40 if mode != "nearest" else 32)


def test_where_views_meet_they_are_mixed_without_an_edge():
    """A white and a black view that overlap by half: no step is larger than their weights' slope."""
    views = torch.stack([torch.ones(64, 64, 3), torch.zeros(64, 64, 3)])
    whole, unknown = laid(views, join=ALL, yaw="0:0, 1:45")
    middle = whole[0, 32, unknown[0, 32] == 0, 0]
    assert float(middle[0]) == 1 and float(middle[-1]) == 0
    assert bool((middle.diff() < 1e-5).all()) and float(middle.diff().abs().max()) < 0.12


def test_a_video_keeps_its_frames():
    video = smooth(3)
    for frames in (0, 3):
        views, _ = looked(video, frames=frames, yaw="0:0, 2:90")
        for frame in range(3):
            alone, _ = looked(video[frame : frame + 1], yaw=str(45 * frame))
            assert torch.equal(views[frame], alone[0])
    panoramas, _ = laid(views, yaw="0:0, 2:90")
    assert panoramas.shape == (3, 64, 128, 3)


def test_masks_go_with_the_pictures():
    panorama, mask = smooth(), torch.zeros(1, 64, 128)
    mask[..., 64:] = 1  # all that lies to the right
    _, unknown = looked(panorama, mask=mask)
    assert bool((unknown[0, :, :31] == 0).all()) and bool((unknown[0, :, 33:] == 1).all())
    nothing, alone = looked(mask=mask)
    assert torch.equal(alone, unknown)
    with pytest.raises(ValueError, match=r"'image' of Equirect To Perspective came from a mask alone.*'panorama'"):
        nothing[0]
    views, holes = torch.ones(1, 32, 32, 3), torch.zeros(1, 32, 32)
    holes[:, :16] = 1
    for join in (EACH, ALL):
        _, whole = laid(views, join=join)
        _, half = laid(views, mask=holes, join=join)
        _, alone = laid(mask=holes[0], join=join)
        assert torch.equal(half, alone)
        share = [
            float((solid_angles(64, 128)[:, None] * (1 - some[0])).sum() / (4 * math.pi)) for some in (whole, half)
        ]
        assert share[0] == pytest.approx(1 / 6, abs=0.005) and share[1] == pytest.approx(1 / 12, abs=0.005)


def test_exact_is_another_grid():
    panorama = smooth()
    (ordinary, _), (exact, _) = looked(panorama), looked(panorama, convention=CONVENTIONS[1])
    assert 0 < float((ordinary - exact).abs().mean()) < 0.02


def test_what_is_wrong_is_said():
    with pytest.raises(ValueError, match="Neither 'panorama' nor 'mask' is connected"):
        looked()
    with pytest.raises(ValueError, match="Neither 'image' nor 'mask' is connected"):
        laid()
    for size in ((64, 64), (64, 127)):
        with pytest.raises(
            ValueError, match=rf"'panorama' is {size[1]}x64 pixels; an equirectangular picture is twice"
        ):
            looked(torch.zeros(1, *size, 3))
    with pytest.raises(ValueError, match=r"'panorama' is 2x1 pixels; .* at least 4x2"):
        looked(torch.zeros(1, 1, 2, 3))
    with pytest.raises(ValueError, match="'mask' is 64x64 pixels; an equirectangular"):
        looked(mask=torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="'mask' is 64x32 pixels and 'panorama' 128x64; they must be of one size"):
        looked(smooth(), mask=torch.zeros(1, 32, 64))
    with pytest.raises(ValueError, match="'panorama' holds NaN"):
        looked(smooth() * math.nan)
    with pytest.raises(ValueError, match=r"'frames' is 5 and there are 3 panoramas; .*ImageFromBatch"):
        looked(smooth(3), frames=5)
    for node, given in ((looked, smooth()), (laid, torch.zeros(1, 8, 8, 3))):
        for text, said in (
            ("0", "the value 0 is out of range; expected 1 to 179"),
            ("0:90, 4:180", "the value 180 at 4 is out of range"),
            ("wide", '"wide" is not a number'),
        ):
            with pytest.raises(ValueError, match=f"^field_of_view: {said}"):
                node(given, field_of_view=text)
        with pytest.raises(ValueError, match=r"^pitch: .*positions must increase"):
            node(given, pitch="4:0, 2:1")
        for name in ("interpolation", "convention"):
            with pytest.raises(ValueError, match=f"'{name}' is 'x'; expected one of"):
                node(given, **{name: "x"})
    with pytest.raises(ValueError, match="'join' is 'x'"):
        laid(torch.zeros(1, 8, 8, 3), join="x")
    with pytest.raises(ValueError, match="fov: 90 degrees across 16x64 pixels are 360 degrees down"):
        looked(smooth(), width=16, convention=CONVENTIONS[1])
    for node in (EquirectToPerspective, PerspectiveToEquirect):
        assert node.validate_inputs("90", "0:0, 4:360", "0", None) is True
        assert node.validate_inputs("90", "0:0:0", "0", "0").startswith("yaw: ")
        assert node.validate_inputs("180", "0", "0", "0").startswith("field_of_view: ")
