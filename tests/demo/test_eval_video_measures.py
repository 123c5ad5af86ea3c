"""What is counted about generated videos, on rendered truth, on shuffled truth and on clips that stand still."""

import dataclasses

import pytest
import torch

from demo.eval import video_measures as measures
from demo.eval.network_reader import NetworkReader
from demo.eval.reading import UNSURE, truth
from demo.eval.video_scenes import (
    FIRST_SEED,
    KINDS,
    every,
    flow_scenes,
    flows_of,
    still_captions,
    text_scenes,
    travel,
)
from demo.world.attributes import MOTIONS
from demo.world.captions import MOVING
from demo.world.render import render
from demo.world.scene import draw_scenes

FRAMES = 9


def told(scenes):
    """Readings of a perfect reader."""
    return [truth(scenes, frame) for frame in range(scenes.frames)]


def all_seen(scenes):
    """Those scenes whose characters are in the picture all the time."""
    seen = torch.stack([reading.present for reading in told(scenes)]).all(0)
    return scenes.select((seen | ~scenes.present).all(1))


@pytest.fixture(scope="module")
def texts():
    scenes, _ = text_scenes(60, 1, 1, frames=FRAMES, combinations="all")
    return all_seen(scenes)


@pytest.fixture(scope="module")
def moving():
    """Kind of motion -> scenes."""
    return {kind: all_seen(flow_scenes(kind, 40, 2, frames=FRAMES)) for kind in KINDS}


def test_scenes_move_as_their_kind_says(moving):
    objects, cameras = moving["object"], moving["camera"]
    assert (travel(objects) == 0).all() and (travel(cameras) > 0.1).all()
    still = MOTIONS.index("still")
    assert ((objects.motion != still) & objects.present).any(1).all() and (cameras.motion == still).all()
    for name in ("position", "radius", "angle"):
        frozen = getattr(cameras, name)
        assert torch.equal(frozen, frozen[:, :1].expand_as(frozen))
    assert set(objects.count.tolist()) == set(cameras.count.tolist()) == {1, 2}


def test_a_seed_gives_the_same_scenes_and_none_of_trainings():
    first, again = flow_scenes("object", 3, 5), flow_scenes("object", 3, 5)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("position", "shape", "camera"))
    with pytest.raises(ValueError, match="'zoom'"):
        flow_scenes("zoom", 3, 5)
    training = draw_scenes(3, 5, characters=(0.6, 0.4, 0.0, 0.0), frames=17)
    assert (
        not torch.equal(first.position, training.position) and FIRST_SEED > (1000 * 1000 + 1_000_000) * 100_000
    )  # seed 1000, a million steps


def test_still_captions_tell_no_motion(moving):
    words = {word for phrase in MOVING.values() for word in phrase.split()} - {"left", "right", "up", "down"}
    for kind in KINDS:
        sentences = still_captions(moving[kind], 1)
        assert len(sentences) == moving[kind].size
        assert not words & {word for sentence in sentences for word in sentence.replace(",", "").split()}
    _, told_of = text_scenes(20, 1, 1, frames=FRAMES)
    assert words & {word for sentence in told_of for word in sentence.split()}


def test_truth_scores_perfectly(texts):
    readings = told(texts)
    assert measures.identity_kept(texts, readings).value == 1
    assert (measures.looks_right(texts, readings) == 1).all()
    followed = measures.words_followed(texts, measures.movements(readings))
    assert followed["direction"].value == 1 and followed["direction"].count > 10
    assert followed["all"].value >= 0.97  # a turn by half read from frame to frame may go either way


def test_shuffled_truth_scores_by_chance(texts):
    other = texts.select(torch.arange(texts.size).roll(1))
    readings = told(other)
    assert measures.looks_right(texts, readings).mean() < 0.06
    followed = measures.words_followed(texts, measures.movements(readings))
    assert followed["direction"].value < 0.3
    # Every frame from another scene: nobody stays who he was.
    mixed = [truth(texts.select(torch.arange(texts.size).roll(frame)), frame) for frame in range(FRAMES)]
    assert measures.identity_kept(texts, mixed).value < 0.05
    assert measures.looks_chance(texts) == pytest.approx(0.01)


def test_one_unsure_or_missing_frame_is_wrong(texts):
    for change in ({"shape": UNSURE}, {"colour": 3}, {"present": False}):
        readings = told(texts)
        name, value = next(iter(change.items()))
        changed = torch.full_like(getattr(readings[4], name), value)
        if name == "colour":
            changed = (readings[4].colour + 1) % 10
        readings[4] = dataclasses.replace(readings[4], **{name: changed})
        assert measures.identity_kept(texts, readings).value == 0, change
        assert measures.looks_right(texts, readings).mean() == pytest.approx((FRAMES - 1) / FRAMES), change


def test_identity_by_motion(texts):
    """Who spins is unsure in one frame: its share is 0, all others' are 1, together they are everyone."""
    readings = told(texts)
    spins = texts.present & (texts.motion == MOTIONS.index("spins"))
    changed = torch.where(spins, torch.full_like(readings[4].shape, UNSURE), readings[4].shape)
    readings[4] = dataclasses.replace(readings[4], shape=changed)
    shares = measures.identity_by_motion(texts, readings)
    assert len(shares) > 4
    assert {name for name, share in shares.items() if share.value == 0} == {"identity, spins"}
    assert all(share.value == 1 for name, share in shares.items() if name != "identity, spins")
    whole = measures.identity_kept(texts, readings)
    assert sum(share.count for share in shares.values()) == whole.count
    assert sum(share.right for share in shares.values()) == whole.right


def test_always_unsure_is_no_identity(texts):
    readings = [dataclasses.replace(one, shape=torch.full_like(one.shape, UNSURE)) for one in told(texts)]
    assert measures.identity_kept(texts, readings).value == 0


def test_a_character_too_many_is_wrong(texts):
    readings = told(texts)
    readings[0] = dataclasses.replace(readings[0], present=torch.ones_like(readings[0].present))
    assert measures.looks_right(texts, readings).max() < 1


def test_end_points_of_the_truth_and_of_others(moving):
    for kind, scenes in moving.items():
        found = measures.movements(told(scenes))
        ends = measures.end_points(scenes, found)
        assert ends.error.nanmedian() < 1e-3 and ends.asked.nanmean() > 10, kind
        other = measures.end_points(scenes.select(torch.arange(scenes.size).roll(1)), found)
        assert other.error.nanmean() > 0.8 * other.asked.nanmean(), kind
        assert (ends.missing.nan_to_num(0.0) == 0).all()


def test_asked_end_points_are_the_flows_own(moving):
    """The similarity of the reader's measure against the world's exact flow from the first frame to the last."""
    for kind, scenes in moving.items():
        still = ((scenes.motion == MOTIONS.index("still")) & scenes.present).sum(1)
        mixed = ((scenes.count == 2) & (still == 1)).nonzero()[:, 0]  # one moves, one does not and must not count
        assert kind == "camera" or mixed.numel() >= 1
        some = scenes.select(torch.cat((torch.arange(4), mixed[:3])))
        wanted, _ = flows_of(every(some, FRAMES - 1))
        labels = render(some.at(slice(0, 1)), layers=("labels",)).labels[:, 0]
        length = wanted[:, 0].norm(dim=1)
        ends = measures.end_points(some, measures.movements(told(some)))
        for b in range(some.size):
            pixels = length[b][(labels[b] >= 0) & (length[b] >= measures.MOVING_WAY)]
            expected = pixels.mean() if pixels.numel() else torch.tensor(torch.nan)
            torch.testing.assert_close(ends.asked[b], expected, rtol=0.03, atol=0.3, equal_nan=True, msg=kind)


def test_a_clip_that_stands_still_errs_by_all_that_was_asked(moving):
    for scenes in moving.values():
        still = measures.end_points(scenes, measures.movements([truth(scenes)] * FRAMES))
        torch.testing.assert_close(still.error, still.asked, equal_nan=True)
        gone = [dataclasses.replace(reading, present=reading.present & False) for reading in told(scenes)]
        lost = measures.end_points(scenes, measures.movements(gone))
        torch.testing.assert_close(lost.error, lost.asked, equal_nan=True)
        assert (lost.missing.nan_to_num(1.0) == 1).all()


def test_half_the_way_is_half_the_error(moving):
    scenes = moving["camera"]
    found = measures.movements(told(scenes))
    half = dataclasses.replace(found, way=found.way / 2, growth=found.growth * 0, turn=found.turn * 0)
    pan = scenes.camera[:, -1, 2].log().abs() < 0.03  # hardly any zoom
    ends = measures.end_points(scenes, half)
    assert pan.sum() >= 2
    torch.testing.assert_close(ends.error[pan], ends.asked[pan] / 2, rtol=0.1, atol=0.3)


def test_carried_by_hand():
    offset = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    quarter = measures.carried(offset, torch.tensor([5.0, 0.0]), torch.tensor(2.0).log(), torch.tensor(torch.pi / 2))
    torch.testing.assert_close(quarter, torch.tensor([[4.0, 2.0], [1.0, -2.0]]))


def test_flow_errors_of_known_shifts():
    wanted = torch.zeros(3, 2, 2, 8, 8)
    wanted[:2, :, 0, :4] = 2.0  # the upper half moves, in the first two clips
    hidden = torch.zeros(3, 2, 8, 8)
    assert measures.flow_errors(wanted, hidden, wanted)[:2].tolist() == [0, 0]
    shifted = wanted + torch.tensor([3.0, -4.0]).view(2, 1, 1)
    assert measures.flow_errors(wanted, hidden, shifted)[:2].tolist() == [5, 5]
    assert measures.flow_errors(wanted, hidden, None)[:2].tolist() == [2, 2]
    torch.testing.assert_close(
        measures.flow_errors(wanted, hidden, None), measures.flow_errors(wanted, hidden, wanted * 0), equal_nan=True
    )
    assert measures.flow_errors(wanted, hidden, shifted)[2].isnan()  # nothing moves
    elsewhere = wanted.clone()
    elsewhere[:, :, :, 4:] += 9  # where nothing was asked to move
    hidden[:, :, 0] = 1
    elsewhere[:, :, :, 0] += 9  # and where what moves is hidden afterwards
    assert measures.flow_errors(wanted, hidden, elsewhere)[:2].tolist() == [0, 0]
    # Two frames at a time a pixel must go twice as far to count.
    assert measures.flow_errors(wanted, hidden, shifted, step=5).isnan().all()


def test_intervals():
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(400, generator=generator) + 5
    found = measures.mean_interval(torch.cat((values, torch.tensor([torch.nan]))))
    assert found.count == 400 and found.value == pytest.approx(float(values.mean()))
    half = 1.96 * float(values.std()) / 20
    assert found.low == pytest.approx(found.value - half, abs=half / 4)
    assert found.high == pytest.approx(found.value + half, abs=half / 4)
    ratio = measures.ratio_interval(values * 0.3, values)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.3, 0.3, 0.3))  # clip by clip, not apart
    noise = torch.randn(400, generator=generator)
    up, level, down = measures.rises([values, values + 1 + noise, values + 1 + noise, values])
    assert up.low > 0.5 and level.low == level.high == 0 and down.high < -0.5
    assert measures.mean_interval(torch.full((3,), torch.nan)).count == 0
    covered = [measures.mean_interval(torch.randn(60, generator=generator)) for _ in range(40)]
    assert 33 <= sum(one.low <= 0 <= one.high for one in covered) <= 40


def test_motion_rows():
    plain = torch.linspace(1, 3, 50)
    conditions = {"follows": plain * 0.4, "plain": plain, "off": plain * 0.8, "off plain": plain}
    rows = measures.motion_rows({"object": conditions, "camera": conditions}, "plain", "follows", ("off", "off plain"))
    assert rows["both, follows / plain noise"].value == pytest.approx(0.4)
    assert rows["both, off / plain noise"].value == pytest.approx(0.8)
    assert rows["both, LoRA off - on"].low == pytest.approx(0.4)
    assert rows["both, plain"].count == 100 and rows["camera, plain"].count == 50
    assert "both, plain / plain noise" not in rows


def test_psnr():
    frames = torch.rand(2, 3, 3, 8, 8)
    assert measures.psnr(frames + 0.1, frames).tolist() == pytest.approx([20, 20], abs=1e-3)


def test_the_network_reader_sees_rendered_motion(moving):
    """The ceiling of the measures in small: with the reader that measures generated clips."""
    reader = NetworkReader()
    for kind, least in (("object", 0.25), ("camera", 0.15)):
        scenes = moving[kind].select(slice(0, 5))
        frames = (render(scenes).frames * 255).round().byte()
        readings = measures.read_frames(reader, frames)
        ends = measures.end_points(scenes, measures.movements(readings))
        assert ends.error.nanmean() < least * ends.asked.nanmean()
        assert measures.identity_kept(scenes, readings).value >= 0.8
        assert measures.looks_right(scenes, readings).mean() > 0.9
