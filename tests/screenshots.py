"""The pictures of the app in ``docs/``: ``python tests/screenshots.py [PAGE …]``. Needs Chromium and Playwright.

Light, 1440 px wide, with the results that come with the repository, and for Run with a study that it starts. Some ten
minutes for all. Look at each one before it is committed.
"""

import io
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from browsing import ROOT, chromium, opened, serve, settled
from PIL import Image

from hrvit_lab.app import processes

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTH_PX = 1200
"""Of a picture in ``docs/``."""


class Picture(NamedTuple):
    """A page: its address, the height of the window, and what is done before the picture is taken.

    Attributes:
        results: folder of the studies that it shows; None: an empty one.
    """

    address: str
    height_px: int
    prepare: "Callable[[Page], object]" = settled
    results: Path | None = None


def show_errors(page: "Page") -> None:
    page.get_by_text("Error rate on a logarithmic axis").click()
    settled(page)


def choose_branch_sweep(page: "Page") -> None:
    page.get_by_role("combobox", name="Study").click()
    page.get_by_role("option", name="branch_sweep").click()
    page.get_by_role("heading", name="How many branches pay, 1 to 5?").wait_for()
    settled(page)


def click_on_the_boot(page: "Page") -> None:
    page.frame_locator("iframe").first.locator("img").click(position={"x": 152, "y": 152})
    page.get_by_text("Pixel: row 28, column 28 of 64 × 64.").wait_for()
    page.get_by_text("the token at row 28, column 28 gives").wait_for()
    settled(page)


def watch_a_study(page: "Page") -> None:
    """Start the study branch_sweep and wait until it has finished a quarter of its trials."""
    epochs = page.get_by_role("spinbutton", name="Epochs")
    epochs.fill("4")
    epochs.press("Enter")
    settled(page)
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text(re.compile(r"^(9|[1-9]\d) of \d+ trials")).wait_for(timeout=1_800_000)
    page.wait_for_timeout(3000)  # this page is drawn again and again, so that it is never settled for long


PICTURES = {
    "explore": Picture("explore", 1120, show_errors),
    "studies": Picture("studies", 1250, choose_branch_sweep, results=ROOT / "studies" / "measured"),
    "build": Picture("build?preset=hrvit_b1&widths=32~64~192~256", 1180),
    "compare": Picture("compare?models=hrvit_b1&models=mit_b1&size=512", 1420),
    "look-inside": Picture("look-inside", 1250, click_on_the_boot),
    "run": Picture("run", 1500, watch_a_study),
    "published": Picture("published", 1250),
}


def main(names: list[str]) -> None:
    chosen = names or list(PICTURES)
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            address, height_px, prepare, results = PICTURES[name]
            with serve(results or Path(folder), Path(folder) / "none") as server, chromium() as browser:
                page = opened(browser, f"{server.url}/{address}")
                page.set_viewport_size({"width": 1440, "height": height_px})
                prepare(page)
                taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            for process in processes.find(Path(folder)):
                processes.stop(process)
            taken.thumbnail((WIDTH_PX, 2 * WIDTH_PX), Image.Resampling.LANCZOS)
            path = ROOT / "docs" / f"{name}.png"
            taken.save(path, optimize=True)
            print(f"{path.relative_to(ROOT)}: {taken.width} × {taken.height}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
