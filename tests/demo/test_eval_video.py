"""How characters move, read from rendered videos."""

import dataclasses
import math

import pytest
import torch

from demo.eval.network_reader import NetworkReader
from demo.eval.reading import match, truth
from demo.eval.video import classify, motion_score, read_video
from demo.world.attributes import MOTIONS
from demo.world.render import render
from demo.world.scene import draw_scenes


@pytest.fixture(scope="module")
def video():
    """Scenes before a still camera, and their pictures."""
    scenes = draw_scenes(16, 60_221, characters=(0.6, 0.4, 0.0, 0.0), frames=9, combinations="all")
    still = torch.tensor([0.0, 0.0, 1.0]).expand_as(scenes.camera)
    scenes = dataclasses.replace(scenes, camera=still.clone())
    return scenes, render(scenes).frames


@pytest.mark.parametrize("every", [1, 3])
def test_motions_of_rendered_videos(video, every):
    scenes, frames = video
    found = read_video(NetworkReader(), frames, every)
    wanted = truth(scenes)
    assert motion_score(wanted, scenes.motion, found).value >= 0.9
    order = match(wanted, found.first)
    way = found.way.gather(1, order.clamp(min=0)[..., None].expand(-1, -1, 2))
    asked = truth(scenes, frames.shape[1] - 1).position - wanted.position
    off = (way - asked).norm(dim=-1)[wanted.present & (order >= 0)]
    assert off.median() < 0.03


def test_reversed_videos_move_the_other_way(video):
    _, frames = video
    forward, backward = read_video(NetworkReader(), frames, 2), read_video(NetworkReader(), frames.flip(1), 2)
    order = match(dataclasses.replace(forward.first, position=forward.first.position + forward.way), backward.first)
    way = backward.way.gather(1, order.clamp(min=0)[..., None].expand(-1, -1, 2))
    both = forward.first.present & (order >= 0)
    assert (way + forward.way).norm(dim=-1)[both].median() < 0.02


def test_classify():
    way = torch.tensor([[0.0, 0], [-0.5, 0.1], [0.5, 0], [0, -0.4], [0.1, 0.4], [0, 0], [0, 0], [0.3, 0]])
    growth = torch.tensor([0.0, 0, 0, 0, 0, 0.8, -0.8, 0])
    turn = torch.tensor([0.1, 0, 0, 0, 0, 0, 0, -math.pi])
    assert classify(way, growth, turn).tolist() == list(range(len(MOTIONS)))


def test_one_frame_is_no_video(video):
    with pytest.raises(ValueError, match="at least two"):
        read_video(NetworkReader(), video[1][:, :1])
