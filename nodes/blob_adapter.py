"""Blob Adapter: a trained network that grounds a UNet in blobs."""

from __future__ import annotations

from comfy_api.latest import io

from ..networks.blob_adapter import BlobAdapterError, read_blob_adapter
from ..patches.blob_adapter import MOST_STRENGTH, BlobAdapterModelError, add_blob_adapter
from .demo_adapters import BLOB_ADAPTERS
from .sockets import CATEGORY_BLOBS, check_range
from .weight_files import find_weights, list_weights, read_weights

MODEL_FOLDER = "blob_adapters"
SOURCE = "whoever trained it; the help page has the layout of such a file"


def list_adapters() -> list[str]:
    """Files of models/blob_adapters, then the pack's own for Demo Checkpoint."""
    return list_weights([MODEL_FOLDER]) + list(BLOB_ADAPTERS)


class BlobAdapterNode(io.ComfyNode):
    """A UNet with a blob adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PaperNodes_BlobAdapter",
            display_name="Blob Adapter",
            category=CATEGORY_BLOBS,
            description="Lets a UNet draw each blob's caption in the blob's place and size, by a trained network.",
            inputs=[
                io.Model.Input("model", tooltip="A UNet, such as SD1.5 or SDXL. Before or after Apply Blobs."),
                io.Combo.Input(
                    "adapter",
                    options=list_adapters(),
                    tooltip=(
                        "In models/blob_adapters; trained for this model. papernodes_demo_...: for Demo Checkpoint, "
                        "comes with the pack."
                    ),
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=MOST_STRENGTH,
                    step=0.05,
                    round=False,
                    tooltip="How much of what the adapter adds is added. 1: as trained. 0: off.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model", tooltip="Obeys the blobs that Apply Blobs puts into the conditioning."
                )
            ],
        )

    @classmethod
    def execute(cls, model: object, adapter: str, strength: float) -> io.NodeOutput:
        check_range(strength, "strength", 0.0, MOST_STRENGTH)
        path = find_weights(MODEL_FOLDER, adapter, "adapter", f"it from {SOURCE},", BLOB_ADAPTERS)
        state = read_weights(path, adapter, "adapter", SOURCE)
        try:
            network = read_blob_adapter(adapter, state)
        except BlobAdapterError as error:
            raise ValueError(f"'adapter': {error}") from None
        try:
            return io.NodeOutput(add_blob_adapter(model, network, strength))
        except BlobAdapterModelError as error:
            raise ValueError(str(error)) from None


NODES = [BlobAdapterNode]
