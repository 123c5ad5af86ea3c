"""The real editor in headless Chromium, classic and Nodes 2.0."""

import numpy
import pytest
from blob_editor import BlobEditor
from light_editor import LightEditor
from match_editor import MatchEditor
from motion_editor import HEIGHT, PICTURE, WIDTH, MotionEditor, picture
from panorama_editor import PanoramaEditor, write_pictures
from papernodes.host import editor as host_editor
from papernodes.host import layout
from papernodes.host.layout import HostError
from PIL import Image


@pytest.fixture(scope="module")
def chromium():
    """The browser. Not for longer than a module: while it runs, nothing else in this thread may run an event loop."""
    opened = host_editor.chromium()
    try:
        running = opened.__enter__()
    except HostError as error:
        pytest.skip(f"Browser tests were left out: {error}")
    yield running
    opened.__exit__(None, None, None)


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes_2"])
def editor(request, chromium, server, base_directory):
    """A page with the editor, its lists of files complete; ``editor.nodes_2`` says how nodes are drawn."""
    layout.copy_media(base_directory / "input")
    with host_editor.open_editor(chromium, server.url, nodes_2=request.param) as page:
        yield page


@pytest.fixture(scope="module")
def motion_picture(base_directory):
    """The picture on which the Cut and Drag editor is tried, in the input folder."""
    folder = base_directory / "input"
    folder.mkdir(exist_ok=True)
    # Transparent in part: Load Image hands on the colours, and so must the page.
    alpha = numpy.full((HEIGHT, WIDTH, 1), 255, numpy.uint8)
    alpha[:20, :30] = 0
    Image.fromarray(numpy.concatenate([picture(), alpha], axis=2)).save(folder / PICTURE)


@pytest.fixture
def motion(motion_picture, editor):  # in this order: the page reads its lists of files once
    """The editor of a fresh graph; the page must have had no error in the end."""
    editor.errors.clear()
    yield MotionEditor(editor)
    assert editor.errors == []


@pytest.fixture
def light(motion_picture, editor):
    """The Light Source editor of a fresh graph, likewise."""
    editor.errors.clear()
    yield LightEditor(editor)
    assert editor.errors == []


@pytest.fixture
def match(editor):
    """The Match Points editor of a fresh graph, likewise."""
    editor.errors.clear()
    yield MatchEditor(editor)
    assert editor.errors == []


@pytest.fixture
def blob(editor):
    """The Blob Layout editor of a fresh graph, likewise."""
    editor.errors.clear()
    yield BlobEditor(editor)
    assert editor.errors == []


@pytest.fixture(scope="module")
def panorama_pictures(base_directory):
    """The panoramas that the viewer is tried on, in the input folder."""
    folder = base_directory / "input"
    folder.mkdir(exist_ok=True)
    write_pictures(folder)


@pytest.fixture
def panorama(panorama_pictures, editor):  # in this order: the page reads its lists of files once
    """The viewer of a fresh graph's Panorama Preview, likewise."""
    editor.errors.clear()
    yield PanoramaEditor(editor)
    assert editor.errors == []
