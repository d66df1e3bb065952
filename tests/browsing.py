"""The app as a server of its own and headless Chromium, for tests and the benchmark of the app.

Needs Chromium (``apt-get install chromium``) and Playwright: ``make test ARGS="-m browser"``.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.Common_pb2 import FileUploaderState, FileURLs, FileURLsRequest, UploadedFileInfo
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parent.parent
WAIT_MS = 120_000
THEMES = ("light", "dark")


class Server(NamedTuple):
    """A running app: its address, port and process."""

    url: str
    port: int
    pid: int

    @property
    def lives(self) -> bool:
        """Whether it answers."""
        try:
            return bool(urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=10).read() == b"ok")
        except OSError:
            return False


@contextlib.contextmanager
def serve(results: Path, runs: Path, *options: str) -> Iterator[Server]:
    """Start the app with these folders and options of Streamlit, and stop it at the end."""
    port = free_port()
    command = [
        sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port),
        "--server.headless", "true", *options, "--", "--results", str(results), "--runs", str(runs),
    ]  # fmt: skip
    with started(command, port, ROOT) as server:
        yield server


def free_port() -> int:
    """A TCP port that no process listens to."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def started(command: list[str], port: int, folder: Path, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """Start the app by a command in a folder, and stop it at the end with the processes of its group."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        server = Server(f"http://localhost:{port}", port, process.pid)
        until = time.monotonic() + 120
        while not server.lives and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert server.lives, "the app does not start"
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it keeps nothing, and would wait for its sessions
        process.wait()


# -- without a browser: what the server sends to one -----------------------------------------------------------


@contextlib.contextmanager
def connected(server: Server) -> Iterator[ClientConnection]:
    """A session of the app."""
    with connect(
        f"ws://localhost:{server.port}/_stcore/stream", max_size=None, ping_interval=None, open_timeout=120
    ) as connection:
        yield connection


def ask(
    connection: ClientConnection, name: str, query: str = "", states: Sequence[WidgetState] = ()
) -> Iterator[ForwardMsg]:
    """Open an address in a session, with widgets in these states; what the server sends until the page is complete."""
    widgets = WidgetStates(widgets=states)
    request = BackMsg(rerun_script=ClientState(page_name=name, query_string=query, widget_states=widgets))
    connection.send(request.SerializeToString())
    complete = ForwardMsg.FINISHED_SUCCESSFULLY
    while True:
        sent = connection.recv(timeout=WAIT_MS / 1000)
        assert isinstance(sent, bytes)
        message = ForwardMsg.FromString(sent)
        yield message
        if message.WhichOneof("type") == "script_finished" and message.script_finished == complete:
            return


def visit(server: Server, name: str, query: str = "") -> list[ForwardMsg]:
    """Open an address in a session of its own; what the server sends."""
    with connected(server) as connection:
        return list(ask(connection, name, query))


def upload(server: Server, connection: ClientConnection, name: str, content: bytes) -> FileURLs:
    """Upload a file in a session, as the browser does; where it is.

    Raises:
        OSError: if the server refuses it.
    """
    connection.send(BackMsg(file_urls_request=FileURLsRequest(request_id="1", file_names=[name])).SerializeToString())
    while True:
        sent = connection.recv(timeout=WAIT_MS / 1000)
        assert isinstance(sent, bytes)
        message = ForwardMsg.FromString(sent)
        if message.WhichOneof("type") == "file_urls_response":
            break
    [place] = message.file_urls_response.file_urls
    with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=10) as response:
        token = response.headers["Set-Cookie"].partition(";")[0]
    body = (
        f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + content
        + b"\r\n--edge--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Cookie": token}
    headers["X-Xsrftoken"] = token.partition("=")[2]
    request = urllib.request.Request(server.url + place.upload_url, body, headers, method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    return place


def elements(messages: list[ForwardMsg], kind: str) -> list[Any]:
    """The elements of a kind, such as "alert", in messages."""
    found = [message.delta.new_element for message in messages if message.WhichOneof("type") == "delta"]
    return [getattr(element, kind) for element in found if element.WhichOneof("type") == kind]


def chosen(messages: list[ForwardMsg], label: str, option: str) -> WidgetState:
    """The state of the selectbox of that label when an option is chosen."""
    [box] = [box for box in elements(messages, "selectbox") if box.label == label]
    return WidgetState(id=box.id, string_value=option)


def uploaded(server: Server, connection: ClientConnection, messages: list[ForwardMsg], content: bytes) -> WidgetState:
    """Upload a file; the state of the page's only file uploader when it has this file."""
    [uploader] = elements(messages, "file_uploader")
    name = f"file{uploader.type[0]}"
    place = upload(server, connection, name, content)
    info = UploadedFileInfo(name=name, size=len(content), file_id=place.file_id, file_urls=place)
    state = FileUploaderState(uploaded_file_info=[info])
    return WidgetState(id=uploader.id, file_uploader_state_value=state)


def query_keys(messages: list[ForwardMsg]) -> set[str]:
    """The query parameters to which the widgets of a page are bound."""
    keys = set()
    for message in messages:
        if message.WhichOneof("type") == "delta":
            block, element = message.delta.add_block, message.delta.new_element
            widget = getattr(element, element.WhichOneof("type") or "", None)
            keys |= {getattr(widget, "query_param_key", ""), block.tab_container.query_param_key}
    return keys - {""}


# -- in a browser ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def chromium() -> "Iterator[Browser]":
    """Start headless Chromium.

    Raises:
        FileNotFoundError: if Chromium is not installed.
    """
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise FileNotFoundError("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as running:
        started = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    try:
        with chromium() as started:
            yield started
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the app without results of the user."""
    empty = tmp_path_factory.mktemp("empty")
    with serve(empty, empty) as running:
        yield running.url


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the app with the results that come with the repository, as if they were the user's."""
    from test_points import write_run

    folder = tmp_path_factory.mktemp("full")
    studies, trained = ROOT / "studies" / "measured", ROOT / "studies" / "trained" / "fashion_mnist"
    shutil.copytree(studies, folder / "results")
    run = write_run(folder / "runs" / "micro")
    for name in ("recipe.yaml", "summary.csv"):
        shutil.copy(trained / "hrvit_micro-seed0" / name, run)
    with serve(folder / "results", folder / "runs") as running:
        yield running.url


def opened(browser: "Browser", url: str, width: int = 1440, theme: str = "light") -> "Page":
    page = browser.new_page(viewport={"width": width, "height": 1000}, color_scheme=theme)  # type: ignore[arg-type]
    page.set_default_timeout(WAIT_MS)
    page.goto(url)
    settled(page)
    return page


# Streamlit marks the app while its script runs; the browser draws later, its fields first without their values.
QUIET = """() => {
    const app = document.querySelector('[data-testid=stApp]');
    if (!window.lastChange) {
        window.lastChange = performance.now();
        const changed = () => { window.lastChange = performance.now() };
        new MutationObserver(changed).observe(document, {subtree: true, childList: true, attributes: true});
    }
    return app?.dataset.testScriptState === 'notRunning' && !document.querySelector('[data-testid=stSkeleton]')
        && performance.now() - window.lastChange > 250;
}"""


PLACES = (
    "explore", "explore?view=Parallel+coordinates&error=true", "studies", "build", "compare", "look-inside",
    "run", "run?view=watch&run=branch_sweep", "run?view=watch&run=training+micro", "published",
)  # fmt: skip
"""Addresses that show each page with its content."""


def settled(page: "Page") -> None:
    """Wait until the script has finished and everything is drawn: for a quarter of a second nothing changes."""
    page.locator("h1").first.wait_for()
    page.wait_for_function(QUIET, timeout=WAIT_MS)
