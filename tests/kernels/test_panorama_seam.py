"""The panorama's seam: rolled there and back, its mask, its error; and turns that undo turns."""

import pytest
import torch
from papernodes.kernels.camera_angles import camera_angles, undoing_angles
from papernodes.kernels.equirectangular import texel_directions
from papernodes.kernels.panorama import camera_rotations, rotate_panorama
from papernodes.kernels.panorama_seam import seam_error, seam_mask, seam_to_edges, seam_to_middle
from places import panorama_of, plain


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_there_and_back_is_exact(width):
    pictures = torch.rand(2, 3, 4, width)
    middle = seam_to_middle(pictures)
    assert torch.equal(seam_to_edges(middle), pictures)
    assert torch.equal(middle[..., width // 2], pictures[..., 0])
    assert torch.equal(middle[..., width // 2 - 1], pictures[..., -1])


@pytest.mark.parametrize("width", [360, 361])
def test_the_mask_lies_over_the_seam(width):
    mask = seam_mask(3, width, 40.0, 20.0)
    assert mask.shape == (3, width) and torch.equal(mask[0], mask[2])
    row, seam = mask[0], width // 2
    assert bool((row[seam - 20 : seam + 20] == 1).all())
    assert 0.4 < float(row[seam + 29]) < 0.6 and 0.4 < float(row[seam - 30]) < 0.6
    assert float(row[: seam - 41].max()) == 0 == float(row[seam + 41 :].max())
    assert torch.equal(seam_to_middle(seam_mask(3, width, 40.0, 20.0, middle=False)), mask)
    hard = seam_mask(1, width, 40.0, 0.0)
    assert set(hard.flatten().tolist()) == {0.0, 1.0} and 40 <= int(hard.sum()) <= 41
    assert int(seam_mask(1, width, 0.01, 0.0).sum()) == 2, "the two columns that meet"
    assert float(seam_mask(1, width, 0.0, 30.0).max()) == 0
    assert float(seam_mask(1, width, 360.0, 0.0).min()) == 1


def test_the_error_of_a_seam():
    around = panorama_of(plain, 32)
    assert 0.5 < float(seam_error(around)) < 2
    cut = torch.cat((around[..., 20:], around[..., :10]), -1)
    assert float(seam_error(cut)) > 2 * float(seam_error(around))
    assert seam_error(torch.rand(2, 4, 3, 8, 16)).shape == (2, 4)
    assert float(seam_error(torch.zeros(3, 4, 8))) == 0
    with pytest.raises(ValueError, match="width >= 2"):
        seam_error(torch.rand(1, 3, 4, 1))


def test_what_is_refused():
    for arguments, words in (
        ((0, 8, 1.0, 1.0), "8x0"),
        ((4, 8, 361.0, 0.0), "degrees"),
        ((4, 8, 1.0, -1.0), "feather"),
    ):
        with pytest.raises(ValueError, match=words):
            seam_mask(*arguments)
    with pytest.raises(ValueError, match="rotations"):
        camera_angles(torch.eye(3))


def test_angles_are_read_from_rotations():
    angles = (torch.rand(3, 40, dtype=torch.float64) - 0.5) * torch.tensor([[359.0], [179.0], [359.0]])
    for given, read in zip(angles, camera_angles(camera_rotations(*angles)), strict=True):
        torch.testing.assert_close(read, given, rtol=0, atol=1e-9)
    straight = (torch.tensor([30.0, -70.0]), torch.tensor([90.0, -90.0]), torch.tensor([20.0, 50.0]))
    rotations = camera_rotations(*straight)
    torch.testing.assert_close(camera_rotations(*camera_angles(rotations)), rotations, rtol=0, atol=1e-9)
    undone = camera_rotations(*undoing_angles(*angles))
    torch.testing.assert_close(
        undone @ camera_rotations(*angles), torch.eye(3).double().expand(40, 3, 3), rtol=0, atol=1e-9
    )


def test_turns_are_undone():
    """Whole columns bit for bit, other turns within what reading twice costs."""
    around = panorama_of(plain, 48)
    whole = torch.tensor([360 / 96 * 7]), torch.zeros(1), torch.zeros(1)
    assert torch.equal(rotate_panorama(rotate_panorama(around, *whole), *undoing_angles(*whole)), around)
    x, y, z = texel_directions(48, 96).unbind(-1)
    soft = torch.stack((0.4 * x, torch.sin(2 * y) * z))[None]
    turn = torch.tensor([40.0]), torch.tensor([-25.0]), torch.tensor([15.0])
    back = rotate_panorama(rotate_panorama(soft, *turn, mode="bicubic"), *undoing_angles(*turn), mode="bicubic")
    assert float((back - soft).abs().max()) < 1e-3
