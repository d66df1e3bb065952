"""Links between pages that carry a config."""

import streamlit as st

from hrvit_lab.config import HRViTConfig

OPENED = "opened config"
"""Key in the session's state of the config, as YAML, that Build opens."""


def open_in_build(config: HRViTConfig) -> None:
    """Go to Build, with this config in its fields."""
    from hrvit_lab.app.pages import build

    st.session_state[OPENED] = config.to_yaml()
    st.switch_page(st.Page(build.show, title="Build", url_path="build"))
