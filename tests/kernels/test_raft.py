"""RAFT with random weights: loading and its report, sizes, padding, directions, determinism."""

import pytest
import torch
from papernodes.networks.raft import FILES, build_raft, load_raft, raft_flow, raft_memory

pytest.importorskip("torchvision")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of both sizes, through a file as a user's would come."""
    folder, result = tmp_path_factory.mktemp("raft"), {}
    for size in ("small", "large"):
        torch.manual_seed(3)
        path = folder / FILES[size]
        torch.save(build_raft(size).state_dict(), path)
        result[size] = torch.load(path, weights_only=True)
    return result


@pytest.fixture(scope="module")
def small(weights):
    return load_raft(weights["small"], "small")


def clip(frames=2, size=(128, 136), channels=3, seed=0):
    return torch.rand(frames, *size, channels, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", ["small", "large"])
def test_loads_what_was_saved(weights, size):
    network = load_raft(weights[size], size)
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())
    for key, value in network.state_dict().items():
        assert torch.equal(value, weights[size][key])


def test_outer_names_and_missing_counters_are_fine(weights):
    wrapped = {"state_dict": {f"module.{key}": value for key, value in weights["large"].items()}}
    network = load_raft(wrapped, "large")
    assert torch.equal(network.state_dict()["mask_predictor.conv.bias"], weights["large"]["mask_predictor.conv.bias"])
    bare = {key: value for key, value in weights["large"].items() if not key.endswith("num_batches_tracked")}
    assert len(bare) < len(weights["large"])
    load_raft(bare, "large")


@pytest.mark.parametrize("size", ["small", "large"])
def test_flow_has_the_frames_size(weights, size):
    result = raft_flow(load_raft(weights[size], size), clip(), iterations=1)
    assert result.shape == (1, 2, 128, 136) and result.dtype == torch.float32
    assert bool(torch.isfinite(result).all()) and result.abs().max() > 0


@pytest.mark.parametrize("size", [(1, 1), (5, 140), (131, 77)])
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_odd_and_tiny_sizes(small, size, factor):
    result = raft_flow(small, clip(size=size), factor=factor, iterations=1)
    assert result.shape == (1, 2, *size) and bool(torch.isfinite(result).all())


def test_it_is_the_network_on_frames_from_minus_one_to_one(small):
    frames = clip(3)
    pictures = (frames.permute(0, 3, 1, 2) * 2 - 1).contiguous()
    with torch.no_grad():
        expected = torch.cat([small(pictures[t : t + 1], pictures[t + 1 : t + 2], 2)[-1] for t in range(2)])
        reverse = torch.cat([small(pictures[t + 1 : t + 2], pictures[t : t + 1], 2)[-1] for t in range(2)])
    assert torch.allclose(raft_flow(small, frames, iterations=2), expected, atol=1e-4)
    assert torch.allclose(raft_flow(small, frames, direction="backward", iterations=2), reverse, atol=1e-4)
    assert not torch.allclose(expected, reverse, atol=1e-3)


def test_padding_continues_the_borders_evenly(small):
    frames = clip(size=(130, 139))
    padded = torch.nn.functional.pad(frames.permute(0, 3, 1, 2), (2, 3, 3, 3), mode="replicate")
    expected = raft_flow(small, padded.permute(0, 2, 3, 1), iterations=1)[:, :, 3:-3, 2:-3]
    assert torch.allclose(raft_flow(small, frames, iterations=1), expected, atol=1e-5)


def test_two_runs_agree_and_alpha_is_ignored(small):
    frames = clip(channels=4)
    first = raft_flow(small, frames, iterations=2)
    assert torch.equal(first, raft_flow(small, frames, iterations=2))
    assert torch.equal(first, raft_flow(small, frames[..., :3], iterations=2))
    gray = frames[..., :1]
    assert torch.equal(raft_flow(small, gray, iterations=1), raft_flow(small, gray.expand(-1, -1, -1, 3), iterations=1))


def test_callback_is_asked_before_every_pair(small):
    seen = []
    raft_flow(small, clip(3), iterations=1, on_frame=lambda pair, total: seen.append((pair, total)))
    assert seen == [(0, 2), (1, 2)]


def test_bad_frames(small):
    with pytest.raises(ValueError, match="optical flow needs at least 2"):
        raft_flow(small, clip(1))
    with pytest.raises(ValueError, match="frame 1 holds NaN"):
        raft_flow(small, torch.stack([clip()[0], torch.full((128, 136, 3), float("nan"))]))


def test_messages_about_the_wrong_file(weights):
    expected = "Expected torchvision's raft_small_C_T_V2-01064c6d.pth from https://download.pytorch.org/models/"
    with pytest.raises(
        ValueError, match=r"^my.pth: these are the weights of RAFT large, but RAFT small was chosen"
    ) as caught:
        load_raft(weights["large"], "small", "my.pth")
    assert expected in str(caught.value)
    with pytest.raises(ValueError, match=r"but RAFT large was chosen.*raft_large_C_T_SKHT_V2"):
        load_raft(weights["small"], "large", "my.pth")
    with pytest.raises(
        ValueError, match=r"^my.pth: these are not RAFT weights \(it holds unet.a, unet.b, unet.c and 2 more\)"
    ):
        load_raft({f"unet.{letter}": torch.zeros(1) for letter in "abcde"}, "small", "my.pth")
    with pytest.raises(ValueError, match="these are RAFT weights in the authors' own layout"):
        load_raft({"module.fnet.conv1.weight": torch.zeros(1)}, "small", "my.pth")
    for empty in ({}, [], {"state_dict": 3}):
        with pytest.raises(ValueError, match=r"^my.pth: it holds no weights"):
            load_raft(empty, "small", "my.pth")


def test_report_of_missing_unexpected_and_reshaped(weights):
    damaged = dict(weights["small"])
    key = (
        "flow_head.conv2.bias" if "flow_head.conv2.bias" in damaged else next(k for k in damaged if k.endswith("bias"))
    )
    damaged.pop(key)
    damaged["extra.weight"] = torch.zeros(3)
    weight = next(name for name in damaged if name.endswith("weight") and name != "extra.weight")
    damaged[weight] = torch.zeros(7)
    with pytest.raises(ValueError) as caught:
        load_raft(damaged, "small", "my.pth")
    message = str(caught.value)
    assert message.startswith("my.pth: the weights do not fit RAFT small.")
    assert f"Missing: {key}." in message and "Not expected: extra.weight." in message
    assert f"Of another shape: {weight} (the first is [7], expected" in message


def test_broken_weights(weights):
    broken = {key: value.clone() for key, value in weights["small"].items()}
    key = next(name for name in broken if name.endswith("weight"))
    broken[key].view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match=f"my.pth: the weights {key} hold NaN or infinite values; download"):
        load_raft(broken, "small", "my.pth")


def test_unknown_size():
    with pytest.raises(ValueError, match="RAFT size: got 'medium'; expected 'small' or 'large'"):
        build_raft("medium")


def test_missing_torchvision_is_one_sentence(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match="RAFT needs torchvision"):
        build_raft("small")


def test_memory_estimate_grows_with_the_fourth_power():
    assert raft_memory(1080, 1920) == pytest.approx(16 * raft_memory(540, 960), rel=0.05)
    assert raft_memory(1080, 1920, 0.5) == raft_memory(540, 960)
    assert raft_memory(1, 1) == raft_memory(128, 128)
