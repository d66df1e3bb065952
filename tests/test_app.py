"""The app's pages as a user sees them: defaults, bad input, empty and hostile files; never a traceback."""

import ast
import contextlib
import csv
import doctest
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.testing.v1 import AppTest
from test_chart_view import charts_of
from test_report import HOSTILE, write_study
from websockets.sync.client import connect

from hrvit_lab.app import folders, point_names
from hrvit_lab.app import widgets as text
from hrvit_lab.app.__main__ import main as app_command
from hrvit_lab.app.builder import exports, kinds, words
from hrvit_lab.app.main import PAGES, address
from hrvit_lab.app.pages import studies
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.study.results import read_results

pytestmark = pytest.mark.usefixtures("main_module")

APP = Path(__file__).resolve().parent.parent / "app.py"
TIMEOUT_S = 250
MEASURED = sorted(path.parent for path in (APP.parent / "studies" / "measured").glob("*/table.csv"))
DRAWN = [folder for folder in MEASURED if folder.name != "paper_ablation"]
"""Those whose costs are of the networks that were trained."""


def draw_studies() -> None:
    from hrvit_lab.app.pages import studies

    studies.show()


def run(page: Callable[[], None]) -> AppTest:
    app = AppTest.from_function(page, default_timeout=TIMEOUT_S).run()
    assert not app.exception
    return app


def test_docstring_examples() -> None:
    for module in (exports, kinds, words, text):
        assert doctest.testmod(module).attempted > 0
        assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    "name", ["http://evil.test/x", "HTTPS://e.t", "www.evil.test", "a+b@evil.test", ":smile:", ":+1:"]
)
def test_escaped_text_has_no_links_and_emojis(name: str) -> None:
    """The patterns are those that browsers apply to text after Markdown: GFM's autolinks, and names of emojis."""
    links = r"(https?://|www(?=\.))([-.\w]+)", r"[-.\w+]+@[-\w]+(\.[-\w]+)+", r":\+1:|:-1:|:[\w-]+:"
    shown = re.sub(r"\\(.)", r"\1", text.plain(f"see {name}, or {name}"))
    assert any(re.search(pattern, name, re.IGNORECASE) for pattern in links)
    assert not any(re.search(pattern, shown, re.IGNORECASE) for pattern in links)
    assert shown.replace("\u2060", "") == f"see {name}, or {name}"


# -- the whole app ----------------------------------------------------------------------------------------


def test_app_opens_on_the_first_page(results: Path) -> None:
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT_S).run()
    assert not app.exception
    titles = ["Explore", "Studies", "Build", "Compare", "Look inside", "Run", "Published"]
    assert [page.title for page in PAGES] == titles
    assert app.title[0].value == "Explore"


# -- studies ----------------------------------------------------------------------------------------------


def test_a_first_visit_shows_a_study_of_the_repository_and_leads_to_run(results: Path) -> None:
    app = run(draw_studies)
    assert "hrvit-lab study branch_sweep" in app.info[0].value
    [link] = app.get("page_link")
    assert (link.proto.label, link.proto.page) == ("Run a study", "run")
    assert app.selectbox(key="study").options == [f"{folder.name}, with the repository" for folder in MEASURED]
    assert len(charts_of(app)) == 1 and len(app.dataframe[0].value) == len(pd.read_csv(MEASURED[0] / "table.csv"))


def test_without_any_study_the_page_says_what_to_run(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "REFERENCE", results / "none")
    app = run(draw_studies)
    assert "hrvit-lab study branch_sweep" in app.info[0].value and app.get("page_link")
    assert not app.selectbox


def test_a_study_is_shown(results: Path) -> None:
    folder = write_study(results / "branches")
    app = run(draw_studies)
    assert app.title[0].value == "How many branches?"
    assert app.selectbox(key="study").options[:2] == ["branches", f"{MEASURED[0].name}, with the repository"]
    assert not app.get("page_link")
    assert app.selectbox(key="y of branches").value == "top1"
    assert app.selectbox(key="x of branches").value == "macs"
    assert "top-1 on digits (proxy), %" in app.selectbox(key="y of branches").options
    shown = app.dataframe[0].value
    assert shown["MACs"].tolist() == pd.read_csv(folder / "table.csv")["macs"].tolist()
    assert any("proxy" in caption.value for caption in app.caption)
    [chart] = charts_of(app)
    assert chart["title"]["text"] == ["top-1 on digits (proxy) against MACs"]
    assert "± 1 standard deviation over seeds" in " ".join(chart["title"]["subtitle"])


def test_baselines_and_comparisons_are_shown(results: Path) -> None:
    entries = [
        {"name": "ours", "set": {}},
        {"name": "ResNet", "set": {"model": "timm:resnet18"}},
        {"name": "sparse", "set": {"fusion": "sparse"}, "published": "ablation sparse fusion"},
    ]
    folder = write_study(results / "baselines", grid=None, variants=entries, compare_to="ours")
    table = pd.read_csv(folder / "table.csv")
    table["top1_delta"], table["top1_delta_se"], table["top1_delta_n"] = [None, 4.0, 4.3], [None, 0.1, 0.2], 3
    table["top1_delta_low"], table["top1_delta_high"] = [None, 3.6, 3.4], [None, 4.4, 5.2]
    table["top1_delta_p"] = [None, 0.001, 0.004]
    table["imagenet_top1_delta_published"] = [None, None, "-0.57"]
    table.to_csv(folder / "table.csv", index=False)
    app = run(draw_studies)
    shown = app.dataframe[0].value.set_index("variant")
    assert shown.loc["ResNet", "Δ top-1 on digits (proxy)"] == "+4.0 [+3.6, +4.4]"
    assert shown.loc["sparse", "Δ ImageNet top-1, published"] == "-0.57"
    assert any("2 of 2 variants" in markdown.value for markdown in app.markdown)


def test_costs_of_another_network_are_not_drawn_against_accuracy(results: Path) -> None:
    write_study(results / "ablation", cost_base="hrvit_micro")
    app = run(draw_studies)
    assert "another network" in app.info[0].value
    assert not app.get("vega_lite_chart") and not app.get("arrow_vega_lite_chart")


def test_metrics_can_be_chosen(results: Path) -> None:
    write_study(results / "branches")
    app = run(draw_studies)
    app.selectbox(key="x of branches").set_value("params").run()
    assert not app.exception and not app.info
    app.selectbox(key="x of branches").set_value("top1").run()
    assert "two different metrics" in app.info[0].value


def test_chart_data_equal_the_table(results: Path) -> None:
    loaded = read_results(write_study(results / "branches", std=0.5))
    data, titles = studies.chart_data(loaded, "macs", "top1")
    assert data["x"].tolist() == loaded.table["macs"].tolist()
    assert (data["y_high"] - data["y_low"]).tolist() == pytest.approx([1.0, 1.0, 1.0])
    said = [format_value(METRICS["macs"], value) for value in loaded.table["macs"]]
    [macs] = [column for column, title in titles.items() if title == "MACs"]
    assert data[macs].tolist() == said
    assert data["kind"].tolist() == ["HRViT"] * 3
    loaded.configs[loaded.table["variant"][1]] = {"model": "timm:resnet18"}  # type: ignore[index]
    assert studies.chart_data(loaded, "macs", "top1")[0]["kind"].tolist() == ["HRViT", "baseline", "HRViT"]


@pytest.mark.parametrize("folder", DRAWN, ids=lambda folder: folder.name)
def test_chart_texts_are_titles_and_rounded_values(folder: Path) -> None:
    """The hover text of every mark has titles and rounded values; ticks have no powers; axes name the conditions."""
    loaded = read_results(folder)
    x = "latency_ms" if "latency_ms" in loaded.metrics else "macs"
    chart = studies.tradeoff_chart(loaded, x, "top1")[0].to_dict()
    line, *layers = chart["layer"]
    assert line["mark"]["type"] == "line" and line["mark"]["tooltip"] is None
    for layer in layers:
        hover = {tip["title"]: tip["field"] for tip in layer["encoding"]["tooltip"]}
        assert {"variant", f"top-1 on {loaded.dataset} (proxy)", "config"} <= hover.keys()
        titles = [title.replace(f"on {loaded.dataset} ", "") for title in hover]
        assert not any("_" in title for title in titles) and all(tip.startswith("text") for tip in hover.values())
        for axis in (layer["encoding"][axis]["axis"] for axis in "xy" if "axis" in layer["encoding"][axis]):
            assert re.fullmatch(r".*format\(datum\.value, '[^']*~[rs]'\)", axis["labelExpr"]) and "format" not in axis
    rows = next(iter(chart["datasets"].values()))
    texts = [str(value) for row in rows for name, value in row.items() if name.startswith("text")]
    assert not [text for text in texts if re.search(r"\d\.\d{4}", text)]
    if "latency_ms" in loaded.metrics:
        title = chart["layer"][1]["encoding"]["y"]["title"], line["encoding"]["x"]["title"]
        batch = loaded.spec.latency.batch_size
        assert title[1][0] == "latency, ms"
        assert (
            title[1][1].startswith(f"cpu, batch {batch}, float32, {loaded.spec.resolution[0]}×")
            and "thread" in title[1][1]
        )


@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("folder", DRAWN, ids=lambda folder: folder.name)
def test_all_points_of_a_study_are_named_or_of_many_those_on_the_front(folder: Path, errors: bool) -> None:
    loaded = read_results(folder)
    data, _ = studies.chart_data(loaded, *loaded.spec.axes_of_tradeoff, errors)
    named = data["place"] != ""
    assert len(data) >= 4 and data["front"].any() and named[data["front"].astype(bool)].all()
    assert named.all() or len(data) == 48  # predictor_quality


def test_variants_that_are_one_network_are_one_point_with_both_names() -> None:
    loaded = read_results(next(folder for folder in MEASURED if folder.name == "branch_sweep"))
    data, _ = studies.chart_data(loaded, "macs", "top1")
    assert len(data) == loaded.table["config_id"].nunique() == len(loaded.table) - 1
    joint = data[data["name"].str.contains(" = ")]
    assert joint["name"].tolist() == ["branches=4 = branches=4, equal macs"]
    [row] = loaded.table[loaded.table["variant"] == "branches=4"].to_dict("records")
    assert joint[["x", "y"]].to_numpy().tolist() == [[row["macs"], row["top1"]]]


def test_networks_with_other_values_or_without_an_id_stay_apart(results: Path) -> None:
    folder = write_study(results / "branches")
    table = pd.read_csv(folder / "table.csv")
    table.loc[1, ["macs", "top1"]] = table.loc[0, ["macs", "top1"]].to_numpy()
    for ids, number in (("aab", 2), ("abc", 3), ("--c", 3)):
        table.assign(config_id=pd.Series([*ids]).replace("-", None)).to_csv(folder / "table.csv", index=False)
        assert len(studies.chart_data(read_results(folder), "macs", "top1")[0]) == number
    table.assign(config_id="a").to_csv(folder / "table.csv", index=False)
    assert len(studies.chart_data(read_results(folder), "macs", "top1")[0]) == 2  # the third has another accuracy


def test_error_rates_are_shown_on_a_logarithmic_axis(results: Path) -> None:
    folder = write_study(results / "branches")
    app = run(draw_studies)
    app.toggle(key="error of branches").set_value(True).run()
    assert not app.exception
    [chart] = charts_of(app)
    assert chart["title"]["text"] == ["top-1 error on digits (proxy) against MACs"]
    up = chart["layer"][0]["encoding"]["y"]
    assert up["scale"]["type"] == "log" and up["title"][0] == "top-1 error on digits (proxy), %"
    data, _ = studies.chart_data(read_results(folder), "macs", "top1", errors=True)
    scores = pd.read_csv(folder / "table.csv")["top1"]
    assert data["y"].tolist() == pytest.approx((100 - scores).tolist())
    assert (data["y_high"] - data["y"]).tolist() == pytest.approx([0.5] * 3)
    assert data["front"].tolist() == studies.chart_data(read_results(folder), "macs", "top1")[0]["front"].tolist()
    app.selectbox(key="y of branches").set_value("params").run()
    assert not app.toggle


def test_the_table_has_the_percentiles_of_latency() -> None:
    loaded = read_results(next(folder for folder in MEASURED if "latency_ms_p10" in pd.read_csv(folder / "table.csv")))
    app = AppTest.from_function(draw_one_table, default_timeout=TIMEOUT_S).run()
    assert not app.exception
    shown = app.dataframe[0].value
    first = loaded.table.iloc[0]
    ends = [format_value(METRICS["latency_ms"], first[f"latency_ms_{end}"]) for end in ("p10", "p90")]
    assert shown["latency, p10–p90"].tolist()[0] == f"{ends[0]} to {ends[1]}"
    assert shown["latency, p10–p90"].isna().tolist() == loaded.table["latency_ms_p10"].isna().tolist()


def draw_one_table() -> None:
    import pandas as pd
    from test_app import MEASURED

    from hrvit_lab.app.pages import studies
    from hrvit_lab.study.results import read_results

    folder = next(folder for folder in MEASURED if "latency_ms_p10" in pd.read_csv(folder / "table.csv"))
    studies.draw_table(read_results(folder))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, point_names.WIDTH), st.integers(0, point_names.HEIGHT), st.text("ab", max_size=40)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([*point_names.PLACES]),
)
def test_placed_names_do_not_overlap(points: list[tuple[int, int, str]], first: str) -> None:
    """Checked pixel by pixel: each pixel belongs to at most one name, and no name covers the point of another."""
    where = np.array([point[:2] for point in points], dtype=float)
    names = [name for *_, name in points]
    places = point_names.place_names(where, names, range(len(points)), first)
    pixels = np.zeros((point_names.HEIGHT, point_names.WIDTH), dtype=int)
    boxes = [point_names.box(where[i], names[i], place) if place else None for i, place in enumerate(places)]
    for box in boxes:
        if box is not None:
            assert (box >= 0).all() and (box[2:] <= (point_names.WIDTH, point_names.HEIGHT)).all()
            left, top, right, bottom = np.round(box).astype(int)
            pixels[top:bottom, left:right] += 1
    assert pixels.max() <= 1
    for index, box in enumerate(boxes):
        for x, y in where:
            if box is not None and max(abs(x - where[index, 0]), abs(y - where[index, 1])) > 1:
                assert not (box[0] < x < box[2] and box[1] < y < box[3])


def test_a_name_is_placed_at_the_first_free_position() -> None:
    apart = np.array([[400.0, 200.0], [400.0, 100.0], [5.0, 300.0], [400.0, 210.0]])
    names = ["one", "two", "at the edge", "x" * 20]
    assert point_names.place_names(apart, names, [3, 0, 1, 2], "upper left") == [
        "upper right", "upper left", "upper right", "upper left"
    ]  # fmt: skip


def test_of_ten_names_all_have_room_and_of_many_all_but_a_few() -> None:
    """Two clusters of points are the hard case: most names are far from their points."""
    for seed in range(100):
        random = Random(seed)
        centres = [(random.randint(150, 490), random.randint(120, 250)) for _ in range(2)]
        points = [(x + random.gauss(0, 20), y + random.gauss(0, 20)) for x, y in centres for _ in range(12)]
        names = [f"branches={number}, wide" for number in range(24)]
        ten = [*range(5), *range(12, 17)]
        assert "" not in point_names.place_names(np.array(points)[ten], names[:10], range(10), "upper left")
        assert point_names.place_names(np.array(points), names, range(24), "upper left").count("") <= 5
        near = point_names.place_names(np.array(points), names, range(24), "upper left", far=False)
        assert "" in near and not any(place.startswith("far") for place in near)


@pytest.mark.parametrize("name", ["study.yaml", "table.csv"])
def test_a_broken_study_is_reported_in_one_sentence(results: Path, name: str) -> None:
    folder = write_study(results / "branches")
    (folder / name).write_text("title: [" if name == "study.yaml" else "a,b\n1,2\n")
    app = run(draw_studies)
    assert len(app.error) == 1 and "\n" not in app.error[0].value


def test_hostile_texts_are_escaped(results: Path) -> None:
    folder = write_study(results / "branches", title=HOSTILE, question=f"[a](http://evil.test) $x$ {HOSTILE}")
    table = pd.read_csv(folder / "table.csv")
    table.loc[2, "variant"] = "[click](javascript:alert)"
    table.to_csv(folder / "table.csv", index=False)
    app = run(draw_studies)
    assert any("script" in element.value for element in app.markdown)
    for element in (*app.markdown, *app.title):
        assert not re.search(r"(?<!\\)[<\[$`]", element.value)


def test_only_folders_below_the_results_are_offered(results: Path, tmp_path: Path) -> None:
    write_study(results / "mine")
    write_study(tmp_path / "elsewhere" / "secret")
    (results / "link").symlink_to(tmp_path / "elsewhere" / "secret")
    (results / "empty").mkdir()
    assert set(folders.find_results(results)) == {"mine"}


def test_results_folder_comes_only_from_the_command_line(results: Path) -> None:
    assert folders.results_root([]) == Path("results")
    assert folders.results_root(["--results", "other"]) == Path("other")
    source = ast.unparse(ast.parse(Path(studies.__file__).read_text(encoding="utf-8")))
    assert "query_params" not in source


def test_names_of_files_that_begin_with_a_dash_reach_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def run_it(command: list[str]) -> SimpleNamespace:
        given.extend(command[command.index("--") + 1 :])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run_it)
    assert app_command(["--results=-r", "--profile=--p.json"]) == 0
    assert folders.results_root(given) == Path("-r") and folders.profile_path(given) == Path("--p.json")


def test_an_option_without_a_value_is_said_on_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app.py", "--profile"])
    app = run(draw_main)
    assert [re.sub(r"\\(.)", r"\1", error.value).replace("\u2060", "") for error in app.error] == [
        "the app was started with invalid options: argument --profile: expected one argument; see hrvit-lab app --help"
    ]
    assert not app.exception


def draw_main() -> None:
    from hrvit_lab.app import main

    main.run()


def test_newest_study_comes_first(results: Path) -> None:
    for age, name in enumerate(("old", "new")):
        write_study(results / name)
        os.utime(results / name / "table.csv", (1e9 + age, 1e9 + age))
    assert list(folders.find_results(results)) == ["new", "old"]


OPENED = ("branch_sweep", "baselines", "paper_ablation")  # in a default run; the rest are slow tests


@pytest.mark.parametrize(
    "folder",
    [pytest.param(f, marks=() if f.name in OPENED else pytest.mark.slow) for f in MEASURED],
    ids=lambda folder: folder.name,
)
def test_a_committed_study_opens_with_its_table_and_chart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["app.py", "--results", str(folder.parent)])
    app = run(draw_studies)
    app.selectbox(key="study").set_value(folder.name).run()
    assert not app.exception and not app.error
    with (folder / "table.csv").open(encoding="utf-8", newline="") as file:
        variants = [row["variant"] for row in csv.DictReader(file)]
    assert app.dataframe[0].value.reset_index()["variant"].tolist() == variants
    drawn = bool(app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart"))
    assert drawn != (folder.name == "paper_ablation")  # its costs are of another network than was trained
    assert drawn or "another network" in app.info[0].value
    said = [element.value for kind in (app.markdown, app.caption, app.info, app.warning) for element in kind]
    assert not [text for text in said if "not shown" in text]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """The port of a server that Streamlit starts with the app."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(APP), "--server.headless", "true"]
    command += ["--server.address", "127.0.0.1", "--server.port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        until, answer = time.monotonic() + 120, b""
        while not answer and process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(OSError):
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=10).read()
            time.sleep(0.1)
        assert answer == b"ok", (tmp_path / "log").read_text()
        yield port
    finally:
        process.kill()
        process.wait()


def open_page(port: int, name: str) -> list[ForwardMsg]:
    """The messages that the server sends to a browser that opens an address, until the page has its title."""
    messages: list[ForwardMsg] = []
    with connect(f"ws://127.0.0.1:{port}/_stcore/stream", max_size=None) as connection:
        connection.send(BackMsg(rerun_script=ClientState(page_name=name)).SerializeToString())
        while not messages or not messages[-1].delta.new_element.heading.body:
            sent = connection.recv(timeout=120)
            assert isinstance(sent, bytes)
            messages.append(ForwardMsg.FromString(sent))
    return messages


@pytest.mark.slow
def test_pages_are_at_their_addresses(server: int) -> None:
    """With the app as Streamlit starts it. The root shows the first page, and so does an unknown address, with a
    message. (Browser tests open all pages.)"""
    titles = [page.title for page in PAGES]
    drawn = {}
    for name in ("", "unknown", address(PAGES[0]), "build"):
        messages = open_page(server, name)
        kinds = [message.WhichOneof("type") for message in messages]
        assert ("page_not_found" in kinds) == (name == "unknown"), name
        drawn[name] = next(filter(None, (message.delta.new_element.heading.body for message in messages)))
        navigation = messages[kinds.index("navigation")].navigation
        assert [page.page_name for page in navigation.app_pages if not page.is_hidden] == titles
    assert drawn[""] == drawn["unknown"] == drawn[titles[0].lower()]
    assert drawn["build"] == "Build a variant" != drawn[""]
