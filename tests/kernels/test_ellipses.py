"""Ellipses: area, symmetries, boxes, compositing, tokens, and one pass of Triton against eager torch."""

import math

import pytest
import torch
from papernodes.kernels.ellipses import (
    KINDS,
    boxes,
    distances,
    opacities,
    raster,
    token_masks,
)

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []  # with a GPU, "make test-gpu" runs all of this on it
DEVICE = torch.device("cuda" if CUDA else "cpu")
HEIGHT, WIDTH = 180, 320
ROUND, TILTED, THIN = (0.5, 0.5, 0.2, 0.2, 0.0), (0.4, 0.45, 0.3, 0.12, 0.7), (0.6, 0.5, 0.45, 0.02, -1.1)


def rows(*ellipses):
    return torch.tensor(ellipses, dtype=torch.float64).view(-1, 5)


def random_layout(*shape, seed=0):
    """Ellipses [..., 5], some of them partly or wholly outside, and which are there."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(*shape, 5, generator=generator)
    ellipses = numbers * torch.tensor([1.4, 1.4, 0.4, 0.4, 7.0]) + torch.tensor([-0.2, -0.2, 0.02, 0.02, -3.5])
    return ellipses, torch.rand(*shape, generator=generator) > 0.2


def test_area_is_pi_a_b_and_shape_is_kept_where_the_picture_is_not_square():
    for size in ((HEIGHT, WIDTH), (WIDTH, HEIGHT)):
        ellipses = rows((0.5, 0.5, 0.25, 0.25, 0.3), (0.47, 0.52, 0.27, 0.1, 1.2), (0.5, 0.5, 0.2, 0.05, -0.6))
        ellipses[:, 2:4] *= min(size) / size[0]
        drawn = raster(ellipses, None, *size).sum((-2, -1))
        expected = math.pi * ellipses[:, 2] * ellipses[:, 3] * size[0] ** 2
        torch.testing.assert_close(drawn.double(), expected, rtol=0.01, atol=0)


def test_the_same_ellipse_said_in_other_ways_draws_the_same():
    ellipses, _ = random_layout(20)
    ellipses = ellipses.double()
    turned, swapped = ellipses.clone(), ellipses[:, [0, 1, 3, 2, 4]]
    turned[:, 4] += math.pi
    swapped[:, 4] += math.pi / 2
    q = distances(ellipses, HEIGHT, WIDTH)
    for other in (turned, swapped):
        torch.testing.assert_close(distances(other, HEIGHT, WIDTH), q, rtol=1e-5, atol=1e-5)
        differ = raster(other, None, HEIGHT, WIDTH, dtype=torch.bool) != raster(
            ellipses, None, HEIGHT, WIDTH, dtype=torch.bool
        )
        assert differ.float().mean() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_weights_add_up_to_one_and_the_last_lies_on_top(kind):
    ellipses, present = random_layout(3, 12)
    weights = raster(ellipses, present, 90, 160, kind, True)
    assert weights.shape == (3, 13, 90, 160)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(3, 90, 160), rtol=0, atol=1e-6)
    # By the paper's product: w_k = o_k prod_{j > k} (1 - o_j), the background with o = 1.
    opacity = opacities(distances(ellipses, 90, 160), kind) * present[..., None, None]
    opacity = torch.cat((torch.ones(3, 1, 90, 160), opacity), 1)
    for k in (0, 1, 7, 12):
        torch.testing.assert_close(weights[:, k], opacity[:, k] * (1 - opacity[:, k + 1 :]).prod(1), rtol=0, atol=1e-6)
    one = raster(rows(ROUND, ROUND), None, 90, 160, "hard", True, torch.uint8)
    assert not one[1].any()
    assert torch.equal(one[0] + one[2], torch.ones_like(one[0]))


def test_opacities_are_the_papers():
    """With the inverse of R diag(a^2, b^2) R^T in place of the closed form; BlobGAN's size s = 8 scales its q too."""
    x, y, a, b, angle = TILTED
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
    axes = torch.diag(torch.tensor([a, b]).double() * HEIGHT).square()
    inverse = torch.linalg.inv(turn @ axes @ turn.T)
    down, across = torch.meshgrid(
        torch.arange(HEIGHT) + 0.5 - y * HEIGHT, torch.arange(WIDTH) + 0.5 - x * WIDTH, indexing="ij"
    )
    delta = torch.stack((across, down), -1).double()
    q = ((delta @ inverse) * delta).sum(-1)
    ellipse = rows(TILTED)
    torch.testing.assert_close(distances(ellipse, HEIGHT, WIDTH)[0].double(), q, rtol=1e-5, atol=1e-5)
    expected = {
        "hard": (q <= 1).double(),
        "soft": torch.sigmoid(8 - 8 * q),
        "opacity": torch.minimum(2 * torch.sigmoid(-q), torch.ones_like(q)),
    }
    for kind, values in expected.items():
        gap = (raster(ellipse, None, HEIGHT, WIDTH, kind)[0].double() - values).abs()
        assert gap.max() < 1e-5 if kind != "hard" else gap.mean() < 1e-4


def test_boxes_are_tight():
    ellipses, _ = random_layout(20, seed=1)
    ellipses[:, :2] = 0.5
    ellipses[:, 2:4] = ellipses[:, 2:4].clamp(0.05, 0.45)
    drawn = raster(ellipses, None, HEIGHT, WIDTH, dtype=torch.bool)
    for mask, box in zip(drawn, boxes(ellipses, HEIGHT, WIDTH), strict=True):
        for covered, low, high, length in (
            (mask.any(0), box[0], box[2], WIDTH),
            (mask.any(1), box[1], box[3], HEIGHT),
        ):
            places = covered.nonzero()[:, 0]
            first, last = float(low) * length, float(high) * length
            # No pixel's middle lies outside the box. Where an ellipse ends pointedly no middle may lie in its tip.
            assert first - 1e-3 <= places[0] + 0.5 < first + 3
            assert last - 3 < places[-1] + 0.5 <= last + 1e-3


def test_tokens_of_thin_absent_and_outer_ellipses():
    ellipses = rows(ROUND, (0.31, 0.5, 0.3, 0.004, 1.3), ROUND, (3.0, 0.5, 0.1, 0.1, 0.0))
    present = torch.tensor([True, True, False, True])
    found = token_masks(ellipses, present, 9, 16)
    assert found.dtype == torch.bool
    assert found.shape == (4, 9, 16)
    assert found.sum((-2, -1)).tolist()[2:] == [0, 0]
    assert abs(int(found[0].sum()) - math.pi * 0.04 * 81) < 3
    assert 1 <= int(found[1].sum()) < 4
    # On a grid of half as many columns every token is twice as wide.
    wide = token_masks(ellipses, present, 9, 8, aspect=16 / 9)
    assert abs(2 * int(wide[0].sum()) - int(found[0].sum())) <= 6
    assert wide[0].any(0).sum() * 2 == pytest.approx(int(found[0].any(0).sum()), abs=2)


def test_no_ellipses_and_bad_input():
    none = torch.zeros(2, 0, 5)
    assert raster(none, None, 5, 7).shape == (2, 0, 5, 7)
    weights = raster(none, None, 5, 7, composited=True, device=DEVICE).cpu()
    assert torch.equal(weights, torch.ones(2, 1, 5, 7))
    assert raster(rows(ROUND), torch.tensor([False]), 5, 7).sum() == 0
    for arguments, message in (
        ((rows(ROUND)[0], None, 5, 7), r"expected \[..., K, 5\]"),
        ((rows(ROUND), None, 0, 7), "at least 1x1"),
        ((rows(ROUND), None, 5, 7, "round"), "hard, soft, opacity"),
        ((rows(ROUND), None, 5, 7, "soft", False, torch.bool), "cannot hold soft"),
        ((rows(ROUND), None, 5, 7, "hard", False, torch.int64), "cannot hold hard"),
        ((rows(ROUND), torch.ones(2, dtype=torch.bool), 5, 7), r"present: .* expected bool \[1\]"),
        ((rows((0.5, 0.5, 0.0, 0.1, 0.0)), None, 5, 7), "half axis"),
        ((rows((0.5, 0.5, math.nan, 0.1, 0.0)), None, 5, 7), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            raster(*arguments)


SIZES = [(37, 150), (1, 1), (70, 9)] + [(270, 480), (720, 1280)] * CUDA


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_triton_draws_what_eager_torch_draws(kind, size):
    pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")
    nobody = torch.zeros(2, 0, 5), None, *size, kind, True
    assert torch.equal(raster(*nobody, device=DEVICE, backend="triton").cpu(), torch.ones(2, 1, *size))
    ellipses, present = random_layout(2, 5)
    ellipses = torch.cat((ellipses, rows(THIN).float().expand(2, 1, 5)), 1)
    present = torch.cat((present, torch.ones(2, 1, dtype=torch.bool)), 1)
    dtypes = [torch.float32, torch.float16] + [torch.bool, torch.uint8] * (kind == "hard") + [torch.bfloat16] * CUDA
    for composited in (False, True):
        for dtype in dtypes:
            fast, slow = (
                raster(ellipses, present, *size, kind, composited, dtype, device=DEVICE, backend=backend)
                for backend in ("triton", "eager")
            )
            assert fast.dtype == slow.dtype == dtype
            assert fast.shape == slow.shape
            if kind == "hard":
                assert torch.equal(fast, slow)
            else:
                close = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
                assert (fast.float() - slow.float()).abs().max() <= close
