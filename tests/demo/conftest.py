"""``demo`` is started from the repository (``python -m demo.train_vae``), so its tests import it by that name too.

The repository goes to the very end of ``sys.path``, behind the host, whose ``nodes`` then still comes first.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent.parent)

if ROOT not in sys.path:
    sys.path.append(ROOT)
