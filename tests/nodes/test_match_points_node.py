"""Match Points as the host runs it: the pairs, those of a clip, its preview, and what it says of bad input."""

import json

import pytest
import torch
from papernodes.kernels.flow import Flow
from papernodes.kernels.match_picture import match_picture
from papernodes.kernels.matched_points import MatchedPoints, parse_points
from papernodes.nodes.match_points import NOTHING, MatchPoints
from papernodes.nodes.sockets import check_points

TEXT = json.dumps(
    {
        "version": 1,
        "points": [{"reference": [0.2, 0.3], "target": [0.25, 0.5]}, {"reference": [0.9, 0.1], "target": [0.85, 0.5]}],
    }
)


@pytest.fixture(autouse=True)
def temp_folder(tmp_path, monkeypatch):
    """What the editor is shown is written here."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path))
    return tmp_path


def pictures(batch=1, height=24, width=36, seed=0):
    return torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(seed))


def shift(frames, across, occlusion=None):
    """A flow of this many frames of 20x10 pixels that moves all by as many pixels to the right."""
    vectors = torch.tensor([float(across), 0.0]).view(1, 2, 1, 1).expand(frames - 1, 2, 10, 20).contiguous()
    return Flow(vectors, occlusion=occlusion)


def test_pairs_and_preview():
    reference, target = pictures(), pictures(1, 48, 30, seed=1)
    output = MatchPoints.execute(reference, target, TEXT)
    points, preview = output.args
    assert isinstance(points, MatchedPoints) and check_points(points) is points
    (pairs,), (wanted,) = points.frames, parse_points(TEXT).frames
    assert torch.equal(pairs.reference, wanted.reference) and torch.equal(pairs.target, wanted.target)
    assert torch.equal(preview, match_picture(reference[0], target[0], wanted))
    assert set(output.ui) == {"reference", "target"}
    assert all(len(entries) == 1 and entries[0]["filename"] for entries in output.ui.values())


def test_a_clip_without_flow_has_the_same_points_in_all_frames():
    target = pictures(3)
    points, preview = MatchPoints.execute(pictures(), target, TEXT).args
    assert len(points.frames) == 1 and preview.shape[0] == 1
    assert torch.equal(preview, match_picture(pictures()[0], target[0], points.frames[0]))


def test_points_follow_the_flow():
    reference, target = pictures(), pictures(3, seed=2)
    points, preview = MatchPoints.execute(reference, target, TEXT, shift(3, 2)).args
    assert [len(pairs) for pairs in points.frames] == [2, 2, 1], "the second leaves the picture"
    torch.testing.assert_close(points.frames[2].target, torch.tensor([[0.45, 0.5]]))
    assert preview.shape[0] == 3
    for number, pairs in enumerate(points.frames):
        assert torch.equal(preview[number : number + 1], match_picture(reference[0], target[number], pairs))


@pytest.mark.parametrize("text", ["", NOTHING])
def test_no_points(text):
    points, preview = MatchPoints.execute(pictures(), pictures(), text).args
    assert points.count == 0 and preview.ndim == 4


def test_transparent_pictures_are_taken_without_their_alpha():
    see_through = torch.cat([pictures(), torch.zeros(1, 24, 36, 1)], dim=-1)
    assert torch.equal(
        MatchPoints.execute(see_through, see_through, TEXT).args[1],
        MatchPoints.execute(pictures(), pictures(), TEXT).args[1],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": pictures(2)}, r"'reference' holds 2 pictures; expected one"),
        ({"reference": pictures()[0]}, r"'reference' has shape \[24, 36, 3\]; expected a batch of images"),
        ({"target": pictures() * float("nan")}, r"'target' holds NaN"),
        ({"points": '{"version": 1, "points": [{"target": [0, 0]}]}'}, r"points: pair 1 has a point in the target and"),
        ({"flow": "flow"}, r"'flow' holds a str; connect the flow output"),
        ({"flow": shift(3, 1)}, r"'flow' goes through 3 frames and 'target' holds 1; connect the flow of the target"),
    ],
)
def test_what_is_refused(change, message):
    inputs = {"reference": pictures(), "target": pictures(), "points": TEXT}
    MatchPoints.execute(**inputs)
    with pytest.raises(ValueError, match=message):
        MatchPoints.execute(**inputs | change)


def test_said_before_anything_runs():
    assert MatchPoints.validate_inputs(TEXT) is True
    assert MatchPoints.validate_inputs(None) is True, "linked: not known yet"
    said = MatchPoints.validate_inputs('{"version": 1, "points": [{"reference": [0.5, 0.5]}]}')
    assert said.startswith("points: pair 1 has a point in the reference and none in the target.")
    many = {"version": 1, "points": [{"reference": [0, 0], "target": [0, 0]}] * 200}
    assert MatchPoints.validate_inputs(json.dumps(many)) == (
        "points: there are 200 pairs of points; at most 100 can be used."
    )


def test_another_value_on_the_socket():
    with pytest.raises(ValueError, match=r"'points' holds a list; connect the points output of Match Points"):
        check_points([])
