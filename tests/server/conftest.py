"""A real server for all tests of this folder, on the CPU, in a base directory of its own that is removed afterwards."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from papernodes.host import comfyui, layout
from papernodes.host.client import Client, Outcome
from papernodes.host.server import Server

RUNNER_SECONDS = 300
collect_ignore = ["test_pack"]


@pytest.fixture(scope="session")
def installation() -> comfyui.Installation:
    """The ComfyUI that the tests run: the one COMFYUI_PATH names, or the embedded one."""
    return comfyui.find()


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory) -> Path:
    """The server's folders, with the tests' own pack beside the real one."""
    base = layout.make_base_directory(tmp_path_factory.mktemp("base"))
    layout.link_folder(base / "custom_nodes" / "PaperNodesTest", Path(__file__).with_name("test_pack"))
    return base


@pytest.fixture(scope="session")
def server(installation, base_directory):
    """A running server; ``server.url`` is its address, ``server.log`` its log."""
    with Server(installation, base=base_directory, cpu=True) as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server) -> dict:
    """What the server says of its nodes."""

    async def ask() -> dict:
        async with Client(server.url) as client:
            return await client.object_info()

    return asyncio.run(ask())


@pytest.fixture
def run_prompt(server) -> Callable[[dict], Outcome]:
    """Runs a graph in API format on the server, after uploading files into its input folder."""

    def run(prompt: dict, files: tuple[Path, ...] = ()) -> Outcome:
        async def go() -> Outcome:
            async with Client(server.url) as client:
                for path in files:
                    await client.upload(path)
                return await client.run(prompt)

        return asyncio.run(go())

    return run


@pytest.fixture
def runner(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Starts host/run.py as a person would, in an empty folder: runner(graph or path, *arguments).

    ``result.stdout`` and ``result.stderr`` are text. A graph given as a dict is written to graph.json first.
    """

    def run(graph: dict | str | Path, *arguments, **options) -> subprocess.CompletedProcess:
        if isinstance(graph, dict):
            (tmp_path / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
            graph = tmp_path / "graph.json"
        command = [sys.executable, str(layout.ROOT / "host" / "run.py"), str(graph), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=RUNNER_SECONDS, check=False, **options
        )

    return run
