"""The fields: grids of branch × stage and branch × field, and menus of parts. Faults are beside their fields."""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from hrvit_lab.app.builder import edits
from hrvit_lab.app.builder.kinds import kinds
from hrvit_lab.app.builder.state import MAX_STAGES, Draft, edit, shown
from hrvit_lab.app.builder.words import TOPOLOGIES, WORDS, about, option
from hrvit_lab.app.widgets import plain
from hrvit_lab.config import MAX_BRANCHES, PER_BRANCH
from hrvit_lab.config.repair import Change, Fault, Place

GRID = ("attention", "ffn", "widths", "head_dims", "window_sizes", "mlp_ratios", "head_widths")
PARTS = ("stem", "patch_embed", "shortcut", "fusion", "upsample", "head")
SWITCHES = ("parallel_conv", "attn_activation", "attn_batch_norm", "branch_norm")
REST = ("in_chans", "num_classes", "head_features", "segformer_width", "upernet_width", "norm_eps")
RATES = ("drop_rate", "proj_drop_rate", "drop_path_rate")
NECK = "head_widths"
"""A field that only the head "classifier" has."""

STEPS = {"mlp_ratios": 0.5, "norm_eps": 1e-6, **dict.fromkeys(RATES, 0.05)}


class Fields:
    """The fields of a draft as widgets.

    Args:
        fault: of the draft, which is drawn once, beside its field.
    """

    def __init__(self, draft: Draft, fault: Fault | None) -> None:
        self.draft, self.fault = draft, fault
        self.branches = range(max(map(len, draft.fields["depths"])))

    def draw(self) -> None:
        """Draw all of them."""
        with st.container(key="fields"):
            self._draw()

    def _draw(self) -> None:
        with st.container(border=True):
            self._layout()
        with st.container(border=True):
            self._grid()
        with st.container(border=True):
            self._parts()
        with st.expander("Head, input and regularization"):
            self._rest()
        self.draw_fault()  # of a field in the expander, which may be closed

    # -- layout --------------------------------------------------------------------------------------------

    def _layout(self) -> None:
        fields = self.draft.fields
        pyramid = fields["topology"] == "pyramid"
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.segmented_control(
                "Topology", tuple(TOPOLOGIES), key=shown("topology", fields["topology"]), required=True,
                on_change=_applied, args=("topology", edits.set_topology),
                help=f"{WORDS['topology'].help} " + "; ".join(f"{k}: {v}" for k, v in TOPOLOGIES.items()) + ".",
            )  # fmt: skip
            self._number("branches", "Branches", 1, MAX_BRANCHES, len(self.branches), edits.set_branches)
            stages = len(fields["depths"])
            if not pyramid:
                self._number("stages", "Stages", 1, MAX_STAGES, stages, edits.set_stages)
        with st.container(key="depth_scroll"), st.container(key="depth_grid"):
            _head("Blocks", WORDS["depths"].help)
            for stage in range(stages):
                st.caption("blocks" if pyramid else f"stage {stage}", text_alignment="center")
            for branch in self.branches:
                st.caption(f"branch {branch}")
                for stage in range(stages):
                    self._blocks(stage, branch)
                self.draw_fault(partial(_of_blocks, branch))
        self.draw_fault(lambda fault: fault.field == "depths")

    def _blocks(self, stage: int, branch: int) -> None:
        row = self.draft.fields["depths"][stage]
        kind = kinds()["depths"]
        place = stage, branch
        st.number_input(
            f"Blocks of branch {branch} in stage {stage}", int(kind.low), int(kind.high), None, 1, placeholder="–",
            key=shown(f"depths {stage} {branch}", (row[branch] or None) if branch < len(row) else None),
            on_change=self._changed, args=("depths", place, f"depths {stage} {branch}"), label_visibility="collapsed",
        )  # fmt: skip

    # -- branches ------------------------------------------------------------------------------------------

    def _grid(self) -> None:
        names = [name for name in GRID if name != NECK or self.draft.fields["head"] == "classifier"]
        with st.container(key="branch_scroll"), st.container(key="branch_grid"):
            lines = "\n".join(f"- {WORDS[name].label}: {WORDS[name].help}" for name in names)
            _head("Branch", f"Finest first. A value in the row *all* is for every branch.\n{lines}")
            for name in names:
                st.caption(f"**{WORDS[name].label}**")
            if len(self.branches) > 1:
                st.caption("all")
                for name in names:
                    self._all(name)
            for branch in self.branches:
                st.caption(f"branch {branch}")
                for name in names:
                    self._entry(name, (branch,), collapsed=True)
                self.draw_fault(partial(_of_branch, branch))

    def _all(self, name: str) -> None:
        """The value of every branch; empty if they differ."""
        values = set(self.draft.fields[name])
        self._field(
            name, f"{name} all", f"{WORDS[name].label} of all branches", values.pop() if len(values) == 1 else None,
            partial(_all_changed, name), (f"{name} all",), collapsed=True,
        )  # fmt: skip

    # -- parts and the rest --------------------------------------------------------------------------------

    def _parts(self) -> None:
        for left, right in zip(PARTS[::2], PARTS[1::2], strict=True):
            for column, name in zip(st.columns(2), (left, right), strict=True):
                with column:
                    self._entry(name)
        for names in (SWITCHES[:2], SWITCHES[2:]):
            for column, name in zip(st.columns(2), names, strict=True):
                with column:
                    self._entry(name)
        for column, name in zip(st.columns(2), ("stem_width", "num_classes"), strict=True):
            with column:
                self._entry(name)

    def _rest(self) -> None:
        self._entry("name", beside=False)
        names = [name for name in (*REST, *RATES) if name != "num_classes"]
        for start in range(0, len(names), 3):
            for column, name in zip(st.columns(3), names[start : start + 3], strict=False):
                with column:
                    self._entry(name, beside=False)
        self._entry("grad_checkpointing", beside=False)

    # -- one field -----------------------------------------------------------------------------------------

    def _entry(self, name: str, place: Place = (), collapsed: bool = False, beside: bool = True) -> None:
        value = self.draft.fields[name]
        label = WORDS[name].label
        for branch in place:
            value, label = value[branch], f"{label} of branch {branch}"
        key = " ".join([name, *map(str, place)])
        self._field(name, key, label, value, self._changed, (name, place, key), collapsed)
        if not place and beside:
            self.draw_fault(lambda fault: fault.field == name)

    def _field(
        self, name: str, key: str, label: str, value: Any, callback: Callable[..., None], args: tuple[Any, ...],
        collapsed: bool,
    ) -> None:  # fmt: skip
        """A widget of the field's kind, without a default: an emptied one shows its value again."""
        kind = kinds()[name]
        options: dict[str, Any] = {
            "key": shown(key, value), "on_change": callback, "args": args,
            "label_visibility": "collapsed" if collapsed else "visible",
            "help": None if collapsed else WORDS[name].help,
        }  # fmt: skip
        match kind.type:
            case "integer":
                st.number_input(label, int(kind.low), int(kind.high), None, 1, placeholder="", **options)
            case "number":
                step = STEPS[name]
                st.number_input(
                    label, float(kind.low), float(kind.high), None, step, format="%g", placeholder="", **options
                )
            case "boolean":
                st.toggle(label, **options)
            case "string" if kind.names:
                st.selectbox(
                    label,
                    kind.names,
                    None if value is None else 0,
                    format_func=partial(option, name),
                    placeholder="",
                    **options,
                )
            case "string":
                st.text_input(label, max_chars=100, **options)

    def _number(self, key: str, label: str, low: int, high: int, value: int, set_to: Any) -> None:
        st.number_input(
            label, low, high, None, 1, key=shown(key, value), on_change=_applied, args=(key, set_to), width=130
        )

    @staticmethod
    def _changed(field: str, place: Place, key: str) -> None:
        """Take a widget's value; an emptied field keeps its own, an emptied number of blocks removes them."""
        value = st.session_state[key]
        if value is None and field == "depths":
            value = 0
        edit(lambda draft: draft if value is None else edits.set_entry(draft, Change(field, place, value)))

    # -- faults --------------------------------------------------------------------------------------------

    def draw_fault(self, here: Callable[[Fault], bool] = lambda fault: True) -> None:
        """The draft's fault with buttons for the nearest valid values, if it belongs here and is not drawn yet."""
        if (fault := self.fault) is None or not here(fault):
            return
        self.fault = None
        with st.container(key="fault"):
            st.error(plain(fault.message), icon=":material/error:")
            with st.container(horizontal=True):
                for number, remedy in enumerate(fault.remedies):
                    st.button(
                        plain(about(remedy)), key=f"remedy {number}", icon=":material/build:",
                        on_click=edit, args=(lambda draft, change=remedy: edits.set_entry(draft, change),),
                    )  # fmt: skip


def _of_blocks(branch: int, fault: Fault) -> bool:
    return fault.field == "depths" and fault.place[1:] == (branch,)


def _of_branch(branch: int, fault: Fault) -> bool:
    return fault.field in PER_BRANCH and fault.place == (branch,)


def _head(label: str, help: str) -> None:
    st.caption(f"**{label}**", help=help)


def _all_changed(name: str, key: str) -> None:
    value = st.session_state[key]
    edit(lambda draft: draft if value is None else edits.set_all(draft, name, value))


def _applied(key: str, set_to: Callable[[Draft, Any], Draft]) -> None:
    value = st.session_state[key]
    edit(lambda draft: draft if value is None else set_to(draft, value))
