"""Reads graphs of both formats and changes single inputs of them; comfy-cli, where needed, does the conversion."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from .layout import HostError

TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Graph:
    """A graph as read from a file: ``content`` in API format, or in the editor's if ``is_ui``."""

    content: dict
    is_ui: bool
    path: Path


@dataclass(frozen=True)
class Setting:
    """One ``--set NODE.INPUT=VALUE``: ``target`` is what stands before the first equals sign."""

    target: str
    value: str

    def splits(self) -> list[tuple[str, str]]:
        """Every way to read the target as node and input; titles and inputs may contain dots themselves."""
        parts = self.target.split(".")
        return [(".".join(parts[:i]), ".".join(parts[i:])) for i in range(1, len(parts))]


def parse_setting(text: str) -> Setting:
    """Read one ``--set`` argument.

    Raises:
        HostError: it has not the form NODE.INPUT=VALUE.
    """
    target, equals, value = text.partition("=")
    setting = Setting(target.strip(), value)
    if not equals or not any(node and name for node, name in setting.splits()):
        raise HostError(f"--set {text!r} is not of the form NODE.INPUT=VALUE, such as 3.seed=7 or KSampler.seed=7.")
    return setting


def load(path: Path) -> Graph:
    """Read a graph and find out its format.

    Raises:
        HostError: the file is missing, no JSON, or no graph.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise HostError(f"The workflow {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise HostError(f"The workflow {path} is not JSON (it is no text at all).") from None
    except (ValueError, RecursionError) as error:
        raise HostError(f"The workflow {path} is not JSON: {error}.") from None
    if isinstance(content, dict):
        if isinstance(content.get("nodes"), list) and isinstance(content.get("links"), list):
            return Graph(content, True, path)
        if content and all(
            isinstance(node, dict) and isinstance(node.get("class_type"), str) for node in content.values()
        ):
            for node in content.values():
                if not isinstance(node.setdefault("inputs", {}), dict):
                    raise HostError(f"The workflow {path} has a {node['class_type']} whose inputs are no object.")
            return Graph(content, False, path)
    raise HostError(f"{path} is JSON, but no ComfyUI workflow: neither the editor's format nor the API's.")


class _Complaints(logging.Handler):
    """Collects what the converter only logs: it leaves out a node that it cannot convert."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's text."""
        self.texts.append(record.getMessage())


def to_api(graph: Graph, object_info: dict) -> dict:
    """The graph in API format.

    Args:
        graph: of either format.
        object_info: the server's description of its nodes, needed for the editor's format.

    Raises:
        HostError: comfy-cli is missing, or it cannot convert the graph.
    """
    if not graph.is_ui:
        return graph.content
    try:
        from comfy_cli.workflow_to_api import WorkflowConversionError, convert_ui_to_api
    except ImportError as error:
        raise HostError(
            f"{graph.path} is in the editor's format, which takes comfy-cli to convert (pip install comfy-cli); "
            f"or give the same graph in API format (in the editor: Export (API)). Import said: {error}."
        ) from None
    complaints = _Complaints()
    logger = logging.getLogger("comfy_cli.workflow_to_api")
    logger.addHandler(complaints)
    logger.propagate = False
    try:
        converted = convert_ui_to_api(graph.content, object_info)
    except WorkflowConversionError as error:
        raise HostError(f"{graph.path} cannot be converted to API format: {error}.") from error
    finally:
        logger.removeHandler(complaints)
        logger.propagate = True
    if complaints.texts:
        raise HostError(f"{graph.path} cannot be converted to API format: {'; '.join(complaints.texts)}")
    if not converted:
        raise HostError(f"{graph.path} has no node that would run.")
    return converted


def title(node: dict) -> str | None:
    """The title a node of an API graph carries, if any."""
    meta = node.get("_meta")
    return meta.get("title") if isinstance(meta, dict) else None


def find_nodes(prompt: dict, name: str) -> list[str]:
    """Ids of the nodes that ``name`` may mean: the id itself, else those of that title, else those of that class."""
    if name in prompt:
        return [name]
    titled = [key for key, node in prompt.items() if title(node) == name]
    return titled or [key for key, node in prompt.items() if node["class_type"] == name]


def find_target(prompt: dict, setting: Setting) -> tuple[str, str]:
    """Node id and input name that a setting means.

    Raises:
        HostError: no node, or more than one, goes by that name.
    """
    for name, input_name in setting.splits():
        found = find_nodes(prompt, name)
        if len(found) == 1:
            return found[0], input_name
        if found:
            raise HostError(
                f"--set {setting.target}: {name!r} is {len(found)} nodes; give one's id: {', '.join(found)}."
            )
    name = setting.splits()[0][0]
    known = ", ".join(f"{key} ({node['class_type']})" for key, node in list(prompt.items())[:30])
    raise HostError(f"--set {setting.target}: no node has the id, title or class {name!r}. The graph has {known}.")


def apply_setting(prompt: dict, setting: Setting, object_info: dict) -> None:
    """Change one input of the graph, its text read as the kind of value that the input takes.

    Raises:
        HostError: the node or the input does not exist, or the value does not fit it.
    """
    node_id, name = find_target(prompt, setting)
    node = prompt[node_id]
    described = object_info.get(node["class_type"], {}).get("input") or {}
    specs = {key: spec for group in ("required", "optional") for key, spec in (described.get(group) or {}).items()}
    if name not in specs and name not in node["inputs"]:
        known = ", ".join(specs or node["inputs"]) or "none"
        raise HostError(f"--set {setting.target}: {node['class_type']} has no input {name!r}; its inputs are {known}.")
    spec = specs.get(name)
    if spec is None:  # a nested input of a dynamic widget: the graph knows it, the description does not
        node["inputs"][name] = guess(setting.value)
    else:
        node["inputs"][name] = convert(setting, spec)


def guess(text: str):
    """A number or truth value if ``text`` is one in JSON, else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) else text


def convert(setting: Setting, spec: list):
    """A setting's text as the value for an input described by ``spec`` (its type, then its options).

    Raises:
        HostError: the text does not fit the type, or the type is none that can be written down.
    """
    kind, text = spec[0], setting.value
    options = spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}
    if isinstance(kind, list) or kind == "COMBO":  # the old and the new way to describe a list of choices
        choices = kind if isinstance(kind, list) else options.get("options") or []
        return next((choice for choice in choices if str(choice) == text), text)
    try:
        if kind == "INT":
            return int(text)
        if kind == "FLOAT":
            return float(text)
        if kind == "BOOLEAN":
            return TRUTH[text.lower()]
    except (ValueError, KeyError):
        wanted = {"INT": "a whole number", "FLOAT": "a number", "BOOLEAN": "true or false"}[kind]
        raise HostError(f"--set {setting.target}: {wanted} was expected, {text!r} came.") from None
    if kind == "STRING":
        return text
    raise HostError(f"--set {setting.target}: this input is a socket of type {kind}, which takes a link, not a value.")


def rename_files(prompt: dict, names: dict[str, str]) -> None:
    """Put uploaded files' names on the server where the graph has their own.

    Args:
        prompt: the graph, changed in place.
        names: file name here -> file name in the server's input folder.
    """
    for node in prompt.values():
        for key, value in node["inputs"].items():
            if isinstance(value, str) and value in names:
                node["inputs"][key] = names[value]


def output_nodes(prompt: dict, object_info: dict) -> list[str]:
    """Ids of the nodes that the server runs a graph for."""
    return [key for key, node in prompt.items() if object_info.get(node["class_type"], {}).get("output_node")]
