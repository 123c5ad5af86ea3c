"""The real editor in headless Chromium, classic and Nodes 2.0."""

import pytest
from papernodes.host import editor as host_editor
from papernodes.host import layout
from papernodes.host.layout import HostError


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
