"""The pack's own adapters for Demo Checkpoint's image model, which nodes list after the person's own files."""

from __future__ import annotations

from collections.abc import Mapping

from ..networks import demo_blob_adapter, demo_imagine360, demo_light, demo_manga_ninja, demo_motion
from ..networks.demo_image import UNET_CONFIG

_PREFIX = "papernodes_demo_"
LIGHTS = {f"{_PREFIX}{kind}.safetensors": kind for kind in demo_light.FILE_KINDS}
"""What IC-Light Model lists -> kind of file."""

MOTIONS = {f"{_PREFIX}{demo_motion.KIND}.safetensors": demo_motion.KIND}
"""What Motion Modules lists -> kind of file."""

MANGA_REFERENCES, MANGA_POINTS = (
    {f"{_PREFIX}{kind}.safetensors": kind} for kind in (demo_manga_ninja.REFERENCE, demo_manga_ninja.POINTS)
)
"""What MangaNinja Loader lists -> kind of file."""

IMAGINE360 = {f"{_PREFIX}{demo_imagine360.KIND}.safetensors": demo_imagine360.KIND}
"""What Imagine360 Loader lists under mv_model -> kind of file; such a file holds all networks."""

BLOB_ADAPTERS = {f"{_PREFIX}{demo_blob_adapter.KIND}.safetensors": demo_blob_adapter.KIND}
"""What Blob Adapter lists -> kind of file."""


def misfit(name: str, model: object, ours: Mapping[str, str], published: str) -> str:
    """What to say after a file did not fit a model, where one of the two is the demonstration's and the other not.

    Args:
        name: of the file.
        model: a MODEL.
        ours: LIGHTS or MOTIONS.
        published: what fits an SD1.5 of full size, and where it is from.

    Returns:
        A sentence with a space before it, or nothing.
    """
    small = model.model.model_config.unet_config.get("model_channels") == UNET_CONFIG["model_channels"]
    if name in ours and not small:
        return f" {name} fits Demo Checkpoint's image model alone; for this model use {published}."
    if name not in ours and small:
        return f" 'model' is as small as Demo Checkpoint's; for that use {' or '.join(ours)}."
    return ""
