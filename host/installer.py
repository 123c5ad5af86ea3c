"""What bootstrap.py runs: pip and apt-get, kept quiet, their failures put into one sentence. Standard library only."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from . import layout
from .layout import HostError

Say = Callable[[str], None]

FAILURES = (
    (("No space left on device", "Errno 28"), "the disk is full; make room and start again"),
    (
        (
            "Temporary failure in name resolution",
            "NewConnectionError",
            "Name or service not known",
            "Network is unreachable",
        ),
        "the package index cannot be reached; check the network (or pip's proxy settings) and start again",
    ),
    (
        ("ReadTimeoutError", "Read timed out", "Connection reset"),
        "the network broke off; start again to go on from here",
    ),
    (("No matching distribution found",), "the package index offers no fitting version for this Python and machine"),
    (("Permission denied", "Errno 13"), "a file cannot be written; check who owns this folder"),
)
"""Words in a tool's output, and what they mean to the person at the terminal."""

WORTH_TELLING_MB = 20


def requirement_name(line: str) -> str:
    """The normalised project name of one requirement line ("SQLAlchemy>=2" gives "sqlalchemy")."""
    name = re.match(r"[A-Za-z0-9._-]+", line)
    return re.sub(r"[-_.]+", "-", name.group(0)).lower() if name else ""


def explain(output: str, doing: str, log: Path | None) -> HostError:
    """The error for a tool that failed while ``doing`` something and left ``output``."""
    where = f" (the whole output is in {log})" if log else ""
    for words, meaning in FAILURES:
        if any(word in output for word in words):
            return HostError(f"{doing} failed: {meaning}{where}.")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = next(
        (line for line in reversed(lines) if line.upper().startswith(("ERROR", "E:"))), lines[-1] if lines else ""
    )
    return HostError(f"{doing} failed: {last or 'no message'}{where}.")


def run_quietly(command: list[str], doing: str, log: Path | None = None, on_line: Say | None = None, **options) -> None:
    """Run ``command``, its output kept from the terminal.

    Args:
        command: program and arguments.
        doing: what it does, as the failure's sentence begins.
        log: file the output is written to.
        on_line: called with every line of output as it comes.
        options: handed to subprocess.Popen.

    Raises:
        HostError: the program is missing or returns non-zero.
    """
    lines = []
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    with open(log or os.devnull, "a", encoding="utf-8") as copy:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                encoding="utf-8", errors="replace", **options,
            )  # fmt: skip
        except OSError as error:
            raise HostError(f"{doing} failed: {command[0]} cannot be started ({error.strerror}).") from error
        with process:
            try:
                for line in process.stdout:
                    lines.append(line)
                    copy.write(line)
                    if on_line:
                        on_line(line)
                status = process.wait()
            except BaseException:
                process.terminate()
                raise
    if status:
        raise explain("".join(lines), doing, log)


def pip(command: str, *arguments: str, say: Say) -> None:
    """Run a pip command in .venv, telling of large downloads and of the unpacking, which take the time."""

    def tell(line: str) -> None:
        download = re.match(r"\s*Downloading (\S+) \(([\d.]+) (MB|GB)\)", line)
        if download:
            size = float(download[2]) * (1000 if download[3] == "GB" else 1)
            if size >= WORTH_TELLING_MB:
                say(f"  downloading {download[1].rsplit('/', 1)[-1].split('-')[0]} ({size:.0f} MB)")
        elif line.startswith("Installing collected packages:"):
            say(f"  unpacking {line.count(',') + 1} packages")

    quiet = ("--progress-bar=off", "--no-input", "--disable-pip-version-check")
    command_line = [str(layout.venv_python()), "-m", "pip", command, *quiet, *arguments]
    run_quietly(command_line, f"pip {command}", layout.LOGS / "pip.log", tell)


def is_debian() -> bool:
    """Whether this is Debian itself, whose chromium package is the browser (Ubuntu's is a stub that wants snap)."""
    try:
        return "\nID=debian\n" in "\n" + Path("/etc/os-release").read_text(encoding="utf-8") + "\n"
    except OSError:
        return False


def can_apt() -> bool:
    """Whether system packages can be installed here without asking anybody."""
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(package: str, say: Say, minutes: str) -> None:
    """Install one Debian package with apt-get, as root.

    Raises:
        HostError: apt-get fails.
    """
    say(f"Installing {package} with apt-get: {minutes}.")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = layout.LOGS / "apt.log"
    run_quietly(["apt-get", "update", "-q"], "apt-get update", log, env=environment)
    command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", package]
    run_quietly(command, f"apt-get install {package}", log, env=environment)


def require_venv_module(say: Say) -> None:
    """Make sure that this Python can make virtual environments; Debian ships that part in a package of its own.

    Raises:
        HostError: it cannot, and the package cannot be installed from here.
    """
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    if can_apt():
        apt_install(package, say, "a few seconds")
    else:
        raise HostError(
            f"This Python cannot make virtual environments; install the Debian package: sudo apt-get install {package}"
        )
