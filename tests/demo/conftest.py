"""``demo`` is started from the repository (``python -m demo.train_vae``), so its tests import it by that name too.

The repository goes to the very end of ``sys.path``, behind the host, whose ``nodes`` then still comes first.
"""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = str(Path(__file__).resolve().parent.parent.parent)

if ROOT not in sys.path:
    sys.path.append(ROOT)


@pytest.fixture(scope="session")
def train(repository, host_path, tmp_path_factory):
    """Runs ``python -m demo.NAME --tiny`` with a folder of its own; returns the folder. Each once a session."""
    folders = {}

    def run(name: str, *more: str) -> Path:
        command = [sys.executable, "-m", f"demo.{name}", "--tiny", *more]
        process = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        return process.stdout

    def once(name: str, *more: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            folders[name].joinpath("log").write_text(run(name, "--state", str(folders[name]), *more))
        return folders[name]

    once.run = run
    return once


@pytest.fixture(scope="session")
def video_vae_file(train):
    return train("train_video_vae", "--reading", "0.1") / "video_vae.safetensors"


@pytest.fixture(scope="session")
def video_folder(train, video_vae_file):
    return train("train_video", "--vae", str(video_vae_file))


@pytest.fixture(scope="module")
def random_autoencoder():
    """One whose clips and latents differ enough to compare."""
    from demo import video_vae

    torch.manual_seed(0)
    return video_vae.VideoAutoencoder().requires_grad_(False)


@pytest.fixture
def traced(monkeypatch):
    """torch.compile traces, and refuses what it could not fuse, but compiles nothing: that takes half a minute."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
