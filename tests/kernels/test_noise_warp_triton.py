"""The Triton path against the eager reference: on a CPU under Triton's interpreter, on a GPU as it is."""

import pytest
import torch
from noise_statistics import correlation, departures, moving_patch, shift, swirl, zoom

pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")

from papernodes.kernels.noise_warp import ALGORITHMS, NoiseWarper, warp_noise

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []  # with a GPU, "make test-gpu" runs all of this on it
DEVICE = torch.device("cuda" if CUDA else "cpu")
H, W = (480, 720) if CUDA else (16, 24)  # the interpreter is slow


def turbulence(height, width):
    return 3 * torch.randn(2, height, width, generator=torch.Generator().manual_seed(1))


FLOWS = {
    "zero": lambda: torch.zeros(2, H, W),
    "shift": lambda: shift(H, W, 3, -2),
    "pan": lambda: shift(H, W, 2.4, 0),
    "zoom in": lambda: zoom(H, W, 1.1),
    "zoom in by two": lambda: zoom(H, W, 2.0),
    "zoom out": lambda: zoom(H, W, 0.5),
    "long lists": lambda: zoom(H, W, 0.15),
    "swirl": lambda: swirl(H, W, 0.5),
    "occlusion": lambda: moving_patch(H, W),
    "turbulence": lambda: turbulence(H, W),
    "all leave": lambda: torch.full((2, H, W), 1e9),
    "not numbers": lambda: torch.full((2, H, W), float("nan")),
}


def pair(algorithm, channels, seed=0, slack=0.5):
    """A Triton and an eager warper in the same mid-clip state."""
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(H * W, channels, generator=generator).to(DEVICE)
    weights = (torch.rand(H * W, generator=generator) + 0.5).to(DEVICE)
    offsets = (torch.rand(H * W, 2, generator=generator) - 0.5).to(DEVICE)
    warpers = []
    for backend in ("triton", "eager"):
        warper = NoiseWarper(
            channels, H, W, seed=seed, device=DEVICE, algorithm=algorithm, backend=backend, slack=slack
        )
        warper._state.values = values.clone()
        if algorithm != "particle":
            warper._state.weights = weights.clone()
        if algorithm == "subpixel":
            warper._state.offsets = offsets.clone() if backend == "eager" else offsets.T.contiguous()
        warpers.append(warper)
    return warpers


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("name", "channels"),
    [(name, 5) for name in FLOWS] + [(name, count) for name in ("swirl", "zoom out") for count in (1, 4, 128)],
)
def test_agrees_with_the_reference_where_no_random_number_is_drawn(name, channels, algorithm):
    flow = FLOWS[name]().to(DEVICE)
    fast, reference = pair(algorithm, channels)
    if algorithm == "particle" and name == "not numbers":  # it needs the inverse flow, which such a flow has not
        for warper in (fast, reference):
            with pytest.raises(ValueError, match="NaN"):
                warper.step(flow)
        return
    _, other_draw = pair(algorithm, channels, seed=1)
    output = fast.step(flow, (H // 8, W // 8))
    reference.step(flow)
    other_draw.step(flow)
    drawn = (reference.values != other_draw.values).any(0)
    error = (fast.values - reference.values).abs().amax(0)
    largest_share = {"zero": 0.01, "shift": 0.3}
    if algorithm != "particle":  # which draws wherever motion is fractional
        largest_share |= {"pan": 0.7, "swirl": 0.7}
    assert drawn.float().mean() <= largest_share.get(name, 1.0), "almost nothing is left to compare"
    assert error[~drawn].numel() == 0 or error[~drawn].max() < 2e-6
    if algorithm != "particle":
        assert torch.allclose(fast.weights, reference.weights, rtol=2e-5)
    assert torch.isfinite(fast.values).all()
    assert torch.allclose(output, fast.noise((H // 8, W // 8)), atol=1e-5)
    if bool(drawn.any()):  # the drawn part is new noise, not a copy
        assert (fast.values - reference.values)[:, drawn].abs().mean() > 0.01


@pytest.mark.parametrize("backend", ["triton", "eager"])
def test_particle_takes_its_share_of_both_neighbours(backend):
    # Half a pixel to the right: a new pixel holds half of each neighbour's motion, (x_left + x_right) / 2 + a bridge.
    warper = NoiseWarper(64, H, W, seed=5, device=DEVICE, algorithm="particle", backend=backend)
    start = warper.values
    warper.step(shift(H, W, 0.5, 0.0))
    after = warper.values[:, :, 2:-2]
    left, right = start[:, :, 1:-3], start[:, :, 2:-2]
    error = 5 / after.numel() ** 0.5
    assert correlation(after, left) == pytest.approx(0.5, abs=error)
    assert correlation(after, right) == pytest.approx(0.5, abs=error)
    assert correlation(after, start[:, :, 3:-1]) == pytest.approx(0, abs=error)


@pytest.mark.parametrize("slack", [0.5, 2.0, 8.0])
def test_carried_offsets_agree(slack):
    fast, reference = pair("subpixel", 4, slack=slack)
    for flow in (swirl(H, W, 0.4), zoom(H, W, 0.9), shift(H, W, 0.45, 0.1)):
        fast.step(flow.to(DEVICE))
        reference.step(flow.to(DEVICE))
        assert torch.allclose(fast._state.offsets.T, reference._state.offsets, atol=1e-3)
    assert float(fast._state.offsets.abs().max()) <= slack + 1e-3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["zoom in by two", "turbulence"])
def test_two_runs_are_bit_identical(name, algorithm):
    flow = FLOWS[name]()
    runs = []
    for _ in range(2):
        warper = NoiseWarper(4, H, W, seed=3, device=DEVICE, algorithm=algorithm, backend="triton")
        for _ in range(2):
            output = warper.step(flow, (H // 4, W // 4))
        runs.append((warper.values, output))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["swirl", "zoom in by two"])
def test_drawn_numbers_keep_the_noise_white_and_gaussian(name, algorithm):
    frames, channels = (6, 8) if CUDA else (2, 32)
    warper = NoiseWarper(channels, H, W, seed=11, device=DEVICE, algorithm=algorithm, backend="triton")
    for _ in range(frames):
        warper.step(FLOWS[name]())
    found = departures(warper.values.cpu())
    assert max(map(abs, found.values())) < 4.5, found


def test_split_sources_sum_to_what_they_were():
    flow = torch.zeros(2, H, W)
    flow[0, 0::4, 1::4] = flow[0, 1::4, 1::4] = 1
    flow[1, 1::4, 0::4] = flow[1, 1::4, 1::4] = 1
    warper = NoiseWarper(4, H, W, seed=0, device=DEVICE, algorithm="nearest", backend="triton")
    start = warper.values
    warper.step(flow)
    after = warper.values
    copies = after[:, 0::4, 0::4] + after[:, 0::4, 1::4] + after[:, 1::4, 0::4] + after[:, 1::4, 1::4]
    assert torch.allclose(copies / 2, start[:, 0::4, 0::4], atol=4e-6)


def test_a_large_family_sums_to_its_parent():
    # nearest, zoom by two: the gaps' parents are the four pixels round the centre, each with many children.
    warper = NoiseWarper(4, H, W, seed=0, device=DEVICE, algorithm="nearest", backend="triton")
    start, flow = warper.values.double(), zoom(H, W, 2.0)
    warper.step(flow)
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    target_x, target_y = (x + flow[0]).round().long(), (y + flow[1]).round().long()
    real = (target_x >= 0) & (target_x < W) & (target_y >= 0) & (target_y < H)
    reached = torch.zeros(H, W, dtype=torch.bool)
    reached[target_y[real], target_x[real]] = True
    parent = ((y - flow[1].round()) * W + x - flow[0].round()).long()
    for number in parent[~reached].unique().tolist():
        members = (parent == number) & ~reached
        total = warper.values.double()[:, members.to(DEVICE)].sum(1)
        row, column = divmod(number, W)
        count = int(members.sum())
        assert count > 32  # else this is not the path under test
        if bool(real[row, column]):  # the parent's own copy belongs to the family
            total = total + warper.values.double()[:, target_y[row, column], target_x[row, column]]
            count += 1
        assert torch.allclose(total / count**0.5, start[:, row, column], atol=1e-4)


def test_the_first_frame_differs_between_seeds_and_channels():
    a = NoiseWarper(8, H, W, seed=1, device=DEVICE, backend="triton").values.cpu()
    b = NoiseWarper(8, H, W, seed=2**63 + 1, device=DEVICE, backend="triton").values.cpu()
    assert max(map(abs, departures(a).values())) < 4.5
    assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5


@pytest.mark.parametrize("oversample", [1, 2, 8])
def test_whole_clips(oversample):
    size = (4, 6)
    flow = swirl(8, 12, 0.5)[None].expand(3, -1, -1, -1)
    noise = warp_noise(flow, 3, size, seed=0, oversample=oversample, device=DEVICE, backend="triton")
    assert noise.shape == (4, 3, *size)
    assert torch.isfinite(noise).all()
    assert noise.std().item() == pytest.approx(1, abs=0.25)


@pytest.mark.gpu
def test_the_memory_estimate_holds():
    height, width, channels = 480, 720, 16
    for algorithm in ALGORITHMS[:2]:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        warper = NoiseWarper(channels, height, width, seed=0, device="cuda", algorithm=algorithm)
        for _ in range(3):
            warper.step(swirl(height, width).cuda(), (60, 90))
        peak = torch.cuda.max_memory_allocated() - before
        assert peak <= NoiseWarper.state_bytes(channels, height, width)
        del warper


@pytest.mark.gpu
def test_the_gpu_takes_the_triton_path_by_itself():
    assert NoiseWarper(4, 8, 8, seed=0, device="cuda").backend == "triton"
