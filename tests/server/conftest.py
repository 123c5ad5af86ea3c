"""The runner as a person starts it; the server comes from tests/server_fixtures.py."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from papernodes.host import layout

RUNNER_SECONDS = 300
collect_ignore = ["test_pack"]


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
