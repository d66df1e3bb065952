"""Links to Build with a config in their address."""

import streamlit as st

from hrvit_lab.config import HRViTConfig

OPENED = "opened"
"""Key in the session's state of configs as YAML, by id: those with a link to Build. Compare offers them."""


def link_to_build(config: HRViTConfig) -> None:
    """Draw a link that opens Build with this config, in this browser or another one."""
    from hrvit_lab.app.builder.state import draft_of, to_query
    from hrvit_lab.app.pages import build

    st.session_state.setdefault(OPENED, {})[config.id] = config.to_yaml()
    st.page_link(
        st.Page(build.show, title="Build", url_path="build"), label="Open in Build", icon=":material/account_tree:",
        query_params=to_query(draft_of(config)),
    )  # fmt: skip
