"""The files of the demonstration models: what is stored, what comes back, what is refused."""

import pytest
import torch
from papernodes.networks import demo_format
from papernodes.networks.demo_format import DemoFileError
from safetensors import safe_open
from safetensors.torch import save_file


def make_state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "convolution.weight": torch.randn(16, 8, 3, 3, generator=generator),
        "linear.weight": torch.randn(40, 64, generator=generator) * torch.logspace(-3, 1, 40).unsqueeze(1),
        "norm.weight": torch.randn(2048, generator=generator),
        "small.weight": torch.randn(16, 8, generator=generator),
        "vocabulary": torch.arange(300),
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "model.safetensors"
    demo_format.save(path, make_state(), {"kind": "image_unet", "steps": "12"})
    return path


def test_large_matrices_are_packed_and_nothing_else():
    packed = demo_format.pack(make_state())
    dtypes = {name: value.dtype for name, value in packed.items()}
    assert dtypes == {
        "convolution.weight": torch.int8,
        "convolution.weight.scale": torch.float16,
        "linear.weight": torch.int8,
        "linear.weight.scale": torch.float16,
        "norm.weight": torch.float16,
        "small.weight": torch.float16,
        "vocabulary": torch.int64,
    }
    assert packed["linear.weight.scale"].shape == (40,)


def test_the_error_is_half_a_step_of_each_channel():
    state = make_state()
    restored = demo_format.unpack(demo_format.pack(state))
    assert list(restored) == list(state)
    for name in ("convolution.weight", "linear.weight"):
        error = (restored[name] - state[name]).flatten(1).abs().amax(1)
        largest = state[name].flatten(1).abs().amax(1)
        assert bool((error <= largest / 127 * 0.51 + largest * 2**-10).all())
    assert torch.equal(restored["vocabulary"], state["vocabulary"])
    assert torch.equal(restored["norm.weight"], state["norm.weight"].half().float())


def test_packing_twice_changes_nothing():
    once = demo_format.unpack(demo_format.pack(make_state()))
    twice = demo_format.unpack(demo_format.pack(once))
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, rtol=1e-3, atol=0)


def test_zero_and_tiny_channels_stay_finite():
    weight = torch.zeros(4, 512)
    weight[1] = 1e-9
    weight[2, 0] = 3.0
    restored = demo_format.unpack(demo_format.pack({"weight": weight}))["weight"]
    torch.testing.assert_close(restored, weight, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_values_that_cannot_be_stored_are_refused(value):
    for shape in ((4,), (4, 512)):
        weight = torch.zeros(shape)
        weight.view(-1)[0] = value
        with pytest.raises(ValueError, match="weight"):
            demo_format.pack({"weight": weight})


def test_unpack_in_another_dtype():
    restored = demo_format.unpack(demo_format.pack(make_state()), torch.float16)
    assert restored["linear.weight"].dtype == torch.float16
    assert restored["vocabulary"].dtype == torch.int64


def test_a_weight_that_is_called_scale_survives():
    state = {"norm.scale": torch.ones(3), "norm": torch.ones(3)}
    assert set(demo_format.unpack(demo_format.pack(state))) == set(state)


def test_save_and_load(path):
    state, metadata = demo_format.load(path, "image_unet")
    expected = demo_format.unpack(demo_format.pack(make_state()))
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert metadata == {
        "kind": "image_unet",
        "steps": "12",
        "format": "papernodes-demo",
        "world_version": str(demo_format.WORLD_VERSION),
        "licence": "CC0-1.0",
    }
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_unpacked_files_hold_float16_that_anyone_can_read(tmp_path):
    path = tmp_path / "vae.safetensors"
    shared = torch.randn(64, 64)
    demo_format.save(path, {"a": shared, "b": shared.T}, {"kind": "image_vae"}, packed=False)
    with safe_open(path, framework="pt") as file:
        assert torch.equal(file.get_tensor("b"), shared.T.half())
    assert torch.equal(demo_format.load(path, "image_vae")[0]["a"], shared.half().float())


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(demo_format.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        demo_format.save(path, {"weight": torch.ones(3)}, {"kind": "reader"})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_save_refuses_what_load_would_refuse(tmp_path):
    with pytest.raises(ValueError, match="kind"):
        demo_format.save(tmp_path / "x", {}, {"kind": "video"})
    with pytest.raises(ValueError, match="steps must be text"):
        demo_format.save(tmp_path / "x", {}, {"kind": "reader", "steps": 3})


def refused(path, kind="image_unet") -> str:
    """What the person reads; the header alone must be enough to know."""
    with pytest.raises(DemoFileError) as caught:
        demo_format.load(path, kind)
    message = str(caught.value)
    with pytest.raises(DemoFileError):
        demo_format.read_metadata(path, kind)
    assert path.name in message
    assert str(path.parent) in message
    return message


def test_missing_file(path):
    path.unlink()
    message = refused(path)
    assert "is missing" in message
    assert f"`git checkout -- {path.name}` in that folder" in message


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.999])
def test_half_downloaded_file(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "damaged or only partly downloaded" in refused(path)


def test_file_with_bytes_to_spare(path):
    path.write_bytes(path.read_bytes() + b"more")
    assert "damaged" in refused(path)


def test_file_of_noise(path):
    path.write_bytes(bytes(range(256)) * 64)
    assert "damaged" in refused(path)


def test_git_lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    message = refused(path)
    assert "Git LFS pointer" in message
    assert "git lfs pull" in message


def test_weights_that_are_not_finite(path):
    _, metadata = demo_format.load(path, "image_unet")
    save_file({"weight": torch.tensor([1.0, float("nan")])}, path, metadata=metadata)
    with pytest.raises(DemoFileError, match="weight holds NaN"):
        demo_format.load(path, "image_unet")


def test_another_kind(path):
    message = refused(path, "image_text_encoder")
    assert "'image_unet'" in message
    assert "'image_text_encoder'" in message


def test_somebody_elses_file(path):
    save_file({"weight": torch.ones(3)}, path)
    assert "something else" in refused(path)


def test_another_world_version(path, monkeypatch):
    monkeypatch.setattr(demo_format, "WORLD_VERSION", 7)
    message = refused(path)
    assert "version 1 of the drawn world" in message
    assert "needs version 7" in message
    assert "update" in message


def test_weights_of_another_network(path):
    state = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    demo_format.check_fit(path, state, state)
    with pytest.raises(DemoFileError) as caught:
        demo_format.check_fit(path, state, {"a": torch.ones(3), "b": torch.ones(2), "d": torch.ones(1)})
    message = str(caught.value)
    assert "1 missing (first d); 1 not expected (first c); 1 of another shape (first a)" in message
    assert path.name in message
