"""Clips as batches: there and back, and a group norm over all frames."""

import pytest
import torch
from papernodes.kernels.frames import clips_of, frames_of, pictures_of, tracks_of

SHAPES = ((1, 1, 4, 3, 5), (2, 3, 8, 4, 4), (3, 5, 32, 1, 2))


def batch_of(clips, frames, channels, height, width):
    return torch.randn(clips * frames, channels, height, width, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(shape):
    clips, frames, channels, height, width = shape
    x = batch_of(*shape)
    volume = clips_of(x, frames)
    assert volume.shape == (clips, channels, frames, height, width) and volume.is_contiguous()
    assert torch.equal(volume[clips - 1, :, frames - 1], x[-1])
    assert torch.equal(frames_of(volume), x)
    tracks = tracks_of(x, frames)
    assert tracks.shape == (clips * height * width, frames, channels)
    # The second place of the last clip, over time.
    place = (clips - 1) * height * width + 1
    expected = x.view(clips, frames, channels, height * width)[-1, :, :, 1]
    assert torch.equal(tracks[place], expected)
    assert torch.equal(pictures_of(tracks, height, width), x)


def test_a_group_norm_of_clips_takes_all_frames():
    """By the definition: mean and biased variance over the group's channels, the frames and the picture."""
    x = batch_of(2, 3, 8, 4, 5) * torch.arange(1, 7).view(6, 1, 1, 1)
    found = frames_of(torch.nn.functional.group_norm(clips_of(x, 3), 4, eps=1e-5))
    grouped = x.view(2, 3, 4, 2, 4, 5)
    variance, mean = torch.var_mean(grouped, (1, 3, 4, 5), correction=0, keepdim=True)
    expected = ((grouped - mean) / (variance + 1e-5).sqrt()).view_as(x)
    torch.testing.assert_close(found, expected)
    assert float((torch.nn.functional.group_norm(x, 4) - expected).abs().max()) > 0.1, "per frame is something else"


def test_wrong_shapes():
    for arrange in (clips_of, tracks_of):
        with pytest.raises(ValueError, match="batch of 5 pictures does not divide into clips of 2 frames"):
            arrange(torch.zeros(5, 1, 2, 2), 2)
        with pytest.raises(ValueError, match="clips of 0 frames"):
            arrange(torch.zeros(4, 1, 2, 2), 0)
        with pytest.raises(ValueError, match=r"shape \[4, 2, 2\]; expected"):
            arrange(torch.zeros(4, 2, 2), 2)
