"""Flow values: what is refused, resizing, the forward-backward check, and the laws of inversion."""

import math

import pytest
import torch
from papernodes.kernels import flow_inverse
from papernodes.kernels.flow import Flow, check_vectors, invert_flow, occlusion_mask, resize_flow
from papernodes.kernels.sampling import pixel_grid, remap

SIZE = (96, 130)


def affine(matrix, size=SIZE):
    """The flow of x -> matrix (x - middle) + middle."""
    height, width = size
    grid = pixel_grid(height, width)
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2]).view(2, 1, 1)
    away = grid - middle
    return (torch.einsum("ij,jhw->ihw", torch.tensor(matrix, dtype=torch.float32), away) - away)[None]


def zoom(factor, size=SIZE):
    return affine([[factor, 0.0], [0.0, factor]], size)


def rotation(degrees, size=SIZE):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return affine([[c, -s], [s, c]], size)


def swirl(strength, size=SIZE):
    height, width = size
    grid = pixel_grid(height, width)
    x, y = grid[0] - (width - 1) / 2, grid[1] - (height - 1) / 2
    angle = strength * torch.exp(-(x * x + y * y) / (0.25 * min(size)) ** 2)
    return torch.stack([x * angle.cos() - y * angle.sin() - x, x * angle.sin() + y * angle.cos() - y])[None]


def constant(dx, dy, size=SIZE):
    return torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(1, 2, *size).contiguous()


def residuals(vectors, inverse):
    """|q + F(q) - p| wherever q lies inside, sorted."""
    height, width = vectors.shape[2:]
    grid = pixel_grid(height, width)
    q = grid + inverse
    inside = (q[:, 0] >= 0) & (q[:, 0] <= width - 1) & (q[:, 1] >= 0) & (q[:, 1] <= height - 1)
    error = (q + remap(vectors, q, border="border") - grid).square().sum(dim=1).sqrt()
    return error[inside].sort().values


CASES = {
    "zoom-in 2": zoom(2.0),
    "zoom-in 4": zoom(4.0),
    "zoom-out 2": zoom(0.5),
    "zoom 1.05": zoom(1.05),
    "rotation 10": rotation(10),
    "rotation 30": rotation(30),
    "swirl 0.6": swirl(0.6),
    "swirl 2": swirl(2.0),
    "pan 7.3": constant(7.3, -2.6),
    "shear": affine([[1.0, 0.4], [0.0, 1.0]]),
}


@pytest.mark.parametrize("name", list(CASES))
def test_inverse_returns_to_the_target(name):
    errors = residuals(CASES[name], invert_flow(CASES[name]))
    assert len(errors) > 1000
    assert errors[int(0.99 * (len(errors) - 1))] < 0.05
    assert errors[-1] < 0.3


def test_the_refinement_is_needed():
    """Without the Newton steps a zoom misses the bar, so the test above can fail."""
    errors = residuals(CASES["zoom-in 4"], invert_flow(CASES["zoom-in 4"], refinements=0))
    assert errors[int(0.99 * (len(errors) - 1))] > 0.5


def test_zero_gives_zero_and_a_shift_its_opposite_exactly():
    assert torch.equal(invert_flow(torch.zeros(2, 2, *SIZE)), torch.zeros(2, 2, *SIZE))
    for dx, dy in ((3.0, -2.0), (7.3, 0.7), (-0.123456, 40.4)):
        shift = constant(dx, dy)
        assert torch.equal(invert_flow(shift), -shift)


def test_a_zoom_has_its_closed_form():
    """q - c = (p - c) / 2, also for what entered the picture from outside when zooming out."""
    inverse = invert_flow(zoom(2.0))
    assert torch.allclose(inverse, zoom(0.5), atol=2e-3)
    away = pixel_grid(*SIZE) + invert_flow(zoom(0.5))
    inside = (away[:, 0] >= 0) & (away[:, 0] <= SIZE[1] - 1) & (away[:, 1] >= 0) & (away[:, 1] <= SIZE[0] - 1)
    assert inside.float().mean() == pytest.approx(0.25, abs=0.01)


def test_inverting_twice_returns_where_nothing_is_lost():
    flow = swirl(0.6)
    twice = invert_flow(invert_flow(flow))
    assert (twice - flow).abs()[..., 8:-8, 8:-8].max() < 0.06


@pytest.mark.parametrize("name", ["zoom-out 2", "swirl 2", "rotation 10"])
def test_two_runs_give_the_same_bits_and_pairs_do_not_mix(name):
    stack = torch.cat([CASES[name], CASES["zoom-in 2"], CASES["pan 7.3"]])
    together = invert_flow(stack)
    assert torch.equal(together, invert_flow(stack))
    for pair in range(3):
        assert torch.equal(together[pair : pair + 1], invert_flow(stack[pair : pair + 1]))


@pytest.mark.parametrize("motion", [20, -20])
def test_a_patch_over_a_resting_background(motion):
    flow = torch.zeros(1, 2, *SIZE)
    flow[:, 0, 30:60, 50:80] = motion
    inverse = invert_flow(flow)
    assert bool(torch.isfinite(inverse).all())
    covered = inverse[0, 0, 31:59, 51 + motion : 79 + motion]
    assert bool((covered == -motion).all())  # the patch is in front, whichever way it goes
    assert bool((inverse[0, :, :29] == 0).all()) and bool((inverse[0, :, 61:] == 0).all())
    # What it uncovers takes a neighbour's displacement, nothing in between.
    uncovered = inverse[0, 0, 35:55, 51:69] if motion > 0 else inverse[0, 0, 35:55, 61:79]
    near = torch.minimum(uncovered.abs(), (uncovered + motion).abs())
    assert (near < 1.5).float().mean() > 0.9


def test_a_growing_patch_has_no_holes():
    """A patch that grows by 1.5 in front of a moving background: no background shows between its pixels."""
    flow = torch.zeros(1, 2, *SIZE)
    flow[:, 0] = 9.0
    grid = pixel_grid(*SIZE)
    patch = (slice(30, 60), slice(50, 80))
    flow[0, 0][patch] = (grid[0][patch] - 64.5) * 0.5
    flow[0, 1][patch] = (grid[1][patch] - 44.5) * 0.5
    inverse = invert_flow(flow)
    source = pixel_grid(*SIZE) + inverse[0]
    inner = source[:, 28:62, 48:82]
    inside_patch = (inner[0] > 49) & (inner[0] < 80) & (inner[1] > 29) & (inner[1] < 60)
    assert bool(inside_patch.all())


def test_everything_leaves():
    inverse = invert_flow(constant(1e4, -3e3))
    assert torch.equal(inverse, constant(-1e4, 3e3))
    assert bool(torch.isfinite(invert_flow(constant(1e30, 0.0))).all())


def test_noise_stays_finite():
    flow = torch.randn(3, 2, 40, 50, generator=torch.Generator().manual_seed(0)) * 30
    assert bool(torch.isfinite(invert_flow(flow)).all())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 5)])
def test_tiny_pictures(size):
    shift = constant(0.5, -1.25, size)
    assert torch.equal(invert_flow(shift), -shift)
    assert invert_flow(torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(1))).shape == (2, 2, *size)


def test_large_pictures_keep_exact_places(monkeypatch):
    """Above 2^24 pixels float32 no longer counts exactly; the same branch is forced here on a small picture."""
    flow = swirl(2.0)
    expected = invert_flow(flow)
    place = flow_inverse._place
    whole = []

    def checked(x, y, valid, width, nowhere):
        result = place(x, y, valid, width, nowhere)
        exact = place(x.double(), y.double(), valid, width, nowhere)
        whole.append(torch.equal(result, exact))
        return result

    monkeypatch.setattr(flow_inverse, "_place", checked)
    assert torch.equal(invert_flow(flow), expected) and all(whole)
    monkeypatch.undo()
    x, y = torch.tensor([5000.0, 0.0]), torch.tensor([4999.0, 3.0])
    valid = torch.tensor([True, False])
    assert flow_inverse._place(x, y, valid, 5001, 5001 * 5000).tolist() == [4999 * 5001 + 5000, 5001 * 5000]


def test_resize_scales_each_axis_by_its_own_ratio():
    flow = constant(3.0, -2.0, (10, 20))
    for size in ((5, 40), (30, 10), (7, 13), (10, 20), (1, 1), (80, 160)):
        resized = resize_flow(flow, size)
        assert resized.shape == (1, 2, *size)
        assert torch.allclose(resized[:, 0], torch.tensor(3.0 * size[1] / 20))
        assert torch.allclose(resized[:, 1], torch.tensor(-2.0 * size[0] / 10))


def test_resize_is_an_area_mean_down_and_bilinear_up():
    flow = torch.arange(16.0).view(1, 1, 4, 4).expand(1, 2, 4, 4).contiguous()
    assert torch.allclose(resize_flow(flow, (2, 2))[0, 0], torch.tensor([[2.5, 4.5], [10.5, 12.5]]) / 2)
    ramp = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 2, 1, 4).contiguous()
    expected = torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]) * 2
    assert torch.allclose(resize_flow(ramp, (1, 8))[0, 0, 0], expected)
    mixed = resize_flow(flow, (2, 8))
    assert torch.allclose(mixed[0, 1].mean(), flow[0, 1].mean() / 2)


def test_resize_of_a_zoom_is_the_zoom_of_the_new_size():
    small = resize_flow(zoom(1.2, (64, 96)), (32, 48))
    assert torch.allclose(small, zoom(1.2, (32, 48)), atol=1e-4)


def test_occlusion_follows_the_published_check():
    forward, backward = constant(4.0, 0.0), constant(-4.0, 0.0)
    mask = occlusion_mask(forward, backward)
    assert mask.dtype == torch.float32 and mask.shape == (1, *SIZE)
    assert bool((mask[..., :-4] == 0).all()) and bool((mask[..., -4:] == 1).all())
    # |f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5: with f = 4 the border case lies near b = -3.16.
    assert occlusion_mask(forward, constant(-3.17, 0.0))[0, 5, 5] == 0
    assert occlusion_mask(forward, constant(-3.09, 0.0))[0, 5, 5] == 1


def test_occlusion_of_a_moving_patch():
    """The patch moves 12 pixels to the right: exactly the background that it covers is hidden."""
    forward, backward = torch.zeros(1, 2, *SIZE), torch.zeros(1, 2, *SIZE)
    forward[:, 0, 30:60, 40:70] = 12
    backward[:, 0, 30:60, 52:82] = -12
    expected = torch.zeros(1, *SIZE)
    expected[:, 30:60, 70:82] = 1
    assert torch.equal(occlusion_mask(forward, backward), expected)
    inverted = occlusion_mask(forward, invert_flow(forward))
    assert (inverted - expected).abs().mean() < 0.002


def test_pixels_that_leave_are_occluded():
    mask = occlusion_mask(zoom(1.5), zoom(1 / 1.5))
    assert mask[0, 0, 0] == 1 and mask[0, 48, 65] == 0


def test_flow_values():
    flow = Flow(torch.zeros(4, 2, 6, 8), "backward", torch.zeros(4, 6, 8))
    assert flow.frames == 5 and flow.size == (6, 8)
    assert flow.to("cpu").direction == "backward"


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (None, "flow: got a NoneType; expected a float32 tensor"),
        (torch.zeros(2, 6, 8), r"flow: got float32 \[2, 6, 8\]; expected float32 \[frames - 1, 2, height, width\]"),
        (torch.zeros(3, 6, 8, 2), r"flow: got float32 \[3, 6, 8, 2\]; expected"),
        (torch.zeros(0, 2, 6, 8), "flow: it connects fewer than 2 frames"),
        (torch.zeros(1, 2, 0, 8), "height and width must be at least 1 pixel"),
        (torch.zeros(1, 2, 6, 8, dtype=torch.float16), r"flow: got float16 \[1, 2, 6, 8\]; expected float32"),
        (torch.full((1, 2, 6, 8), float("nan")), "from frame 0 to frame 1 hold NaN or infinite"),
    ],
)
def test_refused_vectors(vectors, message):
    for use in (check_vectors, Flow, invert_flow):
        with pytest.raises(ValueError, match=message):
            use(vectors)


def test_messages_name_the_pair_and_the_argument():
    vectors = torch.zeros(5, 2, 6, 8)
    vectors[3, 1, 2, 2] = float("inf")
    with pytest.raises(ValueError, match=r"^clip flow: the vectors from frame 3 to frame 4 hold NaN"):
        check_vectors(vectors, "clip flow")
    with pytest.raises(ValueError, match=r"the direction is 'sideways'; expected 'forward' or 'backward'"):
        Flow(torch.zeros(1, 2, 6, 8), "sideways")
    with pytest.raises(ValueError, match=r"the occlusion is float32 \[1, 8, 6\]; expected float32 \[1, 6, 8\]"):
        Flow(torch.zeros(1, 2, 6, 8), occlusion=torch.zeros(1, 8, 6))
    with pytest.raises(ValueError, match="the occlusion is a list"):
        Flow(torch.zeros(1, 2, 6, 8), occlusion=[0])
    with pytest.raises(ValueError, match="the occlusion holds NaN"):
        Flow(torch.zeros(1, 2, 6, 8), occlusion=torch.full((1, 6, 8), float("nan")))
    with pytest.raises(ValueError, match=r"backward flow: got \[1, 2, 6, 9\], but the forward flow is \[1, 2, 6, 8\]"):
        occlusion_mask(torch.zeros(1, 2, 6, 8), torch.zeros(1, 2, 6, 9))
    with pytest.raises(ValueError, match="size: got 0x5"):
        resize_flow(torch.zeros(1, 2, 6, 8), (0, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_agrees_with_the_cpu():
    stack = torch.cat(list(CASES.values()))
    there = invert_flow(stack.cuda())
    assert torch.equal(there, invert_flow(stack.cuda()))
    assert (there.cpu() - invert_flow(stack)).abs().median() < 1e-4
    for pair, name in enumerate(CASES):
        errors = residuals(CASES[name], there[pair : pair + 1].cpu())
        assert errors[int(0.99 * (len(errors) - 1))] < 0.05
