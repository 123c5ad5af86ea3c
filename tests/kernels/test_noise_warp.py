"""Laws of the noise warp, on the eager reference: every frame is white Gaussian noise, and it follows the flow."""

import pytest
import torch
from noise_statistics import (
    departures,
    kolmogorov_smirnov_p,
    moving_patch,
    shift,
    swirl,
    uniform_p,
    zoom,
)
from papernodes.benchmarks.tracking import correlation_along_flow
from papernodes.kernels.noise_warp import ALGORITHMS, NoiseWarper, choose_backend, slack_for, warp_noise
from papernodes.kernels.noise_warp_eager import normalise_weights

H, W = 48, 64
FLOWS = {
    "shift": lambda: shift(H, W, 2.3, -1.6),
    "zoom in": lambda: zoom(H, W, 1.07),
    "zoom in fast": lambda: zoom(H, W, 2.0),
    "zoom out": lambda: zoom(H, W, 0.9),
    "swirl": lambda: swirl(H, W, 0.3),
    "occlusion": lambda: moving_patch(H, W),
    "turbulence": lambda: 4 * torch.randn(2, H, W, generator=torch.Generator().manual_seed(3)),
}


def eager(algorithm, channels=4, height=H, width=W, seed=0):
    return NoiseWarper(channels, height, width, seed=seed, algorithm=algorithm, backend="eager")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", FLOWS)
def test_every_frame_is_white_gaussian_noise(name, algorithm):
    warper, flow, worst = eager(algorithm, channels=8), FLOWS[name](), {}
    for frame in range(25):
        warper.step(flow)
        if frame % 4 == 0:
            for statistic, value in departures(warper.values).items():
                worst[statistic] = max(worst.get(statistic, 0.0), abs(value))
    # Seven frames of seven statistics: 4.5 standard errors come by chance once in 3000 such tests.
    assert max(worst.values()) < 4.5, worst


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_hundred_frames_stay_gaussian_at_the_output(algorithm):
    flows = torch.stack([swirl(24, 32, 0.2), zoom(24, 32, 1.06), zoom(24, 32, 0.94), shift(24, 32, 0.7, 0.4)]).repeat(
        25, 1, 1, 1
    )
    noise = warp_noise(flows, 6, (24, 32), seed=5, oversample=1 if algorithm == "particle" else 2, algorithm=algorithm)
    assert noise.shape == (101, 6, 24, 32)
    worst = {
        statistic: max(abs(departures(noise[t])[statistic]) for t in (50, 90, 100))
        for statistic in departures(noise[0])
    }
    assert max(worst.values()) < 4.5, worst


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_kolmogorov_smirnov_p_is_uniform_over_seeds(algorithm):
    flow = swirl(24, 32, 0.4)[None].expand(3, -1, -1, -1)
    p = [
        kolmogorov_smirnov_p(warp_noise(flow, 4, (24, 32), seed=seed, oversample=1, algorithm=algorithm)[-1])
        for seed in range(60)
    ]
    assert uniform_p(p) > 1e-3, sorted(p)


def test_the_statistics_notice_what_they_are_for():
    noise = torch.randn(4, H, W, generator=torch.Generator().manual_seed(0))
    assert max(map(abs, departures(noise).values())) < 4.5
    smooth = (noise + noise.roll(1, -1)) / 2**0.5
    assert abs(departures(smooth)["neighbours in x"]) > 30
    assert abs(departures(smooth)["Moran's I"]) > 20
    assert abs(departures(noise * 1.1)["variance"]) > 10
    assert kolmogorov_smirnov_p(noise * 1.1) < 1e-4


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_zero_flow_leaves_every_bit(algorithm):
    warper = eager(algorithm)
    before = warper.values
    warper.step(torch.zeros(2, H, W))
    assert torch.equal(warper.values, before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_integer_shift_moves_the_noise_bit_for_bit(algorithm):
    warper = eager(algorithm)
    start = warper.values
    for step in range(1, 4):
        warper.step(shift(H, W, 3, -2))
        moved = warper.values[:, : H - 2 * step, 3 * step :]
        assert torch.equal(moved, start[:, 2 * step :, : W - 3 * step])


@pytest.mark.parametrize("algorithm", ["subpixel", "nearest"])
def test_zoom_out_by_two_is_the_normalised_sum_of_four(algorithm):
    warper = eager(algorithm)
    start = warper.values
    y, x = torch.meshgrid(torch.arange(H).float(), torch.arange(W).float(), indexing="ij")
    warper.step(torch.stack([(x / 2).floor() - x, (y / 2).floor() - y]))
    four = start.view(4, H // 2, 2, W // 2, 2).sum((2, 4)) / 2
    # Pixels beyond take copies of sources from three quarters on, which are split then; the rest is untouched.
    clean = (slice(None), slice(3 * H // 8), slice(3 * W // 8))
    assert torch.allclose(warper.values[clean], four[clean], atol=1e-6)


def test_zoom_in_by_two_splits_each_source_into_four():
    warper = eager("subpixel")
    start = warper.values
    y, x = torch.meshgrid(torch.arange(H).float(), torch.arange(W).float(), indexing="ij")
    warper.step(torch.stack([x, y]))  # pixel i moves to 2 i
    after = warper.values
    back = after.view(4, H // 2, 2, W // 2, 2).sum((2, 4)) / 2
    assert torch.allclose(back, start[:, : H // 2, : W // 2], atol=2e-6)
    assert after.view(4, H // 2, 2, W // 2, 2).var((2, 4)).mean() == pytest.approx(1, abs=0.1)  # and they differ


def test_nearest_splits_a_source_into_four_that_sum_to_it():
    # In every 4 x 4 cell: (0, 0) stays; (1, 0), (0, 1), (1, 1) move on by themselves and so copy (0, 0).
    flow = torch.zeros(2, H, W)
    flow[0, 0::4, 1::4] = flow[0, 1::4, 1::4] = 1
    flow[1, 1::4, 0::4] = flow[1, 1::4, 1::4] = 1
    warper = eager("nearest")
    start = warper.values
    warper.step(flow)
    after = warper.values
    copies = after[:, 0::4, 0::4] + after[:, 0::4, 1::4] + after[:, 1::4, 0::4] + after[:, 1::4, 1::4]
    assert torch.allclose(copies / 2, start[:, 0::4, 0::4], atol=2e-6)
    assert not torch.allclose(after[:, 0::4, 0::4], start[:, 0::4, 0::4] / 2)


def test_weights_are_divided_among_copies_and_drift_back_to_one():
    flow = torch.zeros(2, H, W)
    flow[0, 0::4, 1::4] = flow[0, 1::4, 1::4] = 1
    flow[1, 1::4, 0::4] = flow[1, 1::4, 1::4] = 1
    warper = eager("nearest")
    warper.step(flow)
    weights = warper.weights
    assert weights.mean() == pytest.approx(1, abs=1e-4)
    assert weights[0, 0] / weights[3, 3] == pytest.approx(1 / 4, rel=1e-3)  # one of four copies
    assert weights[0, 2] / weights[3, 3] == pytest.approx(2, rel=1e-3)  # two sources in one pixel
    for _ in range(1000):
        warper._state.weights = normalise_weights(warper._state.weights)
    assert (warper.weights.log().std() / weights.log().std()).item() == pytest.approx(0.9999**1000, rel=0.03)


@pytest.mark.slow
def test_nearest_follows_whole_pixel_tracks_as_the_published_algorithm_does():
    flow = swirl(128, 192)
    noise = warp_noise(flow[None].expand(24, -1, -1, -1), 4, (128, 192), seed=0, oversample=1, algorithm="nearest")
    along = correlation_along_flow(noise, flow[None].expand(24, -1, -1, -1), (1, 4, 8, 24), rounded=True)
    assert along == pytest.approx([0.98, 0.92, 0.86, 0.67], abs=0.015)
    flow = zoom(128, 192, 1.05)
    noise = warp_noise(flow[None].expand(24, -1, -1, -1), 4, (128, 192), seed=0, oversample=1, algorithm="nearest")
    along = correlation_along_flow(noise, flow[None].expand(24, -1, -1, -1), (1, 4, 8, 24), rounded=True)
    assert along == pytest.approx([0.97, 0.89, 0.79, 0.62], abs=0.02)


@pytest.mark.slow
def test_fractional_motion_is_followed():
    flow = swirl(128, 192)
    steps = flow[None].expand(8, -1, -1, -1)
    found = {
        algorithm: correlation_along_flow(
            warp_noise(steps, 4, (128, 192), seed=0, oversample=1, algorithm=algorithm), steps, (1, 4, 8), rounded=False
        )
        for algorithm in ALGORITHMS
    }
    # Real tracks: rounding in every step loses them, shares of bilinear neighbours keep some, carried offsets most.
    assert found["nearest"][1] < 0.22 and found["nearest"][2] < 0.13
    assert found["particle"][1] > found["nearest"][1] + 0.05 and found["particle"][2] > found["nearest"][2] + 0.03
    assert found["subpixel"][0] > 0.97 and found["subpixel"][1] > 0.75 and found["subpixel"][2] > 0.55


@pytest.mark.slow
def test_on_a_fine_grid_slack_keeps_neighbours_in_step():
    flow = swirl(64, 96)[None].expand(12, -1, -1, -1)
    crowded = {}
    for slack in (0.5, slack_for(8)):
        warper = NoiseWarper(1, 256, 384, seed=0, algorithm="subpixel", slack=slack)
        for vectors in flow:
            before = warper.weights
            warper.step(vectors)
        crowded[slack] = float((warper.weights / before - 1).abs().gt(0.2).float().mean())
    assert crowded[2.0] < 0.75 * crowded[0.5]  # weights change where values meet or split
    tracks = {
        algorithm: correlation_along_flow(
            warp_noise(flow, 4, (64, 96), seed=0, oversample=8, algorithm=algorithm), flow, (4, 12), rounded=False
        )
        for algorithm in ("subpixel", "nearest")
    }
    assert tracks["subpixel"][1] > tracks["nearest"][1] - 0.03


def test_slack_is_a_quarter_of_an_output_pixel_within_bounds():
    assert [slack_for(oversample) for oversample in (1, 2, 8, 32, 64)] == [0.5, 0.5, 2.0, 8.0, 8.0]
    for slack in (0.4, 9.0, float("nan")):
        with pytest.raises(ValueError, match="slack"):
            NoiseWarper(1, 4, 4, seed=0, slack=slack)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_gives_the_same_noise(algorithm):
    flow = swirl(20, 30, 0.5)[None].expand(3, -1, -1, -1)
    first = warp_noise(flow, 3, (10, 15), seed=2**64 - 1, oversample=2, algorithm=algorithm)
    again = warp_noise(flow, 3, (10, 15), seed=2**64 - 1, oversample=2, algorithm=algorithm)
    other = warp_noise(flow, 3, (10, 15), seed=1, oversample=2, algorithm=algorithm)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_the_output_is_the_weighted_area_sum():
    warper = eager("nearest")
    for _ in range(4):
        warper.step(zoom(H, W, 1.2))
    values, weights = warper.values, warper.weights
    weighted = (values * weights).view(4, 12, 4, 16, 4).sum((2, 4))
    expected = weighted / weights.square().view(12, 4, 16, 4).sum((1, 3)).sqrt()
    assert torch.allclose(warper.noise((12, 16)), expected, atol=1e-5)
    assert torch.equal(warper.noise((H, W)), values)
    fused = warper.step(zoom(H, W, 1.2), (12, 16))
    assert torch.equal(fused, warper.noise((12, 16)))


def test_a_flow_of_another_size_is_scaled_by_the_matching_ratio():
    small = shift(H // 2, W // 4, 1, 1)  # one pixel there is 4 to the right and 2 down on the state grid
    warper, direct = eager("nearest"), eager("nearest")
    warper.step(small)
    direct.step(shift(H, W, 4, 2))
    assert torch.equal(warper.values, direct.values)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "flow",
    [torch.full((1, 2, 5, 7), 1e9), torch.full((1, 2, 5, 7), -1e30), zoom(5, 7, -40.0)[None], zoom(5, 7, 0.0)[None]],
    ids=["far right", "far left", "thrown about", "all to one pixel"],
)
def test_extreme_motion_still_gives_noise(flow, algorithm):
    noise = warp_noise(flow.expand(3, -1, -1, -1), 4, (5, 7), seed=0, oversample=4, algorithm=algorithm)
    assert torch.isfinite(noise).all()
    assert noise.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_when_everything_leaves_the_noise_is_new(algorithm):
    noise = warp_noise(torch.full((1, 2, 30, 40), 1000.0), 4, (30, 40), seed=0, oversample=1, algorithm=algorithm)
    assert max(map(abs, departures(noise[1]).values())) < 4.5
    assert abs(float((noise[0] * noise[1]).mean())) < 5 / noise[0].numel() ** 0.5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (3, 5)])
def test_odd_and_tiny_sizes(size, algorithm):
    noise = warp_noise(torch.rand(2, 2, 11, 13) * 3, 1, size, seed=0, oversample=3, algorithm=algorithm)
    assert noise.shape == (3, 1, *size)
    assert torch.isfinite(noise).all()


def test_a_vector_that_is_no_number_leaves_the_image():
    flow = torch.zeros(2, H, W)
    flow[:, 10:20, 10:20] = float("nan")
    for algorithm in ("subpixel", "nearest"):
        warper = eager(algorithm)
        before = warper.values
        warper.step(flow)
        outside = torch.ones(H, W, dtype=torch.bool)
        outside[9:21, 9:21] = False  # a gap's parent may be a neighbour of the hole, and is split then
        assert torch.equal(warper.values[:, outside], before[:, outside])
        assert torch.isfinite(warper.values).all()


def test_on_frame_may_stop_within_one_frame():
    seen = []

    def stop(index, frames):
        seen.append((index, frames))
        if index == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        warp_noise(torch.zeros(9, 2, 4, 4), 1, (4, 4), seed=0, oversample=1, on_frame=stop)
    assert seen == [(0, 10), (1, 10), (2, 10)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": torch.zeros(2, 8, 8)}, "flow"),
        ({"flow": torch.zeros(0, 2, 8, 8)}, "at least 2 frames"),
        ({"flow": torch.full((1, 2, 8, 8), float("nan"))}, "NaN"),
        ({"flow": torch.zeros(1, 3, 8, 8)}, "channel 0 = dx"),
        ({"channels": 0}, "at least 1"),
        ({"size": (0, 4)}, "at least 1"),
        ({"oversample": 0}, "oversample"),
        ({"algorithm": "bilinear"}, "subpixel, nearest, particle"),
        ({"backend": "cuda"}, "auto, eager, triton"),
        ({"size": (40000, 40000)}, "too large"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"flow": torch.zeros(1, 2, 8, 8), "channels": 4, "size": (4, 4), "oversample": 2} | change
    flow, channels, size = arguments.pop("flow"), arguments.pop("channels"), arguments.pop("size")
    with pytest.raises(ValueError, match=message):
        warp_noise(flow, channels, size, seed=0, **arguments)


def test_output_sizes_must_divide_the_grid():
    warper = eager("nearest")
    with pytest.raises(ValueError, match="does not divide"):
        warper.noise((7, 8))
    with pytest.raises(ValueError, match="does not divide"):
        warper.step(torch.zeros(2, H, W), (7, 8))
    with pytest.raises(ValueError, match=r"\[2, H, W\]"):
        warper.step(torch.zeros(1, 2, H, W))


def test_the_cpu_takes_the_eager_path_by_itself():
    assert choose_backend("auto", torch.device("cpu")) == "eager"
