"""Links between pages: from a network to Build, Compare and Look inside, with what they show in their addresses."""

import json
from collections.abc import Mapping, Sequence

import streamlit as st

from hrvit_lab.app.widgets import plain
from hrvit_lab.config import PRESETS, SEGMENTERS, HRViTConfig
from hrvit_lab.network.baselines import NetworkConfig

OPENED = "opened"
"""Key in the session's state of configs as YAML or JSON, by id: those with a link to Build or Compare. Compare offers
them."""

PARTNERS = ("hrvit_b1", "mit_b1")
"""What a single preset is compared with, unless it is that itself."""


def link_to_build(config: HRViTConfig, label: str = "Open in Build") -> None:
    """Draw a link that opens Build with this config, in this browser or another one."""
    from hrvit_lab.app.builder.state import draft_of, to_query

    _remember(config)
    _link("build", label, to_query(draft_of(config)))


def link_to_compare(configs: Sequence[NetworkConfig]) -> None:
    """Draw a link that opens Compare with these networks; a single one is compared with a preset. Networks beyond
    Compare's limit are left out."""
    from hrvit_lab.app.compared import MAX_MODELS

    labels = list(dict.fromkeys(map(compare_label, configs)))[:MAX_MODELS]
    if len(labels) == 1:
        labels.append(next(name for name in PARTNERS if name not in labels))
    _link("compare", "Compare these" if len(configs) > 1 else f"Compare with {labels[1]}", {"models": labels})


def compare_label(config: NetworkConfig) -> str:
    """What Compare calls a network, which it then offers."""
    from hrvit_lab.app.compared import BASELINES, label_of

    if isinstance(config, HRViTConfig):
        if (name := preset_of(config)) is not None:
            return name
    elif config.model in BASELINES and config.id == config.replace(num_classes=1000, head=None, options={}).id:
        return config.model
    _remember(config)
    return label_of(config)


def preset_of(config: HRViTConfig) -> str | None:
    """The name of the preset that is this network; None if there is none."""
    return next((name for name, preset in (PRESETS | SEGMENTERS).items() if preset.id == config.id), None)


def inside_label(config: HRViTConfig) -> str | None:
    """What Look inside calls a preset; None for other networks."""
    from hrvit_lab.app import subjects

    name = preset_of(config)
    return next((label for label, target in subjects.networks().items() if target == name), None)


def link_to_look_inside(shown: Sequence[str]) -> None:
    """Draw a link that opens Look inside with one or two of the networks that it offers, by their names there."""
    names = dict(zip(("network", "beside"), dict.fromkeys(shown), strict=False))
    _link("look_inside", "Look inside" if len(names) == 1 else f"Look inside {' and '.join(names.values())}", names)


def _link(file: str, label: str, query: Mapping[str, str | list[str]]) -> None:
    from hrvit_lab.app.main import PAGES, address

    page = next(page for page in PAGES if page.file == file)
    st.page_link(
        st.Page(page.show, title=page.title, url_path=address(page)), label=plain(label),
        icon=f":material/{page.icon}:", query_params=query,
    )  # fmt: skip


def link_to_run() -> None:
    """Draw a link that opens Run, where a study can be started."""
    _link("run", "Run a study", {})


def _remember(config: NetworkConfig) -> None:
    st.session_state.setdefault(OPENED, {})[config.id] = json.dumps(config.to_dict())
