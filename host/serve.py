"""Opens the graph editor with this pack: ``python host/serve.py [--port N] [--comfyui DIR] [ComfyUI argument ...]``."""

import argparse
import sys
import time
from pathlib import Path

if not __package__:  # started as a script: then the repository, not host/, is where its modules are found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    __package__ = "host"

from . import comfyui, layout
from .layout import HostError
from .server import Server

USUAL_PORT = 8188


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=USUAL_PORT)
    parser.add_argument("--comfyui", metavar="DIR", help="start this ComfyUI in place of the embedded one")
    arguments, others = parser.parse_known_args()
    try:
        installation = comfyui.find(arguments.comfyui)
        base = None if installation.is_own else layout.make_base_directory()
        if base:
            layout.copy_media(base / "input")
        database = base / "user" / "comfyui.db" if base else None
        with Server(
            installation, base=base, port=arguments.port, database=database, arguments=tuple(others),
            say=lambda text: print(text, flush=True),
        ) as server:  # fmt: skip
            print(f"\nThe editor is at {server.url} - Ctrl-C ends it. Log: {server.log}", flush=True)
            while server.is_running():
                time.sleep(0.5)
            raise HostError(f"ComfyUI ended. Its last lines:\n{server.log_tail()}")
    except HostError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
