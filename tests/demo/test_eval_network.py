"""The trained reader: its network, its training in miniature, and the shipped file on fresh renders."""

import sys

import pytest
import torch

from demo import train_reader
from demo.eval.degrade import degrade, soften
from demo.eval.network_reader import HEADS, READER_FILE, NetworkReader, ReaderNetwork
from demo.eval.reading import score, truth
from demo.world.render import render
from demo.world.scene import draw_scenes

NAMES = ("shape", "colour", "pattern", "accessory", "position", "light", "background", "number")


def test_size_of_the_file():
    assert READER_FILE.stat().st_size <= 1_200_000


@pytest.mark.parametrize("characters", [1, 2, 4])
def test_shipped_reader_reads_fresh_renders(characters):
    scenes = draw_scenes(64, 27_182_818 + characters, characters=characters, combinations="all")
    pictures = render(scenes).frames[:, 0]
    torch.manual_seed(0)
    reader = NetworkReader()
    for some in (pictures, soften(pictures)):
        table = score(truth(scenes), reader.read(some))
        assert not {name: table[name].value for name in NAMES if table[name].value < 0.98}


def test_shipped_reader_finds_nothing_in_a_flat_picture():
    found = NetworkReader().read(torch.full((2, 3, 128, 128), 0.5))
    assert int(found.present.sum()) == 0


def test_shipped_reader_is_unsure_of_ruined_pictures():
    scenes = draw_scenes(16, 99, characters=1)
    torch.manual_seed(0)
    ruined = degrade(render(scenes).frames[:, 0], strength=6.0)
    found = NetworkReader().read(ruined)
    clean = NetworkReader().read(render(scenes).frames[:, 0])
    unsure = ((found.shape == -1) | (found.pattern == -1) | ~found.present)[:, 0]
    assert unsure.float().mean() > 0.1
    assert clean.present[:, 0].all() and (clean.shape[:, 0] >= 0).all()


def test_other_sizes_are_resized():
    scenes = draw_scenes(8, 5, characters=2)
    table = score(truth(scenes), NetworkReader().read(render(scenes, 256, 256).frames[:, 0]))
    assert table["shape"].value == 1 and table["position"].value == 1


def test_folding_changes_nothing():
    torch.manual_seed(0)
    network = ReaderNetwork().train()
    pictures = torch.rand(8, 3, 128, 128)
    network(pictures)
    network.eval()
    with torch.no_grad():
        before = network(pictures)
        after = network.fold()(pictures)
    for one, two in zip(before, after, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_loss_falls_when_answers_improve():
    """The right maps cost less than wrong ones."""
    pool = train_reader.draw_pool(4, 1, torch.device("cpu"), 1e9)
    rows = torch.arange(4)
    heat = train_reader.heat_target(pool.pose, pool.present)
    assert int((heat == 1).sum()) == int(pool.present.sum())
    right = torch.where(heat == 1, 8.0, -8.0)
    assert train_reader.heat_loss(right, heat) < train_reader.heat_loss(-right, heat) / 100
    assert torch.isfinite(train_reader.reader_loss(ReaderNetwork(), pool.pictures.float() / 255, pool, rows))


def test_training_in_miniature_writes_a_reader(tmp_path, monkeypatch):
    arguments = ["--tiny", "--state", str(tmp_path / "state"), "--out", str(tmp_path), "--final"]
    monkeypatch.setattr(sys, "argv", ["train_reader", *arguments])
    train_reader.main()
    reader = NetworkReader(tmp_path / "reader.safetensors")
    assert reader.metadata["kind"] == "reader" and "clean_1" in reader.metadata
    assert set(reader.temperature) == set(HEADS)
    assert reader.read(torch.rand(2, 3, 64, 64)).present.shape == (2, 4)
