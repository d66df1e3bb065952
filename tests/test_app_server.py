"""The app as a server: what it loads, and who can reach it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from browsing import ROOT, Server, ask, connected, elements, free_port, serve, started, upload, visit
from streamlit.proto.NewSession_pb2 import Config

from hrvit_lab.app import __main__ as command_line
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


def test_the_command_serves_this_machine_only_in_any_folder(tmp_path: Path) -> None:
    """In an empty folder, with an empty home folder: nothing of the repository's root is there."""
    port = free_port()
    command = [sys.executable, "-m", "hrvit_lab.app", "--port", str(port), "--", "--server.headless", "true"]
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with started(command, port, tmp_path, environment) as server:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        sockets = [one for process in family for one in process.net_connections("tcp") if one.status == "LISTEN"]
        assert {one.laddr.ip for one in sockets} <= {"127.0.0.1", "::1"}
        assert port in {one.laddr.port for one in sockets}
        with connected(server) as connection:
            messages = list(ask(connection, "published"))
            upload(server, connection, "small.png", b"0" * (8 * 2**20 - 1000))
            with pytest.raises(OSError):  # the server closes the connection before it has read all
                upload(server, connection, "large.png", b"0" * (8 * 2**20 + 1000))
        session = next(message.new_session for message in messages if message.WhichOneof("type") == "new_session")
        assert session.config.toolbar_mode == Config.MINIMAL and not session.config.gather_usage_stats
        assert session.custom_theme.light.primary_color == "#0072b2"
        assert server.lives


def test_both_copies_of_the_settings_are_equal() -> None:
    """Not a link: without its target, as on some Windows machines, the app would listen to all."""
    one, other = (ROOT / place / ".streamlit" / "config.toml" for place in (".", "hrvit_lab/app"))
    assert not one.parent.is_symlink() and one.read_bytes() == other.read_bytes()


def test_options_of_streamlit_and_of_the_app_reach_them() -> None:
    """Options of a user come after ours, so that they win."""
    own, of_streamlit = command_line._split(["--runs", "r", "--profile", "p", "--", "--server.address", "0.0.0.0"])
    assert own == ["--runs", "r", "--profile", "p"]
    command = command_line.command(command_line.parser().parse_args(own), of_streamlit)
    options, of_app = command[: command.index("--")], command[command.index("--") + 1 :]
    assert options[-4:] == ["--server.port", "8501", "--server.address", "0.0.0.0"]
    assert of_app == ["--results=results", "--runs=r", "--profile=p"]
    assert command_line._split(["--port", "8502"]) == (["--port", "8502"], [])
