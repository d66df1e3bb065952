"""The paper's ablations beside ours, on the page "Published"."""

from pathlib import Path

import pandas as pd
import streamlit as st

from hrvit_lab.app.folders import REFERENCE
from hrvit_lab.app.navigate import link_to_build, link_to_compare
from hrvit_lab.app.widgets import plain
from hrvit_lab.cli import show_size
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.published import published_ablations
from hrvit_lab.study.columns import comparisons
from hrvit_lab.study.quantities import budget
from hrvit_lab.study.results import Results, read_results, records_of

STUDY = "paper_ablation"


def draw_ablations() -> None:
    """What each change to HRViT-b1 does, printed and ours, with the reasons for differences."""
    st.subheader("Ablations: printed and ours")
    folder = REFERENCE / STUDY
    if not (folder / "table.csv").is_file():  # an installed package comes without results
        st.dataframe(printed_table(), hide_index=True, width="stretch")
        st.caption("Ours are not here: they are in studies/measured of the repository.")
        return
    try:
        found = _read(folder, (folder / "table.csv").stat().st_mtime_ns)
    except ConfigError as error:
        st.error(plain(error))
        return
    rows = [row for row in records_of(found.table) if row["variant"] != found.spec.compare_to]
    event = st.dataframe(
        ablation_table(found), hide_index=True, width="stretch", key="ablations", on_select="rerun",
        selection_mode="single-row", column_config={"change": st.column_config.Column(width="medium", pinned=True)},
    )  # fmt: skip
    st.caption(plain(reasons(found)))
    for chosen in event["selection"]["rows"]:
        _draw_links(found, str(rows[chosen]["variant"]))


@st.cache_data(show_spinner=False)
def _read(folder: Path, modified_ns: int) -> Results:
    return read_results(folder)


def printed_table() -> pd.DataFrame:
    """The printed ablations alone."""
    rows = [(row.change, row.cost_in_words, row.imagenet_top1, row.cityscapes_miou) for row in published_ablations()]
    return pd.DataFrame(rows, columns=["change", "Δ cost", "Δ ImageNet top-1", "Δ Cityscapes mIoU"])


def ablation_table(found: Results) -> pd.DataFrame:
    """A row for each change: the differences to the network as published, those of costs first, then of accuracy."""
    columns = comparisons(found.spec, found.table)
    shown = pd.DataFrame({"change": found.table["variant"]})
    for column in sorted(columns, key=lambda column: "top-1" in column.title or "mIoU" in column.title):
        title = column.title if column.metric is None else f"{column.title}, ours"
        shown[title] = column.texts
    shown["remark"] = [str(row["note"]) if pd.notna(row.get("note")) else "" for row in records_of(found.table)]
    return shown[shown["change"] != found.spec.compare_to].reset_index(drop=True)


def reasons(found: Results) -> str:
    """Why our values differ from the printed ones."""
    spec = found.spec
    counted = spec.cost_base or spec.base
    costly = counted.get("preset") if isinstance(counted, dict) else counted
    trained = spec.base_config.name
    return (
        f"Differences to the network as published. Costs, printed and ours, are those of {costly} at "
        f"{show_size(spec.resolution)} px, so that they should agree. Accuracies are not comparable in size: printed "
        f"ones are of HRViT-b1, fully trained on ImageNet and Cityscapes; ours are of {trained}, trained shortly "
        f"({budget(found)}), {len(spec.seeds)} seeds, with the 95 % interval paired by seed. An interval that contains "
        "0 shows no difference."
    )


def _draw_links(found: Results, name: str) -> None:
    base, changed = (_config(found, each) for each in (str(found.spec.compare_to), name))
    if base is None or changed is None:
        return
    with st.container(horizontal=True):
        link_to_build(changed)
        link_to_compare([base, changed])


def _config(found: Results, name: str) -> HRViTConfig | None:
    fields = found.configs.get(name)
    try:
        return None if fields is None else HRViTConfig.from_dict(dict(fields)).replace(name=name)
    except (ConfigError, TypeError, ValueError):
        return None
