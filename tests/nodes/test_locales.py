"""locales/en says what the schemas say. ``UPDATE_LOCALES=1 pytest tests/nodes/test_locales.py`` writes it anew."""

import json
import os
from pathlib import Path

from pack import nodes
from papernodes import __path__ as pack_path

FILE = Path(pack_path[0]) / "locales" / "en" / "nodeDefs.json"


def expected() -> dict:
    """nodeDefs.json as the schemas would have it."""
    definitions = {}
    for node_id, node in nodes().items():
        schema = node.GET_SCHEMA()
        definitions[node_id] = {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                item.id: {"name": item.display_name or item.id, "tooltip": item.tooltip} for item in schema.inputs
            },
            "outputs": {
                str(number): {"name": item.display_name, "tooltip": item.tooltip}
                for number, item in enumerate(schema.outputs)
            },
        }
    return definitions


def test_node_definitions_are_the_schemas():
    if os.environ.get("UPDATE_LOCALES"):
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(json.dumps(expected(), indent=2) + "\n", "ascii")
    assert json.loads(FILE.read_text("utf-8")) == expected()


def test_category_names():
    main = json.loads((FILE.parent / "main.json").read_text("utf-8"))
    used = {part for node in nodes().values() for part in node.GET_SCHEMA().category.split("/")}
    assert used <= set(main["nodeCategories"])
