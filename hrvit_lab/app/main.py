"""The app's pages. To add one: a file in `pages/` with a function `show()`, and a line in `PAGES`."""

from collections.abc import Callable
from typing import NamedTuple

import streamlit as st

from hrvit_lab.app.pages import build, explore, published, studies


class Page(NamedTuple):
    """A page: its title (and URL path), a Material symbol, and the function that draws it."""

    title: str
    icon: str
    show: Callable[[], None]


PAGES = (
    Page("Explore", "travel_explore", explore.show),
    Page("Studies", "scatter_plot", studies.show),
    Page("Build", "account_tree", build.show),
    Page("Published", "menu_book", published.show),
)


def run() -> None:
    """Draw the selected page."""
    st.set_page_config(page_title="hrvit_lab", page_icon=":material/account_tree:", layout="wide")
    pages = [
        st.Page(page.show, title=page.title, icon=f":material/{page.icon}:", url_path=page.title.lower())
        for page in PAGES
    ]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":  # as streamlit runs it
    run()
