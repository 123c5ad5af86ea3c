"""Runs a script so that it ends with the process that started it: ``python guard.py main.py [argument ...]``.

The starter holds the other end of standard input. When it is gone, however it went, reading returns nothing and this
process ends as well, so that no server is left behind. It uses the standard library and nothing of this repository,
since it runs in the Python of the user's ComfyUI.
"""

import os
import runpy
import sys
import threading
from pathlib import Path


def end_with_starter() -> None:
    """Wait for the end of standard input, then end the process."""
    while os.read(0, 1024):  # below sys.stdin, whose lock would hang the interpreter's own exit
        pass
    os._exit(1)


def main() -> None:
    """Run the script named first on the command line as if Python had been given it directly."""
    script = Path(sys.argv[1]).resolve()
    sys.argv = [str(script), *sys.argv[2:]]
    sys.path[0] = str(script.parent)
    threading.Thread(target=end_with_starter, daemon=True).start()
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
