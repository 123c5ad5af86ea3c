"""Makes the host's modules importable for the training scripts: here, and on a machine with little but PyTorch.

Training builds ComfyUI's own networks, so ``import comfy`` must work. On a bare machine the host and the small packages
that it imports come from .gpu-bundle/, which ``make gpu-bundle`` fills.
"""

import importlib.util
import logging
import sys
import types
from pathlib import Path

from host import gpu

NEEDED = ("safetensors", "einops", "psutil", "tqdm", "PIL")
"""What the modules imported here need beside PyTorch; the loaders, samplers and nodes of the host need more."""


def use_host() -> Path:
    """Puts the host last on this process's path and, without a GPU, sets it to the CPU; returns its folder.

    Raises:
        SystemExit: the host or a package is missing, in one sentence.
    """
    gpu.unpack_missing()
    lacking = [name for name in NEEDED if not gpu.is_importable(name)]
    if lacking:
        raise SystemExit(f"This Python lacks {', '.join(lacking)}: install them, or bring .gpu-bundle/ along.")
    host = gpu.host_code()
    if host is None:
        raise SystemExit("There is no ComfyUI: set COMFYUI_PATH, run `make install`, or bring .gpu-bundle/ along.")
    if "comfy" not in sys.modules:
        sys.path.append(str(host))
        import torch
        from comfy import cli_args

        if not torch.cuda.is_available():
            # Not over-written where a test set it up; the attention of PyTorch is what a GPU uses.
            cli_args.args.cpu = True
            cli_args.args.use_pytorch_cross_attention = True
        logging.getLogger().setLevel(logging.WARNING)
    return host


def use_pack() -> None:
    """Makes the pack importable as ``papernodes``, for modules that import others of it relatively.

    Its entry point is not run: nodes need more of the host than is here.
    """
    if "papernodes" not in sys.modules:
        package = types.ModuleType("papernodes")
        package.__path__ = [str(Path(__file__).resolve().parent.parent)]
        package.__spec__ = importlib.util.spec_from_loader("papernodes", loader=None, is_package=True)
        sys.modules["papernodes"] = package
