"""Places that look alike: features shifted and permuted, who chooses whom, spacing, and keypoints of moved pictures."""

import pytest
import torch
from papernodes.kernels import point_matching as module
from papernodes.kernels.matched_points import MOST_PAIRS, Pairs
from papernodes.kernels.point_matching import match_features, match_keypoints


def features(height=9, width=12, channels=64, seed=0):
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(seed))


def cells(places, height, width):
    """[N]: the numbers of the cells in whose middles places are."""
    columns, rows = (places * torch.tensor([width, height]) - 0.5).unbind(-1)
    torch.testing.assert_close(columns, columns.round(), atol=1e-4, rtol=0)
    torch.testing.assert_close(rows, rows.round(), atol=1e-4, rtol=0)
    return (rows.round() * width + columns.round()).long()


def smooth(height=120, width=160, seed=0, shift=(0, 0)):
    """A part of one picture of soft spots, grey, further down and to the right by a shift."""
    noise = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(seed))
    large = torch.nn.functional.interpolate(noise, size=(512, 512), mode="bicubic")[0, 0].clamp(0, 1)
    return large[60 + shift[0] : 60 + shift[0] + height, 60 + shift[1] : 60 + shift[1] + width]


@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (-3, 4)])
def test_a_shifted_map_is_matched_exactly(shift):
    reference = features()
    found = match_features(reference, reference.roll(shift, (1, 2)), MOST_PAIRS, 0.0, 0.0)
    assert len(found) == MOST_PAIRS and float(found.confidence.min()) > 0.3
    rows, columns = (cells(found.reference, 9, 12) // 12 + shift[0]) % 9, (found.reference[:, 0] * 12).long()
    assert torch.equal(cells(found.target, 9, 12), rows * 12 + (columns + shift[1]) % 12)


@pytest.mark.parametrize(("height", "width"), [(9, 12), (6, 18), (12, 9), (4, 27)])
def test_a_permuted_map_is_matched_exactly_whatever_its_shape(height, width):
    """Also scaled, and with something added that all cells have."""
    reference = features()
    order = torch.randperm(108, generator=torch.Generator().manual_seed(1))
    target = reference.flatten(1)[:, order].unflatten(1, (height, width)) * 3 + features(1, 1, seed=5) * 10
    found = match_features(reference, target, MOST_PAIRS, 0.0, 0.0)
    assert len(found) == MOST_PAIRS
    assert torch.equal(order[cells(found.target, height, width)], cells(found.reference, 9, 12))


def test_parts_of_the_similarities_at_a_time_give_the_same(monkeypatch):
    one = match_features(features(), features(7, 5, seed=1), MOST_PAIRS, 0.0, 0.0)
    monkeypatch.setattr(module, "QUERIES_AT_ONCE", 40)
    other = match_features(features(), features(7, 5, seed=1), MOST_PAIRS, 0.0, 0.0)
    assert torch.equal(one.reference, other.reference) and torch.equal(one.target, other.target)


def test_pairs_are_those_that_choose_each_other():
    """Against similarities written out: of maps that have nothing to do with each other, and of other sizes."""
    reference, target = features(seed=2), features(7, 5, seed=3)
    found = match_features(reference, target, MOST_PAIRS, 0.0, 0.0)
    known, asked = ((some.flatten(1) - some.flatten(1).mean(1, keepdim=True)).T for some in (reference, target))
    similarity = torch.nn.functional.cosine_similarity(known[:, None], asked[None], dim=-1)
    there, back = similarity.argmax(1), similarity.argmax(0)
    mutual = {(cell, int(there[cell])) for cell in range(108) if int(back[there[cell]]) == cell}
    pairs = list(zip(cells(found.reference, 9, 12).tolist(), cells(found.target, 7, 5).tolist(), strict=True))
    assert set(pairs) == mutual and 0 < len(pairs) < 35
    # And how sure they are: what the best cell elsewhere, beyond two cells round the best, falls short of it.
    for (cell, best), confidence in zip(pairs, found.confidence.tolist(), strict=True):
        row, column = divmod(best, 5)
        elsewhere = [n for n in range(35) if abs(n // 5 - row) > 2 or abs(n % 5 - column) > 2]
        second = max(0.0, float(similarity[cell, elsewhere].max()))
        first = float(similarity[cell, best])
        assert confidence == pytest.approx(max(0.0, (first - second) / (1 - second)), abs=1e-4)


def test_what_is_there_twice_is_not_sure():
    """A second place that looks the same takes the confidence; one beside the best does not."""
    reference = features()
    target = torch.cat((reference, reference), 2)
    assert float(match_features(reference, target, MOST_PAIRS, 0.0, 0.0).confidence.max()) < 1e-3
    assert len(match_features(reference, target, MOST_PAIRS, 0.01, 0.0)) == 0
    broad = reference.repeat_interleave(2, 2)
    assert float(match_features(reference, broad, MOST_PAIRS, 0.0, 0.0).confidence.min()) > 0.3


@pytest.mark.parametrize("match", ["features", "keypoints"])
def test_most_least_spacing_and_order(match):
    if match == "features":
        noisy = features() + 0.7 * features(seed=9)
        find = lambda *how: match_features(features(), noisy, *how)  # noqa: E731
        size = torch.tensor([12, 9]) / 12
    else:
        target = (smooth(shift=(7, 11)) + 0.05 * torch.rand(120, 160)).clamp(0, 1)
        find = lambda *how: match_keypoints(smooth(), target, *how)  # noqa: E731
        size = torch.tensor([160, 120]) / 160
    every = find(MOST_PAIRS, 0.0, 0.0)
    assert len(every) > 20 and bool((every.confidence.diff() <= 0).all()), "surest first"
    few = find(7, 0.0, 0.0)
    assert torch.equal(few.reference, every.reference[:7]) and torch.equal(few.confidence, every.confidence[:7])
    bound = float(every.confidence.median())
    sure = find(MOST_PAIRS, bound, 0.0)
    assert len(sure) == int((every.confidence >= bound).sum()) < len(every)
    assert len(find(MOST_PAIRS, 1.0, 0.0)) == int((every.confidence == 1).sum())
    far = find(MOST_PAIRS, 0.0, 0.2)
    for places in (far.reference, far.target):
        assert float(torch.pdist(places * size).min()) >= 0.2
    assert 1 < len(far) < len(every) and torch.equal(far.reference[0], every.reference[0])
    # Whoever is missing is too near to a surer one.
    for place, partner, confidence in zip(every.reference, every.target, every.confidence, strict=True):
        surer = far.confidence >= confidence
        gaps = [((a - b) * size).norm(dim=1)[surer] for a, b in ((far.reference, place), (far.target, partner))]
        assert float(torch.stack(gaps).min()) < 0.2
    assert len(find(MOST_PAIRS, 0.0, 1.0)) in (1, 2)


@pytest.mark.parametrize("match", [match_features, match_keypoints])
def test_a_mask_chooses_before_the_surest_are_taken(match):
    """White is the right half of the reference; what is outside neither takes a place nor keeps others away."""
    reference = features() if match is match_features else smooth()
    mask = torch.zeros(31, 47)
    mask[:, 24:] = 1
    every = match(reference, reference, MOST_PAIRS, 0.0, 0.0)
    inside = every.reference[:, 0] > 24 / 47
    found = match(reference, reference, 5, 0.0, 0.0, mask)
    assert len(found) == 5 and bool((found.reference[:, 0] > 24 / 47).all())
    assert torch.equal(found.confidence, match(reference, reference, MOST_PAIRS, 0.0, 0.0, mask).confidence[:5])
    assert 5 < int(inside.sum()) < len(every)
    assert len(match(reference, reference, 5, 0.0, 0.0, torch.zeros(31, 47))) == 0


def test_flat_features_give_no_pairs():
    for flat in (torch.zeros(64, 9, 12), torch.full((64, 9, 12), 0.3), features(1, 1).expand(-1, 9, 12)):
        for pair in ((flat, features()), (features(), flat), (flat, flat)):
            found = match_features(*pair, MOST_PAIRS, 0.0, 0.0)
            assert isinstance(found, Pairs) and len(found) == 0 and found.confidence.shape == (0,)


def test_half_a_flat_map():
    """Its flat half, with rounding in it, is matched with nothing."""
    reference = features()
    reference[:, :, :6] = features(1, 1, seed=4) * 20
    reference[:, :, :6] += 1e-6 * features(9, 6, seed=5)
    reference[:, :, 6:] += features(1, 1, seed=4) * 20 - reference[:, :, 6:].mean((1, 2), keepdim=True)
    found = match_features(reference, reference, MOST_PAIRS, 0.0, 0.0)
    assert len(found) == 54 and bool((found.reference[:, 0] > 0.5).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2)])
def test_tiny_maps(size):
    found = match_features(features(*size), features(*size), 8, 0.0, 0.0)
    assert len(found) == (0 if size == (1, 1) else size[0] * size[1])
    assert torch.equal(found.reference, found.target)
    if size != (1, 1):
        # There is no place elsewhere: what it is like is all that is known.
        other = match_features(features(*size), features(*size) + features(*size, seed=1), 8, 0.0, 0.0)
        assert len(other) and float(other.confidence.max()) < 0.8


@pytest.mark.parametrize("shift", [(0, 0), (7, 11), (20, 3)])
def test_keypoints_of_a_shifted_picture(shift):
    found = match_keypoints(smooth(), smooth(shift=shift), MOST_PAIRS, 0.3, 0.0)
    assert len(found) > 20
    moved = (found.reference - found.target) * torch.tensor([160, 120])
    away = (moved - torch.tensor([shift[1], shift[0]])).norm(dim=1)
    assert float(away.max()) < 1.5


def test_keypoints_of_pictures_of_other_sizes():
    """The target is the reference at twice the size, and wider by what is beside it."""
    large = torch.nn.functional.interpolate(smooth(120, 200)[None, None], scale_factor=2, mode="bicubic")[0, 0]
    found = match_keypoints(smooth(), large, MOST_PAIRS, 0.3, 0.0)
    assert len(found) > 20
    away = found.reference * torch.tensor([160, 120]) - found.target * torch.tensor([200, 120])
    assert float(away.norm(dim=1).median()) < 0.5 and float(away.norm(dim=1).quantile(0.95)) < 1.5


def test_keypoints_are_sure_of_what_is_the_same():
    same = match_keypoints(smooth(), smooth(), MOST_PAIRS, 0.0, 0.0)
    assert float(same.confidence.median()) > 0.9
    other = match_keypoints(smooth(), smooth(seed=1), MOST_PAIRS, 0.0, 0.0)
    assert len(other) < len(same) / 4
    if len(other):
        assert float(other.confidence.min()) >= 1 - module.RATIO - 1e-6 and float(other.confidence.max()) < 0.4


def test_keypoints_of_a_picture_that_repeats_itself():
    """Of a thing that stands there twice none is the nearer."""
    rims = torch.linspace(-1, 1, 64).abs().mul(-6).add(4).sigmoid()
    thing = 0.5 + (smooth(64, 64) - 0.5) * rims[:, None] * rims
    twice = torch.full((120, 200), 0.5)
    twice[20:84, 20:84] = thing
    once = twice.clone()
    twice[36:100, 116:180] = thing  # whole steps of every octave away
    assert len(match_keypoints(once, twice, MOST_PAIRS, 0.3, 0.0)) < 3
    assert len(match_keypoints(once, once, MOST_PAIRS, 0.3, 0.0)) > 10


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (120, 160)])
def test_flat_pictures_have_no_keypoints(size):
    flat = torch.full(size, 0.5)
    for pair in ((flat, smooth()), (smooth(), flat), (flat, flat)):
        found = match_keypoints(*pair, MOST_PAIRS, 0.0, 0.0)
        assert len(found) == 0 and found.confidence.shape == (0,)


def test_the_clearest_keypoints_are_compared(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEYPOINTS", 10)
    assert 0 < len(match_keypoints(smooth(), smooth(), MOST_PAIRS, 0.0, 0.0)) <= 12


@pytest.mark.parametrize("match", [match_features, match_keypoints])
@pytest.mark.parametrize(
    "limits", [(0, 0.1, 0.1), (MOST_PAIRS + 1, 0.1, 0.1), (8, -0.1, 0.1), (8, 1.1, 0.1), (8, 0.1, -1), (8, 0.1, 1.1)]
)
def test_numbers_out_of_range(match, limits):
    both = (features(), features()) if match is match_features else (smooth(), smooth())
    with pytest.raises(ValueError, match=r"most is .*, least .* and spacing .*; expected 1\.\.100, 0\.\.1 and 0\.\.1"):
        match(*both, *limits)


def test_shapes_that_do_not_fit():
    for pair in ((features(), features(channels=32)), (features()[0], features()), (features(), features()[None])):
        with pytest.raises(ValueError, match=r"reference and target have shapes .*with as many channels"):
            match_features(*pair)
    for pair in ((smooth()[None], smooth()), (smooth(), smooth()[..., None])):
        with pytest.raises(ValueError, match=r"have shapes .*; expected \[height, width\] each"):
            match_keypoints(*pair)
