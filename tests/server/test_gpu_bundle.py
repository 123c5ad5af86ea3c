"""What host/gpu.py unpacks on a bare machine."""

import os
import sys
import zipfile

import pytest
from papernodes.host import gpu, layout


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle with one wheel that is missing here, one for another Python, and a host."""
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(gpu, "BUNDLE", tmp_path / "bundle")
    monkeypatch.setattr(gpu, "BUILD", tmp_path / "build")
    monkeypatch.setattr(layout, "EMBEDDED_COMFYUI", tmp_path / "none")
    monkeypatch.setattr(gpu, "MODULES", {"pytest": ("pytest",), "newcomer": ("newcomer_xyz",), "other": ("other_xyz",)})
    (tmp_path / "bundle" / "wheels").mkdir(parents=True)
    for name, module in (("newcomer-1-py3-none-any", "newcomer_xyz"), ("other-1-cp27-cp27m-any", "other_xyz")):
        with zipfile.ZipFile(tmp_path / "bundle" / "wheels" / f"{name}.whl", "w") as archive:
            archive.writestr(f"{module}.py", "VALUE = 7\n")
    with zipfile.ZipFile(tmp_path / "bundle" / "ComfyUI.zip", "w") as archive:
        archive.writestr("comfy/ops.py", "")
    return tmp_path


def test_what_is_missing_is_unpacked_once_and_searched_last(bundle):
    assert gpu.unpack_missing() == {"other"}
    import newcomer_xyz

    assert newcomer_xyz.VALUE == 7
    assert sys.path[-1] == os.environ["PYTHONPATH"].split(os.pathsep)[-1]
    assert [path.name.split("-")[0] for path in (bundle / "build").iterdir()] == ["gpu"], "nothing unfinished stays"
    del sys.modules["newcomer_xyz"]


def test_the_host_is_unpacked_again_only_when_it_changed(bundle):
    first = gpu.host_code()
    assert (first / "comfy" / "ops.py").is_file()
    (first / "mark").touch()
    assert gpu.host_code() == first
    assert (first / "mark").is_file()
    with zipfile.ZipFile(bundle / "bundle" / "ComfyUI.zip", "w") as archive:
        archive.writestr("comfy/ops.py", "new")
    assert (gpu.host_code() / "comfy" / "ops.py").read_text() == "new"
    (bundle / "bundle" / "ComfyUI.zip").unlink()
    assert gpu.host_code() is None
