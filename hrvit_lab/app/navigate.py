"""Links to Build that carry a config."""

import streamlit as st

from hrvit_lab.config import HRViTConfig

OPENED = "opened"
"""Query parameter with the id of the config that Build opens; and key in the session's state of configs by id, as YAML.

The address has the id alone, so that Build opens what this session has seen and nothing else.
"""


def link_to_build(config: HRViTConfig) -> None:
    """Draw a link to Build with this config in its fields; ``st.switch_page`` fails if widgets are in the address."""
    from hrvit_lab.app.pages import build

    st.session_state.setdefault(OPENED, {})[config.id] = config.to_yaml()
    st.page_link(
        st.Page(build.show, title="Build", url_path="build"), label="Open in Build", icon=":material/account_tree:",
        query_params={OPENED: config.id},
    )  # fmt: skip


def opened_config() -> HRViTConfig | None:
    """The config that a link to Build carried; None without one."""
    text = st.session_state.get(OPENED, {}).get(st.query_params.get(OPENED))
    return None if text is None else HRViTConfig.from_yaml(text)


def forget_opened() -> None:
    """Let Build show its preset again."""
    if OPENED in st.query_params:
        del st.query_params[OPENED]
