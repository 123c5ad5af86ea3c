"""Blob Adapter as the host runs it: the list of files, the shipped one, a person's own, what it refuses."""

import folder_paths
import pytest
import torch
from papernodes.networks.demo_blob_adapter import KIND, initial
from papernodes.nodes.blob_adapter import MODEL_FOLDER, BlobAdapterNode
from papernodes.nodes.demo_adapters import BLOB_ADAPTERS
from papernodes.nodes.demo_checkpoint import DemoCheckpoint
from papernodes.patches.blob_adapter import KEY
from safetensors.torch import save_file
from tiny_models import tiny_model

(OURS,) = BLOB_ADAPTERS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """models/blob_adapters, empty."""
    known = ([str(tmp_path)], set(folder_paths.supported_pt_extensions))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, MODEL_FOLDER, known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture(scope="module")
def model():
    return DemoCheckpoint.execute("image").args[0]


def test_the_list(folder):
    assert OURS.endswith(f"_{KIND}.safetensors")
    assert BlobAdapterNode.define_schema().inputs[1].options == [OURS]
    save_file({"x": torch.zeros(1)}, folder / "mine.safetensors")
    folder_paths.filename_list_cache.clear()
    assert BlobAdapterNode.define_schema().inputs[1].options == ["mine.safetensors", OURS]


def test_the_shipped_file_and_ones_own(folder, model):
    (shipped,) = BlobAdapterNode.execute(model, OURS, 1.0).args
    (beside,) = shipped.get_additional_models_with_key(KEY)
    assert len(beside.model.blocks) == 16 and float(beside.model.blocks["middle_0_0"].gate.abs()) > 0
    assert shipped.model is model.model and not model.get_additional_models_with_key(KEY)
    (off,) = BlobAdapterNode.execute(model, OURS, 0.0).args
    assert off is not model and not off.get_additional_models_with_key(KEY)
    save_file({name: value.half() for name, value in initial(0).items()}, folder / "mine.safetensors")
    (mine,) = BlobAdapterNode.execute(model, "mine.safetensors", 1.5).args
    (beside,) = mine.get_additional_models_with_key(KEY)
    assert next(beside.model.parameters()).dtype == torch.float16


def test_wrong_choices(folder, model):
    save_file({"x": torch.zeros(1)}, folder / "other.safetensors")
    (folder / "broken.safetensors").write_bytes(b"12345678")
    for chosen, said in (
        ((model, "gone.safetensors", 1.0), r"'adapter': gone\.safetensors is not in .* Get it from whoever trained it"),
        ((model, "../x.safetensors", 1.0), r"'adapter': \.\./x\.safetensors is not in"),
        ((model, "other.safetensors", 1.0), r"'adapter': other\.safetensors is no blob adapter: it holds x; expected"),
        ((model, "broken.safetensors", 1.0), r"'adapter': broken\.safetensors cannot be read as weights"),
        ((model, OURS, 2.5), r"'strength' is 2\.5"),
        ((tiny_model("sd15"), OURS, 1.0), r"'adapter' does not fit 'model': .*Choose an adapter trained for this"),
        ((tiny_model("wan"), OURS, 1.0), r"'model' is a .*, which is no UNet"),
    ):
        with pytest.raises(ValueError, match=said):
            BlobAdapterNode.execute(*chosen)
