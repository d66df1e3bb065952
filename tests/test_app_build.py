"""Page Build: the state in the address, every valid config, faults beside their fields, budgets, exports."""

import base64
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode
from xml.etree import ElementTree

import pandas as pd
import pytest
from random_configs import random_config
from streamlit.testing.v1 import AppTest
from test_chart_view import charts_of
from test_latency_profile import draws, measured

from hrvit_lab.app.builder import costs, exports, predicted
from hrvit_lab.app.builder.kinds import from_text, kinds, to_text
from hrvit_lab.app.builder.state import draft_of, from_query, to_query
from hrvit_lab.app.builder.words import WORDS, option
from hrvit_lab.app.pages.build import read_upload
from hrvit_lab.config import (
    PER_BRANCH,
    PRESETS,
    TABLES,
    ConfigError,
    HRViTConfig,
    preset,
    preset_names,
    with_branches,
    with_topology,
)
from hrvit_lab.config.repair import find_fault
from hrvit_lab.cost.budget import scale_to_budget
from hrvit_lab.cost.count import count
from hrvit_lab.latency.predict import load_profile, predict, write_profile
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.plots import diagram
from hrvit_lab.study.files import load_study

pytestmark = pytest.mark.usefixtures("main_module")

TIMEOUT_S = 250


def draw_build() -> None:
    from hrvit_lab.app.pages import build

    build.show()


def opened(query: dict[str, str] | None = None) -> AppTest:
    """The page at an address."""
    app = AppTest.from_function(draw_build, default_timeout=TIMEOUT_S)
    app.query_params.update(query or {})
    app.run()
    assert not app.exception
    return app


def shown_costs(app: AppTest) -> dict[str, str]:
    return {metric.label.lower(): metric.value for metric in app.metric}


def costs_of(config: HRViTConfig, size: int | tuple[int, int] = 224) -> dict[str, str]:
    counts = count(config, size)
    return {METRICS[k].label.lower(): format_value(METRICS[k], getattr(counts, k)) for k in costs.COSTS}


def exported(app: AppTest) -> HRViTConfig:
    """The config of the tab YAML."""
    return HRViTConfig.from_yaml(app.code[0].value)


def errors(app: AppTest) -> list[str]:
    return [error.value.replace("\\", "") for error in app.error]


# -- the address -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_an_address_of_a_preset_is_its_name(name: str) -> None:
    assert to_query(draft_of(preset(name))) == {"preset": name}
    assert HRViTConfig(**from_query({"preset": name}).fields) == preset(name)


def through_the_address(config: HRViTConfig) -> HRViTConfig:
    sent = urlencode(to_query(draft_of(config)), encoding="utf-8")
    return HRViTConfig(**from_query(dict(parse_qsl(sent, keep_blank_values=True, strict_parsing=True))).fields)


EXTREMES: list[dict[str, Any]] = [
    {"drop_rate": 0.995, "proj_drop_rate": 0.9999999, "drop_path_rate": 0.99999},
    {"drop_rate": 1e-9, "in_chans": 64, "num_classes": 100_000, "head_features": 16384, "upernet_width": 4096},
    {"stem_width": 1024, "in_chans": 1, "num_classes": 0, "head_features": 1, "segformer_width": 1},
    {"mlp_ratios": 7 / 3, "widths": (24, 48, 96, 192), "head_dims": 24, "ffn": "mlp"},
    {"norm_eps": 1e-300, "mlp_ratios": (16, 0.125, 1 / 3, 4), "ffn": "mlp", "window_sizes": 1024},
    {"widths": (4096, 64, 128, 256), "head_widths": 2048, "head_dims": 1024, "attention": "global"},
    {"depths": ((1,),) + ((64,) * 4,) * 31, "norm_eps": 0.999},
    {"name": "a&b=c~d.e?#%/\\ <script>alert(1)</script> \n\t\x00\x7f é 漢 😀"},
    {"name": ""},
]


@pytest.mark.parametrize("extremes", EXTREMES, ids=str)
def test_extreme_values_pass_through_address_and_page_unchanged(extremes: dict[str, Any]) -> None:
    config = preset("hrvit_b1").replace(**extremes)
    assert through_the_address(config) == config
    app = opened(to_query(draft_of(config)))
    assert not app.error and exported(app).id == config.id
    assert {**exported(app).to_dict(), "name": ""} == {**config.to_dict(), "name": ""}


def test_random_configs_pass_through_the_address_unchanged() -> None:
    draw = random.Random(13)
    for _ in range(300):
        config = random_config(draw)
        assert through_the_address(config) == config
        assert len(urlencode(to_query(draft_of(config)))) < 2000


def test_random_configs_open_and_come_back_unchanged() -> None:
    """In one session, one after the other, as by links."""
    draw = random.Random(17)
    app = opened()
    for _ in range(12):
        config = random_config(draw)
        app.query_params.clear()
        app.query_params.update(to_query(draft_of(config)))
        app.run()
        assert not app.exception and not app.error
        assert exported(app).replace(name="") == config
        assert shown_costs(app) == costs_of(config)


HOSTILE_QUERIES: list[tuple[dict[str, str], str]] = [
    ({"preset": "hrvit_b9"}, "did you mean"),
    ({"preset": "../../etc/passwd"}, "unknown preset"),
    ({"wdiths": "32"}, "unknown parameter 'wdiths'; did you mean 'widths'"),
    ({"opened": "0123456789ab"}, "unknown parameter 'opened'"),
    ({"widths": "32~64~128"}, "3 widths for 4 branches; give 4"),
    ({"widths": "32~64~128~99999"}, "give a whole number from 1 to 4096"),
    ({"widths": "32~64~128~-1"}, "give a whole number from 1 to 4096"),
    ({"widths": ""}, "give a whole number"),
    ({"widths": "9" * 900}, "give a whole number"),
    ({"widths": "~" * 5000}, "5000 characters in widths"),
    ({"widths": "٣٢~64~128~256"}, "give a whole number"),
    ({"mlp_ratios": "nan~4~4~4"}, "give a number from 0 to 16"),
    ({"mlp_ratios": "1e999~4~4~4"}, "give a number from 0 to 16"),
    ({"drop_rate": "1.5"}, "give a number from 0 to 1"),
    ({"drop_rate": "0~0"}, "give one value"),
    ({"depths": "1~1.1.1.1.1.1"}, "6 branches"),
    ({"depths": "~".join(["1"] * 33)}, "33 stages"),
    ({"depths": "65"}, "give a whole number from 0 to 64"),
    ({"depths": "1~.1"}, "give a whole number from 0 to 64"),
    ({"attention": "cross_shaped~global~<b>~linear"}, "give one of cross_shaped"),
    ({"topology": "star"}, "give one of parallel, pyramid"),
    ({"branch_norm": "yes"}, "give true or false"),
    ({"resolution": "0"}, "1 to 4096 pixels"),
    ({"resolution": "99999999"}, "1 to 4096 pixels"),
    ({"resolution": "1~2~3"}, "1 to 4096 pixels"),
    ({"resolution": "²"}, "1 to 4096 pixels"),
    ({"cost": "latency"}, "cost='latency'"),
    ({"by": "<script>"}, "by='<script>'"),
    ({"against": "nothing"}, "unknown preset"),
    ({"name": "x" * 101}, "at most 100 characters"),
]


@pytest.mark.parametrize(("query", "words"), HOSTILE_QUERIES, ids=lambda value: str(value)[:40])
def test_a_bad_address_is_one_sentence(query: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_query(query)
    assert words in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("query", [HOSTILE_QUERIES[0][0], HOSTILE_QUERIES[5][0], HOSTILE_QUERIES[19][0]], ids=str)
def test_the_page_lives_at_a_bad_address(query: dict[str, str]) -> None:
    app = opened(query)
    [error] = app.error
    assert not re.search(r"(?<!\\)[<`]", error.value)
    assert shown_costs(app) == costs_of(preset("hrvit_b1"))
    app.number_input(key="num_classes").set_value(10).run()
    assert not app.error and app.query_params == {"preset": "hrvit_b1", "num_classes": "10"}


def test_the_address_follows_the_fields_and_reproduces_the_page() -> None:
    app = opened()
    assert app.query_params == {"preset": "hrvit_b1"}
    app.number_input(key="widths 3").set_value(320).run()
    app.selectbox(key="attention 1").set_value("cswin").run()
    app.selectbox(key="against").set_value("hrvit_b2").run()
    app.number_input(key="height").set_value(512).run()
    app.segmented_control(key="view cost").set_value("params").run()
    assert not app.exception and not app.error
    assert app.query_params == {
        "preset": "hrvit_b1", "widths": "32~64~128~320", "attention": "cross_shaped~cswin~cross_shaped~cross_shaped",
        "against": "hrvit_b2", "resolution": "512~224", "cost": "params",
    }  # fmt: skip
    again = opened(dict(app.query_params))  # another browser
    assert shown_costs(again) == shown_costs(app) and [code.value for code in again.code] == [c.value for c in app.code]
    assert again.number_input(key="height").value == 512
    assert again.selectbox(key="against").value == "hrvit_b2"


def test_a_change_of_page_loses_nothing() -> None:
    """Coming back by the menu: the widgets are gone, and the address is empty."""
    app = opened()
    app.number_input(key="window_sizes 1").set_value(4).run()
    left = AppTest.from_function(draw_build, default_timeout=TIMEOUT_S)
    left.session_state["build"] = app.session_state["build"]
    left.run()
    assert left.query_params == app.query_params and left.number_input(key="window_sizes 1").value == 4


def test_a_change_is_not_undone_by_an_older_address() -> None:
    """Two quick changes: the second rerun is sent before the address of the first one has arrived."""
    app = opened()
    app.number_input(key="window_sizes 1").set_value(4).run()
    app.query_params.clear()
    app.query_params["preset"] = "hrvit_b1"  # as before the first change
    app.number_input(key="window_sizes 2").set_value(5).run()
    assert app.query_params["window_sizes"] == "1~4~5~7"


# -- fields ----------------------------------------------------------------------------------------------


def test_build_opens_with_the_first_presets_costs() -> None:
    app = opened()
    assert shown_costs(app) == costs_of(preset("hrvit_b1")) and not app.error


# One of each family in a default run: a run of the page takes a second.
QUICK = ("hrvit_nano", "mit_b2", "cswin_tiny", "hr_mit_b1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PRESETS])
def test_every_preset_passes_through_the_fields_unchanged(name: str) -> None:
    app = opened({"preset": name})
    assert not app.error and exported(app) == preset(name)
    assert any(f"There is no difference to {name}" in c.value.replace("\\", "") for c in app.caption)
    for field in (*PER_BRANCH, "depths"):
        entries = preset(name).depths[0] if field == "depths" else getattr(preset(name), field)
        for place, value in enumerate(entries):
            key = f"depths 0 {place}" if field == "depths" else f"{field} {place}"
            widgets = [widget for widget in (*app.number_input, *app.selectbox) if widget.key == key]
            assert [widget.value for widget in widgets] == ([value] if field != "head_widths" or widgets else [])


def test_menus_say_what_parts_are() -> None:
    app = opened()
    assert "two_conv – two 3×3 of stride 2" in app.selectbox(key="stem").options
    for field, table in TABLES.items():
        key = f"{field} 0" if field in PER_BRANCH else field
        assert app.selectbox(key=key).options == [option(field, name) for name in table]
        assert all(len(entry.label) >= 3 for entry in table.values())
    assert set(WORDS) == set(HRViTConfig.model_fields) == set(kinds())


def test_a_changed_width_changes_costs_diff_and_code() -> None:
    app = opened()
    app.number_input(key="widths 0").set_value(64).run()
    config = preset("hrvit_b1").replace(widths=(64, 64, 128, 256))
    assert shown_costs(app) == costs_of(config)
    assert app.dataframe[0].value.to_numpy().tolist() == [["widths", "32, 64, 128, 256", "64, 64, 128, 256"]]
    assert "widths=(64, 64, 128, 256)" in app.code[1].value
    assert exported(app).id == config.id


def test_a_value_for_all_branches() -> None:
    app = opened()
    assert app.number_input(key="widths all").value is None and app.number_input(key="head_dims all").value == 32
    app.number_input(key="window_sizes all").set_value(5).run()
    app.selectbox(key="ffn all").set_value("mlp").run()
    assert exported(app).window_sizes == (5,) * 4 and exported(app).ffn == ("mlp",) * 4
    app.selectbox(key="ffn 2").set_value("mixffn").run()
    assert exported(app).ffn == ("mlp", "mlp", "mixffn", "mlp") and app.selectbox(key="ffn all").value is None


def test_an_emptied_field_keeps_its_value() -> None:
    app = opened()
    app.number_input(key="widths 1").set_value(None).run()
    assert not app.error and app.number_input(key="widths 1").value == 64


def test_depths_branches_and_stages() -> None:
    app = opened()
    app.number_input(key="depths 5 2").set_value(6).run()
    assert exported(app).depths[5] == (1, 1, 6, 2)
    app.number_input(key="stages").set_value(7).run()
    assert len(exported(app).depths) == 7
    app.number_input(key="branches").set_value(3).run()
    assert exported(app).id == with_branches(preset("hrvit_b1").replace(
        depths=(*preset("hrvit_b1").depths[:5], (1, 1, 6, 2), (1, 1, 6, 2))), 3).id  # fmt: skip
    app.number_input(key="depths 1 2").set_value(2).run()  # branch 2 begins a stage earlier
    assert not app.error and exported(app).depths[1] == (1, 1, 2)
    app.number_input(key="depths 1 2").set_value(None).run()
    assert not app.error and exported(app).depths[1] == (1, 1)


def test_a_chosen_topology_converts_the_layout() -> None:
    app = opened()
    app.segmented_control(key="topology").set_value("pyramid").run()
    assert not app.error
    assert exported(app).id == with_topology(preset("hrvit_b1"), "pyramid").id
    app.segmented_control(key="topology").set_value("parallel").run()
    assert not app.error and exported(app).topology == "parallel"


def test_a_pyramids_first_width_is_its_stems() -> None:
    app = opened({"preset": "mit_b0"})
    app.number_input(key="widths 0").set_value(64).run()
    assert not app.error and exported(app).stem_width == 64


# -- faults ----------------------------------------------------------------------------------------------


def test_a_fault_is_beside_its_field_and_costs_stay() -> None:
    app = opened()
    app.number_input(key="window_sizes 0").set_value(2).run()
    before = shown_costs(app)
    app.number_input(key="widths 2").set_value(130).run()
    [error] = errors(app)
    assert error.startswith("widths[2] = 130 with head_dims[2] = 32: ")
    assert shown_costs(app) == before and any("last valid network" in c.value for c in app.caption)
    assert "widths=32~64~130~256" in "&".join(f"{k}={v}" for k, v in app.query_params.items())
    # In the order of the page, the error is after the fields of branch 2 and before those of branch 3.
    order = [getattr(node, "key", None) or type(node).__name__ for node in walk(app.main)]
    assert order.index("widths 2") < order.index("Error") < order.index("widths 3")
    app.button(key="remedy 1").click().run()
    assert not app.error and exported(app).widths == (32, 64, 192, 256)


def walk(block: Any) -> Any:
    for child in block.children.values():
        if hasattr(child, "children"):
            yield from walk(child)
        else:
            yield child


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("drop_rate", 1.0, "drop_rate = 1.0: give less than 1"),
        ("mlp_ratios 0", 0.0, "mlp_ratios[0] = 0.0: give more than 0"),
        ("stem_width", 63, "stem_width = 63"),
        ("depths 2 1", None, "depths[2][1] = 0: give at least 1"),
        ("depths 5 3", None, "has fewer branches in stage 5 (3)"),
        ("height", 8, "resolution = 8×224 is too small"),
    ],
)
def test_a_fault_offers_a_button_that_corrects_it(key: str, value: Any, words: str) -> None:
    app = opened()
    app.number_input(key=key).set_value(value).run()
    [error] = errors(app)
    assert words in error and "\n" not in error
    assert shown_costs(app) == costs_of(preset("hrvit_b1"))  # of the last valid network
    app.button(key="remedy 0").click().run()
    assert not app.error and not app.exception


def test_an_address_with_a_fault_reproduces_it() -> None:
    app = opened({"preset": "hrvit_b1", "widths": "32~64~130~256"})
    assert errors(app)[0].startswith("widths[2] = 130") and app.number_input(key="widths 2").value == 130
    assert shown_costs(app) == costs_of(preset("hrvit_b1"))
    app.segmented_control(key="topology").set_value("pyramid").run()
    assert any(error.startswith("Correct this first: widths[2]") for error in errors(app))
    assert app.segmented_control(key="topology").value == "parallel"


# -- files -----------------------------------------------------------------------------------------------


MALICIOUS = {
    "python": b"!!python/object/apply:os.system ['touch owned']",
    "laughs": b"name: [&a [x, x, x, x, x, x, x, x, x], "
    + b", ".join(b"&%c [%s]" % (c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 110))
    + b"]\n",
    "deep": b"widths: " + b"[" * 20_000,
    "large": b"#" * 70_000,
    "binary": b"\xff\xfe\x00\x01",
    "broken": b"widths: [1,",
    "unknown": b"wdiths: 32",
    "list": b"- 1\n- 2",
    "number": b"9" * 6000,
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", MALICIOUS)
def test_malicious_uploads_get_one_sentence(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        read_upload(MALICIOUS[kind])
    assert len(str(error.value)) < 400
    assert not (tmp_path / "owned").exists()


def test_uploads_reach_the_fields() -> None:
    app = opened()
    config = preset("hrvit_nano").replace(widths=(16, 16, 32, 64), num_classes=7)
    app.file_uploader(key="upload").set_value(("mine.yaml", config.to_yaml().encode(), "application/yaml")).run()
    assert not app.exception and not app.error and exported(app).id == config.id
    app.file_uploader(key="upload").set_value(("bad.yaml", b"wdiths: 3", "application/yaml")).run()
    [error] = app.error
    assert "did you mean" in error.value and exported(app).id == config.id  # what was there stays


# -- scaling to a budget ---------------------------------------------------------------------------------


def test_scaling_to_the_macs_of_a_preset() -> None:
    app = opened({"preset": "hrvit_b3", "against": "hrvit_b1"})
    app.selectbox(key="budget metric").set_value("macs").run()
    next(button for button in app.button if button.label == "Scale widths").click().run()
    limit = count("hrvit_b1", 224).macs
    assert not app.error and exported(app).id == scale_to_budget(preset("hrvit_b3"), "macs", limit, 224).id
    assert 0.95 * limit < count(exported(app), 224).macs <= limit
    assert "below the limit" in app.success[0].value


@pytest.mark.parametrize(("text", "words"), [("1k", "at the smallest widths"), ("many", "'many' is not a number")])
def test_a_budget_that_cannot_be_met_is_one_sentence(text: str, words: str) -> None:
    app = opened()
    app.text_input(key="budget limit").set_value(text).run()
    next(button for button in app.button if button.label == "Scale widths").click().run()
    assert words in errors(app)[0] and exported(app).id == preset("hrvit_b1").id


def test_a_budget_in_millions() -> None:
    app = opened({"preset": "hrvit_micro"})
    app.text_input(key="budget limit").set_value("1.5 M").run()
    next(button for button in app.button if button.label == "Scale widths").click().run()
    assert not app.error and 1.35e6 < count(exported(app), 224).params <= 1.5e6


# -- exports ---------------------------------------------------------------------------------------------

EXPORTED = preset("hrvit_nano").replace(
    name="mine: a/b", widths=(16, 16, 32, 64), drop_rate=0.1, num_classes=10, depths=((1,), (1, 2, 1, 1)),
    attention=("cross_shaped", "cswin", "global", "identity"), mlp_ratios=(2, 2.5, 2, 2),
)  # fmt: skip


def exports_of(config: HRViTConfig, **query: str) -> list[str]:
    """YAML, Python, timm and study."""
    return [code.value for code in opened({**to_query(draft_of(config)), **query}).code]


def test_exported_yaml_python_and_timm_create_the_network() -> None:
    yaml, python, timm, _ = exports_of(EXPORTED)
    assert HRViTConfig.from_yaml(yaml) == EXPORTED
    for written in (python, timm):
        names: dict[str, Any] = {}
        exec(written, names)
        assert names["model"].config.id == EXPORTED.id
        assert sum(p.numel() for p in names["model"].parameters()) == count(EXPORTED, 64).params
    assert "timm.create_model(" in timm


@pytest.mark.timeout(900)  # latency is measured one at a time on a host, after what other tests measure
@pytest.mark.parametrize("against", [pytest.param("hrvit_nano", marks=pytest.mark.slow), "mit_b0"])
def test_an_exported_study_runs(against: str, tmp_path: Path) -> None:
    study = exports_of(EXPORTED, against=against, resolution="64~96")[3]
    (tmp_path / "mine.yaml").write_text(study.replace(", latency_ms", "") if against == "mit_b0" else study)
    command = [sys.executable, "-m", "hrvit_lab.study", "mine.yaml", "--out", "results"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=800, env=os.environ)
    assert done.returncode == 0, done.stderr
    [path] = tmp_path.glob("results/**/table.csv")
    table = pd.read_csv(path).set_index("variant")
    assert table["params"].to_dict() == {
        against: count(against, (64, 96)).params, "mine: a/b": count(EXPORTED, (64, 96)).params
    }  # fmt: skip
    assert table["macs"].tolist()[1] == count(EXPORTED, (64, 96)).macs


def test_an_exported_study_of_an_unchanged_preset_is_valid(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(exports.study_yaml(preset("hrvit_b1"), "hrvit_b1", (224, 224)))
    assert [entry.name for entry in load_study(tmp_path / "study.yaml").variants or ()] == ["hrvit_b1"]


def test_the_exported_drawing_is_of_the_network() -> None:
    drawing = ElementTree.fromstring(diagram(EXPORTED, 64))
    assert "mine: a/b" in (drawing.get("aria-label") or "")
    assert exports.file_name(EXPORTED, "svg") == "mine-a-b.svg"


# -- predicted latency -----------------------------------------------------------------------------------


@pytest.fixture
def with_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a profile of a machine with known costs, and a server that was started with it."""
    path = tmp_path / "machine.json"
    write_profile(path, measured(10))
    monkeypatch.setattr(sys, "argv", ["app", "--profile", str(path)])
    return path


def colours(app: AppTest) -> list[str]:
    """What the colours can show."""
    return [option for group in app.get("button_group") for option in getattr(group, "options", ())]


def warned(app: AppTest) -> str:
    [warning] = app.warning
    return warning.value.replace("\\", "")


def drawn(app: AppTest) -> str:
    """The drawing as SVG."""
    [image] = app.get("image")
    return base64.b64decode(image.proto.imgs[0].url.partition(",")[2]).decode()


def test_colours_show_the_latency_that_a_profile_predicts(with_profile: Path) -> None:
    config, _ = draws(1)(0, 0)
    app = opened({**to_query(draft_of(config)), "resolution": "96", "cost": "latency_ms"})
    found = predict(config, load_profile(with_profile), 96)
    said = next(caption.value for caption in app.caption if caption.value.startswith("Predicted latency"))
    assert format_value(METRICS["latency_ms"], found.value) in said and "a machine, 1 thread" in said
    assert "share of latency" in drawn(app) and not app.warning
    [bar_chart] = charts_of(app)
    assert "predicted" in (given := " ".join(bar_chart["title"]["subtitle"])) and "a machine, 1 thread" in given
    bars = predicted.predicted(config, (96, 96)).values
    assert bars["value"].sum() == pytest.approx(found.value)
    for by in ("stage", "branch"):
        chart = costs.cost_chart(bars, "latency_ms", by).to_dict()
        rows = pd.DataFrame(next(iter(chart["datasets"].values())))
        assert rows["value"].sum() == pytest.approx(found.value) and rows["share"].sum() == pytest.approx(1)
    assert "latency" in colours(app)


def test_the_latency_of_the_last_valid_network_is_that_of_its_own_size(with_profile: Path) -> None:
    """An address with an invalid network and another size shows both costs and latency of the network before it."""
    config, _ = draws(1)(0, 0)
    app = opened({**to_query(draft_of(config)), "resolution": "96", "cost": "latency_ms"})
    app.number_input(key="height").set_value(8).run()
    said = next(caption.value for caption in app.caption if caption.value.startswith("Predicted latency"))
    found = predict(config, load_profile(with_profile), 96)
    assert format_value(METRICS["latency_ms"], found.value) in said
    assert any("last valid network" in caption.value for caption in app.caption)


def test_a_part_that_the_profile_lacks_is_said_and_macs_are_shown(with_profile: Path) -> None:
    app = opened({**to_query(draft_of(preset("hrvit_nano").replace(attention="dilated_window"))), "cost": "latency_ms"})
    assert "No latency" in warned(app) and "measure it on a space that has it" in warned(app)
    assert "share of MACs" in drawn(app)


def test_without_a_profile_latency_is_not_offered_and_an_address_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "latency" not in colours(opened())
    app = opened({"preset": "hrvit_nano", "cost": "latency_ms"})
    assert "give it by --profile" in warned(app)
    monkeypatch.setattr(sys, "argv", ["app", "--profile", str(tmp_path / "none.json")])
    assert "none.json not found" in warned(opened({"preset": "hrvit_nano", "cost": "latency_ms"}))


def test_a_profile_that_changes_is_read_again(with_profile: Path) -> None:
    config, _ = draws(1)(0, 0)
    before = predicted.predicted(config, (96, 96)).latency_ms
    written = with_profile.stat()
    write_profile(with_profile, measured(11))
    os.utime(with_profile, ns=(written.st_atime_ns, written.st_mtime_ns))  # on a file system with a coarse clock
    after = predicted.predicted(config, (96, 96)).latency_ms
    assert after == predict(config, load_profile(with_profile), 96).value != before


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("n" * 300, None, "File name too long"),
        ("folder", "", "it is not a regular file"),
        ("list.json", "[]", "is not a profile"),
        ("nested.json", "[" * 10_000, "it is not JSON"),
        ("other.json", '{"version": 1}', "is a profile of another version"),
        ("words.json", '{"version": 2, "networks": "many"}', "is not a profile"),
    ],
)
def test_a_file_that_is_no_profile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None, sentence: str
) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["app", "--profile", str(path)])
    with pytest.raises(ConfigError, match=sentence):
        predicted.predicted(preset("hrvit_nano"), (96, 96))


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("resolution", [0, 64], "resolution"), ("resolution", [64, 10**12], "resolution"),
        ("resolution", [1, 1], "a network is invalid .resolution = 1×1 is too small.*measure it again"),
        ("config", {"widths": -1}, "a network is invalid .*measure it again"),
        ("config", {"no_field": 1}, "a network is invalid .*measure it again"),
        ("parts_ms", [0.0], "no part of a network has a latency"), ("whole_ms", 0, "whole_ms"),
        ("whole_ms", 1e300, "whole_ms"),
    ],
)  # fmt: skip
def test_a_profile_with_an_invalid_network_is_named(
    with_profile: Path, field: str, value: object, sentence: str
) -> None:
    raw = json.loads(with_profile.read_text())
    raw["networks"][3][field] = value
    with_profile.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=sentence) as error:
        predicted.predicted(preset("hrvit_nano"), (96, 96))
    assert str(with_profile) in str(error.value)


# -- speed -----------------------------------------------------------------------------------------------


def test_counts_of_b3_follow_within_100_ms_of_cpu() -> None:
    """Of the page's own work: address, faults, costs and drawing. The bound is loose for busy machines."""
    query = to_query(draft_of(preset("hrvit_b3").replace(window_sizes=(1, 2, 3, 9))))

    def work() -> str:
        draft = from_query(query)
        assert find_fault(draft.fields) is None
        config = HRViTConfig(**draft.fields)
        assert count(config, draft.size).macs > 5e9
        return diagram(config, draft.size, draft.cost)

    work()
    seconds = []
    for _ in range(5):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


def test_texts_of_fields_read_back() -> None:
    draw = random.Random(19)
    for _ in range(100):
        config = random_config(draw)
        for field, value in config.model_dump().items():
            assert from_text(field, to_text(field, value)) == value
