"""Line art that is found in the world's pictures, against the lines that its renderer drew."""

import pytest
import torch.nn.functional as F

from demo.world.render import render
from demo.world.scene import draw_scenes
from kernels.line_art import METHODS, THRESHOLD, found_lines


def overlap(found, wanted, reach=1):
    """Share of the lines found that are near wanted ones, and of the wanted ones that are near found ones."""

    def near(some):
        return F.max_pool2d(some[:, None].float(), 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0.5

    found, wanted = found > THRESHOLD, wanted > 0.5
    return float((found & near(wanted)).sum() / found.sum()), float((wanted & near(found)).sum() / wanted.sum())


@pytest.mark.parametrize("method", METHODS)
def test_lines_are_where_the_renderer_drew_them(method):
    drawn = render(draw_scenes(8, 5), 256, 256, layers=("frames", "lines"))
    pictures, lines = drawn.frames[:, 0].movedim(1, -1), drawn.lines[:, 0, 0]
    right, complete = overlap(found_lines(pictures, method, 2.0), lines, 2)
    assert complete > 0.75 and right > 0.8, (right, complete)
