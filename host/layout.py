"""Where the host's things lie. Standard library only: it runs before any install."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The repository, which is also the custom-node pack itself."""

PACK_NAME = "ComfyUI-PaperNodes"
"""The folder name under which a host sees the pack, whatever the checkout is called."""

VENV = ROOT / ".venv"
WORKSPACE = ROOT / ".host"
EMBEDDED_COMFYUI = WORKSPACE / "ComfyUI"
BASE_DIRECTORY = WORKSPACE / "base"
LOGS = WORKSPACE / "logs"
RUNS = WORKSPACE / "runs"

MEDIA_SUFFIXES = (".mp4", ".safetensors", ".png", ".jpg", ".hdr", ".gif")
"""Of the files in demo/media that are not about it but in it."""


class HostError(Exception):
    """Something a person can mend; the message is one readable sentence, shown without a traceback."""


def venv_python(folder: Path | None = None) -> Path:
    """The interpreter inside the virtual environment ``folder``, .venv if None (whether or not it exists)."""
    return (folder or VENV) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def link_folder(link: Path, target: Path) -> None:
    """Make ``link`` a link to the folder ``target``, replacing an older link but never a real folder.

    Windows grants symbolic links to few users, so a directory junction stands in there.

    Raises:
        HostError: ``link`` is a real file or folder, or the system refuses the link.
    """
    try:
        if link.is_symlink() or (os.name == "nt" and link.exists() and link.resolve() != link.absolute()):
            if link.resolve() == target.resolve():
                return
            link.unlink()
        elif link.exists():
            raise HostError(f"{link} exists and is no link; move it away, a link to {target} belongs there.")
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(target, target_is_directory=True)
        except FileExistsError:
            if link.resolve() != target.resolve():  # otherwise another process made the same link in between
                raise
        except OSError:
            if os.name != "nt":
                raise
            import _winapi

            _winapi.CreateJunction(str(target), str(link))
    except OSError as error:
        raise HostError(f"Cannot link {link} to {target}: {error.strerror or error}.") from error


def copy_media(folder: Path) -> None:
    """Put the clips and flows of demo/media, which the templates begin with, into an input folder.

    Files that are there already under their names stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "demo" / "media").iterdir()):
        target = folder / source.name
        if source.suffix in MEDIA_SUFFIXES and not target.exists():
            shutil.copyfile(source, target)


def make_base_directory(base: Path | None = None) -> Path:
    """Create the folders ComfyUI wants under its ``--base-directory`` (BASE_DIRECTORY if None), the pack among them."""
    base = base or BASE_DIRECTORY
    for name in ("custom_nodes", "input", "output", "temp", "models", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link_folder(base / "custom_nodes" / PACK_NAME, ROOT)
    return base
