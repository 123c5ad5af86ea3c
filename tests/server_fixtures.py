"""A real ComfyUI server for tests/server and tests/browser, on the CPU, in a base directory of its own.

One serves a whole run of pytest; its folders are removed afterwards.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def installation():
    """The ComfyUI that the tests run: the one COMFYUI_PATH names, or the embedded one."""
    from papernodes.host import comfyui

    return comfyui.find()


@pytest.fixture(scope="session")
def base_directory(tmp_path_factory) -> Path:
    """The server's folders, with the tests' own pack beside the real one."""
    from papernodes.host import layout

    base = layout.make_base_directory(tmp_path_factory.mktemp("base"))
    layout.link_folder(
        base / "custom_nodes" / "PaperNodesTest", Path(__file__).resolve().parent / "server" / "test_pack"
    )
    return base


@pytest.fixture(scope="session")
def server(installation, base_directory):
    """A running server; ``server.url`` is its address, ``server.log`` its log."""
    from papernodes.host.server import Server

    with Server(installation, base=base_directory, cpu=True) as running:
        yield running


@pytest.fixture(scope="session")
def object_info(server) -> dict:
    """What the server says of its nodes."""
    from papernodes.host.client import Client

    async def ask() -> dict:
        async with Client(server.url) as client:
            return await client.object_info()

    return asyncio.run(ask())


@pytest.fixture
def run_prompt(server) -> Callable:
    """Runs a graph in API format on the server, after uploading files into its input folder; returns its Outcome."""
    from papernodes.host.client import Client

    def run(prompt: dict, files: tuple[Path, ...] = ()):
        async def go():
            async with Client(server.url) as client:
                for path in files:
                    await client.upload(path)
                return await client.run(prompt)

        return asyncio.run(go())

    return run
