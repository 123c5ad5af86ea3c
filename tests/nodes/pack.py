"""The pack's nodes as the host would list them."""

import functools

from papernodes.nodes import load_nodes, skipped


@functools.cache
def nodes() -> dict[str, type]:
    """Node id -> class."""
    loaded = load_nodes()
    assert not skipped, f"modules that could not be loaded: {skipped}"
    return {node.GET_SCHEMA().node_id: node for node in loaded}
