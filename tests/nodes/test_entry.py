"""The pack as the host loads it: entry point, model folders, import time, and what one broken module does."""

import json
import logging
import subprocess
import sys
import types
from pathlib import Path

import papernodes.nodes as pack_nodes
import pytest
from comfy_api.latest import io
from papernodes import __path__ as pack_path

ROOT = Path(pack_path[0])

LOAD = """
import asyncio, importlib.util, json, logging, sys, time
sys.path.append({host!r})
import comfy.cli_args
comfy.cli_args.args.cpu = True
comfy.cli_args.args.base_directory = {base!r}
import folder_paths
folder_paths.add_model_folder_path("optical_flow", {users!r})
folder_paths.add_model_folder_path("loras", {users!r})
import comfy.sample, comfy.sd, comfy_api.latest
sys.dont_write_bytecode, sys.pycache_prefix = False, {bytecode!r}
before, start = set(sys.modules), time.process_time()
spec = importlib.util.spec_from_file_location("pack", {init!r}, submodule_search_locations=[{root!r}])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
async def load():
    return await (await pack.comfy_entrypoint()).get_node_list()
found = asyncio.run(load())
seconds = time.process_time() - start
from pack.nodes import skipped
print(json.dumps(dict(
    seconds=seconds, ids=[node.GET_SCHEMA().node_id for node in found], skipped=skipped, web=pack.WEB_DIRECTORY,
    added=sorted({{name.split(".")[0] for name in set(sys.modules) - before}}),
    folders=folder_paths.get_folder_paths("optical_flow"), loras=folder_paths.get_folder_paths("loras"),
    v1=hasattr(pack, "NODE_CLASS_MAPPINGS"),
    endings=sorted(folder_paths.folder_names_and_paths["optical_flow"][1]),
)))
"""


@pytest.fixture(scope="module")
def loaded(host_path, tmp_path_factory):
    """What a fresh process finds after it imported the host and then the pack, and ``again``: what the next one does.

    The first one compiles the pack's 175 modules; bytecode is kept, whatever the environment says.
    """
    base = tmp_path_factory.mktemp("base")
    script = LOAD.format(
        host=str(host_path),
        base=str(base),
        bytecode=str(base / "bytecode"),
        users=str(base / "elsewhere"),
        init=str(ROOT / "__init__.py"),
        root=str(ROOT),
    )

    def run():
        result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=base)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.splitlines()[-1])

    return run() | {"base": base, "again": run}


def test_no_module_was_skipped(loaded):
    assert loaded["skipped"] == {}
    assert len(loaded["ids"]) == 60


def test_import_adds_less_than_half_a_second_of_process_time(loaded):
    """Also the first time, give or take what else runs on the machine; from then on it takes a quarter of that."""
    assert loaded["seconds"] < 1
    assert loaded["again"]()["seconds"] < 0.3


def test_nothing_heavy_is_imported_with_the_pack(loaded):
    assert not {"cv2", "kornia", "triton", "torchvision"} & set(loaded["added"])


def test_v3_only_and_web_folder(loaded):
    assert loaded["web"] == "./web"
    assert not loaded["v1"]  # the host would then ignore the entry point


def test_model_folder_is_added_and_the_users_own_is_kept(loaded):
    base = loaded["base"]
    assert loaded["folders"] == [str(base / "elsewhere"), str(base / "models" / "optical_flow")]
    assert ".safetensors" in loaded["endings"]
    assert ".pth" in loaded["endings"]


def test_the_demo_lora_is_found_behind_the_users_own(loaded):
    base = loaded["base"]
    shipped = ROOT / "demo" / "checkpoints" / "loras"
    assert loaded["loras"] == [str(base / "models" / "loras"), str(base / "elsewhere"), str(shipped)]


def test_imports_without_a_host():
    script = (
        "import importlib.util;"
        f"spec = importlib.util.spec_from_file_location('pack', {str(ROOT / '__init__.py')!r});"
        "pack = importlib.util.module_from_spec(spec); spec.loader.exec_module(pack);"
        "assert not hasattr(pack, 'comfy_entrypoint')"
    )
    result = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


class BadSchema(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema("Bad", inputs=[io.Image.Input("image")], outputs=[io.Image.Output("image")])

    @classmethod
    def execute(cls, image):
        return io.NodeOutput(image)


@pytest.mark.parametrize("broken", ["missing module", "bad schema"])
def test_one_broken_module_does_not_take_the_others_down(monkeypatch, caplog, broken):
    name = "no_such_module" if broken == "missing module" else "bad_schema"
    if broken == "bad schema":
        module = types.ModuleType(f"papernodes.nodes.{name}")
        module.NODES = [BadSchema]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(pack_nodes, "skipped", {})
    monkeypatch.setattr(pack_nodes, "MODULES", (name, *pack_nodes.MODULES))
    with caplog.at_level(logging.WARNING):
        first, second = pack_nodes.load_nodes(), pack_nodes.load_nodes()
    assert len(first) == len(second) == 60
    assert list(pack_nodes.skipped) == [name]
    assert len([record for record in caplog.records if name in record.getMessage()]) == 1
