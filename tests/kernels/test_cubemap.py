"""Cubes and panoramas: a known function on both, seams between faces, py360convert, layouts, what is refused."""

import math

import numpy
import pytest
import torch
from papernodes.kernels.cubemap import (
    ANGLES,
    CROSS,
    FACES,
    LAYOUTS,
    PICTURES,
    STRIP,
    arrange_faces,
    faces_to_panorama,
    panorama_to_faces,
    separate_faces,
)
from papernodes.kernels.equirectangular import texel_directions
from papernodes.kernels.panorama import camera_directions, camera_rotations
from papernodes.kernels.sampling import remap

MODES = {"nearest": 0.02, "bilinear": 1e-3, "bicubic": 1e-4}


def smooth(directions):
    """Colours that change slowly over the sphere, [3, ...] of directions [..., 3]."""
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    waves = (0.3 * x + 0.1 * y * z, 0.2 * torch.sin(3 * y + x) + 0.1 * z, 0.2 * torch.cos(4 * z - 2 * x * y))
    return 0.5 + torch.stack(waves)


def true_faces(size, shift=0.0):
    """[6, 1, 3, n, n] straight from the function; ``shift``: so many pixels further right and down."""
    rays = camera_directions(size, size, 90.0) + torch.tensor([shift, -shift, 0.0]) * 2 / size
    yaw, pitch = torch.tensor(ANGLES).unbind(1)
    turns = camera_rotations(yaw, pitch, torch.zeros(6)).float()
    return torch.stack([smooth(rays @ turn.T) for turn in turns])[:, None]


def true_panorama(height, width=None):
    return smooth(texel_directions(height, width or 2 * height))[None]


def between_ends(size):
    """Where pixel centres lie on a grid whose first and last pixel are its ends."""
    return (torch.arange(size) + 0.5) / size * (size - 1)


def at_centres(pictures):
    """Pictures [N, C, h, w] of such a grid, read at pixel centres."""
    height, width = pictures.shape[-2:]
    places = torch.stack(torch.meshgrid(between_ends(width), between_ends(height), indexing="xy"))
    return remap(pictures, places[None])


@pytest.mark.parametrize(("mode", "error"), MODES.items())
def test_both_ways_give_what_one_would_see(mode, error):
    """Odd sizes and other proportions, too; the seams between faces are no worse than the rest."""
    for height, size in ((64, 32), (50, 33)):
        faces = panorama_to_faces(true_panorama(height), size, mode=mode)
        assert faces.shape == (6, 1, 3, size, size)
        bound = error * (64 / height) ** 2 * 4
        assert float((faces - true_faces(size)).abs().max()) < bound
    for size, height, width in ((32, 64, 128), (33, 41, 90)):
        panorama = faces_to_panorama(true_faces(size), height, width, mode=mode)
        assert panorama.shape == (1, 3, height, width)
        assert float((panorama - true_panorama(height, width)).abs().max()) < error * 4
    finer = faces_to_panorama(true_faces(16), 128, 256, mode=mode)  # many texels between the last pixels of two faces
    assert float((finer - true_panorama(128)).abs().max()) < error * 24


def test_a_round_trip_keeps_a_smooth_panorama():
    panorama = true_panorama(64)
    back = faces_to_panorama(panorama_to_faces(panorama, 32), 64, 128)
    assert -10 * math.log10(float((back - panorama).square().mean())) > 55


def test_neighbours_are_seen_across_every_edge_and_corner():
    """Each face of one number: beyond an edge half of the neighbour's, at a corner a third of each."""
    faces = torch.arange(6.0).view(6, 1, 1, 1, 1).expand(6, 1, 1, 8, 8)
    panorama = faces_to_panorama(faces.contiguous(), 180, 360)[0, 0]
    assert {float(panorama[90, column]) for column in (0, 90, 180, 270)} == {2.0, 3.0, 0.0, 1.0}
    assert float(panorama[0].max()) == 4 == float(panorama[0].min()) and float(panorama[-1].max()) == 5
    steps = panorama.diff(dim=1).abs()
    assert float(steps[90].max()) < 0.5, "no hard edge between faces"
    pictures = [(0, 1), (1, 2), (3, 0), (2, 3)]
    middle = [float((panorama[90, c - 1] + panorama[90, c]) / 2) for c in (225, 315, 135, 45)]
    assert middle == pytest.approx([(a + b) / 2 for a, b in pictures], abs=1e-4)


def test_faces_agree_with_py360convert():
    """Its grids end on the faces' edges, and it reads faces half a pixel too far right and down: both allowed for."""
    import py360convert

    size, height = 64, 128
    picture = true_panorama(height)[0].movedim(0, -1).numpy()
    ours = panorama_to_faces(true_panorama(height), size)
    for layout, name in ((CROSS, "dice"), (STRIP, "horizon")):
        theirs = torch.from_numpy(py360convert.e2c(picture, size, cube_format=name)).movedim(-1, 0)[None]
        assert float((at_centres(separate_faces(theirs, layout)[:, 0]) - ours[:, 0]).abs().max()) < 1e-3
    given = [face[0].movedim(0, -1).contiguous().numpy() for face in true_faces(size, -0.5)]
    theirs = torch.from_numpy(numpy.ascontiguousarray(py360convert.c2e(given, height, 2 * height, cube_format="list")))
    apart = (at_centres(theirs.movedim(-1, 0)[None]) - faces_to_panorama(true_faces(size), height, 2 * height)).abs()
    # It takes rim pixels for the next face's here and there.
    assert float(apart.mean()) < 3e-4 and float(apart.quantile(0.99)) < 2e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_arranged_and_separated_bit_for_bit(layout):
    faces = torch.rand(6, 2, 3, 5, 5)
    arranged = arrange_faces(faces, layout)
    assert arranged.shape == {CROSS: (2, 3, 15, 20), STRIP: (2, 3, 5, 30), PICTURES: (12, 3, 5, 5)}[layout]
    assert torch.equal(separate_faces(arranged, layout), faces)
    if layout == CROSS:
        assert torch.equal(arranged[:, :, 5:10, 5:10], faces[FACES.index("F")])
        assert torch.equal(arranged[:, :, 5:10, :5], faces[FACES.index("L")])
        assert float(arranged[:, :, :5, :5].abs().max()) == 0
    if layout == PICTURES:
        assert torch.equal(arranged[6:], faces[:, 1])


def test_a_cross_goes_on_from_face_to_face():
    cross = arrange_faces(true_faces(32), CROSS)
    rows, columns = slice(32, 64), slice(32, 64)
    across, along = (
        cross[:, :, rows].diff(dim=3).abs().amax((0, 1, 2)),
        cross[..., columns].diff(dim=2).abs().amax((0, 1, 3)),
    )
    assert float(across[[31, 63, 95]].max()) <= float(across.max()) * 1.01
    assert float(along[[31, 63]].max()) < 0.06


def test_what_is_refused():
    with pytest.raises(ValueError, match="size"):
        panorama_to_faces(torch.rand(1, 3, 4, 8), 0)
    with pytest.raises(ValueError, match="mode"):
        panorama_to_faces(torch.rand(1, 3, 4, 8), 4, mode="cubic")
    with pytest.raises(ValueError, match="images"):
        panorama_to_faces(torch.rand(3, 4, 8), 4)
    with pytest.raises(ValueError, match=r"faces: .*\[6, 1, 3, 4, 5\]"):
        faces_to_panorama(torch.rand(6, 1, 3, 4, 5), 8, 16)
    with pytest.raises(ValueError, match="0x8"):
        faces_to_panorama(torch.rand(6, 1, 3, 4, 4), 8, 0)
    with pytest.raises(ValueError, match="mode"):
        faces_to_panorama(torch.rand(6, 1, 3, 4, 4), 8, 16, mode="cubic")
    for layout, shape, words in (
        (CROSS, (1, 3, 15, 21), "4 faces wide and 3 high"),
        (STRIP, (1, 3, 5, 31), "6 faces wide and 1 high"),
        (PICTURES, (6, 3, 5, 6), "square"),
        (PICTURES, (5, 3, 5, 5), "5 pictures"),
    ):
        with pytest.raises(ValueError, match=words):
            separate_faces(torch.rand(shape), layout)


def test_sizes_of_one_pixel():
    assert panorama_to_faces(torch.rand(1, 3, 1, 2), 1, mode="bicubic").isfinite().all()
    assert faces_to_panorama(torch.rand(6, 1, 3, 1, 1), 1, 2, mode="bicubic").isfinite().all()
