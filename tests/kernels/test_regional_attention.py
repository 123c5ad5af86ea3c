"""Regional attention: each query against dense attention to its own keys, plans, no NaN; Triton against eager torch."""

import pytest
import torch
from papernodes.kernels.regional_attention import plan_regions, regional_attention

CUDA = torch.cuda.is_available()
pytestmark = [pytest.mark.gpu] if CUDA else []  # with a GPU, "make test-gpu" runs all of this on it
DEVICE = torch.device("cuda" if CUDA else "cpu")
BLOCKS = {} if CUDA else {"block_queries": 32, "block_keys": 16}  # the interpreter is slow
BACKENDS = ["eager", "triton"]


def tokens(batch, heads, queries, keys, width, dtype=torch.float32, seed=0):
    """q as a host hands it on, its heads beside each other; k and v."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(batch, length, heads, width, generator=generator).to(DEVICE, dtype).transpose(1, 2)
        for length in (queries, keys, keys)
    )
    return q, k.contiguous(), v


def regions(rows, length, most, seed, none=0.1):
    """Sets of one or two regions of ``most``, some of none."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (1 << torch.randint(0, most, (rows, length), generator=generator) for _ in range(2))
    alone = torch.rand(rows, length, generator=generator)
    found = torch.where(alone < 0.5, first, first | second)
    return torch.where(alone < none, 0, found).to(DEVICE)


def by_hand(q, k, v, query_regions, key_regions, scale=None):
    """Every query by itself: dense attention to the keys that it may see."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (tensor.double().cpu() for tensor in (q, k, v))
    result = torch.zeros_like(q)
    for row in range(q.shape[0]):
        seen = query_regions[row % len(query_regions)].cpu(), key_regions[row % len(key_regions)].cpu()
        for place in range(q.shape[2]):
            keys = (seen[0][place] & seen[1]) != 0
            if keys.any():
                logits = torch.einsum("hd,hkd->hk", q[row, :, place], k[row][:, keys]) * scale
                result[row, :, place] = torch.einsum("hk,hkd->hd", logits.softmax(-1), v[row][:, keys])
    return result


CASES = {  # batch, heads, queries, keys, channels, rows of regions, regions
    "one row for all": (2, 2, 70, 45, 40, (1, 1), 5),
    "a row each": (2, 1, 33, 64, 32, (2, 2), 62),
    "keys the same for all": (2, 3, 64, 19, 64, (2, 1), 3),
    "one token": (1, 1, 1, 1, 128, (1, 1), 1),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_each_query_sees_its_keys_and_no_others(case, backend):
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")
    *sizes, rows, most = CASES[case]
    q, k, v = tokens(*sizes)
    query_regions, key_regions = regions(rows[0], sizes[2], most, 1), regions(rows[1], sizes[3], most, 2)
    expected = by_hand(q, k, v, query_regions, key_regions)
    blind = ((query_regions[:, :, None] & key_regions[:, None, :]) != 0).any(-1).logical_not()
    for ordered in (True, False):
        plan = plan_regions(query_regions, key_regions, ordered=ordered, backend=backend, **BLOCKS)
        for _ in range(2):  # a plan serves any number of calls
            found = regional_attention(q, k, v, plan, backend=backend)
            torch.testing.assert_close(found.double().cpu(), expected, rtol=0, atol=1e-5)
        assert backend == "eager" or found.stride() == q.stride()
        assert not found.masked_select(blind[:, None, :, None].expand_as(found)).any()
        assert (found == 0).any() == blind.any()
    found = regional_attention(q, k, v, query_regions, key_regions, scale=0.4, backend=backend)
    torch.testing.assert_close(
        found.double().cpu(), by_hand(q, k, v, query_regions, key_regions, 0.4), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_numbers_and_nobody_to_look_at_give_no_nan(backend):
    if backend == "triton":
        pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")
    q, k, v = tokens(1, 2, 40, 40, 32)
    apart = torch.ones(1, 40, dtype=torch.int64, device=DEVICE)
    assert not regional_attention(q, k, v, apart, 2 * apart, backend=backend).any()
    assert not regional_attention(q, k, v, 0 * apart, apart, backend=backend).any()
    same = regions(1, 40, 4, 3)
    found = regional_attention(100 * q, 100 * k, v, same, same, backend=backend)
    torch.testing.assert_close(found.double().cpu(), by_hand(100 * q, 100 * k, v, same, same), rtol=0, atol=1e-3)
    none = regional_attention(q, k[:, :, :0], v[:, :, :0], apart, apart[:, :0], backend=backend)
    assert none.shape == q.shape
    assert not none.any()
    assert regional_attention(q[:, :, :0], k, v, apart[:, :0], apart, backend=backend).shape == (1, 2, 0, 32)


def test_queries_in_parts_are_the_whole(monkeypatch):
    q, k, v = tokens(2, 2, 50, 30, 16)
    sets = regions(2, 50, 4, 1), regions(1, 30, 4, 2)
    whole = regional_attention(q, k, v, *sets, backend="eager")
    monkeypatch.setattr("papernodes.kernels.regional_attention.LARGEST_MASK", 7 * 60)
    torch.testing.assert_close(regional_attention(q, k, v, *sets, backend="eager"), whole, rtol=0, atol=1e-6)


SHAPES = [(1, 2, 97, 130, 64), (2, 1, 80, 53, 96)]
if CUDA:
    SHAPES = [(2, 3, 1000, 777, 64), (1, 2, 2049, 2049, 128), (1, 4, 4096, 431, 40), (2, 2, 333, 500, 96)]


# Triton's interpreter multiplies no bfloat16.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16] + [torch.bfloat16] * CUDA, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_triton_attends_as_eager_torch_does(shape, dtype):
    pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")
    q, k, v = tokens(*shape, dtype)
    query_regions, key_regions = regions(1, shape[2], 6, 1), regions(1, shape[3], 6, 2)
    # A whole stretch of one region, as a sorted layout has it: blocks without a mask.
    query_regions[:, 20:], key_regions[:, 10:] = 2, 2
    slow = regional_attention(q.float(), k.float(), v.float(), query_regions, key_regions, backend="eager")
    for ordered in (True, False):
        plan = plan_regions(query_regions, key_regions, ordered=ordered, backend="triton", **BLOCKS)
        assert 0 < plan.lists.full.sum() < plan.lists.visited.sum()
        fast = regional_attention(q, k, v, plan, backend="triton")
        assert fast.dtype == dtype
        close = {torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}[dtype]
        assert (fast.float() - slow).abs().max() < close


def test_lists_hold_the_blocks_that_meet_and_no_others():
    pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")
    query_regions, key_regions = regions(2, 70, 3, 5), regions(2, 90, 3, 6)
    key_regions[:, 40:] = 8  # nobody's
    lists = plan_regions(query_regions, key_regions, block_queries=16, block_keys=32, backend="triton").lists
    meets = (lists.query_regions[:, :, None] & lists.key_regions[:, None, :]) != 0
    meets = meets.unflatten(2, (-1, 32)).unflatten(1, (-1, 16))  # [B, query blocks, 16, key blocks, 32]
    some, every = meets.any(-1).any(2), meets.all(-1).all(2)
    for row in range(2):
        for block in range(some.shape[1]):
            listed = lists.blocks[row, block, : lists.visited[row, block]].tolist()
            assert sorted(listed) == some[row, block].nonzero()[:, 0].tolist()
            full = listed[: lists.full[row, block]]
            assert all(bool(every[row, block, number]) for number in full)
        assert sorted(lists.query_order[row].tolist()) == [*range(70), *[70] * 10]
        assert sorted(lists.queue[row].tolist()) == list(range(5))
    assert lists.share() == pytest.approx(float(some.float().mean()))


def test_gradients_and_wide_heads_take_the_eager_path():
    q, k, v = tokens(1, 1, 6, 5, 160)
    sets = regions(1, 6, 2, 1, none=0), regions(1, 5, 2, 2, none=0)
    assert regional_attention(q, k, v, *sets).shape == q.shape
    q, k, v = (tensor[..., :8].detach().requires_grad_() for tensor in (q, k, v))
    regional_attention(q, k, v, *sets).sum().backward()
    assert bool(v.grad.any())
    assert bool(q.grad.isfinite().all())


def test_bad_input():
    pytest.importorskip("triton", reason="Triton is not installed here (Windows, macOS): the eager path serves")
    q, k, v = tokens(2, 1, 6, 5, 16)
    sets = regions(1, 6, 2, 1), regions(1, 5, 2, 2)
    wide = tokens(2, 1, 6, 5, 160)
    for call, message in (
        (lambda: regional_attention(q, k, v[:, :, :4], *sets), "q, k, v: got"),
        (lambda: regional_attention(q, k.half(), v, *sets), "one floating point dtype"),
        (lambda: regional_attention(q, k, v, sets[0][:, :5], sets[1]), "query_regions: got shape"),
        (lambda: regional_attention(q, k, v, sets[0], sets[1].expand(3, -1)), "key_regions: got shape"),
        (lambda: regional_attention(q, k, v, sets[0]), "key_regions: got None"),
        (lambda: regional_attention(q, k, v, *sets, scale=0), "scale: got 0"),
        (lambda: regional_attention(*wide, *sets, backend="triton"), "at most 128 channels"),
        (lambda: regional_attention(q, k, v, *sets, backend="fast"), "backend must be one of"),
        (lambda: plan_regions(*sets, block_keys=24, backend="triton"), "block_queries, block_keys: got .*24"),
        (lambda: plan_regions(sets[0].int(), sets[1]), "query_regions: got torch.int32"),
        (lambda: plan_regions(sets[0].expand(2, -1), sets[1].expand(3, -1)), "key_regions: got 3 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
