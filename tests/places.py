"""The places of demo/places.py, whose tilt is known exactly, for tests."""

import sys
from pathlib import Path

from papernodes import __path__ as pack_path

if str(Path(pack_path[0])) not in sys.path:
    sys.path.append(str(Path(pack_path[0])))

from demo.places import panorama_of, plain, room, street, views_of

__all__ = ["panorama_of", "plain", "room", "street", "views_of"]
