"""Laws of matching and counting."""

import dataclasses
import math

import pytest
import torch

from demo.eval import reading
from demo.world.scene import draw_scenes


@pytest.fixture(scope="module")
def told():
    """What a perfect reader says of 200 scenes."""
    return reading.truth(draw_scenes(200, 4711, combinations="all"))


def test_truth_scores_perfectly_in_any_order(told):
    order = torch.stack([torch.randperm(4, generator=torch.Generator().manual_seed(k)) for k in range(told.size)])
    table = reading.score(told, told.pick(order))
    assert {share.value for share in table.values()} == {1.0}
    assert {share.value for share in reading.agreement(told, told.pick(order)).values()} == {1.0}


def test_match_undoes_a_permutation(told):
    order = torch.tensor([2, 0, 3, 1]).expand(told.size, 4)
    found = reading.match(told, told.pick(order))
    wanted = torch.where(told.present, order.argsort(dim=1), -1)
    torch.testing.assert_close(found, wanted)


def test_match_without_places_goes_by_shape_and_colour(told):
    blind = dataclasses.replace(told, position=torch.full_like(told.position, torch.nan))
    order = torch.tensor([3, 2, 1, 0]).expand(told.size, 4)
    same = told.pick(order).pick(reading.match(blind, told.pick(order)))
    here = told.present
    assert (same.shape == told.shape)[here].all() and (same.colour == told.colour)[here].all()


def test_far_characters_are_missing(told):
    moved = dataclasses.replace(told, position=told.position + 3)
    assert (reading.match(told, moved) == -1).all()
    table = reading.score(told, moved)
    assert table["shape"].value == table["position"].value == 0
    assert table["number"].value == 1


@pytest.mark.parametrize("name", reading.CHARACTER_NAMES)
def test_unsure_and_missing_are_wrong(told, name):
    unsure = dataclasses.replace(told, **{name: torch.full_like(told.shape, reading.UNSURE)})
    assert reading.score(told, unsure)[name].value == 0
    assert reading.agreement(unsure, unsure)[name].value == 0
    gone = dataclasses.replace(told, present=torch.zeros_like(told.present))
    table = reading.score(told, gone)
    assert table[name].value == 0 and table[name].count == int(told.present.sum())
    assert table["number"].value == 0


def test_one_character_too_many_is_no_right_number(told):
    one = told.select((told.present.sum(1) == 1).nonzero()[:, 0])
    more = dataclasses.replace(one, present=torch.tensor([True, True, False, False]).expand_as(one.present))
    table = reading.score(one, more)
    assert table["number"].value == 0
    assert table["shape"].value == 1


def test_truth_shows_what_the_camera_shows():
    scenes = draw_scenes(20, 5)
    zoomed = dataclasses.replace(scenes, camera=torch.tensor([0.1, -0.2, 2.0]).expand(20, 1, 3))
    told = reading.truth(zoomed)
    plain = reading.truth(scenes)
    expected = (plain.position - torch.tensor([0.1, -0.2])) * 2
    torch.testing.assert_close(told.position, expected)
    torch.testing.assert_close(told.radius, plain.radius * 2)
    assert torch.equal(told.present, plain.present & (expected.abs() < 1).all(-1))


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (50, 100, 0.4038, 0.5962), (490, 500, 0.9636, 0.9891)],
)
def test_wilson_interval(right, count, low, high):
    # By hand from Wilson's formula, z = 1.96.
    assert reading.wilson(right, count) == pytest.approx((low, high), abs=2e-4)


def test_wilson_narrows_and_holds_the_share():
    widths = []
    for count in (10, 100, 1000):
        low, high = reading.wilson(count * 9 // 10, count)
        assert low < 0.9 < high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert reading.wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        reading.wilson(4, 3)


def test_share_of_nothing_is_no_number():
    assert math.isnan(reading.Share(0, 0, 0.1).value)


def test_markdown_has_a_row_for_each_share(told):
    table = reading.score(told, told)
    text = reading.markdown(table)
    assert all(f"| {name} | {share.count} | 100.0 % |" in text for name, share in table.items())
