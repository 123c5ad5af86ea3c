"""Training clips that are made while the training goes on."""

import argparse
import itertools

import pytest
import torch

from demo import clip_pool
from demo.clip_pool import ClipPool, Refreshing, parts_of
from demo.video_data import CHUNK, HARD, ClipSource
from demo.world.attributes import MOTIONS
from demo.world_tokens import token_rows

CPU = torch.device("cpu")


def numbered(start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.arange(start, start + size)
    return numbers, numbers[:, None].expand(-1, 3) * 10.0


def test_a_pool_grows_and_then_forgets_the_oldest():
    pool = ClipPool(5)
    pool.add(numbered(0, 2))
    memory = [some.data_ptr() for some in pool.tensors]
    assert set(pool.draw(200).tolist()) == {0, 1}
    pool.add(numbered(2, 2))
    assert set(pool.draw(400).tolist()) == {0, 1, 2, 3}
    pool.add(numbered(4, 3))
    assert pool.tensors[0].tolist() == [5, 6, 2, 3, 4] and pool.made == 7
    assert torch.equal(pool.tensors[1][:, 2], pool.tensors[0] * 10.0)
    assert set(pool.draw(500).tolist()) == {0, 1, 2, 3, 4}
    assert [some.data_ptr() for some in pool.tensors] == memory, "a captured step reads this memory"
    with pytest.raises(ValueError):
        pool.add(numbered(0, 1)[:1])


def test_parts_come_without_end_and_are_never_the_same():
    arguments = argparse.Namespace(tiny=True, workers=1)
    how = {"phrasings": 2, "silent": 1, "characters": (0.0, 1.0, 0.0, 0.0)}
    source = ClipSource(arguments, 1, 5, **how)
    parts = parts_of(source, lambda scenes, tokens: (scenes.position, tokens, scenes.present.sum(1)), 4)
    found = list(itertools.islice(parts, 6))
    assert [len(part[0]) for part in found] == [4, 2] * 3
    assert all(part[1].shape[1:] == (3, 77) and set(part[2].tolist()) == {2} for part in found)
    places = torch.cat([part[0] for part in found]).flatten(1)
    assert len(torch.unique(places, dim=0)) == 18
    other = ClipSource(arguments, 2, 5, **how).chunk()[0].position.flatten(1)
    assert not any((place == other).all(1).any() for place in places)
    again = ClipSource(arguments, 1, 5, **how).chunk()[0].position.flatten(1)
    assert torch.equal(again, places[:6])


def test_workers_draw_what_the_process_itself_would():
    how = {"phrasings": 1, "silent": 0, "characters": None}
    source = ClipSource(argparse.Namespace(tiny=False, workers=2), 3, 17, **how)
    try:
        scenes, tokens = source.chunk()
        more, _ = source.chunk()
    finally:
        source.close()
    assert scenes.size == CHUNK and tokens.shape == (CHUNK, 1, 77) and more.size == CHUNK
    alone = ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, workers=0)
    expected, rows = alone.chunk()
    assert torch.equal(scenes.position, expected.position) and torch.equal(tokens, rows)
    assert not torch.equal(scenes.position, more.position)


def test_fewer_clips_in_which_nothing_turns_or_grows():
    how = {"phrasings": 1, "silent": 0, "characters": None}
    found = {}
    for easy in (1.0, 0.25):
        scenes, tokens = ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, easy=easy, workers=0).chunk()
        hard = torch.isin(scenes.motion, torch.tensor([MOTIONS.index(name) for name in HARD]))
        found[easy] = scenes, tokens, (hard & scenes.present).any(1)
    (scenes, tokens, hard), (fewer, _, still_hard) = found[1.0], found[0.25]
    assert scenes.size == CHUNK and int(hard.sum()) == int(still_hard.sum()) > 50
    assert 0.15 < float((~still_hard).sum() / (~hard).sum()) < 0.35
    first = still_hard.nonzero()[0, 0]
    same = hard.nonzero()[0, 0]
    assert torch.equal(fewer.position[first], scenes.position[same])
    assert torch.equal(found[0.25][1][first], tokens[same])


def test_fewer_clips_in_which_nothing_spins():
    how = {"phrasings": 1, "silent": 0, "characters": None}
    counts = []
    for unspun in (1.0, 0.25):
        scenes, _ = ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, unspun=unspun, workers=0).chunk()
        spins = ((scenes.motion == MOTIONS.index("spins")) & scenes.present).any(1)
        counts.append((int(spins.sum()), int((~spins).sum())))
    (spinning, others), (still_spinning, fewer) = counts
    assert spinning == still_spinning > 50 and 0.15 < fewer / others < 0.35


def test_a_chunk_is_never_empty():
    source = ClipSource(argparse.Namespace(tiny=True), 1, 5, phrasings=1, easy=0.01, workers=0)
    assert all(source.chunk()[0].size for _ in range(5))


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(clip_pool, "settled_time", lambda device: self.now)


def test_clips_are_made_for_their_share_of_the_time(monkeypatch):
    clock, pool = Clock(monkeypatch), ClipPool(1000)

    def parts():
        for k in itertools.count():
            clock.now += 0.5 if k else 30.0
            yield numbered(2 * k, 2)

    refreshing = Refreshing(pool, parts(), 0.25, CPU)
    refreshing.fill(2.0, 1000)
    assert pool.made == 12, "after the first part, the first one that goes over the time is the last"
    refreshing.fill(50.0, 14)
    assert pool.made == 14
    training = 0.0
    for _ in range(40):
        clock.now += 3.0
        training += 3.0
        refreshing.spend()
    made = (pool.made - 14) / 2 * 0.5
    assert abs(made / (made + training) - 0.25) < 0.01
    assert refreshing.seconds == pytest.approx(29.5 + pool.made / 2 * 0.5)


def test_no_clips_are_made_for_no_share(monkeypatch):
    clock, pool = Clock(monkeypatch), ClipPool(10)
    refreshing = Refreshing(pool, iter([numbered(0, 2)]), 0.0, CPU)
    refreshing.fill(1.0, 2)
    clock.now += 100
    refreshing.spend()
    assert pool.made == 2


def test_cameras_that_move_alone():
    how = {"phrasings": 1, "characters": (0.5, 0.5, 0.0, 0.0), "workers": 0}
    found = {}
    for apart in (0.0, 0.6):
        scenes, tokens = ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, apart=apart).chunk()
        camera = (scenes.camera != scenes.camera[:, :1]).flatten(1).any(1)
        characters = (scenes.position != scenes.position[:, :1]).flatten(1).any(1)
        found[apart] = scenes, tokens, camera, ~characters & (scenes.angle == scenes.angle[:, :1]).flatten(1).all(1)
    scenes, tokens, camera, alone = found[0.6]
    assert not found[0.0][3].any()
    assert 0.5 < (alone & camera).sum() / camera.sum() < 0.7 and not (alone & ~camera).any()
    assert not scenes.motion[alone].any()
    assert torch.equal(scenes.camera, found[0.0][0].camera)
    assert torch.equal(scenes.position[~alone], found[0.0][0].position[~alone])
    assert not torch.equal(tokens[alone], found[0.0][1][alone])


def test_fewer_clips_in_which_the_camera_stands():
    how = {"phrasings": 1, "characters": (0.5, 0.5, 0.0, 0.0), "workers": 0}
    counts = {}
    for standing in (1.0, 0.3, 0.0):
        scenes, _ = ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, standing=standing).chunk()
        moves = (scenes.camera != scenes.camera[:, :1]).flatten(1).any(1)
        counts[standing] = int(moves.sum()), int((~moves).sum())
    assert counts[1.0][0] == counts[0.3][0] == counts[0.0][0] > 150, "those that move are all kept"
    assert 0.2 < counts[0.3][1] / counts[1.0][1] < 0.4 and counts[0.0][1] == 0


def test_captions_that_name_everything():
    """A full caption names the light; of those that are not, four in ten do."""
    how = {"phrasings": 3, "characters": (1.0, 0.0, 0.0, 0.0), "workers": 0}
    lit = int(token_rows(["lit"])[0, 1])
    for full in (0, 1, 2):
        _, tokens = ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, full=full).chunk()
        named = (tokens == lit).any(2).float().mean(0)
        assert [bool(share == 1) for share in named] == [1 <= k <= full for k in range(3)]
        assert all(0.25 < share < 0.6 for share in named if share < 1)


def test_characters_at_any_angle():
    how = {"phrasings": 1, "characters": (0.5, 0.5, 0.0, 0.0), "workers": 0}
    drawn = {
        turned: ClipSource(argparse.Namespace(tiny=False), 3, 17, **how, turned=turned).chunk() for turned in (0.0, 0.4)
    }
    (scenes, tokens), (some, same) = drawn[0.0], drawn[0.4]
    change = some.angle - scenes.angle
    assert torch.allclose(change, change[:, :1], atol=1e-5), "by one angle throughout"
    turned = (change[:, 0] != 0).any(1)
    assert 0.3 < turned.float().mean() < 0.5
    assert change[turned].abs().max() > 3 and -0.4 < change[turned].mean() < 0.4
    assert torch.equal(tokens, same) and torch.equal(scenes.position, some.position)
