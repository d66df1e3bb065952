"""The app in a browser under hard conditions: many points, names with markup, and Axe's rules of accessibility."""

import io
import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from bench_app import write_many
from browsing import PLACES, THEMES, Server, opened, serve, settled
from PIL import Image
from test_points import write_run
from test_report import write_study

from hrvit_lab.app.main import PAGES, address
from hrvit_lab.config import PRESETS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

MARKS = "<img src=x onerror=broken=1>", "<script>broken=1</script>", "[evil](http://evil.test)", "**strong**"
NAME = " ".join(MARKS)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app with a study of 10,000 variants."""
    folder = tmp_path_factory.mktemp("many")
    write_many(folder / "many")
    with serve(folder, folder / "none") as running:
        yield running


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app with a study and a training in whose every name and text there is markup."""
    folder = tmp_path_factory.mktemp("named")
    at = "<b onclick=x>[evil](evil.test) **strong**"
    study = write_study(folder / "results" / at, title=NAME, question=NAME)
    table = pd.read_csv(study / "table.csv")
    table.loc[0, "variant"], table.loc[1, "status"] = NAME, f"failed: {NAME}"
    table["note"] = NAME
    table.to_csv(study / "table.csv", index=False)
    run = write_run(folder / "runs" / at)
    (run / "config.yaml").write_text(PRESETS["hrvit_nano"].replace(name=NAME, num_classes=10).to_yaml())
    shutil.copytree(run, folder / "runs" / f"{at} 2")
    (folder / "runs" / f"{at} 2" / "result.json").write_text(f'"{MARKS[2]}"')
    with serve(folder / "results", folder / "runs") as running:
        yield running


# -- many points -----------------------------------------------------------------------------------------------


def test_a_chart_of_10_000_points_is_a_canvas_that_selects(browser: "Browser", many: Server) -> None:
    page = opened(browser, f"{many.url}/explore?sources=many")
    chart = page.locator("[data-testid=stVegaLiteChart]").first
    chart.locator("canvas").first.wait_for()
    assert chart.locator("svg").count() == 0
    page.get_by_role("heading", name="All points (10,000)").wait_for()
    page.wait_for_timeout(2000)
    box = chart.locator("canvas").first.bounding_box()
    assert box is not None
    shown = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")).astype(int)
    row, column = divmod(int(np.abs(shown - (0, 114, 178)).sum(-1).argmin()), shown.shape[1])
    page.mouse.click(box["x"] + column, box["y"] + row)
    page.get_by_role("heading", name="Details").wait_for()
    page.get_by_role("heading", name="Selected points (1)").wait_for()
    chart.hover()
    with page.expect_download() as started:
        page.get_by_role("button", name=re.compile("Download as PNG")).first.click()
    with Image.open(started.value.path()) as picture:
        assert picture.width >= box["width"]
    page.close()


# -- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [address(page) for page in PAGES])
def test_names_with_markup_are_text(browser: "Browser", named: Server, name: str) -> None:
    page = opened(browser, f"{named.url}/{name}")
    page.wait_for_timeout(1000)
    if name in ("explore", "studies"):  # other pages show names in menus, which are closed
        assert "evil" in page.content()
    assert is_plain(page)
    assert named.lives
    page.close()


def is_plain(page: "Page") -> bool:
    """Whether no name became an element, and no script of one ran."""
    return not page.evaluate(
        """() => window.broken || document.querySelector(
            'a[href*="evil"]:not([href^="#"]), img[src="x"], [onclick], [onerror]'
        ) || [...document.querySelectorAll('strong, b')].some(element => element.innerText.trim() === 'strong')"""
    )


def test_a_selected_point_with_markup_is_text(browser: "Browser", named: Server) -> None:
    page = opened(browser, f"{named.url}/explore?kinds=HRViT&limits=top1+%3C+93")
    page.locator("[data-testid=stVegaLiteChart] svg g.mark-symbol path").first.click()
    page.get_by_role("heading", name="Details").wait_for()
    settled(page)
    assert is_plain(page)
    page.close()


# -- accessibility ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("place", PLACES)
def test_axe_finds_nothing_serious(browser: "Browser", full: str, place: str, theme: str) -> None:
    page = opened(browser, f"{full}/{place}", theme=theme)
    page.wait_for_function(
        "[...document.querySelectorAll('[data-testid=stVegaLiteChart]')].filter(chart => chart.checkVisibility())"
        ".every(chart => chart.querySelector('svg .mark-symbol, svg .mark-rect, svg .mark-line, canvas'))"
    )
    settled(page)
    assert_axe_finds_nothing_serious(page)
    page.close()


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_in_what_build_exports(browser: "Browser", full: str, theme: str) -> None:
    page = opened(browser, f"{full}/build?preset=hrvit_b1&widths=32~64~192~256", theme=theme)
    for tab in ("YAML", "Python", "timm", "Study"):
        page.get_by_role("tab", name=tab, exact=True).click()
        settled(page)
        assert_axe_finds_nothing_serious(page)
    page.close()


def assert_axe_finds_nothing_serious(page: "Page") -> None:
    """The rules of WCAG 2, levels A and AA."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"], "resultTypes": ["violations"]})
    serious = {
        f"{rule['id']}: {node['html'][:200]}"
        for rule in found.response["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    }
    assert serious == set()
