"""Panoramas packed with their views, and the noise that both see."""

import comfy.nested_tensor
import comfy.sample
import pytest
import torch
from papernodes.kernels.view_rings import icosahedron_views
from papernodes.patches.panorama_latent import PanoramaNoise, pack, unpack, views_of

CAMERAS = tuple(
    (yaw, pitch, 90.0) for yaw, pitch in zip(*(angle.tolist() for angle in icosahedron_views()), strict=True)
)


def empty(frames=2, height=16, views=20, batch=1):
    edge = height // 2
    return pack(torch.zeros(batch, 4, frames, height, 2 * height), torch.zeros(batch, 4, views * frames, edge, edge))


def test_packed_and_unpacked():
    panorama, views = torch.rand(1, 4, 3, 8, 16), torch.rand(1, 4, 6, 4, 4)
    first, second = unpack({**pack(panorama, views), "batch_index": [0]})
    assert torch.equal(first, panorama) and torch.equal(second, views)


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_views_see_the_noise_of_the_panorama(seed):
    latent = empty()
    panorama, views = PanoramaNoise(seed, CAMERAS).generate_noise(latent).unbind()
    again = PanoramaNoise(seed, CAMERAS).generate_noise(latent).unbind()
    assert torch.equal(panorama, again[0]) and torch.equal(views, again[1])
    assert torch.equal(panorama, comfy.sample.prepare_noise(torch.zeros(1, 4, 2, 16, 32), seed))
    assert panorama.dtype == views.dtype == torch.float32 and views.shape == (1, 4, 40, 8, 8)
    assert abs(float(views.std()) - 1) < 0.1
    # By spec 5.1.2: rays through a plane, both ends on its edge, turned; the texel whose middle is nearest.
    view, frame = 8, 1
    yaw, pitch = torch.deg2rad(torch.tensor(CAMERAS[view][:2], dtype=torch.float64))
    plane = torch.linspace(-1, 1, 8, dtype=torch.float64)
    right, up, ahead = plane.expand(8, 8), -plane[:, None].expand(8, 8), torch.ones(8, 8, dtype=torch.float64)
    ahead, up = ahead * pitch.cos() - up * pitch.sin(), ahead * pitch.sin() + up * pitch.cos()
    forward, right = ahead * yaw.cos() - right * yaw.sin(), ahead * yaw.sin() + right * yaw.cos()
    column = torch.atan2(right, forward) / torch.pi * 15.5 + 15.5
    row = -torch.atan2(up, (forward**2 + right**2).sqrt()) / (torch.pi / 2) * 7.5 + 7.5
    sure = torch.stack([column, row]).frac().sub(0.5).abs().amin(0) > 1e-3  # halves may fall either way
    expected = panorama[0, :, frame, row.round().long(), column.round().long()]
    assert sure.float().mean() > 0.9 and torch.equal(views[0, :, view * 2 + frame][:, sure], expected[:, sure])


def test_batches_and_other_sizes():
    noise = PanoramaNoise(3, CAMERAS[:2])
    both = noise.generate_noise(empty(3, 8, 2, batch=2)).unbind()
    second = noise.generate_noise({**empty(3, 8, 2), "batch_index": [1]}).unbind()
    assert both[1].shape == (2, 4, 6, 4, 4)
    assert torch.equal(both[0][1:], second[0]) and torch.equal(both[1][1:], second[1])
    assert not torch.equal(both[0][0], both[0][1])
    smooth = torch.linspace(0, 1, 32).expand(1, 1, 1, 16, 32)
    ahead = views_of(smooth, [(0.0, 0.0, 90.0)], 8, 8, "bilinear")[0, 0, 0]
    assert torch.allclose(ahead + ahead.flip(1), torch.ones(8, 8), atol=1e-5) and (ahead.diff(dim=1) > 0).all()


def test_wrong_latents():
    panorama, views = torch.zeros(1, 4, 2, 8, 16), torch.zeros(1, 4, 4, 4, 4)
    for latent, words in (
        (None, "NoneType without samples"),
        ({"samples": torch.zeros(1, 4, 8, 8)}, r"one tensor \[1, 4, 8, 8\]; expected a panorama and its views"),
        ({"samples": torch.zeros(1, 1, 99)}, "denoised_output"),
        ({"samples": comfy.nested_tensor.NestedTensor([panorama] * 3)}, "3 packed parts"),
        ({"samples": comfy.nested_tensor.NestedTensor([panorama, views[0]])}, "of both"),
        ({"samples": comfy.nested_tensor.NestedTensor([panorama, views[:, :, :3]])}, "whole number"),
    ):
        with pytest.raises(ValueError, match=words):
            unpack(latent)
    with pytest.raises(ValueError, match=r"for the LATENT of Imagine360 Conditioning.*one tensor"):
        PanoramaNoise(0, CAMERAS).generate_noise({"samples": torch.zeros(1, 4, 8, 8)})
    with pytest.raises(ValueError, match="for 20 views, and the LATENT holds 2"):
        PanoramaNoise(0, CAMERAS).generate_noise(pack(panorama, views))
    with pytest.raises(ValueError, match="same batch and channels"):
        pack(panorama, views[:, :3])
