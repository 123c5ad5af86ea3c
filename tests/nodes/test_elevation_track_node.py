"""Elevation Track as the host runs it: clips whose tilt is known, what is typed, what it says of bad input."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from papernodes import __path__ as pack_path
from papernodes.kernels.panorama import equirect_to_perspective
from papernodes.kernels.schedule import Schedule
from papernodes.nodes.elevation_track import ELSE_TYPED, PICTURE, TYPED, ElevationTrack
from places import plain, room, views_of

if str(Path(pack_path[0])) not in sys.path:
    sys.path.append(str(Path(pack_path[0])))

from demo.world.attributes import BACKGROUNDS
from demo.world.panorama import render_panorama
from demo.world.scene import draw_scenes

FRAMES = 6
PITCH, ROLL = torch.linspace(-6, 14, FRAMES), torch.linspace(5, -3, FRAMES)
YAW = torch.linspace(15, 65, FRAMES)


def tracked(video, method=PICTURE, fov=90.0, fit="linear", every=1, pitch="0", roll="0"):
    return ElevationTrack.execute(video, method, fov, fit, every, pitch, roll).args


def at_frames(texts, count=FRAMES):
    return [Schedule.parse(text).at(count) for text in texts]


def toy_clip(place):
    """A camera that moves before a panorama of the toy world."""
    scene = draw_scenes(1, 7, characters=2)
    scene = replace(scene, background=torch.full_like(scene.background, BACKGROUNDS.index(place)))
    panorama = render_panorama(scene, 256).frames[0]
    return equirect_to_perspective(panorama, YAW, PITCH, ROLL, torch.full((FRAMES,), 90.0), 192, 256).movedim(1, -1)


@pytest.mark.parametrize("place", ["forest", "city", "room", plain, room])
def test_a_moving_camera_is_followed(place):
    """Lines of the toy world's city, forest and room, of a drawn room, and a level horizon: within a degree."""
    clip = toy_clip(place) if isinstance(place, str) else views_of(place, YAW, PITCH, ROLL)
    *texts, preview, report = tracked(clip)
    for text, truth in zip(at_frames(texts), (PITCH, ROLL), strict=True):
        assert float((text - truth).abs().max()) < 1.0
    assert texts[0].startswith("0:") and "5:" in texts[0] and texts[0].count(":") == 2
    assert preview.shape == clip.shape and preview.dtype == torch.float32
    assert f"by {'horizon' if place is plain else 'lines'}" in report and texts[1] in report


def test_the_preview_shows_the_horizon():
    clip = torch.zeros(2, 64, 96, 3)
    preview = tracked(clip, TYPED, pitch="0:0, 1:20")[2]
    assert float(preview[0, 31:33].mean()) > 0.4 > float(preview[0, 20:28].mean())
    lower = round(32 + 48 * torch.tensor(20.0).deg2rad().tan().item())
    assert float(preview[1, lower - 1 : lower + 1].mean()) > 0.4


def test_wrong_frames_and_fits():
    clip = views_of(room, YAW, PITCH, ROLL)
    clip[2] = 0.5
    *texts, preview, report = tracked(clip, every=2)
    assert "frame 2: nothing found" in report and "frame 1:" not in report and "frame 5:" in report
    assert float((at_frames(texts)[0] - PITCH).abs().max()) < 0.5
    assert not torch.equal(preview[2], clip[2]), "drawn from the other frames"
    each = tracked(clip, fit="each frame")
    assert each[0].count(":") == FRAMES and float((at_frames(each[:2])[0] - PITCH).abs().max()) < 0.5
    assert ":" not in tracked(clip, fit="constant")[0]
    assert tracked(clip[:1])[0].count(":") == 0


def test_what_is_typed():
    grey = torch.full((5, 64, 64, 3), 0.5)
    typed = {"pitch": "0:0, 4:20", "roll": "-3"}
    assert tracked(grey, TYPED, **typed)[:2] == ("0:0, 4:20", "-3")
    assert tracked(grey, ELSE_TYPED, **typed)[:2] == ("0:0, 4:20", "-3")
    assert "as typed" in tracked(grey, ELSE_TYPED, **typed)[3]
    eased = tracked(grey, TYPED, pitch="0:0, 4:20 ease", fit="each frame")[0]
    torch.testing.assert_close(at_frames([eased], 5)[0], Schedule.parse("0:0, 4:20 ease").at(5), rtol=0, atol=1e-3)
    clip = views_of(room, YAW, PITCH, ROLL)
    assert tracked(clip, ELSE_TYPED, **typed)[:2] == tracked(clip)[:2]


def test_what_it_says_of_bad_input():
    grey = torch.full((5, 64, 64, 3), 0.5)
    with pytest.raises(ValueError, match=r"in 0 of the 5 frames .* 'typed' .* 'pitch' and 'roll' in degrees"):
        tracked(grey)
    with pytest.raises(ValueError, match=r"'video' is 64x1 pixels; .* 32x32"):
        tracked(grey[:, :1])
    for name, bad in (
        ("video", {"video": grey[0]}),
        ("video", {"video": grey * torch.nan}),
        ("method", {"method": "guess"}),
        ("fov", {"fov": 180.0}),
        ("fit", {"fit": "cubic"}),
        ("every", {"every": 0}),
    ):
        with pytest.raises(ValueError, match=f"'{name}'"):
            tracked(**({"video": grey, "method": TYPED} | bad))
    for name, text in (("pitch", "91"), ("roll", "0:0, 0:1"), ("pitch", "up")):
        with pytest.raises(ValueError, match=name):
            tracked(grey, TYPED, **{name: text})
        assert name in ElevationTrack.validate_inputs(**({"pitch": "0", "roll": None} | {name: text}))
    assert ElevationTrack.validate_inputs("0:0, 100%:5", None) is True
