"""The app's pages. To add one: a file in `pages/` with a function `show()`, and a line in `PAGES`.

A page is imported when it is first shown, below the heading of its line, so that the first one is there soon.
"""

import gc
import sys
from importlib import import_module
from typing import NamedTuple

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from hrvit_lab.app.folders import check_options
from hrvit_lab.app.widgets import plain
from hrvit_lab.errors import ConfigError


class Page(NamedTuple):
    """A page: its title, a Material symbol, its file in `pages/`, and its heading; None if the page writes its own."""

    title: str
    icon: str
    file: str
    heading: str | None

    def show(self) -> None:
        if self.heading is not None:
            st.title(self.heading)
        module = f"hrvit_lab.app.pages.{self.file}"
        first = module not in sys.modules
        import_module(module).show()
        if first:  # what was imported stays; to search it for garbage would take 0.1 s, again and again
            gc.collect()
            gc.freeze()


PAGES = (
    Page("Explore", "travel_explore", "explore", "Explore"),
    Page("Studies", "scatter_plot", "studies", None),
    Page("Build", "account_tree", "build", "Build a variant"),
    Page("Compare", "compare_arrows", "compare", "Compare"),
    Page("Look inside", "visibility", "look_inside", "Look inside"),
    Page("Run", "play_circle", "run", "Run"),
    Page("Published", "menu_book", "published", "Published"),
)

DARK_TAGS = "<style>[data-tag] * { color: #0e1116 !important; }</style>"
"""Streamlit writes selected values in white, whose contrast on the dark theme's light blue is 2.6 : 1."""


def run() -> None:
    """Draw the selected page. Every page is at the address of its title; the root leads to the first one."""
    st.set_page_config(page_title="hrvit_lab", page_icon=":material/account_tree:", layout="wide")
    if st.context.theme.type == "dark":
        st.html(DARK_TAGS)
    try:
        check_options(sys.argv[1:])
    except ConfigError as error:
        st.error(plain(str(error)))
        st.stop()
    pages = [_page(page, address(page)) for page in PAGES]

    def lead_on() -> None:
        st.switch_page(pages[0], query_params=st.query_params.to_dict())

    # Streamlit serves its default page at the root only, and the first page has an address, as all have.
    root = st.Page(lead_on, title=PAGES[0].title, url_path="home", default=True, visibility="hidden")
    st.navigation([root, *pages], position="top").run()


def address(page: Page) -> str:
    """The path of a page's address."""
    return page.title.lower().replace(" ", "-")


def _page(page: Page, path: str) -> StreamlitPage:
    return st.Page(page.show, title=page.title, icon=f":material/{page.icon}:", url_path=path)


if __name__ == "__main__":  # as streamlit runs it
    run()
