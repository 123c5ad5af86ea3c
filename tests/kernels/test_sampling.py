"""Laws of reading images at positions: identity, whole shifts, borders, agreement with torch where it has the mode."""

import pytest
import torch
import torch.nn.functional as functional
from papernodes.kernels.flow import invert_flow
from papernodes.kernels.sampling import BORDERS, MODES, pixel_grid, read_bilinear, remap, warp_backward


def picture(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def positions_around(height, width, count, seed=1, reach=1.7):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([width, height]).view(2, 1) * reach
    middle = torch.tensor([width, height]).view(2, 1) * 0.5
    return ((torch.rand(2, count, generator=generator) - 0.5) * scale + middle).view(1, 2, 1, count)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(7, 5), (1, 1), (1, 6), (37, 854)])
def test_identity_is_exact(mode, border, dtype, size):
    images = picture(2, 3, *size, dtype=dtype)
    result = remap(images, pixel_grid(*size)[None], mode=mode, border=border)
    assert result.dtype == dtype
    assert torch.equal(result, images)


@pytest.mark.parametrize("mode", MODES)
def test_whole_shift_is_exact(mode):
    images = picture(2, 3, 12, 17)
    shift = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1)
    zeros = remap(images, pixel_grid(12, 17) + shift, mode=mode, border="zeros", fill=9.0)
    assert torch.equal(zeros[:, :, 2:, :14], images[:, :, :10, 3:])
    assert bool((zeros[:, :, :2] == 9).all()) and bool((zeros[:, :, :, 14:] == 9).all())
    wrapped = remap(images, pixel_grid(12, 17) + shift, mode=mode, border="wrap-x")
    assert torch.equal(wrapped[:, :, 2:], torch.roll(images, -3, dims=3)[:, :, :10])
    assert torch.equal(wrapped[:, :, 0], torch.roll(images, -3, dims=3)[:, :, 0])


def test_panorama_wraps_at_any_distance():
    images = picture(1, 2, 6, 10)
    there = positions_around(6, 10, 200, reach=1.0)
    turns = torch.tensor([40.0, 0.0]).view(1, 2, 1, 1)
    for mode in ("bilinear", "bicubic"):
        first = remap(images, there, mode=mode, border="wrap-x")
        again = remap(images, there + turns, mode=mode, border="wrap-x")
        assert torch.allclose(first, again, atol=2e-5)
    seam = remap(images, torch.tensor([9.5, 2.0]).view(1, 2, 1, 1), border="wrap-x")
    assert torch.allclose(seam[..., 0, 0], (images[:, :, 2, 9] + images[:, :, 2, 0]) / 2)


@pytest.mark.parametrize("border", ["zeros", "border", "reflect"])
def test_bilinear_agrees_with_grid_sample(border):
    images, there = picture(2, 3, 11, 13), positions_around(11, 13, 500)
    padding = {"reflect": "reflection"}.get(border, border)
    grid = there.permute(0, 2, 3, 1) * (2.0 / torch.tensor([12.0, 10.0])) - 1.0
    expected = functional.grid_sample(images, grid.expand(2, -1, -1, -1), padding_mode=padding, align_corners=True)
    assert torch.allclose(remap(images, there, border=border), expected, atol=2e-5)


def test_nearest_takes_the_nearest():
    images = picture(1, 1, 9, 9)
    there = torch.tensor([[2.4, 2.6, 7.51], [0.49, 3.4, -0.4]]).view(1, 2, 1, 3)
    expected = torch.stack([images[0, 0, 0, 2], images[0, 0, 3, 3], images[0, 0, 0, 8]])
    assert torch.equal(remap(images, there, mode="nearest").view(-1), expected)


def test_bicubic_reproduces_parabolas_inside():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    images = (0.3 * x * x - 0.2 * x * y + 0.1 * y * y + x - 2)[None, None]
    there = positions_around(8, 8, 300, reach=0.9) + 2.0
    px, py = there[0, 0, 0], there[0, 1, 0]
    expected = 0.3 * px * px - 0.2 * px * py + 0.1 * py * py + px - 2
    assert torch.allclose(remap(images, there, mode="bicubic").view(-1), expected, atol=1e-4)
    assert not torch.allclose(remap(images, there, mode="bilinear").view(-1), expected, atol=1e-2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("border", ["border", "reflect", "wrap-x"])
def test_a_constant_picture_stays_constant(mode, border):
    images = torch.full((1, 2, 5, 4), 3.25)
    assert torch.allclose(
        remap(images, positions_around(5, 4, 400, reach=9.0), mode=mode, border=border), images[0, 0, 0, 0]
    )


def test_reflect_on_one_pixel_and_far_away():
    images = picture(1, 1, 1, 4)
    there = torch.tensor([[0.0, 4.0, -1.0, 7.0], [0.0, 5.0, -9.0, 2.0]]).view(1, 2, 1, 4)
    expected = images[0, 0, 0, [0, 2, 1, 1]]
    assert torch.equal(remap(images, there, border="reflect").view(-1), expected)


def test_nan_and_infinite_positions_are_outside():
    images = picture(1, 2, 4, 4)
    there = torch.tensor([[float("nan"), float("inf"), -1e30], [1.0, 1.0, float("-inf")]]).view(1, 2, 1, 3)
    for mode in MODES:
        assert bool((remap(images, there, mode=mode, fill=-7.0) == -7).all())
        assert bool(torch.isfinite(remap(images, there, mode=mode, border="wrap-x")).all())


def test_fill_by_channel():
    images = picture(1, 3, 4, 4)
    there = torch.full((1, 2, 1, 1), 50.0)
    assert remap(images, there, fill=torch.tensor([1.0, 2.0, 3.0])).view(-1).tolist() == [1, 2, 3]


def test_positions_per_image_and_result_size():
    images = picture(3, 2, 6, 6)
    there = torch.stack([pixel_grid(4, 5) + step for step in range(3)])
    result = remap(images, there)
    assert result.shape == (3, 2, 4, 5)
    assert torch.equal(result[2, :, :, :4], images[2, :, 2:6, 2:6])


def test_warp_backward_by_an_inverted_flow_moves_the_picture():
    images = picture(1, 2, 10, 14)
    flow = torch.tensor([4.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 10, 14).contiguous()
    result = warp_backward(images, invert_flow(flow), border="zeros")
    assert torch.equal(result[:, :, 1:, 4:], images[:, :, :9, :10])
    assert bool((result[:, :, 0] == 0).all())


def test_warp_backward_fills_what_is_hidden():
    images, flow = picture(2, 3, 6, 7), torch.zeros(1, 2, 6, 7)
    hidden = torch.zeros(1, 6, 7)
    hidden[:, 2:4, 3] = 1
    result = warp_backward(images, flow, occlusion=hidden, fill=5.0)
    assert bool((result[:, :, 2:4, 3] == 5).all())
    hidden = hidden.bool().unsqueeze(1).expand_as(images)
    assert torch.equal(result[~hidden], images[~hidden])


def test_read_bilinear_is_remap_with_border():
    images, there = picture(1, 2, 33, 854), positions_around(33, 854, 300)
    assert torch.allclose(read_bilinear(images, there), remap(images, there, border="border"), atol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "lanczos"}, "mode: got 'lanczos'; expected one of nearest, bilinear, bicubic."),
        ({"border": "mirror"}, "border: got 'mirror'; expected one of zeros, border, reflect, wrap-x."),
        ({"images": torch.zeros(2, 4, 4)}, "images: got torch.float32 \\[2, 4, 4\\]; expected floating"),
        ({"images": torch.zeros(1, 2, 4, 4, dtype=torch.int32)}, "images: got torch.int32"),
        ({"positions": torch.zeros(3, 2, 4, 4)}, "positions: got \\[3, 2, 4, 4\\]; expected \\[2 or 1, 2, h, w\\]"),
        ({"positions": torch.zeros(1, 3, 4, 4)}, "positions: got \\[1, 3, 4, 4\\]"),
    ],
)
def test_messages(change, message):
    arguments = {"images": torch.zeros(2, 1, 4, 4), "positions": torch.zeros(1, 2, 4, 4)} | change
    with pytest.raises(ValueError, match=message):
        remap(arguments.pop("images"), arguments.pop("positions"), **arguments)


def test_warp_messages():
    with pytest.raises(ValueError, match="Resize the flow to the images first"):
        warp_backward(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="occlusion: got"):
        warp_backward(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8), occlusion=torch.zeros(1, 4, 4))
