"""PaperNodes: recent generative-vision papers as small native ComfyUI nodes. This file is only the entry point."""

import os

WEB_DIRECTORY = "./web"
MODEL_FOLDERS = (
    "optical_flow",
    "animatediff_models",
    "animatediff_motion_lora",
    "annotators",
    "manganinja",
    "blob_adapters",
    "imagine360",
    "sams",
)
DEMO_LORAS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo", "checkpoints", "loras")

__all__ = ["WEB_DIRECTORY"]


def _register_model_folders() -> None:
    """Makes models/<name> known to the host, beside what the user's extra_model_paths.yaml says."""
    import folder_paths

    for name in MODEL_FOLDERS:
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
        # A folder added this way accepts every file until it is told which ones are weights.
        folder_paths.folder_names_and_paths[name][1].update(folder_paths.supported_pt_extensions)
    # For the stock LoRA loaders. The user's own folders come first, and nothing is copied into them.
    folder_paths.add_model_folder_path("loras", DEMO_LORAS)


try:
    from comfy_api.latest import ComfyExtension
except ImportError:  # imported by a tool, outside ComfyUI
    ComfyExtension = None

if ComfyExtension is not None:
    _register_model_folders()

    class PaperNodesExtension(ComfyExtension):
        """Hands the host every node whose module could be loaded."""

        async def get_node_list(self) -> list[type]:
            from .nodes import load_nodes

            return load_nodes()

    async def comfy_entrypoint() -> PaperNodesExtension:
        """Called by the host once, after import."""
        return PaperNodesExtension()

    __all__ += ["comfy_entrypoint"]
