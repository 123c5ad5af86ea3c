"""Latents that tell what they show."""

import torch

from demo.latent_reading import LatentReading, latent_contents
from demo.video_contents import CLASSES, Contents
from demo.world.render import render
from demo.world.scene import draw_scenes


def shown() -> Contents:
    scenes = draw_scenes(4, 5, frames=5)
    return latent_contents(scenes, render(scenes, 48, 48, layers=("labels", "local")))


def test_latents_show_eight_pixels_of_four_frames():
    here = shown()
    assert here.classes.shape == (4, 2 * 6 * 6, 5) and here.local.shape == (4, 2 * 6 * 6, 4, 2)
    assert here.seen[:, :36].any() and (here.seen[:, :36] == here.seen[:, :36, :1]).all(), "one frame, four times"
    moves = here.local[:, 36:].diff(dim=2).abs().amax((1, 2, 3))
    assert float(moves.max()) > 0.02


def latents_that_tell(here: Contents) -> torch.Tensor:
    """The very numbers that are to be read, 5 names and 8 places, as latents of 16 channels."""
    names, places = here.classes.float() / 5 - 1, here.local.flatten(2).float()
    values = torch.cat((names, places, torch.zeros(*names.shape[:-1], 3)), -1)
    return values.transpose(1, 2).unflatten(2, (2, 6, 6))


def test_what_latents_tell_is_read_and_what_they_do_not_is_not():
    torch.manual_seed(0)
    here = shown()
    latents = latents_that_tell(here)
    for told, low, high in ((True, 0.0, 0.35), (False, 0.7, 10.0)):
        reading = LatentReading()
        optimiser = torch.optim.Adam(reading.parameters(), 0.02)
        for _ in range(150):
            optimiser.zero_grad()
            loss = sum(reading.errors(latents if told else torch.randn_like(latents), here))
            loss.backward()
            optimiser.step()
        assert low <= float(loss.detach()) < high


def test_the_error_of_places_counts_where_a_character_is():
    here = shown()
    reading = LatentReading()
    with torch.no_grad():
        for value in reading.parameters():
            value.zero_()
    latents = torch.zeros(4, 16, 2, 6, 6)
    names, places = reading.errors(latents, here)
    torch.testing.assert_close(places, here.local.float()[here.seen].square().mean())
    # All answers alike: the logarithm of their number, on the mean.
    torch.testing.assert_close(names, torch.tensor([number + 1.0 for number in CLASSES]).log().mean())
