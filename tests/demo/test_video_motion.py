"""What the video models are trained on: clips and their captions, places and motions, noise that follows."""

import argparse

import torch

from demo import video_data, video_motion, video_noise
from demo.world.captions import MOVING, captions
from demo.world.scene import Scenes, draw_scenes
from demo.world_tokens import token_rows

CPU = torch.device("cpu")


def test_clips_are_drawn_with_and_without_motions():
    arguments = argparse.Namespace(tiny=False)
    scenes, rows = video_data.ClipSource(arguments, 1, 17, phrasings=2, silent=2, workers=0).chunk()
    assert isinstance(scenes, Scenes) and scenes.frames == 17 and rows.shape == (video_data.CHUNK, 4, 77)
    moves = int(token_rows(["moves"])[0, 1])
    told = (rows == moves).any(-1).float().mean(0)
    assert told[0] > 0.4 and told[1] > 0.6 and told[2:].max() == 0
    assert not torch.equal(rows[:, 2], rows[:, 3])


def test_motions_turned_round():
    sentences = ["a red cat moves left to the left of a ball moves right", "a cat moves up", "a cat grows on the left"]
    found = video_data.opposite_motions(sentences, ("left", "right"))
    assert found == ["a red cat moves right to the left of a ball moves left", None, None]
    assert video_data.opposite_motions(sentences, ("up", "down")) == [None, "a cat moves down", None]
    told = captions(draw_scenes(40, 0, characters=1, frames=2), 0, full=True)
    assert any(MOVING["left"] in text for text in told), "the captions' own words"


def test_token_places_are_in_the_networks_order():
    grid = (2, 3, 4)
    places = video_motion.TokenPlaces(grid, 1, 8, CPU)
    video = torch.zeros(1, 1, *grid)
    video[0, 0, 1, 0, 3] = 1
    token = int(video.flatten(2).transpose(1, 2)[0, :, 0].argmax())
    torch.testing.assert_close(places.places[token], torch.tensor([0.5, -2 / 3, 0.75]))
    with torch.no_grad():
        places.heads[0].weight.zero_()
        places.heads[0].bias.zero_()
    torch.testing.assert_close(places.loss([torch.randn(2, 24, 8)]), places.places.square().mean())


def test_motion_reading_asks_for_the_last_motion_named():
    reading = video_motion.MotionReading(CPU)
    text = "a red cat moves left to the right of a ball moves up on the left , lit from the right"
    rows = torch.from_numpy(token_rows([text, "a cat on the left"])).long()
    words = text.split()
    first, second = words.index("moves") + 2, words.index("up") + 1  # behind the token of the beginning
    states = torch.zeros(2, 77, 128)
    states[0, first:second, 0], states[0, second:, 2] = 1, 1
    with torch.no_grad():
        reading.head.weight.copy_(torch.eye(4, 128) * 50)
        reading.head.bias.zero_()
    assert reading.loss(rows, states) < 1e-3
    states[0, second - 1, 0] = 0
    assert reading.loss(rows, states) > 0.01


def test_noise_follows_every_clip_on_its_own():
    flows = torch.zeros(3, 16, 2, 64, 64)
    flows[1, :, 0] = 8.0  # one latent pixel to the right in every frame
    flows[2, :, 1] = -4.0
    noise = video_noise.warped_noise(flows, 5, 3)
    assert noise.shape == (3, 16, 5, 8, 8)
    torch.testing.assert_close(noise[0], noise[0, :, :1].expand(-1, 5, -1, -1))
    # Latent frames are four frames apart. A gap at the edge takes a share of the value that lies nearest to it.
    torch.testing.assert_close(noise[1, :, 1, :, 5:], noise[1, :, 0, :, 1:4])
    torch.testing.assert_close(noise[2, :, 1, :5], noise[2, :, 0, 2:7])
    assert 0.9 < (noise[1, :, 1, :, 4] * noise[1, :, 0, :, 0]).mean() / noise[1, :, 0, :, 0].square().mean() < 1.1
    assert not torch.equal(noise[1, :, 1, :, :4], noise[1, :, 0, :, 4:])
    everything = video_noise.warped_noise(torch.randn(16, 4, 2, 64, 64) * 3, 2, 5)
    assert abs(float(everything.mean())) < 0.03 and 0.97 < everything.std() < 1.03
    for one, two in (
        (everything[:-1], everything[1:]),
        (everything[..., 1:], everything[..., :-1]),
        (everything[..., 1:, :], everything[..., :-1, :]),
        (everything[:, 1:], everything[:, :-1]),
    ):
        assert abs(float((one * two).mean())) < 0.03


def test_shuffled_and_degraded_noise():
    torch.manual_seed(0)
    noise = torch.randn(200, 16, 2, 2, 2)
    found = video_noise.shuffled(noise)
    torch.testing.assert_close(found.abs().sum(1), noise.abs().sum(1))
    kept = (found == noise).all((2, 3, 4)).float().mean()
    assert 0.02 < kept < 0.05, "one in sixteen stays in its place, half of these keep their sign"
    fresh, weights = torch.randn_like(noise), torch.linspace(0, 1, 200)
    mixed = video_noise.degraded(noise, fresh, weights)
    assert torch.equal(mixed[0], noise[0]) and torch.equal(mixed[-1], fresh[-1])
    assert 0.95 < mixed[80:120].std() < 1.05
