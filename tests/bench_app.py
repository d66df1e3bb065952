"""How quick the app is, each figure against its goal: ``python tests/bench_app.py``. Needs Chromium and Playwright.

A JSON line for each figure: wall time, and CPU time of the processes that do the work, both in seconds. On a machine
with other work, wall time is longer than an idle machine's, which the CPU time bounds from below for a single thread.
The exit code is 1 if a wall time misses its goal. About a minute. Where JupyterLab is installed as well, the first page
takes a second more: jsonschema, which Altair needs, then imports a grammar of addresses.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import psutil
from browsing import ROOT, WAIT_MS, Server, ask, chromium, connected, elements, opened, serve, settled, visit
from websockets.sync.client import ClientConnection

from hrvit_lab.study.files import load_study

POINTS = 10_000
GOALS_S = {"first paint": 3.0, "counts": 0.1, "chart": 1.0, "maps": 1.0}


class Clock:
    """Wall time of a block, and CPU time of processes in it."""

    def __init__(self, *processes: psutil.Process) -> None:
        self.processes = processes
        self.start()

    def cpu_s(self) -> float:
        times = [process.cpu_times() for process in self.processes if process.is_running()]
        return sum(each.user + each.system for each in times)

    def start(self) -> None:
        self.wall, self.cpu = time.perf_counter(), self.cpu_s()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, self.cpu_s() - self.cpu


missed: list[str] = []


def report(what: str, taken: tuple[float, float], goal: str = "", **more: Any) -> None:
    """Print one JSON line."""
    wall_s, cpu_s = taken
    said: dict[str, Any] = {"what": what, "wall_s": round(wall_s, 3), "cpu_s": round(cpu_s, 3), **more}
    if goal:
        said |= {"goal_s": GOALS_S[goal], "met": wall_s <= GOALS_S[goal]}
        if wall_s > GOALS_S[goal]:
            missed.append(what)
    print(json.dumps(said), flush=True)


def write_many(folder: Path) -> None:
    """The results of a study of many variants, with made-up values."""
    spec = load_study(ROOT / "studies" / "branch_sweep.yaml")
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "variant": [f"variant {place}" for place in range(POINTS)],
            "config_id": [f"{place:08x}" for place in range(POINTS)],
            "branches": draw.integers(1, 6, POINTS),
            "params": draw.integers(10**5, 10**7, POINTS),
            "macs": draw.integers(10**7, 10**9, POINTS),
            "top1": draw.uniform(40, 99, POINTS).round(3),
            "top1_std": draw.uniform(0.1, 1, POINTS).round(3),
            "top1_n": 3,
            "status": "ok",
            "pareto": False,
        }
    )
    folder.mkdir(parents=True)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "study.yaml").write_text(spec.to_yaml(), encoding="utf-8")


def time_to(
    kind: str, session: ClientConnection, page: str, query: str, process: psutil.Process
) -> tuple[float, float]:
    """From a request of a page until its first element of a kind leaves the server; without a kind, its last one."""
    clock, taken = Clock(process), None
    for message in ask(session, page, query):
        if taken is None and kind and elements([message], kind):
            taken = clock.read()
    if kind and taken is None:
        raise RuntimeError(f"{page} has no {kind}")
    return taken or clock.read()


def time_to_chart(server: Server, process: psutil.Process) -> tuple[float, float]:
    """From a request of Explore in a new session until its first chart leaves the server."""
    with connected(server) as session:
        return time_to("vega_lite_chart", session, "explore", "", process)


def bench_server(folder: Path) -> None:
    """First paint, the chart of many points, and Build's page."""
    clock = Clock(psutil.Process())
    with serve(folder / "none", folder / "none") as server, chromium() as browser:
        process = psutil.Process(server.pid)
        report("server: from its start until it answers", (clock.read()[0], Clock(process).cpu_s()))
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        page.set_default_timeout(WAIT_MS)
        clock = Clock(process)
        page.goto(server.url)
        page.locator("h1").first.wait_for()
        taken = clock.read()
        paint_ms = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null")
        report(
            "server up to the first page's title in Chromium", taken, "first paint", first_contentful_paint_ms=paint_ms
        )
        page.locator("[data-testid=stVegaLiteChart] svg.marks, [data-testid=stVegaLiteChart] canvas").first.wait_for()
        report("the same, to its first chart", clock.read())
        page.close()
        with connected(server) as session:
            list(ask(session, "build", "preset=hrvit_b1"))
            edits = [f"preset=hrvit_b1&num_classes={classes}" for classes in range(2, 13)]
            to_counts = [time_to("metric", session, "build", edit, process) for edit in edits]
            report("Build: an edit until its first count leaves the server", median_of(to_counts), "counts")
            to_end = [time_to("", session, "build", edit, process) for edit in edits]
            report("Build: the whole page, counts already known", median_of(to_end))
    with serve(folder, folder / "none") as server:
        process = psutil.Process(server.pid)
        visit(server, "published")  # imports
        first = time_to_chart(server, process)
        report(f"Explore: first chart of {POINTS:,} points at the server", first, "chart")
        report("the same, results already read", time_to_chart(server, process))


def median_of(taken: list[tuple[float, float]]) -> tuple[float, float]:
    return median(wall for wall, _ in taken), median(cpu for _, cpu in taken)


def bench_maps(folder: Path) -> None:
    """From a click on a pixel until Chromium shows its maps."""
    shown = "() => [...document.querySelectorAll('[data-testid=stImage] img')].map(image => image.src)"
    drawn = (
        f"before => {{ const now = ({shown})(); return now.length === 2 && now.every(src => !before.includes(src)) }}"
    )
    with serve(folder / "none", folder / "none") as server, chromium() as browser:
        process = psutil.Process(server.pid)
        page = opened(browser, f"{server.url}/look-inside?network=hrvit_b1+(random+weights)")
        page.get_by_role("combobox", name="Side, px").click()
        clock = Clock(process)
        page.get_by_role("option", name="512", exact=True).click()
        page.get_by_text("Pixel: row 256, column 256 of 512 × 512.").wait_for()
        page.get_by_text("the token at row 256, column 256 gives").wait_for()
        settled(page)
        report("Look inside: first maps, hrvit_b1 at 512 px", clock.read())
        taken = []
        for place in range(1, 6):
            before = page.evaluate(shown)
            clock.start()
            page.frame_locator("iframe").first.locator("img").click(position={"x": 50 * place, "y": 100})
            page.wait_for_function(drawn, arg=before)
            taken.append(clock.read())
            settled(page)
        report("Look inside: a click until its maps are shown, hrvit_b1 at 512 px", median_of(taken), "maps")


@contextmanager
def folder_of_many() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        write_many(Path(name) / "many")
        yield Path(name)


def main() -> int:
    with folder_of_many() as folder:
        bench_server(folder)
        bench_maps(folder)
    for what in missed:
        print(f"missed: {what}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
