"""The reweighting against a plain singular value decomposition, and its laws."""

import pytest
import torch
from papernodes.kernels import singular_values
from papernodes.kernels.singular_values import EXPRESS, SUPPRESS, Curve, reweight_rows, reweight_story

SEEDS = (0, 1, 2)


def by_svd(x, curve):
    """The paper's own way: X^T = U diag(s) V^T, s' = beta s exp(-alpha s)."""
    u, s, vh = torch.linalg.svd(x.double().mT, full_matrices=False)
    return (u @ torch.diag_embed(curve.beta * s * torch.exp(-curve.alpha * s)) @ vh).mT.to(x)


def random_states(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rows_of(n, *chosen):
    rows = torch.zeros(n, dtype=torch.bool)
    rows[list(chosen)] = True
    return rows


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("curve", [EXPRESS, SUPPRESS, Curve(0.0, 2.0), Curve(0.3, 0.7), Curve(-0.02, 1.5)])
@pytest.mark.parametrize(("n", "d", "chosen"), [(77, 768, range(3, 77)), (77, 1280, (5, 6, 9)), (9, 4, range(9))])
def test_equals_a_singular_value_decomposition(seed, curve, n, d, chosen):
    states, rows = random_states(n, d, seed=seed), rows_of(n, *chosen)
    result = reweight_rows(states, rows, curve)
    close(result[rows], by_svd(states[rows], curve), 2e-5)
    assert torch.equal(result[~rows], states[~rows])


def test_equal_rows_and_rows_of_zeros():
    """Padding rows are nearly equal, so X has hardly any rank."""
    states = random_states(1, 32).expand(12, 32).clone()
    rows = rows_of(12, *range(12))
    close(reweight_rows(states, rows, EXPRESS), by_svd(states, EXPRESS))
    zeros = torch.zeros(12, 32)
    assert torch.equal(reweight_rows(zeros, rows, EXPRESS), zeros)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype):
    states, rows = random_states(20, 48, dtype=dtype), rows_of(20, *range(2, 15))
    result = reweight_rows(states, rows, SUPPRESS)
    assert result.dtype == dtype
    expected = by_svd(states[rows].double(), SUPPRESS).to(dtype)
    close(result[rows], expected, {torch.float16: 1e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-5))


def test_a_batch_is_its_items():
    states = random_states(3, 20, 16)
    rows = torch.stack([rows_of(20, 1, 2, 3), rows_of(20, *range(20)), rows_of(20)])
    together = reweight_rows(states, rows, EXPRESS)
    for item in range(3):
        close(together[item], reweight_rows(states[item], rows[item], EXPRESS))
    assert torch.equal(together[2], states[2])
    shared = reweight_rows(states, rows[0], EXPRESS)
    close(shared[1], reweight_rows(states[1], rows[0], EXPRESS))


def test_the_order_of_rows_does_not_matter():
    states, order = random_states(15, 30), torch.randperm(15, generator=torch.Generator().manual_seed(3))
    rows = rows_of(15, *range(15))
    close(reweight_rows(states[order], rows, EXPRESS), reweight_rows(states, rows, EXPRESS)[order])


def test_alpha_0_and_beta_1_change_nothing():
    states, rows = random_states(10, 8), rows_of(10, 2, 3, 4)
    close(reweight_rows(states, rows, Curve(0.0, 1.0)), states, 1e-6)


def story_by_svd(states, suppressed, expressed, ends, mode, suppress, express):
    states = states.clone()
    for words, curve in [*((words, suppress) for words in suppressed), (expressed, express)]:
        if mode == "svr":
            chosen = words | ends
        else:
            states[ends] *= 0.9
            chosen = words
        states[chosen] = by_svd(states[chosen], curve)
    return states


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("mode", singular_values.MODES)
def test_a_story_suppresses_in_order_and_then_expresses(seed, mode):
    states = random_states(30, 24, seed=seed)
    texts = [rows_of(30, *part) for part in ((4, 5, 6), (7, 8), (9, 10, 11, 12))]
    ends = rows_of(30, *range(13, 30))
    result = reweight_story(states, texts[1:], texts[0], ends, mode=mode)
    close(result, story_by_svd(states, texts[1:], texts[0], ends, mode, SUPPRESS, EXPRESS), 2e-5)
    assert torch.equal(result[:4], states[:4])  # the beginning and the identity
    if mode == "svr-eot":
        close(result[ends], states[ends] * 0.9**3)
        return
    for other in (
        reweight_story(states, texts[1:][::-1], texts[0], ends),
        reweight_story(reweight_story(states, [], texts[0], ends), texts[1:], None, ends),
    ):
        assert (other - result).abs().max() > 1e-4  # the order matters


def test_a_batch_of_frames_with_different_numbers_of_texts():
    states = random_states(2, 20, 16)
    ends, none = rows_of(20, *range(12, 20)), rows_of(20)
    first, second, third = rows_of(20, 3, 4), rows_of(20, 5, 6, 7), rows_of(20, 8)
    suppressed = [torch.stack([second, first]), torch.stack([third, none])]
    together = reweight_story(states, suppressed, torch.stack([first, second]), ends)
    close(together[0], reweight_story(states[0], [second, third], first, ends))
    close(together[1], reweight_story(states[1], [first], second, ends))


def test_the_inputs_are_left_alone():
    states, rows = random_states(10, 8), rows_of(10, 2, 3)
    copies = states.clone(), rows.clone()
    reweight_story(states, [rows], rows, rows_of(10, 9), mode="svr-eot")
    assert torch.equal(states, copies[0]) and torch.equal(rows, copies[1])


@pytest.mark.parametrize(
    ("states", "rows", "curve", "message"),
    [
        (torch.zeros(5), torch.ones(5, dtype=torch.bool), EXPRESS, r"states must be floating point \[\.\.\., n, d\]"),
        (torch.zeros(5, 3, dtype=torch.int64), torch.ones(5, dtype=torch.bool), EXPRESS, "int64"),
        (torch.zeros(5, 3), torch.ones(5), EXPRESS, "rows must be bool; got torch.float32"),
        (torch.zeros(5, 3), torch.ones(4, dtype=torch.bool), EXPRESS, r"rows must be \[\.\.\., 5\].*got \[4\]"),
        (torch.zeros(2, 5, 3), torch.ones(3, 5, dtype=torch.bool), EXPRESS, r"got \[3, 5\]"),
        (torch.zeros(5, 3), torch.ones(5, dtype=torch.bool), Curve(0.0, -1.0), "beta at least 0"),
        (torch.zeros(5, 3), torch.ones(5, dtype=torch.bool), Curve(float("nan"), 1.0), "alpha must be finite"),
        (torch.full((5, 3), 1e5), torch.ones(5, dtype=torch.bool), Curve(-0.1, 1.0), "overflows"),
    ],
)
def test_bad_input(states, rows, curve, message):
    with pytest.raises(ValueError, match=message):
        reweight_rows(states, rows, curve)


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="svr, svr-eot; got 'x'"):
        reweight_story(torch.zeros(5, 3), [], None, rows_of(5), mode="x")
