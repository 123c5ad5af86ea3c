"""The rules of the house: where code lives, what it may import, how nodes are described."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pack import nodes
from papernodes import __path__ as pack_path

ROOT = Path(pack_path[0])
LAYERS = ["kernels", "networks", "patches", "nodes"]  # each may import itself and those before it
USERS = ["host", "demo", "benchmarks"]  # use the layers, are used by none
HOST_MODULES = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server", "execution", "app"}
LAZY = {"cv2", "kornia", "triton", "torchvision", "scipy"}
NODE_IDS = [
    "PaperNodes_OpticalFlow",
    "PaperNodes_LoadFlow",
    "PaperNodes_SaveFlow",
    "PaperNodes_FlowToImage",
    "PaperNodes_WarpNoise",
    "PaperNodes_NoiseToLatent",
    "PaperNodes_LatentToNoise",
    "PaperNodes_MixNoise",
    "PaperNodes_CameraFlow",
    "PaperNodes_CutAndDrag",
    "PaperNodes_StoryPrompts",
    "PaperNodes_SingularValueReweight",
    "PaperNodes_IdentityAttention",
    "PaperNodes_StoryNoise",
    "PaperNodes_StorySheet",
    "PaperNodes_ICLightModel",
    "PaperNodes_ICLightConditioning",
    "PaperNodes_ICLightHires",
    "PaperNodes_ICLightSchedule",
    "PaperNodes_MotionModules",
    "PaperNodes_MotionLoRA",
    "PaperNodes_RelightVidConditioning",
    "PaperNodes_DDPMSigmas",
    "PaperNodes_NormalsFromLight",
    "PaperNodes_DetailTransfer",
    "PaperNodes_LoadHDR",
    "PaperNodes_EnvironmentLight",
    "PaperNodes_LightSource",
    "PaperNodes_LineArt",
    "PaperNodes_LumaReplace",
    "PaperNodes_ChromaSmooth",
    "PaperNodes_MatchPoints",
    "PaperNodes_SuggestPoints",
    "PaperNodes_MangaNinjaLoader",
    "PaperNodes_MangaNinjaApply",
    "PaperNodes_MangaNinjaGuider",
    "PaperNodes_BlobLayout",
    "PaperNodes_BlobsFromMasks",
    "PaperNodes_BlobsToMasks",
    "PaperNodes_BlobsToBoxes",
    "PaperNodes_BlobsToGLIGEN",
    "PaperNodes_PlanBlobs",
    "PaperNodes_ApplyBlobs",
    "PaperNodes_BlobTextSchedule",
    "PaperNodes_BlobAdapter",
    "PaperNodes_Imagine360Conditioning",
    "PaperNodes_Imagine360Unpack",
    "PaperNodes_EquirectToPerspective",
    "PaperNodes_PerspectiveToEquirect",
    "PaperNodes_PanoramaPreview",
    "PaperNodes_CubemapConvert",
    "PaperNodes_RotatePanorama",
    "PaperNodes_PanoramaSeam",
    "PaperNodes_ElevationTrack",
    "PaperNodes_Imagine360Loader",
    "PaperNodes_PanoramaModel",
    "PaperNodes_PanoramaViews",
    "PaperNodes_PanoramaVAEEncode",
    "PaperNodes_PanoramaVAEDecode",
    "PaperNodes_DemoCheckpoint",
]


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def all_sources() -> list[Path]:
    return [ROOT / "__init__.py", *sources(*LAYERS, *USERS, "tests")]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> list[tuple[int, str, ast.stmt]]:
    """(level, dotted name, statement) of everything that is imported."""
    found = []
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            found.extend((0, alias.name, statement) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            module = statement.module or ""
            names = [f"{module}.{alias.name}".strip(".") for alias in statement.names] if not module else [module]
            found.extend((statement.level, name, statement) for name in names)
    return found


def broken_imports(path: Path, text: str) -> list[str]:
    """What in a file of a layer breaks the import rule."""
    folders = path.relative_to(ROOT).parts[:-1]
    layer = folders[0]
    allowed = LAYERS[: LAYERS.index(layer) + 1]
    tree = ast.parse(text)
    broken = []
    for level, name, statement in imports(tree):
        top = name.split(".")[0]
        where = f"{name_of(path)}:{statement.lineno} imports {'.' * level}{name}"
        if level == 0:
            if top in {*LAYERS, *USERS, "papernodes", "tests"}:
                broken.append(f"{where}: only relative imports inside the pack")
            if layer == "kernels" and top in HOST_MODULES:
                broken.append(f"{where}: kernels never import ComfyUI")
        elif level > len(folders) and top not in allowed:
            broken.append(f"{where}: {layer} may use {', '.join(allowed)}")
    return broken


@pytest.mark.parametrize("path", sources(*LAYERS), ids=name_of)
def test_imports_run_one_way(path):
    assert not broken_imports(path, path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("kernels", "import comfy.utils"),
        ("kernels", "from ..patches import x"),
        ("networks", "from ..nodes.sockets import x"),
        ("patches", "from .. import nodes"),
        ("patches", "from ..benchmarks import lib"),
        ("nodes", "from nodes import x"),
        ("nodes", "import kernels.flow"),
        ("nodes", "from ..demo import x"),
    ],
)
def test_the_import_rule_can_fail(layer, line):
    assert broken_imports(ROOT / layer / "some_file.py", line)


def imported_with_the_pack() -> set[Path]:
    """The layers' files that are run when the host imports the pack: those reached by imports at the top of a file."""
    waiting, found = [ROOT / "nodes" / "__init__.py", *sources("nodes")], set()
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        for statement in ast.parse(path.read_text("utf-8")).body:
            if isinstance(statement, ast.ImportFrom) and statement.level:
                folder = path.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
                names = [folder.with_suffix(".py"), folder / "__init__.py"]
                waiting += [*names, *(folder / f"{alias.name}.py" for alias in statement.names)]
    return found


def test_nothing_heavy_is_imported_with_the_pack():
    reached = imported_with_the_pack()
    assert {"kernels/noise_warp.py", "patches/warped_noise.py"} <= {name_of(path) for path in reached}
    heavy = []
    for path in reached:
        tree = ast.parse(path.read_text("utf-8"))
        heavy += [
            (name_of(path), name) for _, name, at in imports(tree) if at in tree.body and name.split(".")[0] in LAZY
        ]
    assert not heavy, f"import these where they are used: {heavy}"


@pytest.mark.parametrize("path", all_sources(), ids=name_of)
def test_sources_are_ascii_and_short(path):
    text = path.read_bytes().decode("ascii")  # so that Windows' default code page reads it too
    assert text.count("\n") < 500


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *sources(*LAYERS)], ids=name_of)
def test_nothing_is_printed(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert not [c.lineno for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


def test_the_entry_point_is_small():
    assert (ROOT / "__init__.py").read_text().count("\n") < 60


def test_registry_rules():
    ruff = shutil.which("ruff") or shutil.which("ruff", path=str(Path(sys.executable).parent))
    assert ruff, "ruff is missing: pip install -r requirements-dev.txt"
    files = [str(path) for path in all_sources()]
    command = [ruff, "check", "--isolated", "--no-cache", "--select", "S102,S307,E702", *files]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_nodes_are_these():
    assert sorted(nodes()) == sorted(NODE_IDS)


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_node_is_described(node_id):
    schema = nodes()[node_id].GET_SCHEMA()
    assert schema.node_id == node_id
    assert schema.node_id.startswith("PaperNodes_")
    assert schema.category.startswith("papernodes/")
    assert schema.display_name
    assert schema.description
    missing = [item.id for item in (*schema.inputs, *schema.outputs) if not item.tooltip]
    assert not missing, f"no tooltip: {missing}"
    assert all(output.display_name for output in schema.outputs)


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_no_node_checks_inputs_by_kwargs(node_id):
    """With ``**kwargs`` the host skips its own checks of every input."""
    import inspect

    for name in ("validate_inputs", "fingerprint_inputs"):
        method = nodes()[node_id].__dict__.get(name)
        if method is not None:
            assert inspect.getfullargspec(method.__func__).varkw is None


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_node_has_a_help_page(node_id):
    page = ROOT / "web" / "docs" / f"{node_id}.md"
    text = page.read_text("utf-8")
    schema = nodes()[node_id].GET_SCHEMA()
    unnamed = [item.id for item in schema.inputs if f"`{item.id}`" not in text]
    assert not unnamed, f"{page.name} does not speak of the inputs {unnamed}"
    pictures = re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)
    assert pictures, f"{page.name} has no picture"
    for description, target in pictures:
        assert description
        assert (page.parent / target).is_file(), f"{page.name} shows {target}, which is missing"
        assert (page.parent / target).stat().st_size < 60_000


def test_no_help_page_without_a_node():
    assert {page.stem for page in (ROOT / "web" / "docs").glob("*.md")} == set(nodes())


def shipped_types(folder: Path, pattern: str) -> set[str]:
    """Node types in UI or API format files."""
    found = set()
    for path in folder.glob(pattern):
        graph = json.loads(path.read_text("utf-8"))
        if "nodes" in graph:
            found.update(node["type"] for node in graph["nodes"])
        else:
            found.update(node["class_type"] for node in graph.values())
    return found


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_every_node_stands_in_a_shipped_workflow(node_id):
    assert node_id in shipped_types(ROOT / "workflows", "*.json")
    assert node_id in shipped_types(ROOT / "workflows" / "api", "**/*.json")
