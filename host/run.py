"""Runs a ComfyUI workflow without a browser: ``python host/run.py WORKFLOW.json [--set NODE.INPUT=VALUE ...] ...``.

Any Python will do to start it: where it lacks what the runner needs, the repository's virtual environment takes over.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

if not __package__:  # started as a script: then the repository, not host/, is where its modules are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "host"

from . import layout


def start_in_venv() -> int:
    """Do the same once more with the virtual environment's Python; returns its exit status.

    Raises:
        SystemExit: there is no virtual environment, or this is it.
    """
    python = layout.venv_python()
    if not python.is_file() or Path(sys.prefix).resolve() == layout.VENV.resolve():
        print("error: this Python lacks aiohttp; run `make install` first, or pip install aiohttp.", file=sys.stderr)
        return 2
    command = [str(python), *sys.argv]
    if os.name == "nt":  # exec there starts a second process and lets the terminal go on
        return subprocess.call(command)
    os.execv(command[0], command)


def main() -> int:
    """Run the command line; returns the exit status."""
    if importlib.util.find_spec("aiohttp") is None:
        return start_in_venv()
    from . import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
