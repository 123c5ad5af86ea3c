"""Runs the test suite in the virtual environment: ``python host/check.py [pytest arguments ...]``.

It leaves out what this machine cannot run: GPU tests without a GPU, and, saying so, browser tests without a Chromium.
With CI set in the environment a missing Chromium is a failure. All tests together are shared out among two processes,
file by file; some of them (given arguments) run in one.
"""

import os
import subprocess
import sys
from pathlib import Path

if not __package__:  # started as a script: then the repository, not host/, is where its modules are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "host"

from . import browser, comfyui, layout
from .layout import HostError

PROCESSES = 2
"""More would not help: the largest file of tests takes a good part of the time, and each process starts a server."""

MEMORY = 14e9
"""Bytes that the machine must have for two: they and their servers and browsers take up to 10 GB."""

NO_BROWSER = "Browser tests were left out: no Chromium is installed (on Debian: sudo apt-get install chromium)."


def memory() -> float:
    """Bytes of main memory that this machine, or the container on it, may use; 0 where that is not told."""
    try:
        found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):  # Windows knows no sysconf
        return 0.0
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, float(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return found


def main() -> int:
    """Run pytest; returns its exit status."""
    command = [sys.executable, "-m", "pytest", str(layout.ROOT / "tests")]
    if not comfyui.has_accelerator(Path(sys.executable)):
        command += ["-m", "not gpu"]
    try:
        has_browser = browser.find_chromium() is not None
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not has_browser:
        if os.environ.get("CI"):
            print(f"error: {NO_BROWSER}", file=sys.stderr)
            return 1
        command += ["--ignore", str(layout.ROOT / "tests" / "browser")]
    environment = dict(os.environ)
    cores = os.cpu_count() or 1
    if not sys.argv[1:] and cores >= PROCESSES and memory() >= MEMORY:
        command += ["-n", str(PROCESSES), "--dist", "loadfile"]
        # Otherwise each takes all cores, and they wait for each other.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // PROCESSES)))
    status = subprocess.call([*command, *sys.argv[1:]], cwd=layout.ROOT, env=environment)
    if not has_browser:
        print(NO_BROWSER)
    return status


if __name__ == "__main__":
    sys.exit(main())
