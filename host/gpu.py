"""GPU tests: ``python host/gpu.py test`` runs them, ``python host/gpu.py bundle`` packs what a bare GPU machine lacks.

Such a machine has a Python 3.12 on x86-64 with PyTorch, and perhaps nothing else and no network. The bundle is a folder
of wheels, still packed, and the host's modules; ``test`` and the training scripts (demo/bare_machine.py) unpack what
cannot be imported. Standard library only.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from datetime import datetime, timezone
from pathlib import Path

if not __package__:  # started as a script: then the repository, not host/, is where its modules are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "host"

from . import comfyui, installer, layout
from .layout import HostError

BUNDLE = layout.ROOT / ".gpu-bundle"
BUILD = layout.ROOT / "build"
LOG = BUILD / "test-gpu.log"
MAXIMUM_BYTES = 15_000_000

MODULES = {
    "pytest": ("pytest", "_pytest"), "iniconfig": ("iniconfig",), "pluggy": ("pluggy",), "packaging": ("packaging",),
    "pygments": ("pygments",), "safetensors": ("safetensors",), "einops": ("einops",), "psutil": ("psutil",),
    "pyyaml": ("yaml",), "tqdm": ("tqdm",), "torchsde": ("torchsde",), "trampoline": ("trampoline",),
    "pillow": ("PIL",),
}  # fmt: skip
"""Projects in the bundle, and the modules by which a machine is asked whether it has them."""

HOST_NEEDS = ("numpy", "scipy", "PIL", "av", "aiohttp", "transformers", "safetensors", "einops", "torchsde", "yaml")
"""What the host's modules import. Those that are too large for the bundle are used where the machine has them."""

HOST_MODULES = re.compile(
    r"(comfy|comfy_api|comfy_config|comfy_execution|comfy_extras|utils|app|api_server)/.*|[a-z_]+\.py"
)
HOST_FILES = (".py", ".json", ".yaml")
MAXIMUM_HOST_FILE = 200_000
"""Larger ones are tokenizers' vocabularies, which no GPU test uses."""


def git(*arguments: str) -> str:
    """What git answers in this repository, or "" where git or the history is missing."""
    try:
        answer = subprocess.run(["git", *arguments], cwd=layout.ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def commit() -> str:
    """The commit that is tested, marked where files differ from it; from the bundle where there is no history."""
    name = git("rev-parse", "HEAD")
    if name:
        return f"{name} with changes" if git("status", "--porcelain", "--untracked-files=no") else name
    try:
        return json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))["commit"] + " (when bundled)"
    except (OSError, ValueError, KeyError):
        return "unknown"


def make_bundle() -> None:
    """Fill .gpu-bundle/.

    Raises:
        HostError: a wheel cannot be had, or the bundle is too large.
    """
    wheels = BUNDLE / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for old in wheels.iterdir():
        old.unlink()
    platforms = (f"--platform=manylinux{version}_x86_64" for version in ("2014", "_2_17", "_2_28"))
    options = ("--no-deps", "--only-binary=:all:", "--python-version=3.12", *platforms, "--dest", str(wheels))
    installer.pip("download", *options, *MODULES, say=print)
    code = comfyui.find().code
    with zipfile.ZipFile(BUNDLE / "ComfyUI.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(code.rglob("*")):
            name = path.relative_to(code).as_posix()
            wanted = HOST_MODULES.fullmatch(name) and path.suffix in HOST_FILES and path.is_file()
            if wanted and path.stat().st_size <= MAXIMUM_HOST_FILE:
                archive.write(path, name)
    manifest = {"commit": commit(), "wheels": sorted(path.name for path in wheels.iterdir())}
    (BUNDLE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file())
    if size > MAXIMUM_BYTES:
        raise HostError(f"{BUNDLE} is {size / 1e6:.1f} MB, more than the {MAXIMUM_BYTES / 1e6:.0f} MB it may be.")
    print(f"{BUNDLE}: {size / 1e6:.1f} MB; take it along with the repository and run `make test-gpu` there.")


def is_importable(name: str) -> bool:
    """Whether ``import name`` would find something."""
    return importlib.util.find_spec(name) is not None


def unpack(archives: list[Path], name: str) -> Path:
    """A folder in build/ with what is in the archives, the same for the same archives; made once.

    Several processes may ask at a time: the folder appears under its name only when it is complete.
    """
    digest = hashlib.sha256()
    for archive in archives:
        digest.update(archive.read_bytes())
    folder = BUILD / f"{name}-{digest.hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    BUILD.mkdir(exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=BUILD))
    for archive in archives:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(unfinished)
    try:
        unfinished.rename(folder)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not folder.is_dir():
            raise
    return folder


def unpack_missing() -> set[str]:
    """Unpack from the bundle what this Python lacks, and put it on the path of this process and its children.

    Returns the projects that are still missing.
    """
    missing = {project for project, names in MODULES.items() if not all(map(is_importable, names))}
    wheels = []
    for wheel in sorted((BUNDLE / "wheels").glob("*.whl")) if missing else []:
        project, *_, python_tag, abi, _ = wheel.stem.split("-")
        fits = abi in ("none", "abi3") or python_tag == f"cp{sys.version_info[0]}{sys.version_info[1]}"
        if installer.requirement_name(project) in missing and fits:
            wheels.append(wheel)
    if wheels:
        unpacked = str(unpack(wheels, "gpu-site"))
        sys.path.append(unpacked)
        importlib.invalidate_caches()
        # At the end of what the children search, too: what the machine has itself goes first.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), unpacked)))
    return {project for project in missing if not all(map(is_importable, MODULES[project]))}


def host_code() -> Path | None:
    """The host's code folder: named, embedded or from the bundle; None where there is none."""
    named = os.environ.get("COMFYUI_PATH")
    if named or layout.EMBEDDED_COMFYUI.is_dir():
        return Path(named) if named else layout.EMBEDDED_COMFYUI
    archive = BUNDLE / "ComfyUI.zip"
    return unpack([archive], "ComfyUI") if archive.is_file() else None


def find_host() -> Path | None:
    """The host's code for tests in process; None where it cannot be imported."""
    lacking = [name for name in HOST_NEEDS if not is_importable(name)]
    if lacking:
        print(f"Tests that import ComfyUI are left out: this Python lacks {', '.join(lacking)}.")
        return None
    host = host_code()
    if host is None:
        print("Tests that import ComfyUI are left out: there is none (COMFYUI_PATH, `make install` or .gpu-bundle/).")
    return host


def describe_machine() -> str:
    """The lines at the top of the log: what was tested, when, on what.

    Raises:
        HostError: there is no CUDA device here.
    """
    import torch

    if not torch.cuda.is_available():
        raise HostError(f"PyTorch {torch.__version__} finds no CUDA device here; the GPU tests need one.")
    triton = importlib.import_module("triton").__version__ if is_importable("triton") else "none"
    return (
        f"commit {commit()}\n"
        f"time   {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC\n"
        f"device {torch.cuda.get_device_name()}\n"
        f"python {sys.version.split()[0]}, torch {torch.__version__}, CUDA {torch.version.cuda}, triton {triton}\n\n"
    )


def run_tests(arguments: list[str]) -> int:
    """Run the tests marked gpu, on the terminal and into the log; returns pytest's exit status.

    Raises:
        HostError: this machine cannot run them.
    """
    if not is_importable("torch"):
        python = layout.venv_python()
        if not python.is_file() or Path(sys.prefix).resolve() == layout.VENV.resolve():
            raise HostError(f"{sys.executable} has no PyTorch and there is no .venv here; run `make install`.")
        return subprocess.call([str(python), str(Path(__file__)), "test", *arguments])
    heading = describe_machine()
    if "pytest" in unpack_missing():
        raise HostError(
            "pytest is missing: pip install pytest, or bring .gpu-bundle/ along (`make gpu-bundle` makes it)."
        )
    host = find_host()
    folders = ("kernels", "patches", "nodes") if host else ("kernels",)
    targets = [str(layout.ROOT / "tests" / name) for name in folders]
    environment = {name: value for name, value in os.environ.items() if name != "COMFYUI_PATH"}
    if host:
        environment["COMFYUI_PATH"] = str(host)
    command = [sys.executable, "-m", "pytest", *targets, "-m", "gpu", "-v", *arguments]
    BUILD.mkdir(exist_ok=True)
    with LOG.open("w", encoding="utf-8") as log:
        log.write(heading)
        print(heading, end="", flush=True)
        process = subprocess.Popen(
            command, cwd=layout.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for line in process.stdout:
            log.write(line)
            print(line, end="", flush=True)
        status = process.wait()
        log.write(f"exit status {status}\n")
    print(f"Log: {LOG}")
    return status


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("test", "bundle"))
    arguments, others = parser.parse_known_args()
    try:
        if arguments.command == "test":
            return run_tests(others)
        make_bundle()
        return 0
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
