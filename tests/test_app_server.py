"""The app as a server: what it loads."""

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from browsing import Server, elements, serve, visit

from hrvit_lab.app.main import PAGES, address

NEED_TORCH = ("Look inside",)
"""Pages that run networks in the server."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    empty = tmp_path_factory.mktemp("empty")
    with serve(empty, empty) as running:
        yield running


def loads_torch(server: Server) -> bool:
    """Whether the process has torch's libraries in its memory."""
    return any("libtorch" in mapped.path for mapped in psutil.Process(server.pid).memory_maps())


def test_the_first_page_loads_neither_plots_nor_what_other_pages_need() -> None:
    script = (
        "import sys\n"
        "import hrvit_lab.app.main, hrvit_lab.app.pages.explore\n"
        "loaded = {'torch', 'timm', 'scipy', 'matplotlib', 'pymoo', 'optuna'} & set(sys.modules)\n"
        "loaded |= {name for name in sys.modules if name.startswith('hrvit_lab.app.pages.')}\n"
        "assert loaded == {'hrvit_lab.app.pages.explore'}, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=250)


def test_pages_without_networks_load_no_torch(app: Server) -> None:
    for page in PAGES:
        if page.title not in NEED_TORCH:
            messages = visit(app, address(page))
            assert not elements(messages, "exception")
            assert not loads_torch(app), page.title
