"""Which ComfyUI to start, with which Python and which folders. Standard library only."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import layout
from .layout import HostError

OWN_PYTHONS = (".venv", "venv", "env")
"""Virtual environments that installations keep inside their folder."""

DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Present where a driver of NVIDIA, AMD or of Windows' Linux subsystem is loaded."""


@dataclass(frozen=True)
class Installation:
    """A ComfyUI that can be started.

    Attributes:
        code: the folder with main.py.
        python: the interpreter that has its requirements.
        is_own: whether it is the user's own installation, whose folders are left as they are.
    """

    code: Path
    python: Path
    is_own: bool


def find(named: str | os.PathLike | None = None) -> Installation:
    """The ComfyUI to start: ``named``, else COMFYUI_PATH, else the embedded one.

    Raises:
        HostError: there is none, or no main.py lies where it was said to be.
    """
    for value, origin in ((named, "--comfyui"), (os.environ.get("COMFYUI_PATH"), "COMFYUI_PATH")):
        if value:
            code = Path(value).expanduser().resolve()
            if not (code / "main.py").is_file() or not (code / "comfy").is_dir():
                raise HostError(f"{origin} is {value}, where no ComfyUI is: the folder with its main.py was expected.")
            return Installation(code, find_python(code), is_own=True)
    if not (layout.EMBEDDED_COMFYUI / "main.py").is_file():
        raise HostError(
            "The embedded ComfyUI is not installed; run `make install`, or name your own with --comfyui DIR."
        )
    in_venv = layout.venv_python()
    python = in_venv if in_venv.is_file() else Path(sys.executable)
    return Installation(layout.EMBEDDED_COMFYUI, python, is_own=False)


def find_python(code: Path) -> Path:
    """The Python of a user's ComfyUI: COMFYUI_PYTHON, else the one it carries, else the running one.

    Raises:
        HostError: COMFYUI_PYTHON names no file.
    """
    named = os.environ.get("COMFYUI_PYTHON")
    if named:
        if not Path(named).is_file():
            raise HostError(f"COMFYUI_PYTHON is {named}, which is no file; correct it or unset it.")
        return Path(named)
    portable = code.parent / "python_embeded" / "python.exe"  # spelt so in ComfyUI's portable edition
    candidates = (*(layout.venv_python(code / name) for name in OWN_PYTHONS), portable)
    return next((path for path in candidates if path.is_file()), Path(sys.executable))


def has_accelerator(python: Path) -> bool:
    """Whether ``python``'s torch finds something better than the CPU; ComfyUI does not start without --cpu if not.

    Asking torch costs seconds, so on Linux the absence of every driver's device file answers it.
    """
    if sys.platform == "linux" and not any(Path(name).exists() for name in DEVICE_FILES):
        intel = Path("/dev/dri").exists() and Path("/sys/module/xe").exists()
        if not intel:
            return False
    question = (
        "import torch; accelerator = getattr(torch, 'accelerator', None); "
        "print(bool(accelerator.is_available() if accelerator else torch.cuda.is_available()))"
    )
    answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True, check=False)
    return answer.stdout.strip().endswith("True")


def find_other_copy(code: Path) -> Path | None:
    """The folder in an installation's custom_nodes that already holds this pack (a link or a clone), or None."""
    folder = code / "custom_nodes"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name.endswith(".disabled") or not entry.is_dir():
            continue
        if entry.resolve() == layout.ROOT:
            return entry
        try:
            described = (entry / "pyproject.toml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if '\nname = "papernodes"\n' in described:
            return entry
    return None


def folder_arguments(installation: Installation, run_folder: Path, base: Path | None = None) -> list[str]:
    """The arguments that tell ComfyUI where its folders are.

    The embedded one gets a base directory of its own. A user's keeps its models, inputs and custom nodes; the pack is
    added through a search path, and results go to ``run_folder``, so nothing is written beside theirs.

    Args:
        installation: what is started.
        run_folder: an empty folder for this run.
        base: base directory to use in place of the usual one.
    """
    written = {name: run_folder / name for name in ("output", "temp")}
    for path in written.values():
        path.mkdir(parents=True, exist_ok=True)
    arguments = ["--temp-directory", str(written["temp"])]
    if base is not None or not installation.is_own:
        chosen = layout.make_base_directory(base or layout.BASE_DIRECTORY)
        arguments += ["--base-directory", str(chosen)]
        return arguments if base else [*arguments, "--output-directory", str(written["output"])]
    arguments += ["--output-directory", str(written["output"])]
    if find_other_copy(installation.code) is None:
        packs = run_folder / "custom_nodes"
        layout.link_folder(packs / layout.PACK_NAME, layout.ROOT)
        config = run_folder / "search_paths.yaml"
        # A string in JSON is one in YAML too, whatever the path contains.
        config.write_text(f"papernodes:\n  custom_nodes: {json.dumps(str(packs))}\n", encoding="utf-8")
        arguments += ["--extra-model-paths-config", str(config)]
    return arguments
