"""The app in a real browser: every page in both themes and on a telephone, and what a user does with it.

Needs Chromium (``apt-get install chromium``) and Playwright: ``make test ARGS="-m browser"``.
"""

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from browsing import PLACES, THEMES, WAIT_MS, Server, opened, serve, settled
from PIL import Image

from hrvit_lab.app import processes, subjects
from hrvit_lab.app.main import PAGES, address
from hrvit_lab.insight.attention import block_attention
from hrvit_lab.insight.what import WHAT
from hrvit_lab.network.named import open_network
from hrvit_lab.train.transforms.normalise import Normalise

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_every_page_is_among_the_places() -> None:
    assert {address(page) for page in PAGES} == {place.partition("?")[0] for place in PLACES}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", [1440, 420])
@pytest.mark.parametrize("place", PLACES)
def test_every_page_has_no_error_and_fits_its_width(
    browser: "Browser", full: str, place: str, width: int, theme: str
) -> None:
    assert_no_error_and_no_scrolling(opened(browser, f"{full}/{place}", width, theme))


@pytest.mark.parametrize("what", [name for name in WHAT if name not in ("attention", "segments")])
def test_every_view_of_look_inside_has_no_error_and_fits_a_telephone(
    browser: "Browser", server: str, what: str
) -> None:
    page = opened(browser, f"{server}/look-inside?what={what}", 420)
    page.locator("[data-testid=stImage] img").first.wait_for()
    assert_no_error_and_no_scrolling(page)


@pytest.mark.parametrize("place", ["explore", "studies", "run?view=watch"])
def test_pages_without_results_have_no_error(browser: "Browser", server: str, place: str) -> None:
    assert_no_error_and_no_scrolling(opened(browser, f"{server}/{place}", 420))


def assert_no_error_and_no_scrolling(page: "Page") -> None:
    """No error message, and the page is no wider than its window. Streamlit scrolls its main part, not the document."""
    assert page.locator("[data-testid=stException]").count() == 0
    assert page.locator("[data-testid=stAlertContentError]").count() == 0
    main = page.locator("[data-testid=stMain]")
    assert main.evaluate("main => [main.scrollWidth - main.clientWidth, main.scrollLeft]") == [0, 0]
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    page.close()


def test_a_click_on_a_pixel_changes_the_maps(browser: "Browser", server: str) -> None:
    page = opened(browser, f"{server}/look-inside")
    image = page.frame_locator("iframe").first.locator("img")
    first = page.locator("[data-testid=stImage] img").first.get_attribute("src")
    image.click(position={"x": 60, "y": 235})
    page.get_by_text("Pixel: row 44, column 11 of 64 × 64.").wait_for()
    page.get_by_text(re.compile("the token at row 44, column 11 gives")).wait_for()
    settled(page)
    assert page.locator("[data-testid=stImage] img").first.get_attribute("src") != first
    page.close()


def test_an_uploaded_image_and_a_click_give_the_maps_of_insight(
    browser: "Browser", server: str, tmp_path: Path
) -> None:
    """The arrays that the page offers are those that `insight` computes for this image and this pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    page = opened(browser, f"{server}/look-inside")
    page.get_by_role("combobox", name="Image").click()
    page.get_by_role("option", name=subjects.UPLOADED).click()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    page.get_by_text("mine.png").wait_for()
    settled(page)
    page.frame_locator("iframe").first.locator("img").click(position={"x": 60, "y": 235})
    page.get_by_text(re.compile("the token at row 44, column 11 gives")).wait_for()
    settled(page)
    with page.expect_download() as started:
        page.get_by_role("button", name="Arrays (NPZ)").click()
    found = open_network("hrvit_micro.fashion_mnist")
    blocks = block_attention(found.model, Normalise(found.mean, found.std)(pixels)[None])
    with np.load(started.value.path()) as arrays:
        for block in blocks:
            (tall, wide), name = block.place.stride, block.place.name
            np.testing.assert_allclose(arrays[name], block.of_token((44 // tall, 11 // wide)), atol=1e-6)
    page.close()


@pytest.mark.parametrize("width", [1440, 420])
def test_costs_stay_in_sight_while_one_edits(browser: "Browser", server: str, width: int) -> None:
    page = opened(browser, f"{server}/build", width)
    page.locator(".st-key-branch_grid input").last.wait_for()
    page.wait_for_function(
        "(main => { main.scrollTo(0, 600); return main.scrollTop === 600 })"
        "(document.querySelector('[data-testid=stMain]'))"
    )
    page.wait_for_function(
        "(box => box.top >= 0 && box.bottom <= innerHeight)"
        "(document.querySelector('.st-key-costs').getBoundingClientRect())"
    )
    page.close()


def test_a_menu_shows_its_words(browser: "Browser", server: str) -> None:
    """The menus of the grid are narrow; what opens is as wide as its longest line."""
    page = opened(browser, f"{server}/build")
    page.get_by_role("combobox", name="Attention of branch 0").click()
    option = page.get_by_role("option", name=re.compile("dilated_window")).locator("[data-item-hl]")
    assert option.evaluate("element => element.scrollWidth <= element.clientWidth")
    page.close()


def test_the_address_keeps_the_state_of_explore(browser: "Browser", server: str) -> None:
    page = opened(browser, f"{server}/explore")
    points = page.get_by_role("heading", name=re.compile("All points"))
    unlimited = points.inner_text()
    limits = page.get_by_role("textbox", name="Limits")
    limits.fill("top1 > 96")
    limits.press("Enter")
    page.wait_for_function("location.search.includes('limits')")
    page.get_by_text(unlimited, exact=True).wait_for(state="detached")  # the address changes before the points do
    settled(page)
    shown = points.inner_text()
    again = opened(browser, page.url)
    again.wait_for_function("document.querySelector('input[aria-label=Limits]')?.value == 'top1 > 96'")
    settled(again)
    assert again.get_by_role("heading", name=re.compile("All points")).inner_text() == shown
    page.close()
    again.close()


def test_a_click_on_a_point_shows_its_details(browser: "Browser", server: str) -> None:
    page = opened(browser, f"{server}/explore?limits=params+%3C+20k")
    point = page.locator("[data-testid=stVegaLiteChart] svg g.mark-symbol path").first
    point.click()
    page.get_by_role("heading", name="Details").wait_for()
    page.get_by_role("link", name="Open in Build").click()
    page.get_by_role("heading", name="Build a variant").wait_for()
    page.wait_for_function("location.search.includes('widths=')")
    settled(page)
    again = opened(browser, page.url)  # in another browser
    assert fields_of(again) == fields_of(page)
    page.close()
    again.close()


def fields_of(page: "Page") -> list[str]:
    """The numbers in the fields of Build."""
    inputs = page.locator("[data-testid=stNumberInputField]")
    inputs.first.wait_for()
    return [inputs.nth(i).input_value() for i in range(inputs.count())]


def test_a_changed_field_changes_address_costs_and_drawing(browser: "Browser", server: str) -> None:
    """The costs are in sight while fields at the end of the page are edited; the address reproduces the page."""
    page = opened(browser, f"{server}/build")
    before = page.locator("[data-testid=stMetricValue]").first.inner_text()
    drawing = page.locator("[data-testid=stImage] img").first.get_attribute("src")
    width = page.get_by_role("spinbutton", name="Width of branch 3")
    width.fill("320")
    width.press("Tab")
    page.wait_for_function("location.search.includes('widths=32~64~128~320')")
    page.wait_for_function(
        "before => document.querySelector('[data-testid=stMetricValue]').innerText !== before", arg=before
    )
    settled(page)
    assert page.locator("[data-testid=stImage] img").first.get_attribute("src") != drawing
    page.get_by_role("button", name="Scale widths").scroll_into_view_if_needed()
    box = page.locator("[data-testid=stMetricValue]").first.bounding_box()
    assert box is not None and 0 < box["y"] < 1000
    costs = page.locator("[data-testid=stMetricValue]").all_inner_texts()
    again = opened(browser, page.url)
    again.get_by_role("spinbutton", name="Width of branch 3").wait_for()
    assert fields_of(again) == fields_of(page)
    assert again.locator("[data-testid=stMetricValue]").all_inner_texts() == costs
    again.close()
    page.close()


def test_a_fault_greys_the_costs_and_a_button_corrects_it(browser: "Browser", server: str) -> None:
    page = opened(browser, f"{server}/build?preset=hrvit_b1&widths=32~64~130~256")
    page.get_by_role("button", name="Width of branch 2: 128").wait_for()
    assert float(page.locator(".st-key-stale").evaluate("e => getComputedStyle(e).opacity")) < 1
    page.get_by_role("button", name="Width of branch 2: 128").click()
    page.wait_for_function("location.search === '?preset=hrvit_b1'")
    page.locator(".st-key-stale").wait_for(state="detached")
    page.close()


def test_edits_outlive_a_change_of_page(browser: "Browser", server: str) -> None:
    page = opened(browser, f"{server}/build?preset=hrvit_b1&num_classes=77")
    page.get_by_role("link", name="Published").click()
    page.get_by_role("heading", name="Published").wait_for()
    page.get_by_role("link", name="Build").click()
    page.wait_for_function("location.search.includes('num_classes=77')")
    page.close()


@pytest.mark.timeout(1200)
def test_a_study_outlives_the_server_and_is_stopped_and_resumed(browser: "Browser", tmp_path: Path) -> None:
    """Start in the app, kill the server, find it in a new one, reload, stop, resume, and let it finish."""
    with serve(tmp_path, tmp_path) as server:
        place = started_and_killed(browser, server, tmp_path)
    with serve(tmp_path, tmp_path) as server:
        try:
            stopped_and_resumed(browser, server, tmp_path, place)
        finally:
            for process in processes.find(tmp_path):
                processes.stop(process)


def started_and_killed(browser: "Browser", server: Server, results: Path) -> str:
    """Start a study and kill the server's process group; returns the path of the run's address."""
    page = opened(browser, f"{server.url}/run?kind=A+study+of+your+own")
    for name, value in (("Seeds", "4"), ("Epochs", "1"), ("Images", "100")):
        number = page.get_by_role("spinbutton", name=name)
        number.fill(value)
        number.press("Enter")
        settled(page)
    page.get_by_text("12 trials: 0 already finished").wait_for()
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_text(re.compile(r"^Started .* UTC")).wait_for()
    place = page.url.removeprefix(server.url)
    assert "run=branches-1-2-3-of-hrvit-nano" in place
    page.close()
    os.killpg(server.pid, signal.SIGKILL)
    (process,) = processes.find(results)
    assert process.running
    return place


def stopped_and_resumed(browser: "Browser", server: Server, results: Path, place: str) -> None:
    page = opened(browser, f"{server.url}/run")  # without the run in the address: it is found
    page.get_by_text(re.compile(r"^[1-9]\d? of 12 trials")).wait_for(timeout=4 * WAIT_MS)
    assert page.url.endswith(place[place.index("view=") :])  # of the study, not of the form in which it was chosen
    page.reload()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Finished work is kept; Resume runs the rest.").wait_for()
    assert processes.find(results)[0].state == "stopped"
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_text("12 of 12 trials").wait_for(timeout=4 * WAIT_MS)
    page.get_by_role("button", name="Stop").wait_for(state="detached")
    assert processes.find(results)[0].state == "finished"
    page.locator("[data-testid=stVegaLiteChart]").nth(1).wait_for()
    assert page.locator("[data-testid=stException]").count() == 0
    page.close()


def test_models_are_compared_and_the_address_keeps_them(browser: "Browser", server: str) -> None:
    page = opened(browser, f"{server}/compare?models=hrvit_nano&models=timm:resnet18&size=64")
    page.get_by_text("How does HRViT stand against others of its size?").wait_for()
    page.locator("[data-testid=stVegaLiteChart]").nth(1).wait_for()
    again = opened(browser, page.url)
    again.get_by_text("How does HRViT stand against others of its size?").wait_for()
    page.close()
    again.close()
