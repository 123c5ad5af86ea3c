"""Masks between a panorama and its views, and the encoding of directions, against their closed forms."""

import math

import pytest
import torch
from papernodes.kernels.exchange_masks import exchange_masks
from papernodes.kernels.spherical_encoding import frequency_bands, panorama_angles, spherical_encoding, view_angles
from papernodes.kernels.view_rings import icosahedron_views

VIEW, PANORAMA = (6, 6), (8, 16)
CAMERAS = tuple((*one, 90.0) for one in zip(*(angles.tolist() for angles in icosahedron_views()), strict=True))


def test_the_views_look_at_an_icosahedrons_faces():
    yaw, pitch = icosahedron_views()
    rings = [52.62263] * 5 + [10.81232] * 5 + [-10.81232] * 5 + [-52.62263] * 5
    assert torch.allclose(pitch, torch.tensor(rings), atol=1e-4)
    assert yaw.tolist() == [-144, -72, 0, 72, 144] * 2 + [-180, -108, -36, 36, 108] * 2
    a, b = yaw.deg2rad(), pitch.deg2rad()
    faces = torch.stack([b.cos() * a.sin(), b.sin(), b.cos() * a.cos()], 1)
    # Faces lie opposite each other, each has three neighbours, as close as any.
    angles = (faces @ faces.T).clamp(-1, 1)
    assert torch.allclose(angles.amin(1), torch.full((20,), -1.0), atol=1e-5)
    assert torch.allclose(angles.sort(1).values[:, -4:-1], torch.tensor(math.sqrt(5) / 3), atol=1e-5)


@pytest.mark.parametrize("antipodal", (False, True))
def test_masks_are_what_warped_bright_pixels_give(antipodal):
    pytest.importorskip("comfy")  # the transcription of the network needs it
    from papernodes.benchmarks.published_imagine360 import masks

    cameras = (*CAMERAS[::6], (10.0, 80.0, 60.0))
    for found, wanted in zip(
        exchange_masks(cameras, VIEW, PANORAMA, antipodal),
        masks(cameras, VIEW, PANORAMA, antipodal, dtype=torch.float32),
        strict=True,
    ):
        assert torch.allclose(found, wanted, atol=1e-5)


def test_masks_are_biases_of_each_query():
    to_views, to_panorama = exchange_masks(CAMERAS, VIEW, PANORAMA, dtype=torch.float64)
    assert to_views.shape == (8 * 16, 20 * 36) and to_panorama.shape == (20 * 36, 8 * 16)
    for bias in (to_views, to_panorama):
        assert bias.dtype == torch.float64 and float(bias.min()) == -1
        assert bool((bias.amax(1) == 1).all())  # all of the sphere is seen
        assert float((bias > -1).double().mean()) < 0.3
    half = exchange_masks(CAMERAS, VIEW, PANORAMA, antipodal=True)[0].unflatten(0, PANORAMA)
    plain = to_views.float().unflatten(0, PANORAMA)
    assert float((half - plain.roll(8, 1)).abs().mean()) < 0.3 * float((half - plain).abs().mean())


def test_the_antipodal_variant_keeps_the_latitude():
    camera = ((0.0, 40.0, 60.0),)
    for antipodal, middle in ((False, 12), (True, 0)):
        bias = exchange_masks(camera, (5, 5), (13, 24), antipodal)[1][12].unflatten(0, (13, 24))
        row, column = divmod(int(bias.argmax()), 24)
        assert abs(row - 50 / 180 * 12) < 1 and min(abs(column - middle), 24 - abs(column - middle)) <= 1


@pytest.mark.parametrize(
    ("cameras", "panorama", "word"),
    (((), (8, 16), "none"), (((0.0, 0.0, 180.0),), (8, 16), "fov 180"), (CAMERAS[:1], (8, 15), "even width")),
)
def test_masks_that_cannot_be(cameras, panorama, word):
    with pytest.raises(ValueError, match=word):
        exchange_masks(cameras, VIEW, panorama)


def test_encoding():
    bands = frequency_bands(80)
    assert bands[79] == 2.0**79
    assert torch.allclose(frequency_bands(160)[159].log(), torch.tensor(159 * 2.5 / 160 * math.log(5000)), rtol=1e-5)
    angles = panorama_angles((3, 4))
    assert torch.allclose(angles[0], torch.tensor([-math.pi, math.pi / 2]))
    assert torch.allclose(angles[-1], torch.tensor([math.pi, -math.pi / 2]))
    encoded = spherical_encoding(angles, bands[:2])
    lon, lat = angles[5].tolist()
    wanted = [f(t * k) for f in (math.sin, math.cos) for t in (lon, lat) for k in (1, 2)]
    assert torch.allclose(encoded[5], torch.tensor(wanted), atol=1e-6)
    # The views' latitude has the other sign, as the published network was trained.
    seen = view_angles(((30.0, 20.0, 90.0),), (3, 3))[4]
    assert torch.allclose(seen, torch.tensor([30.0, -20.0]).deg2rad(), atol=1e-6)


def test_encoding_in_bfloat16_rounds_every_step():
    bands = frequency_bands(80)
    angles = panorama_angles((4, 7), torch.bfloat16)
    encoded = spherical_encoding(angles, bands)
    assert encoded.dtype == torch.bfloat16 and bool(encoded.isfinite().all())
    product = (angles[9, 0].double() * bands[70].double()).to(torch.bfloat16)
    assert encoded[9, 70] == torch.sin(product.double()).to(torch.bfloat16)
    # Steps are added from the nearer end, each rounded.
    step = torch.tensor(2 * math.pi, dtype=torch.bfloat16) / 6
    assert angles[1, 0] == torch.tensor(-math.pi, dtype=torch.bfloat16) + step
    assert angles[5, 0] == torch.tensor(math.pi, dtype=torch.bfloat16) - step
    rays = view_angles(CAMERAS, (4, 4), torch.bfloat16)
    assert rays.dtype == torch.bfloat16 and bool(rays.isfinite().all())
