"""A study's folder: its owner, write access, and the valid parts of a damaged or foreign folder."""

import codecs
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.layout_engine import ConstrainedLayoutEngine
from test_report import Page, write_study, written

from hrvit_lab.app import folders as app_folders
from hrvit_lab.app.pages import studies
from hrvit_lab.config import ConfigError
from hrvit_lab.study import results
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.analysis import environments
from hrvit_lab.study.files import spec_from
from hrvit_lab.study.folder import write_inputs, write_results
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.report import figures_of, render
from hrvit_lab.study.reporting import plan_under
from hrvit_lab.study.results import Results, read_results
from hrvit_lab.study.show import result_table
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import plan

ROOT = Path(__file__).parents[1]
Draw = Callable[..., Any]
COSTS = """
title: What does a branch cost?
question: How many parameters and MACs does each branch add?
base: hrvit_nano
grid: {branches: [1, 2]}
metrics: [params, macs]
resolution: 64
"""


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error of a command that exits with 2."""
    assert main([str(argument) for argument in arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


# -- read once, drawn once --------------------------------------------------------------------------------


def test_results_are_drawn_once_and_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = read_results(write_study(tmp_path / "s"))
    layouts: list[int] = []
    execute = ConstrainedLayoutEngine.execute

    def counted(*arguments: Any) -> Any:
        layouts.append(1)
        return execute(*arguments)

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", counted)
    monkeypatch.setattr(results, "read_bounded", lambda *a: pytest.fail("results in memory were read again"))
    write_results(tmp_path / "s", kept)
    pictures = list((tmp_path / "s" / "figures").glob("*.png"))
    assert len(layouts) == len(pictures) == 5


def test_a_report_loads_no_torch(tmp_path: Path) -> None:
    write_study(tmp_path / "s")
    source = (
        "import sys; from hrvit_lab.study.__main__ import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ', '.join({'torch', 'torchvision', 'timm'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", source, "report", "s", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "s" / "report.html").is_file()


def test_the_environments_equal_those_of_the_records() -> None:
    fields = {"title": "t", "question": "q?", "base": "hrvit_nano", "grid": {"branches": [1, 2, 3]}}
    spec = Spec.model_validate(fields | {"metrics": ["peak_memory_mib"], "resolution": 64})
    planned = plan(spec, expand(spec).variants, "chip")
    [one], [two], [three] = planned.values()
    here = {"cpu": "this", "versions": {"torch": "2"}, "command": "a", "data_files": ""}
    records: dict[str, dict[str, Any]] = {
        one.key: {"environment": here | {"date_utc": "2026-01-02"}},
        two.key: {"environment": here | {"cpu": "that", "date_utc": "2025-01-01"}, "host": "", "on_device": ""},
        three.key: {"environment": here | {"date_utc": "2026-01-01", "command": "b"}},
    }
    for key, host, device in ((one.key, "node7", "cuda:1"), (three.key, "node7", "cuda:1")):
        records[key] |= {"host": host, "on_device": device}
    assert environments(planned, records) == [
        {
            "trials": {"memory": 2},
            "first_utc": "2026-01-01",
            "last_utc": "2026-01-02",
            "cpu": "this",
            "versions": {"torch": "2"},
            "trials_on": {"node7, cuda:1": 2},
        },
        {
            "trials": {"memory": 1},
            "first_utc": "2025-01-01",
            "last_utc": "2025-01-01",
            "cpu": "that",
            "versions": {"torch": "2"},
        },
    ]


@pytest.mark.usefixtures("blank_figures")
def test_the_report_shows_the_environment_of_its_records_and_not_its_own(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    there = [{"trials": {"accuracy": 9}, "cpu": "measuring chip"}, {"trials": {"latency": 3}, "cpu": "timing chip"}]
    (folder / "measured_in.json").write_text(json.dumps(there))
    (folder / "environment.json").write_text(json.dumps({"cpu": "drawing chip"}))
    text = Page(written(folder)).all_text
    assert "9 × accuracy cpu measuring chip" in text and "3 × latency cpu timing chip" in text
    assert "drawing chip" not in text
    (folder / "measured_in.json").unlink()
    assert "drawing chip" in Page(written(folder)).all_text  # of an older version: all that is known


# -- read-only, full, and not regular ---------------------------------------------------------------------


def written_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != ".claim"}


@contextmanager
def somebody_else(folder: Path) -> Iterator[None]:
    """Run as a user who may read but not write the folder; root could write despite the permissions."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    codecs.lookup("utf-8-sig")  # loads the codec while Python's own files can be read
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def archive() -> Iterator[Path]:
    """A folder that other users can access; those of pytest are not accessible."""
    with tempfile.TemporaryDirectory(dir="/tmp" if Path("/tmp").is_dir() else None) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.usefixtures("blank_figures")
def test_read_only_results_are_shown_and_reported_to_another_folder(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, elsewhere = archive / "results", archive / "elsewhere"
    study = tmp_path / "costs.yaml"
    study.write_text(COSTS)
    assert main([str(study), "--out", str(out), "--jobs", "1"]) == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    elsewhere.mkdir()
    elsewhere.chmod(0o777)
    capsys.readouterr()
    with somebody_else(out):
        with pytest.raises(PermissionError):
            (out / "costs" / "probe").touch()
        code = main(["report", "costs", "--out", str(out)])
        output, errors = capsys.readouterr()
        assert main(["report", "costs", "--out", str(out), "--into", str(elsewhere / "costs")]) == 0
        assert read_results(out / "costs").table["variant"].tolist() == ["branches=1", "branches=2"]
    assert code == 2 and "branches=2" in output  # the table is shown
    [line] = errors.splitlines()
    assert "costs can't be written" in line and "--into" in line
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert written_files(elsewhere / "costs") == written_files(out / "costs")
    for name in ("table.csv", "study.yaml", "configs.json"):
        assert (elsewhere / "costs" / name).read_bytes() == (out / "costs" / name).read_bytes()
    assert read_results(elsewhere / "costs").faults == []


@pytest.mark.usefixtures("blank_figures")
def test_a_folder_without_records_is_reported_from_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "archive" / "s")
    table = (folder / "table.csv").read_bytes()
    into = tmp_path / "into"
    assert main(["report", "s", "--out", str(folder.parent), "--into", str(into)]) == 0
    shown = capsys.readouterr().out
    assert "92.3 ± 0.5 %" in shown and "has no records of trials" in shown
    assert "92.3 ± 0.5 %" in (into / "report.html").read_text(encoding="utf-8")
    assert (folder / "table.csv").read_bytes() == table and not (folder / "report.html").exists()


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("other", ["title: Another study?", "question: Another question?"], ids=["title", "question"])
@pytest.mark.parametrize("known", [True, False], ids=["digests", "older version"])
def test_a_copy_never_replaces_the_results_of_another_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: str, known: bool
) -> None:
    """Another title or question is refused before anything is written; the study's own copy is written again."""
    out, into, theirs = tmp_path / "results", tmp_path / "copy", tmp_path / "theirs"
    for name, text in (("ours", COSTS), ("others", re.sub(rf"{other.split()[0]} .*", other, COSTS))):
        (tmp_path / f"{name}.yaml").write_text(text)
        assert main([str(tmp_path / f"{name}.yaml"), "--out", str(out), "--jobs", "1"]) == 0
        if not known:
            environment = json.loads((out / name / "environment.json").read_text())
            del environment["study_file"]
            (out / name / "environment.json").write_text(json.dumps(environment))
    for _ in range(2):
        assert main(["report", "ours", "--out", str(out), "--into", str(into)]) == 0
    shutil.copytree(out / "others", theirs)
    before = {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}
    capsys.readouterr()
    line = refused(capsys, "report", "ours", "--out", out, "--into", theirs)
    assert f"{theirs} contains the results of another study" in line and "choose another folder with --into" in line
    assert before == {path: path.read_bytes() for path in theirs.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [2, pytest.param(None, marks=pytest.mark.slow)], ids=["first two", "all"])
def test_every_committed_result_is_reported_and_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int | None
) -> None:
    folders = sorted(path.parent for path in (ROOT / "studies" / "measured").glob("*/table.csv"))
    assert len(folders) >= 8
    for folder in folders:
        kept = read_results(folder)
        assert set(kept.configs) == set(kept.table["variant"])
        assert kept.faults == [], folder.name
        trained = {(variant, seed) for variant in kept.configs for seed in kept.spec.seeds}
        assert {*zip(kept.curves["variant"], kept.curves["seed"], strict=True)} == trained, folder.name
        assert json.loads((folder / "environment.json").read_text())["versions"]["torch"]
        measured = json.loads((folder / "measured_in.json").read_text())
        networks = {(network, seed) for network in kept.table["config_id"] for seed in kept.spec.seeds}
        assert sum(where["trials"].get("accuracy", 0) for where in measured) == len(networks)
        assert not any("trials_on" in where for where in measured), "it names hosts; copy it by study report --into"
    for folder in folders[:number]:
        into = tmp_path / folder.name
        assert main(["report", folder.name, "--out", str(folder.parent), "--into", str(into)]) == 0
        kept = read_results(into)
        assert set(kept.configs) == set(kept.table["variant"])
        assert "(a proxy)" in Page((into / "report.html").read_text(encoding="utf-8")).all_text
        if kept.comparable:
            assert len(studies.chart_data(kept, *kept.spec.axes_of_tradeoff)[0]) == len(kept.table)
    assert set(app_folders.find_results(folders[0].parent)) == {folder.name for folder in folders}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("name", ["table.csv", "report.html", "figures/training_curves.svg"])
def test_a_full_disk_names_the_file_and_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = write_study(tmp_path / "s")
    (folder / "figures").mkdir()
    (folder / f"{name}.tmp").symlink_to("/dev/full")
    assert main(["report", "s", "--out", str(tmp_path)]) == 2
    output, errors = capsys.readouterr()
    [line] = errors.splitlines()
    assert "92.3 ± 0.5 %" in output  # existing values are shown
    assert str(folder / name) in line and os.strerror(errno.ENOSPC) in line and "free some space" in line
    assert main(["report", "s", "--out", str(tmp_path)]) == 0  # no file was left that prevents a report


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize("name", ["curves.csv", "environment.json", "configs.json", "dropped.json"])
def test_reading_never_waits_for_a_fifo(tmp_path: Path, name: str) -> None:
    folder = write_study(tmp_path / "s")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    [fault] = read_results(folder).faults
    assert name in fault and "regular" in fault


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs on this system")
@pytest.mark.parametrize("name", ["table.csv", "study.yaml"])
def test_a_fifo_in_place_of_the_table_or_the_study_is_refused(tmp_path: Path, name: str) -> None:
    folder = write_study(tmp_path / "s")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ConfigError, match="regular"):
        read_results(folder)


def test_a_report_that_is_a_symbolic_link_is_not_offered(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    (tmp_path / "secret").write_text("secret")
    (folder / "report.html").symlink_to(tmp_path / "secret")
    assert studies._read_report(folder) is None


# -- whose folder it is -----------------------------------------------------------------------------------


def studies_of_one_name(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "a" / "costs.yaml", tmp_path / "b" / "costs.yaml"
    for path in paths:
        path.parent.mkdir()
    paths[0].write_text(COSTS)
    paths[1].write_text(COSTS.replace("[1, 2]", "[3, 4]"))
    return paths


@pytest.mark.usefixtures("blank_figures")
def test_two_study_files_of_one_name_do_not_share_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = studies_of_one_name(tmp_path)
    out = ["--out", str(tmp_path / "results"), "--jobs", "1"]
    assert main([str(mine), *out]) == 0
    folder = tmp_path / "results" / "costs"
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    capsys.readouterr()
    line = refused(capsys, other, *out)
    assert "What does a branch cost?" in line and "rename this file" in line and "--out" in line
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main([str(other), "--out", str(tmp_path / "others"), "--jobs", "1"]) == 0
    assert str(mine.parent) not in (folder / "environment.json").read_text()  # results can be published


@pytest.mark.usefixtures("blank_figures")
def test_a_study_is_the_same_after_it_is_edited_changed_by_set_or_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = studies_of_one_name(tmp_path)
    out = ["--out", str(tmp_path / "results"), "--jobs", "1"]
    assert main([str(mine), *out]) == 0
    assert main([str(mine), *out, "--set", "grid.branches=[1, 2, 3]"]) == 0
    mine.write_text(mine.read_text().replace("What does", "What, then, does"))
    assert main([str(mine), *out]) == 0
    other.write_bytes(mine.read_bytes())
    assert main([str(other), *out]) == 0
    assert main(["report", "costs", "--out", str(tmp_path / "results")]) == 0
    assert "will not include" not in capsys.readouterr().err


@pytest.mark.usefixtures("blank_figures")
def test_a_folder_of_an_older_version_is_identified_by_title_and_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = studies_of_one_name(tmp_path)
    out = ["--out", str(tmp_path / "results"), "--jobs", "1"]
    assert main([str(mine), *out]) == 0
    path = tmp_path / "results" / "costs" / "environment.json"
    old = json.loads(path.read_text())
    del old["study_file"]
    path.write_text(json.dumps(old))
    other.write_text(COSTS.replace("What does", "What else does"))
    assert "another study with the same name" in refused(capsys, other, *out)
    assert main([str(mine), *out]) == 0


# -- tampered ---------------------------------------------------------------------------------------------

ODD = (
    "", "NA", "inf", "-inf", "nan", "1e400", "1e30", "1e-320", "0", "-1", "9" * 400, "true", "[1]", "{}", "null",
    "=1+1", "\x1b[31m", "\u202egnp.exe", "网络", "\U0001f600", "$\\frac{1}{", "</script>", "{{ 7 }}", "a\x00b",
    "\ud83d", "x" * 300,
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a valid folder, with latencies and differences."""
    folder = write_study(tmp_path_factory.mktemp("sound") / "s", compare_to="branches=1")
    kept = read_results(folder)
    kept.table["latency_ms"], kept.table["latency_ms_p10"], kept.table["latency_ms_p90"] = 3.0, 2.5, 4.0
    for end, value in (("", 1.0), ("_se", 0.1), ("_low", 0.7), ("_high", 1.3), ("_p", 0.01), ("_n", 3)):
        kept.table[f"top1_delta{end}"] = value
    write_inputs(folder, kept)
    write_results(folder, kept)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def tampered_csv(draw: Draw, content: bytes) -> bytes:
    """Some cells or a column's head are replaced; a row or column is removed or repeated."""
    rows = [line.split(",") for line in content.decode().splitlines()]
    for _ in range(draw(st.integers(1, 4))):
        row, column = draw(st.integers(0, len(rows) - 1)), draw(st.integers(0, len(rows[0]) - 1))
        action = draw(st.sampled_from(["cell", "column", "drop row", "drop column", "twice"]))
        if action == "cell":
            rows[row][column % len(rows[row])] = draw(st.sampled_from(ODD))
        elif action == "column":
            value = draw(st.sampled_from(ODD))
            for each in rows[1:]:
                each[column % len(each)] = value
        elif action == "drop row" and len(rows) > 2:
            del rows[row]
        elif action == "drop column" and len(rows[0]) > 2:
            rows = [each[:column] + each[column + 1 :] for each in rows]
        elif action == "twice":
            rows.append(list(rows[row]))
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def tampered_json(draw: Draw, content: bytes) -> bytes:
    """One value is replaced by one of another type."""
    values = st.sampled_from([None, True, -1, 1e308, 10**300, "x", "\ud83d", [], {}, [[1]], {"a": [None]}])
    value = json.loads(content)
    place: Any = value
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = draw(values)
            break
        place = place[key]
    else:
        value = draw(values)
    return json.dumps(value).encode()


def tampered(draw: Draw, files: dict[str, bytes]) -> dict[str, bytes | None]:
    """The files of a folder of which one or two were changed; None means that the file is removed."""
    changed: dict[str, bytes | None] = dict(files)
    known = ["table.csv", "curves.csv", "environment.json", "configs.json", "dropped.json", "measured_in.json"]
    for name in draw(st.lists(st.sampled_from([*known, "table.csv", "study.yaml"]), min_size=1, max_size=2)):
        content = files[name]
        action = draw(st.sampled_from(["values", "values", "values", "cut", "bytes", "gone", "empty"]))
        if action == "gone":
            changed[name] = None
        elif action in ("cut", "empty"):
            changed[name] = content[: draw(st.integers(0, len(content))) if action == "cut" else 0]
        elif action == "bytes" or name == "study.yaml":
            place = draw(st.integers(0, len(content) - 1))
            changed[name] = content[:place] + draw(st.binary(min_size=1, max_size=8)) + content[place + 4 :]
        else:
            changed[name] = (tampered_csv if name.endswith("csv") else tampered_json)(draw, content)
    return changed


def folder_of(files: dict[str, bytes | None], parent: str) -> Path:
    folder = Path(parent) / "s"
    folder.mkdir()
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def shown_everywhere(kept: Results) -> None:
    """Show the results in the terminal, on the page and in the app's chart."""
    result_table(kept.spec, kept.table, 100)
    Page(render(kept, {}))
    if len(kept.metrics) > 1 and kept.comparable:
        x, y = kept.metrics[:2]
        studies.tradeoff_chart(kept, x, y)
        studies.chart_data(kept, x, y)


def drawn_everywhere(kept: Results) -> None:
    with tempfile.TemporaryDirectory() as parent:
        write_results(Path(parent) / "s", kept)


@pytest.mark.parametrize(
    ("examples", "use"),
    [
        (25, shown_everywhere),
        (4, drawn_everywhere),
        pytest.param(1000, shown_everywhere, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param(100, drawn_everywhere, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_a_tampered_folder_is_shown_or_refused_in_one_sentence(
    sound: dict[str, bytes], examples: int, use: Callable[[Results], None]
) -> None:
    outcomes = {"shown": 0, "refused": 0}

    @given(st.data())
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    def check(data: st.DataObject) -> None:
        files = tampered(data.draw, sound)
        with tempfile.TemporaryDirectory() as parent:
            try:
                kept = read_results(folder_of(files, parent))
            except ConfigError as error:
                assert "\n" not in str(error)
                outcomes["refused"] += 1
                return
        use(kept)
        assert all("\n" not in fault for fault in kept.faults)
        outcomes["shown"] += 1

    check()
    assert min(outcomes.values()) > examples // 50, outcomes


@pytest.mark.parametrize(
    "name",
    ["网络", "\u202eevil",
     *(pytest.param(name, marks=pytest.mark.slow) for name in ("\x1b[31mred", "\U0001f98a", "नमस्ते", "a\x07b"))],
)  # fmt: skip
def test_characters_that_the_font_lacks_are_escaped(tmp_path: Path, name: str) -> None:
    """There is no warning (warnings are errors here), no empty box, and no control character."""
    kept = read_results(write_study(tmp_path / "s"))
    kept.table.loc[0, "variant"] = name
    kept.curves.loc[kept.curves["variant"] == "branches=1", "variant"] = name
    write_results(tmp_path / "s", kept)
    escaped = ascii(name)[1:-1][:8]
    for path in (tmp_path / "s" / "figures").glob("*.svg"):
        svg = path.read_text(encoding="utf-8")
        assert name not in svg
        if path.stem == "training_curves":
            assert escaped in svg
    assert figures_of(kept)


def test_a_study_of_a_device_of_another_machine_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its records were measured on a sixth GPU, which does not exist on this machine."""
    fields = {"metrics": ["params", "latency_ms"], "resolution": 32, "device": "cuda:5"}
    spec = spec_from({"title": "T", "question": "Q?", "base": "hrvit_nano", "grid": {"branches": [1, 2]}} | fields)
    conditions = {"hardware": "NVIDIA GB999", "versions": {"torch": "9.9.9", "timm": "9.9.9"}, "gpus": ["NVIDIA GB999"]}
    planned = plan_under(conditions, spec, expand(spec))
    store = Store(tmp_path / "results")
    store.create()
    for place, trial in enumerate(trial for trials in planned.values() for trial in trials if trial.computed is None):
        values = {metric.key: 12.5 + place for metric in GROUPS["latency"].metrics}
        outcome = {"status": "ok", "reason": "", "values": values, "started": 1.7e9, "seconds": 3.5, "cpu_seconds": 3.0}
        store.save({**trial.head(), **outcome, "environment": conditions})
    folder = tmp_path / "results" / "far"
    folder.mkdir()
    (folder / "study.yaml").write_text(spec.to_yaml())
    (folder / "environment.json").write_text(json.dumps(conditions))
    assert main(["report", "far", "--out", str(folder.parent)]) == 0
    shown = capsys.readouterr().out
    assert "12.5" in shown and "13.5" in shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "cuda:5" in page and "NVIDIA GB999" in page
