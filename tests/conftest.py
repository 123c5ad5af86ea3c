"""Gives every test the pack under one name, ``papernodes``, and the host's modules where a ComfyUI can be found.

Inside ComfyUI the top-level name ``nodes`` is the host's, so neither the repository root nor its folders may be put on
``sys.path``: tests write ``from papernodes.kernels import noise_warp``.

Tests in nodes/ and patches/ run in process against the host's own modules (``import comfy``). The host is the folder
that COMFYUI_PATH names, or .host/ComfyUI, which ``make`` builds. Its input, output and model folders lie in a
temporary folder.
"""

import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

import pytest

pytest_plugins = ["server_fixtures", "demo_files"]

ROOT = Path(__file__).resolve().parent.parent
HOST_FOLDERS = ("nodes", "patches")


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _find_host() -> Path | None:
    """The folder that holds ComfyUI's main.py, or None."""
    named = os.environ.get("COMFYUI_PATH")
    for candidate in [Path(named)] if named else [ROOT / ".host" / "ComfyUI"]:
        if (candidate / "main.py").is_file() and (candidate / "comfy").is_dir():
            return candidate.resolve()
    return None


def _use_host(host: Path) -> None:
    """Makes the host importable; its command line is left empty but for the device and the folders."""
    # At the end, so that nothing of the host hides a package that is installed.
    sys.path.append(str(host))
    import comfy.cli_args

    base = tempfile.mkdtemp(prefix="papernodes-host-")
    atexit.register(shutil.rmtree, base, ignore_errors=True)
    for name in ("input", "output", "temp", "user", "custom_nodes", "models"):
        (Path(base) / name).mkdir()
    comfy.cli_args.args.base_directory = base
    comfy.cli_args.args.cpu = not _has_cuda()


if "papernodes" not in sys.modules:
    package = types.ModuleType("papernodes")
    package.__path__ = [str(ROOT)]
    package.__spec__ = importlib.util.spec_from_loader("papernodes", loader=None, is_package=True)
    sys.modules["papernodes"] = package

# ``python -m pytest`` puts the folder it is started in first, and "import nodes" would then find ours and not the
# host's.
sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != ROOT]

# Triton reads this when its kernels are defined, hence before any test module is imported.
if not _has_cuda():
    os.environ.setdefault("TRITON_INTERPRET", "1")

HOST = _find_host()
if HOST is not None and "comfy" not in sys.modules:
    _use_host(HOST)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the tests that need the host where there is none; with CI set they fail instead."""
    if HOST is not None or os.environ.get("CI"):
        return None
    folder = Path(__file__).resolve().parent
    return True if any(folder / name in (collection_path, *collection_path.parents) for name in HOST_FOLDERS) else None


def pytest_report_header() -> str:
    """Says at the top of the run which host is used."""
    return (
        f"ComfyUI: {HOST}" if HOST else "ComfyUI: none found (set COMFYUI_PATH); tests/nodes and tests/patches left out"
    )


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the pack."""
    return ROOT


@pytest.fixture(scope="session")
def host_path() -> Path:
    """The host's code folder."""
    if HOST is None:
        pytest.fail("no ComfyUI found; set COMFYUI_PATH or run make")
    return HOST


def _skips_in_ci(reporter) -> int:
    """How many tests were skipped, where that is a failure: with CI set everything is installed that tests need."""
    return len(reporter.stats.get("skipped", ())) if os.environ.get("CI") and reporter else 0


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a run that skipped something, with CI set."""
    if exitstatus == 0 and _skips_in_ci(session.config.pluginmanager.get_plugin("terminalreporter")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter) -> None:
    """Says why such a run failed."""
    if count := _skips_in_ci(terminalreporter):
        terminalreporter.write_line(f"CI is set, so {count} skipped test(s) count as failed: see the reasons above.")
