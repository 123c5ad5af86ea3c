"""RAFT's weights: which files of models/optical_flow are meant, and the network as a ModelPatcher."""

from __future__ import annotations

import os

import comfy.model_management
import comfy.model_patcher
import folder_paths

from ..networks.raft import FILES, SOURCE, load_raft
from .weight_files import read_weights

MODEL_FOLDER = "optical_flow"
RAFT_METHODS = {"RAFT small": "small", "RAFT large": "large"}
PAGES = {
    "small": "https://pytorch.org/vision/stable/models/generated/torchvision.models.optical_flow.raft_small.html",
    "large": "https://pytorch.org/vision/stable/models/generated/torchvision.models.optical_flow.raft_large.html",
}


def find_raft_file(method: str) -> str:
    """The path of a method's weights: torchvision's own file, else any whose name starts with raft_small or raft_large.

    Raises:
        FileNotFoundError: none is there; names the file, the folder and where to get it.
    """
    size = RAFT_METHODS[method]
    names = [
        name
        for name in folder_paths.get_filename_list(MODEL_FOLDER)
        if os.path.basename(name).lower().startswith(f"raft_{size}")
    ]
    if not names:
        folders = " or ".join(folder_paths.get_folder_paths(MODEL_FOLDER))
        raise FileNotFoundError(
            f"'method' {method} needs torchvision's weights {FILES[size]}, which are not in {folders}. Get the file "
            f"from {SOURCE}{FILES[size]} (described at {PAGES[size]}) and put it there, or use DIS, which needs no "
            "file."
        )
    names.sort(key=lambda name: (os.path.basename(name) != FILES[size], name))
    return folder_paths.get_full_path_or_raise(MODEL_FOLDER, names[0])


def load_raft_patcher(method: str) -> comfy.model_patcher.ModelPatcher:
    """The network with a method's weights, for the host's memory management.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file holds something else than this network's weights.
    """
    path = find_raft_file(method)
    name = os.path.basename(path)
    source = f"{SOURCE}{FILES[RAFT_METHODS[method]]}"
    weights = read_weights(path, f"{name} in models/{MODEL_FOLDER}", "method", source)
    return comfy.model_patcher.ModelPatcher(
        load_raft(weights, RAFT_METHODS[method], name),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
