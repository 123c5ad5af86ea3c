"""The graph nodes, one module per method; a module that cannot be loaded does not take the others with it."""

from __future__ import annotations

import importlib
import logging

MODULES = (
    "optical_flow",
    "flow_files",
    "warped_noise",
    "noise",
    "motion",
    "story",
    "identity_attention",
    "story_pictures",
    "light_pictures",
    "environment_light",
    "light_source",
    "ic_light",
    "relight_video",
    "motion_lora",
    "line_art",
    "luma",
    "match_points",
    "suggest_points",
    "manga_ninja",
    "blob_layout",
    "blobs_from_masks",
    "blob_results",
    "blobs_to_gligen",
    "plan_blobs",
    "apply_blobs",
    "blob_adapter",
    "perspective_views",
    "panorama_sphere",
    "elevation_track",
    "panorama_preview",
    "imagine360_conditioning",
    "imagine360_loader",
    "demo_checkpoint",
)

skipped: dict[str, str] = {}
"""Module name -> why its nodes are missing; a test checks that it is empty."""


def load_nodes() -> list[type]:
    """The node classes of every module that imports and defines valid schemas.

    Each module lists its classes as ``NODES``. A module that fails is left out whole, its reason logged once and kept
    in ``skipped``: the host would otherwise drop the entire pack for one bad schema.
    """
    loaded = []
    for name in MODULES:
        try:
            classes = importlib.import_module(f".{name}", __package__).NODES
            for node in classes:
                node.GET_SCHEMA()
        except Exception as error:  # whatever goes wrong in one module must not reach the others
            if name not in skipped:
                logging.warning("PaperNodes: the nodes in nodes/%s.py are left out: %r", name, error, exc_info=True)
            skipped[name] = repr(error)
        else:
            skipped.pop(name, None)
            loaded.extend(classes)
    return loaded
