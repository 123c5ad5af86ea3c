"""Servers that the runner starts itself: they end with it, whatever happens, and leave a user's ComfyUI as it was."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from papernodes.host import comfyui, layout
from papernodes.host.client import Client, Outcome
from papernodes.host.server import Server

GRAPH = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 8, "batch_size": 1, "color": 7}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "own"}},
}
START = """
import sys
sys.path.insert(0, sys.argv[1])
from host import comfyui, server
import time
one = server.Server(comfyui.find(), cpu=True)
one.start()
print(one._process.pid, one.url, one.folder, flush=True)
time.sleep(600)
"""


def runs() -> set[Path]:
    return set(layout.RUNS.iterdir()) if layout.RUNS.is_dir() else set()


def is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except OSError:
        return False
    return Path(f"/proc/{process_id}/stat").read_text().split(")")[1].split()[0] != "Z"


def test_the_runner_starts_and_stops_a_server_of_its_own(runner, tmp_path):
    before = runs()
    result = runner(GRAPH, "--json")
    assert result.returncode == 0, result.stderr
    (output,) = json.loads(result.stdout)["outputs"]
    assert (tmp_path / output["path"]).is_file()
    assert "Starting ComfyUI" in result.stderr
    assert runs() == before, "the run's folder is removed"


def test_a_server_ends_with_the_process_that_started_it():
    starter = subprocess.Popen([sys.executable, "-c", START, str(layout.ROOT)], stdout=subprocess.PIPE, text=True)
    process_id, url, folder = 0, "", None
    try:
        process_id, url, folder = starter.stdout.readline().split()
        assert is_alive(int(process_id))
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        deadline = time.monotonic() + 20
        while is_alive(int(process_id)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_alive(int(process_id))
        with pytest.raises(OSError):  # refused, or reset while the last threads go
            urllib.request.urlopen(url, timeout=5)
    finally:
        starter.kill()
        starter.stdout.close()
        if process_id and is_alive(int(process_id)):
            os.kill(int(process_id), signal.SIGKILL)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(installation, tmp_path):
    before = runs()
    broken = comfyui.Installation(tmp_path, installation.python, is_own=False)
    (tmp_path / "main.py").write_text("print('before the end'); raise SystemExit('a good reason')", encoding="utf-8")
    with pytest.raises(layout.HostError, match=r"ended while starting(?s:.*)before the end\na good reason"):
        Server(broken, base=tmp_path / "base", cpu=True).start()
    assert runs() == before


def test_a_folder_without_comfyui_is_refused(runner, tmp_path):
    result = runner(GRAPH, "--comfyui", tmp_path)
    assert (result.returncode, "where no ComfyUI is" in result.stderr) == (2, True), result.stderr


def test_a_users_own_comfyui_has_the_pack_and_is_left_as_it_was(installation, tmp_path, monkeypatch):
    own = tmp_path / "TheirComfyUI"
    shutil.copytree(installation.code, own, ignore=shutil.ignore_patterns("__pycache__", ".git", "user"))
    monkeypatch.setenv("COMFYUI_PYTHON", str(installation.python))

    def files() -> set[str]:
        paths = (path.relative_to(own) for path in own.rglob("*") if path.is_file())
        return {str(path) for path in paths if "__pycache__" not in path.parts and path.parts[0] != "user"}

    async def use(url: str) -> tuple[dict, Outcome]:
        async with Client(url) as client:
            return await client.object_info(), await client.run(GRAPH)

    before = files()
    with Server(comfyui.find(own), cpu=True) as server:
        described, outcome = asyncio.run(use(server.url))
    assert outcome.status == "success"
    assert any(name.startswith("PaperNodes_") for name in described)
    assert files() == before


def test_a_pack_that_a_user_installed_is_not_loaded_twice(installation, tmp_path):
    own = tmp_path / "TheirComfyUI"
    own.mkdir()
    (own / "custom_nodes").mkdir()
    theirs = comfyui.Installation(own, installation.python, is_own=True)
    arguments = comfyui.folder_arguments(theirs, tmp_path / "run")
    assert "--extra-model-paths-config" in arguments
    assert (tmp_path / "run" / "custom_nodes" / layout.PACK_NAME).resolve() == layout.ROOT
    assert "--base-directory" not in arguments

    layout.link_folder(own / "custom_nodes" / "any-name", layout.ROOT)
    arguments = comfyui.folder_arguments(theirs, tmp_path / "run2")
    assert "--extra-model-paths-config" not in arguments, "one copy of the pack is enough"
