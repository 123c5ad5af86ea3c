"""Pictures of all around: their solid angles, turns, and views that go over edges and poles."""

import math

import pytest
import torch
from papernodes.kernels.equirectangular import (
    background_frames,
    positions_of,
    rotate_environment,
    rotations,
    solid_angles,
    texel_directions,
)

LEFT, RIGHT = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])


def one(value):
    return torch.tensor([float(value)])


def noise(height=16, width=32, scale=1.0):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(3)) * scale


def smooth(height, width):
    """A map that is linear in its directions: 1 + each component."""
    return 1 + texel_directions(height, width)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 9), (64, 128), (1024, 2048)])
def test_solid_angles_fill_the_sphere(size):
    angles = solid_angles(*size)
    assert angles.shape == size[:1]
    assert float(angles.sum()) * size[1] == pytest.approx(4 * math.pi, abs=1e-9)
    assert (angles > 0).all() and torch.allclose(angles, angles.flip(0))


def test_where_directions_lie():
    for direction, column, row in (
        ((0, 0, -1), 15.5, 7.5),  # ahead: the middle
        ((1, 0, 0), 23.5, 7.5),
        ((-2, 0, 0), 7.5, 7.5),
        ((1e-7, 0, 1), 31.5, 7.5),  # behind: the right edge
        ((0, 1, -1), 15.5, 3.5),
        ((0, 3, 0), None, -0.5),
        ((0, -1, 0), None, 15.5),
    ):
        found = positions_of(torch.tensor(direction, dtype=torch.float32), 16, 32)
        assert float(found[1]) == pytest.approx(row, abs=1e-4)
        assert column is None or float(found[0]) == pytest.approx(column, abs=1e-4)
    directions = texel_directions(16, 32)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(32.0), indexing="ij")
    torch.testing.assert_close(positions_of(directions, 16, 32), torch.stack([columns, rows]), atol=1e-4, rtol=0)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(16, 32))


def test_turns():
    ahead = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    yaw, pitch = torch.tensor([0.0, 90, 0, 90, -90, 360, 720]), torch.tensor([0.0, 0, 90, 90, 0, 0, -360])
    matrices = rotations(yaw, pitch)
    expected = [[0, 0, -1], [1, 0, 0], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, -1], [0, 0, -1]]
    assert (matrices @ ahead).tolist() == expected
    assert torch.equal(matrices[5], torch.eye(3, dtype=torch.float64)) and torch.equal(matrices[5], matrices[6])
    turned = rotations(torch.tensor([33.0, 33, 0]), torch.tensor([21.0, 0, 21]))
    torch.testing.assert_close(turned[0] @ turned[0].T, matrices[0])
    torch.testing.assert_close(turned[0], turned[2] @ turned[1])  # yaw first
    assert float(turned[0].det()) == pytest.approx(1)


@pytest.mark.parametrize("width", [1, 31, 32, 360])
def test_yaw_by_whole_texels_moves_columns(width):
    environment = noise(7, width, 1e5)
    for texels in (0, 1, 5, -3, width, -2 * width):
        found = rotate_environment(environment, one(texels * 360 / width), one(0))
        assert torch.equal(found[0], environment.roll(texels, 1)), texels


def test_turned_maps_are_smooth_over_edges_and_poles():
    environment = smooth(64, 128)
    yaw, pitch = torch.tensor([30.0, 200, 7, 0, 11.3]), torch.tensor([0.0, 17, 90, 180, -64])
    found = rotate_environment(environment, yaw, pitch)
    directions = texel_directions(64, 128).to(torch.float64)
    for frame, matrix in enumerate(rotations(yaw, pitch)):
        # A turned linear map is the map of the turned coordinates; bilinear reading errs by the square of a texel.
        expected = 1 + directions @ matrix
        assert (found[frame] - expected).abs().max() < 0.5 * (2 * math.pi / 128) ** 2


def test_turning_there_and_back():
    environment = smooth(64, 128)
    there = rotate_environment(environment, one(40), one(0))[0]
    assert (rotate_environment(there, one(-40), one(0))[0] - environment).abs().max() < 3e-3
    tipped = rotate_environment(environment, one(0), one(25))[0]
    assert (rotate_environment(tipped, one(0), one(-25))[0] - environment).abs().max() < 3e-3
    assert (tipped - environment).abs().max() > 0.3


@pytest.mark.parametrize("field_of_view", [20, 90, 160])
@pytest.mark.parametrize("size", [(24, 24), (9, 31), (32, 7), (1, 1)])
def test_views_are_exact_in_every_direction(field_of_view, size):
    environment = smooth(96, 192)
    yaw, pitch = torch.tensor([0.0, 180, 77, 0, 3]), torch.tensor([0.0, 0, -30, 89, -90])
    found = background_frames(environment, yaw, pitch, field_of_view, *size)
    height, width = size
    assert found.shape == (5, height, width, 3) and found.dtype == torch.float32
    focal = width / 2 / math.tan(math.radians(field_of_view / 2))
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    x, y = columns + 0.5 - width / 2, height / 2 - rows - 0.5
    rays = torch.nn.functional.normalize(torch.stack([x, y, torch.full_like(x, -focal)], -1).double(), dim=-1)
    for frame, matrix in enumerate(rotations(yaw, pitch)):
        # Pixels that are wider than texels read averages of several.
        coarse = max(1, 192 / (2 * math.pi * focal)) * 2 * math.pi / 192
        assert (found[frame] - (1 + rays @ matrix)).abs().max() < 0.6 * coarse**2


def test_a_view_ahead_and_its_turns():
    environment = torch.empty(32, 64, 3)
    environment[:, :32], environment[:, 32:] = LEFT, RIGHT
    view = background_frames(environment, torch.tensor([0.0, 90, -90, 180]), torch.zeros(4), 60, 8, 8)
    assert torch.equal(view[0, :, 0], LEFT.expand(8, 3)) and torch.equal(view[0, :, -1], RIGHT.expand(8, 3))
    # Turned to the right, what was on the left is ahead.
    assert torch.allclose(view[1], LEFT) and torch.allclose(view[2], RIGHT)
    assert torch.allclose(view[3, :, 0], RIGHT) and torch.allclose(view[3, :, -1], LEFT), "behind, over the map's edges"
    environment[:16], environment[16:] = LEFT, RIGHT
    up, down = background_frames(environment, torch.zeros(2), torch.tensor([-60.0, 60]), 60, 8, 8)
    assert torch.allclose(up, LEFT) and torch.allclose(down, RIGHT), "what is above comes down into view"


def test_turning_the_map_is_turning_the_view():
    environment = noise(64, 128)
    turned = rotate_environment(environment, one(45), one(0))[0]
    direct = background_frames(environment, one(45), one(0), 70, 20, 30)
    torch.testing.assert_close(background_frames(turned, one(0), one(0), 70, 20, 30), direct, atol=2e-4, rtol=0)
    torch.testing.assert_close(background_frames(environment, one(405), one(0), 70, 20, 30), direct, atol=0, rtol=0)


def test_small_bright_lamps_do_not_twinkle():
    """A texel far smaller than a pixel gives every view its share, wherever it falls in the pixel."""
    environment = torch.zeros(512, 1024, 3)
    environment[256, 512] = 1e5
    yaw = torch.linspace(0, 3, 24)
    views = background_frames(environment, yaw, torch.zeros(24), 90, 32, 32)
    energy = views.sum((1, 2, 3))
    assert energy.min() > 0.7 * energy.max()


def test_every_frame_is_announced_and_may_stop():
    seen = []
    background_frames(noise(), torch.zeros(3), torch.zeros(3), 60, 2, 2, on_frame=lambda *frame: seen.append(frame))
    assert seen == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotate_environment(torch.zeros(4, 8), one(0), one(0)), r"environment: got torch.float32 \[4, 8\]"),
        (lambda: rotate_environment(torch.zeros(4, 8, 3).long(), one(0), one(0)), "environment: got torch.int64"),
        (lambda: rotate_environment(torch.zeros(0, 8, 3), one(0), one(0)), "expected at least one pixel"),
        (lambda: rotate_environment(noise() - 1, one(0), one(0)), "holds negative, NaN or infinite"),
        (lambda: rotate_environment(noise() * math.nan, one(0), one(0)), "holds negative, NaN or infinite"),
        (lambda: rotate_environment(noise() + math.inf, one(0), one(0)), "holds negative, NaN or infinite"),
        (lambda: rotations(torch.zeros(2), one(0)), r"yaw and pitch: got \[2\] and \[1\]"),
        (lambda: rotations(torch.zeros(0), torch.zeros(0)), r"yaw and pitch: got \[0\] and \[0\]"),
        (lambda: rotations(one(math.nan), one(0)), "yaw and pitch: got nan and 0; expected degrees"),
        (
            lambda: background_frames(noise(), one(0), one(0), 0.5, 4, 4),
            "field of view: got 0.5 degrees; expected 1",
        ),
        (lambda: background_frames(noise(), one(0), one(0), 180, 4, 4), "field of view: got 180 degrees"),
        (lambda: background_frames(noise(), one(0), one(0), math.nan, 4, 4), "field of view: got nan"),
        (lambda: background_frames(noise(), one(0), one(0), 60, 0, 4), "background: got 4x0 pixels"),
    ],
)
def test_messages(call, message):
    with pytest.raises(ValueError, match=message):
        call()
