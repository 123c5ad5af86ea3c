"""Luma Replace and Chroma Smooth as the host runs them, and what they say of bad input."""

import pytest
import torch
from papernodes.kernels.flow import Flow
from papernodes.kernels.luma import chroma_smooth, luma_replace, split
from papernodes.nodes.luma import AT_ONCE, ChromaSmooth, LumaReplace

CHOICES = ("Lab", 1.0, "desaturate", "guided")


def pictures(batch=1, size=(16, 24), seed=0):
    return torch.rand(batch, *size, 3, generator=torch.Generator().manual_seed(seed))


def still(frames, size=(16, 24)):
    return Flow(torch.zeros(frames - 1, 2, *size))


def test_long_clips_run_in_parts():
    """More pictures than are worked on together, one source for all, alpha left out."""
    clip, source = pictures(AT_ONCE + 3), pictures(seed=1)
    (found,) = LumaReplace.execute(torch.cat((clip, clip[..., :1]), -1), source, *CHOICES).args
    torch.testing.assert_close(found, luma_replace(clip, source))
    (own,) = LumaReplace.execute(clip, clip, *CHOICES).args
    torch.testing.assert_close(own, clip, atol=1e-3, rtol=0)


def test_the_result_is_as_large_as_the_source():
    (found,) = LumaReplace.execute(pictures(), pictures(size=(32, 48), seed=1), *CHOICES).args
    assert found.shape == (1, 32, 48, 3)


def test_colours_of_a_still_clip_become_one():
    clip = pictures(3)
    (found,) = ChromaSmooth.execute(clip, still(3), 1.0, "YCbCr").args
    torch.testing.assert_close(found, chroma_smooth(clip, still(3), None, 1.0, space="YCbCr"))
    torch.testing.assert_close(split(found, "YCbCr")[0], split(clip, "YCbCr")[0], atol=1e-4, rtol=0)
    (hidden,) = ChromaSmooth.execute(clip, still(3), 1.0, "YCbCr", torch.ones(16, 24)).args
    torch.testing.assert_close(hidden, clip, atol=1e-4, rtol=0)
    (off,) = ChromaSmooth.execute(clip, still(3), 0.0, "Lab").args
    assert torch.equal(off, clip)


def test_a_flow_of_another_size():
    clip = pictures(3, size=(32, 48))
    (found,) = ChromaSmooth.execute(clip, still(3), 0.5, "Lab").args
    assert found.shape == clip.shape


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: LumaReplace.execute(pictures(2), pictures(3), *CHOICES),
            "'source' holds 3 pictures and 'generated' 2",
        ),
        (lambda: LumaReplace.execute(pictures()[0], pictures(), *CHOICES), "'generated' has shape"),
        (lambda: LumaReplace.execute(pictures(), pictures(), "HSV", *CHOICES[1:]), "'space' is 'HSV'"),
        (lambda: LumaReplace.execute(pictures(), pictures(), "Lab", 2.0, *CHOICES[2:]), "'strength' is 2.0"),
        (lambda: LumaReplace.execute(pictures(), pictures() / 0, *CHOICES), "'source' holds NaN or infinite"),
        (lambda: ChromaSmooth.execute(pictures(3), still(4), 1.0, "Lab"), "'flow' connects 4 frames and 'video' has 3"),
        (
            lambda: ChromaSmooth.execute(pictures(3), still(3), 1.0, "Lab", torch.ones(3, 8, 8)),
            r"'occlusion' has shape \[3, 8, 8\]; expected 1, 2 or 3 masks of 24x16",
        ),
        (
            lambda: ChromaSmooth.execute(pictures(3), still(3), 1.0, "Lab", torch.full((16, 24), torch.nan)),
            "'occlusion' holds NaN",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
