"""The app's server under hostile addresses and many sessions at once, without a browser."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from urllib.parse import urlencode

import psutil
import pytest
from browsing import Server, ask, connected, elements, query_keys, serve, upload, visit
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from test_report import write_study

from hrvit_lab.app.main import PAGES, address
from hrvit_lab.files import MIB

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOSTILE = [
    "", "\0", "../../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "<script>alert(1)</script>",
    "[evil](http://evil.test)", "9" * 5000, "-1", "-0", "1e400", "nan", "inf", "true", "null", "[]", "{}", "[" * 3000,
    '{"branches": 1e9}', "!!python/object:os.system", "*a", "%s%n%x", "__proto__", "a\nb\r\nc", "\x1b[31m\u202e",
    "hrvit_b3," * 200, "timm:resnet18", "timm:../../x", "hrvit_nano.yaml", "💥" * 500,
]  # fmt: skip
SESSIONS = 20
UPLOAD_MIB = 7
KEPT_MIB = SESSIONS * UPLOAD_MIB / 2
"""The allocator keeps some memory of twenty threads: 25 to 55 MiB were seen."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    results = tmp_path_factory.mktemp("results")
    write_study(results / "study")
    with serve(results, tmp_path_factory.mktemp("runs")) as running:
        yield running


def addresses(server: Server, name: str) -> Iterator[str]:
    """Query strings in which each key of the page, and some that it does not have, have hostile values.

    Neighbouring keys have neighbouring values, so that each value occurs on each page.
    """
    keys = sorted(query_keys(visit(server, name)) | {"sources", "model", "models", "study", "unknown"})
    for first in range(0, len(HOSTILE), 3):
        yield urlencode({key: HOSTILE[(first + place) % len(HOSTILE)] for place, key in enumerate(keys)})
    yield "&".join(f"{key}=a&{key}=b" for key in keys)
    yield "=&&==&%zz&%00=%ff"


@pytest.mark.parametrize("name", [address(page) for page in PAGES])
def test_a_hostile_address_gives_a_page_without_an_exception(server: Server, name: str) -> None:
    for query in addresses(server, name):
        messages = visit(server, name, query)
        assert elements(messages, "exception") == [], query[:200]
        for alert in elements(messages, "alert"):
            assert "\n" not in alert.body.strip() and len(alert.body) < 1500, (query[:200], alert.body[:300])
    assert server.lives


def test_the_memory_of_twenty_sessions_comes_back(tmp_path: Path) -> None:
    """Twenty users at once open pages, upload a large file each, and leave.

    The level after that is compared with the one before: when one user has opened all pages, so that every cache is
    filled, and has left. Streamlit keeps left sessions for two minutes; here, for a second.
    """
    pages = [address(page) for page in PAGES]
    write_study(tmp_path / "results" / "study")

    def resident_mib() -> float:
        visit(server, "published")  # a new session makes Streamlit end the expired ones
        return float(psutil.Process(server.pid).memory_info().rss / MIB)

    with serve(tmp_path / "results", tmp_path / "runs", "--server.disconnectedSessionTTL", "1") as server:

        def use(number: int) -> int:
            """The errors that one user saw, who stays until all others are there."""
            with connected(server) as connection:
                own = (pages[number % len(pages)], pages[(number + 1) % len(pages)])
                errors = sum(len(elements(list(ask(connection, page)), "exception")) for page in own)
                upload(server, connection, "large.png", os.urandom(UPLOAD_MIB * MIB))
                together.wait()
                levels.append(resident_mib())
                together.wait()
                return errors

        for page in pages:
            assert elements(visit(server, page), "exception") == []
        time.sleep(2)
        before = resident_mib()
        levels: list[float] = []
        together = Barrier(SESSIONS, timeout=600)
        with ThreadPoolExecutor(SESSIONS) as users:
            assert sum(users.map(use, range(SESSIONS))) == 0
        until = time.monotonic() + 60
        while (after := resident_mib()) > before + KEPT_MIB and time.monotonic() < until:
            time.sleep(2)
        print(f"resident MiB: {before:.0f} before, {max(levels):.0f} with {SESSIONS} users, {after:.0f} after")
        assert max(levels) > before + 0.9 * SESSIONS * UPLOAD_MIB
        assert after < before + KEPT_MIB
        assert server.lives


def test_two_users_do_not_see_each_others_choices(server: Server) -> None:
    def texts(messages: list[ForwardMsg]) -> list[str]:
        return [str(element) for kind in ("markdown", "metric") for element in elements(messages, kind)]

    before = texts(visit(server, "build"))
    with connected(server) as one, connected(server) as other:
        assert texts(list(ask(one, "build", "preset=hrvit_b3"))) != before
        assert texts(list(ask(other, "build"))) == before
    assert texts(visit(server, "build")) == before
