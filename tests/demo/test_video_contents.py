"""What the video model's tokens show, as the renderer knows it, and the head that reads it."""

import itertools

import torch

from demo.video_contents import ContentReading, Contents, contents, error_weights, frames_of_latents
from demo.world.render import render
from demo.world.scene import draw_scenes

CPU = torch.device("cpu")


def test_contents_are_what_the_renderer_draws():
    scenes = draw_scenes(3, 5, frames=5)
    drawn = render(scenes, 128, 128, layers=("labels", "local", "masks"))
    shown = contents(scenes, drawn)
    assert shown.classes.shape == (3, 2 * 64, 5) and shown.local.shape == (3, 2 * 64, 4, 2)
    assert shown.seen.shape == (3, 2 * 64, 4)
    assert frames_of_latents(9).tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert frames_of_latents(1).tolist() == [[0, 0, 0, 0]]
    pictured = 0
    for clip, (place, (row, column)) in itertools.product(range(3), enumerate(itertools.product(range(8), range(8)))):
        window = slice(16 * row, 16 * row + 16), slice(16 * column, 16 * column + 16)
        for latent, time in enumerate((0, 2)):
            labels = drawn.labels[clip, time][window]
            counts = [(int((labels == k).sum()), k) for k in range(int(scenes.count[clip]))]
            count, who = max(counts, key=lambda found: found[0])
            classes = shown.classes[clip, latent * 64 + place].tolist()
            local = shown.local[clip, latent * 64 + place, 1].float()
            assert bool(shown.seen[clip, latent * 64 + place, 1]) == (count >= 64)
            if count < 64:  # a quarter of the pixels
                assert classes == [0] * 5 and not local.any()
                continue
            pictured += 1
            if sum(number == count for number, _ in counts) > 1:
                continue
            assert classes == [
                int(values[clip, who]) + 1
                for values in (scenes.shape, scenes.colour, scenes.pattern, scenes.accessory, scenes.face)
            ]
            mine = drawn.local[clip, time][:, window[0], window[1]][:, labels == who].mean(1)
            torch.testing.assert_close(local, mine, rtol=2e-3, atol=2e-3)
    assert pictured > 30


def test_contents_are_learned():
    torch.manual_seed(0)
    reading = ContentReading(8, CPU)
    classes = torch.tensor([[[1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [10, 10, 5, 6, 1]]], dtype=torch.int8)
    local = torch.tensor([[[0.5, -0.5], [0, 0], [1, 0]]])[:, :, None].expand(-1, -1, 4, -1).half()
    shown = Contents(classes, local, local.any(-1))
    features = torch.randn(1, 3, 8)
    optimiser = torch.optim.Adam(reading.parameters(), 0.05)
    first = float(reading.loss(features, shown).detach())
    for _ in range(60):
        optimiser.zero_grad()
        reading.loss(features, shown).backward()
        optimiser.step()
    assert first > 1.5 and float(reading.loss(features, shown).detach()) < 0.05
    twice = torch.tensor([0, 0])
    others = shown.select(twice)
    assert float(reading.loss(features.flip(1).repeat(2, 1, 1), others).detach()) > 1.5


def test_errors_count_more_where_a_character_can_be_seen():
    scenes = draw_scenes(4, 5, frames=5)
    shown = contents(scenes, render(scenes, 128, 128, layers=("labels", "local")))
    sigmas = torch.tensor([0.2, 0.84, 0.86, 1.0])
    weights = error_weights(shown, sigmas, (4, 16, 2, 16, 16), 3.0)
    assert weights.shape == (4, 1, 2, 16, 16)
    torch.testing.assert_close(weights.mean(), torch.tensor(1.0))
    there = (shown.classes[..., 0] > 0).view(4, 1, 2, 8, 8).repeat_interleave(2, 3).repeat_interleave(2, 4)
    least = weights.min()
    torch.testing.assert_close(weights[:2][there[:2]], torch.full_like(weights[:2][there[:2]], 3 * least))
    assert (weights[:2][~there[:2]] == least).all() and (weights[2:] == least).all() and there[:2].any()
    assert (error_weights(shown, sigmas, (4, 16, 2, 16, 16), 1.0) == 1).all()
