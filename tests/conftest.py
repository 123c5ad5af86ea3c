"""Gives every test the pack under one name, ``papernodes``, without running the pack's entry point.

Inside ComfyUI the top-level name ``nodes`` is the host's, so neither the repository root nor its folders may be put on
``sys.path``: tests write ``from papernodes.kernels import noise_warp``.
"""

import importlib.util
import os
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


if "papernodes" not in sys.modules:
    package = types.ModuleType("papernodes")
    package.__path__ = [str(ROOT)]
    package.__spec__ = importlib.util.spec_from_loader("papernodes", loader=None, is_package=True)
    sys.modules["papernodes"] = package

# Triton reads this when its kernels are defined, hence before any test module is imported.
if not _has_cuda():
    os.environ.setdefault("TRITON_INTERPRET", "1")
