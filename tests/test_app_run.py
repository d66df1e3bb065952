"""Runs that the app starts: they outlive it, are found again, can be stopped and resumed, and are bounded."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from streamlit.testing.v1 import AppTest
from test_chart_view import charts_of
from test_report import write_study
from torch import nn

from hrvit_lab.app import keeper, processes, run_choices, search_time, watch
from hrvit_lab.app.folders import SHORT
from hrvit_lab.app.processes import MOST_RUNNING, Process, Request
from hrvit_lab.app.run_choices import Composed
from hrvit_lab.app.search_progress import by_method, is_search, read_search
from hrvit_lab.app.search_time import how_long
from hrvit_lab.app.training_progress import read_training, seconds_of_recipe
from hrvit_lab.cli import rough_duration
from hrvit_lab.config import ConfigError, preset
from hrvit_lab.search import __main__ as search_command
from hrvit_lab.search.files import find_search
from hrvit_lab.search.genome import Space
from hrvit_lab.search.run import Search
from hrvit_lab.search.spec import load_search
from hrvit_lab.search.state import State, advance, read_state, write_state
from hrvit_lab.study.run import run_study
from hrvit_lab.study.status import read_status, still_running
from hrvit_lab.study.store import Store
from hrvit_lab.train.loop import Epoch
from hrvit_lab.train.run import FOLDER as DEFAULT_FOLDER
from hrvit_lab.train.run import Run as ShortRun

pytestmark = pytest.mark.usefixtures("main_module")

TIMEOUT_S = 250
TRAINED = Path(__file__).resolve().parent.parent / "studies" / "trained" / "composites" / "hrvit_nano-seed0"
SMALL = Composed("hrvit_nano", "branches", (1, 2), ("params", "macs"), "digits", 64, 1, 1, 100, False, "")


def request(seconds: float, target: str = "one") -> Request:
    return Request("study", target, target, "waiting", (str(seconds),), {})


def wait_for(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]  # of the module that waits
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    yield tmp_path
    for process in processes.find(tmp_path):
        if process.pid is not None:
            os.killpg(os.getpgid(process.pid), signal.SIGKILL)


def found(results: Path, target: str = "one") -> Process:
    process = processes.find_one(results, "study", target)
    assert process is not None
    return process


# -- processes ---------------------------------------------------------------------------------------------------


def test_a_process_ends_and_its_code_and_log_are_kept(results: Path) -> None:
    processes.start(results, request(0))
    wait_for(lambda: not found(results).running)
    assert (found(results).state, found(results).code) == ("finished", 0)
    assert processes.log(found(results)).startswith("begun\n")


def test_an_error_is_told_from_a_stop(results: Path) -> None:
    processes.start(results, replace(request(0), arguments=("no-number",)))
    wait_for(lambda: not found(results).running)
    assert (found(results).state, found(results).code) == ("failed", 1)
    assert "could not convert" in processes.log(found(results))
    processes.start(results, request(300))
    wait_for(lambda: "begun" in processes.log(found(results)))
    processes.stop(found(results))
    wait_for(lambda: not found(results).running)
    assert found(results).state == "stopped"


def test_a_command_that_is_stopped_while_it_loads_is_stopped_whatever_its_exit_code(results: Path) -> None:
    processes.start(results, request(300))
    running = found(results)
    processes.stop(running)
    wait_for(lambda: not found(results).running)
    (running.folder / "exit.json").write_text('{"code": 1, "ended": 1.0}')
    assert found(results).state == "stopped"
    (running.folder / "stop.json").unlink()
    assert found(results).state == "failed"


def test_of_two_runs_in_one_second_the_later_one_is_found(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter((uuid.UUID(int=2**128 - 1), uuid.UUID(int=0)))
    monkeypatch.setattr(processes.time, "strftime", lambda *_: "20261126-120000")
    monkeypatch.setattr(processes.uuid, "uuid4", lambda: next(numbers))
    processes.start(results, request(0))
    wait_for(lambda: not found(results).running)
    later = processes.start(results, request(0))
    assert found(results).folder == later.folder
    wait_for(lambda: not found(results).running)


def test_a_signal_before_the_command_has_started_is_not_lost(tmp_path: Path) -> None:
    keeper._keep(tmp_path, [sys.executable, "-c", "import time; time.sleep(300)"], [signal.SIGTERM])
    assert json.loads((tmp_path / "exit.json").read_text())["code"] == -signal.SIGTERM


def test_a_process_outlives_the_one_that_started_it_and_is_found(results: Path) -> None:
    """Everything of the server's process group is killed; the run goes on, and stops when it is told to."""
    code = (
        "import sys, time; from pathlib import Path; from hrvit_lab.app import processes;"
        "processes.start(Path(sys.argv[1]), processes.Request('study', 'one', 'one', 'waiting', ('300',), {}));"
        "print('ok', flush=True); time.sleep(300)"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(results)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ok\n"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(30)
    server.stdout.close()
    assert found(results).running
    processes.stop(found(results))
    wait_for(lambda: not found(results).running)
    assert found(results).state == "stopped"


def test_a_killed_process_is_told_apart(results: Path) -> None:
    process = processes.start(results, request(300))
    assert process.pid is not None
    os.killpg(os.getpgid(process.pid), signal.SIGKILL)
    wait_for(lambda: not found(results).running)
    assert (found(results).state, found(results).code) == ("lost", None)


def test_another_process_with_the_same_id_is_not_taken_for_it(results: Path) -> None:
    own = psutil.Process()
    assert processes.is_alive(own.pid, own.create_time())
    assert not processes.is_alive(own.pid, own.create_time() - 60)
    process = processes.start(results, request(300))
    kept = json.loads((process.folder / "process.json").read_text())
    (process.folder / "process.json").write_text(json.dumps({"pid": own.pid, "created": kept["created"] - 3600}))
    assert found(results).state == "lost"
    processes.stop(found(results))  # sends nothing: this test would end
    os.killpg(os.getpgid(kept["pid"]), signal.SIGKILL)


def test_runs_are_bounded_and_a_target_runs_once(results: Path) -> None:
    for number in range(MOST_RUNNING):
        processes.start(results, request(300, f"run{number}"))
    with pytest.raises(ConfigError, match="run0 is running already; watch it, or stop it first"):
        processes.start(results, request(300, "run0"))
    with pytest.raises(ConfigError, match=f"{MOST_RUNNING} runs are the most at a time"):
        processes.start(results, request(300, "another"))
    assert len(list((results / ".app" / "runs").glob("*/request.json"))) == MOST_RUNNING


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "1", "created": 0}', '{"pid": -1, "created": 1e300}'])
def test_damaged_files_are_no_error(results: Path, content: str) -> None:
    process = processes.start(results, request(0))
    wait_for(lambda: not found(results).running)
    (process.folder / "exit.json").unlink()
    (process.folder / "process.json").write_text(content)
    assert found(results).state == "lost"
    (process.folder / "request.json").write_text(content)
    assert processes.find(results) == []


# -- what may be run ---------------------------------------------------------------------------------------------


def test_a_composed_study_is_the_one_that_was_chosen(tmp_path: Path) -> None:
    spec = SMALL._replace(metrics=("macs", "top1"), seeds=3, epochs=4, equal_macs=True).spec()
    assert spec.grid == {"branches": [1, 2]}
    assert (spec.seeds, spec.train.epochs, spec.match) == ((0, 1, 2), 4, ("equal macs",))
    assert spec.base == {"preset": "hrvit_nano", "num_classes": 10}
    request = run_choices.composed_request(spec, tmp_path)
    assert request.arguments == (
        str(tmp_path / ".app" / "studies" / "branches-1-2-of-hrvit-nano.yaml"), "--out", str(tmp_path)
    )  # fmt: skip
    assert (request.module, request.target) == ("hrvit_lab.study", "branches-1-2-of-hrvit-nano")


def test_the_command_for_a_terminal_reads_back_as_the_arguments() -> None:
    arguments = ("my $study.yaml", "--set", "grid.window_sizes=[1, 2]", "it's; rm")
    request = Request("study", "one", "one", "hrvit_lab.study", arguments, {})
    assert shlex.split(request.command) == ["python", "-m", "hrvit_lab.study", *arguments]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": ()}, "at least one value"),
        ({"base": "/etc/passwd"}, "not offered"),
        ({"axis": "name", "values": ("x",)}, "not offered"),
        ({"values": (99,)}, "not offered"),
        ({"data": "folder"}, "not offered"),
        ({"title": "report"}, "reserved"),
        ({"title": "a\x1bb"}, "control character"),
    ],
)
def test_a_choice_that_is_not_offered_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_choices.composed_sweep(SMALL._replace(**change).spec(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_title_names_no_path(tmp_path: Path) -> None:
    spec = SMALL._replace(title="../../etc/$(reboot) --out x").spec()
    request = run_choices.composed_request(spec, tmp_path)
    assert Path(request.arguments[0]) == tmp_path / ".app" / "studies" / "etc-reboot-out-x.yaml"


def test_the_command_line_of_a_shipped_study_has_only_what_differs(tmp_path: Path) -> None:
    request = run_choices.shipped_request("branch_sweep", 3, 2, tmp_path)
    assert request.arguments == ("branch_sweep", "--out", str(tmp_path))
    request = run_choices.shipped_request("branch_sweep", 2, 5, tmp_path)
    assert request.arguments[3:] == ("--seeds", "0,1", "--set", "train.epochs=5")
    with pytest.raises(ConfigError, match="unknown study"):
        run_choices.shipped_request("--help", 1, None, tmp_path)


def test_trainings_are_those_whose_data_needs_no_path(tmp_path: Path) -> None:
    assert set(run_choices.recipes()) == {"fashion_mnist", "composites", "textures"}
    request = run_choices.training_request("fashion_mnist", 2, 1, tmp_path)
    assert request.arguments == (
        "fashion_mnist", "--out", str(tmp_path / "fashion_mnist-seed1-2epochs"), "--resume", "auto", "--set",
        "schedule.epochs=2,run.seed=1",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="is not offered"):
        run_choices.training_request("imagenet_hrvit", 2, 1, tmp_path)


def test_searches_are_those_whose_files_are_all_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(run_choices.searches()) == {"cpu_nano", "nano_by_zico", "segmenter_budget"}  # lighter_b1 has a profile
    request = run_choices.search_request("cpu_nano", 4000, tmp_path)
    assert (request.kind, request.target, request.arguments) == (
        "search",
        "cpu_nano",
        ("cpu_nano", "--out", str(tmp_path)),
    )
    request = run_choices.search_request("cpu_nano", 500, tmp_path)
    options = search_command.parser().parse_args(request.arguments)
    assert (options.search, options.out, options.evaluations) == ("cpu_nano", tmp_path, 500)
    with pytest.raises(ConfigError, match="is not offered"):
        run_choices.search_request("../x", 500, tmp_path)
    mine = tmp_path / "studies" / "search" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    text = find_search("lighter_b1").read_text()
    mine.write_text(re.sub("(?m)^profile: .*", "profile: ~nobody-here/x.json", text))
    monkeypatch.chdir(tmp_path)
    assert set(run_choices.searches()) == {"cpu_nano", "nano_by_zico", "segmenter_budget"}


# -- how far a run is --------------------------------------------------------------------------------------------


def test_a_study_is_seen_while_it_runs_elsewhere(tmp_path: Path) -> None:
    """Records and claims alone say what has finished, and what runs where."""
    spec = SMALL._replace(metrics=("macs", "top1"), seeds=2, epochs=1, images=10, values=(1,)).spec()
    done = run_study(spec, name="mine", out=tmp_path, jobs=1)
    whole = read_status(tmp_path / "mine")
    assert (whole.finished, len(whole.trials), whole.complete, whole.running) == (2, 2, True, ())
    assert whole.results.table["top1"].tolist() == done.table["top1"].tolist()
    first = whole.trials[0]
    (tmp_path / "trials" / f"{first.key}.json").unlink()
    half = read_status(tmp_path / "mine")
    assert (half.finished, half.complete, half.running) == (1, False, ())
    store = Store(tmp_path)
    claim = store.claim(first.key)
    assert claim is not None
    running = read_status(tmp_path / "mine")
    assert [(each.trial, each.where) for each in running.running] == [(first, f"process {os.getpid()}")]
    assert still_running(tmp_path / "mine", running.running[0])
    seconds = next(iter(running.records.values()))["seconds"]
    assert running.left_s(claim.owner.since) == pytest.approx(seconds, abs=0.01)
    assert running.left_s(claim.owner.since + 1e6) == 0
    (tmp_path / "trials" / f"{first.key}.claim").write_text(json.dumps(asdict(claim.owner) | {"machine": "other"}))
    there = read_status(tmp_path / "mine").running
    assert [each.where for each in there] == [f"process {os.getpid()} on {claim.owner.host}"]
    (tmp_path / "trials" / f"{first.key}.claim").unlink()
    claim.release()
    assert read_status(tmp_path / "mine").running == ()
    assert not still_running(tmp_path / "mine", running.running[0])


def test_a_training_is_read_from_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("title: Mine\n")
    assert read_training(folder).done == 0
    (folder / "metrics.jsonl").write_text(
        '{"step": 5, "loss": 2.5, "lr": 0.1, "images_per_s": 10}\n{"step": 9, "loss": NaN, "lr": 0.1}\n{"ste'
    )
    (folder / "summary.csv").write_text("epoch,step,train_loss,eval_loss,eval_top1,seconds\n1.0,8,2.2,2.1,30.0,40\n")
    (folder / "result.json").write_text('{"status": "running", "total_steps": 16}')
    (folder / "recipe.yaml").write_text(
        "title: Mine\ndata: {name: digits, resolution_px: [64, 96], global_batch_size: 32}\n"
        "precision: {dtype: float32}\n"
    )
    (folder / "environment.json").write_text('{"hardware": "a CPU (family 1), 2 cores"}')
    progress = read_training(folder)
    assert (progress.done, progress.total, progress.score, progress.status) == (8, 16, "top1", "running")
    assert progress.steps["loss"].tolist() == [2.5]
    assert progress.conditions == "digits, 64 × 96 px, batch 32, float32, a CPU"
    assert seconds_of_recipe(tmp_path, "Mine", "epoch", 3) == 120
    assert seconds_of_recipe(tmp_path, "Mine", "step", 16) == 80
    assert seconds_of_recipe(tmp_path, "Another", "epoch", 3) is None


def write_short(folder: Path, status: str = "complete") -> Path:
    """A short training's folder, as `hrvit_lab.train.run.Run` leaves it after two of three epochs."""
    folder.mkdir(parents=True)
    config = preset("hrvit_nano").replace(num_classes=10)
    about: dict[str, Any] = {"model": "hrvit_nano", "train": {"epochs": 3, "train_limit": None, "batch_size": 32}}
    about |= {
        "data": {"name": "digits", "resolution": [64, 64]},
        "environment": {"hardware": "a CPU (family 1), 2 cores"},
    }
    training = ShortRun(folder, nn.Linear(2, 2), config, about)
    for epoch in (1, 2):
        training.add(
            Epoch(
                epoch=epoch, learning_rate=0.1, train_loss=2 / epoch, train_top1=20.0 * epoch, val_loss=3 / epoch,
                val_top1=30.0 * epoch, seconds=1.5,
            )
        )  # fmt: skip
    training.save_result(status)
    return folder


def test_a_short_training_is_read_from_its_files(tmp_path: Path) -> None:
    progress = read_training(write_short(tmp_path / "one", "diverged: the loss is nan"))
    assert (progress.done, progress.total, progress.unit, progress.score) == (2, 3, "epoch", "top1")
    assert progress.ended == "diverged: the loss is nan"
    assert progress.conditions == "digits, 64 × 64 px, batch 32, a CPU"
    assert progress.evaluations["eval_top1"].tolist() == [30, 60]
    assert progress.evaluations["eval_loss"].tolist() == [3, 1.5]
    (tmp_path / "one" / "curves.csv").write_text("epoch\n")
    (tmp_path / "one" / "result.json").write_text('{"train": {"epochs": -1}, "status": 3}')
    progress = read_training(tmp_path / "one")
    assert (progress.done, progress.total, progress.score, progress.status) == (0, None, None, "")


def test_trainings_of_all_folders_are_listed_by_unique_names(results: Path) -> None:
    runs = results / "runs"
    for folder in (runs / "x", results / "train" / "x"):
        write_short(folder)
    (runs / "y").mkdir()
    (runs / "y" / "recipe.yaml").write_text("title: Y")
    found = watch.find_runs(results, runs)
    assert {name: run.folder for name, run in found.items() if "x in" not in name} == {
        "training y": runs / "y", "short training x": found["short training x"].folder,
    }  # fmt: skip
    assert {run.folder for run in found.values()} == {runs / "x", runs / "y", results / "train" / "x"}
    assert len(found) == 3 and all(run.kind == "training" for run in found.values())
    assert Path("results") / SHORT == DEFAULT_FOLDER


@pytest.mark.parametrize(
    "recipe", ["", "[]", "data: 1", "data: {name: [1], resolution_px: a, global_batch_size: b}", "{"]
)
def test_conditions_of_a_damaged_recipe_are_unknown(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    (tmp_path / "environment.json").write_text('{"hardware": 1}')
    assert read_training(tmp_path).conditions == "conditions unknown"


def test_a_search_is_read_from_its_files(tmp_path: Path) -> None:
    small = {
        "title": "Small", "question": "Which?", "base": {"preset": "hrvit_nano", "num_classes": 10},
        "space": {"mlp_ratios": [2, 3, 4], "stem_width": [8, 16], "fusion": ["dense", "sparse"]},
        "objectives": {"macs": "lower", "params": "higher"}, "resolution": 64,
        "budget": {"evaluations": 12, "population": 4, "seeds": [0, 1]},
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(json.dumps(small))
    results, folder = tmp_path / "results", tmp_path / "results" / "small"
    assert read_search(folder) is None and not is_search(folder)
    assert search_command.main([str(tmp_path / "small.yaml"), "--out", str(results), "--jobs", "1"]) == 0
    progress = read_search(folder)
    assert progress is not None and progress.finished
    assert progress.total == 12 * 2 * 2 == progress.done and progress.left_s == 0
    written = pd.read_csv(folder / "search" / "hypervolume.csv")
    pd.testing.assert_frame_equal(progress.history[list(written)], written, check_dtype=False)
    means = by_method(progress.history)
    assert set(means["variant"]) == {"NSGA-II", "random search"}
    last = written.sort_values("evaluations").groupby(["method", "seed"]).tail(1)
    assert means["value"].max() == pytest.approx(last.groupby("method")["hypervolume"].mean().max())
    assert [run.name for run in watch.find_runs(results, tmp_path).values()] == ["search small"]
    seen = watch.look(watch.find_runs(results, tmp_path)["search small"])
    assert seen.complete and not seen.running and seen.status is not None
    (folder / "table.csv").unlink()
    seen = watch.look(watch.find_runs(results, tmp_path)["search small"])
    assert not seen.complete and seen.search is not None and seen.search.done == 48
    (folder / "search" / "search.yaml").write_text("- not a search")
    assert watch.look(watch.find_runs(results, tmp_path)["search small"]).search is None


def test_the_time_of_a_search_is_that_of_an_earlier_run_by_its_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_time, "choose_jobs", lambda *_: (2, ""))
    spec = load_search(find_search("cpu_nano"))
    folder = tmp_path / "cpu_nano"
    search = Search("cpu_nano", spec, folder)
    runs = len(search.runs)
    search.own_folder.mkdir(parents=True)
    assert "unknown until the first generation" in how_long("cpu_nano", spec, 500, folder)
    for place, run in enumerate(search.runs):  # 1 s each 100 networks; the first run has ended
        state = State(evaluations=200, seconds=2.0, exhausted=place == 0)
        write_state(search.state_file(*run), state, search.digest)
    left = (500 - 200) * (runs - 1)
    expected = rough_duration(left / 100 / 2)
    assert how_long("cpu_nano", spec, 500, folder) == (
        f"500 networks in each of {runs} runs. About {expected}, estimated from an earlier run of this search."
    )
    assert "All of them are evaluated" in how_long("cpu_nano", spec, 200, folder)
    write_state(search.state_file(*search.runs[0]), State(evaluations=200, seconds=2.0), "another search")
    assert "unknown" in how_long("cpu_nano", spec, 500, folder)
    trained = load_search(find_search("segmenter_budget"))
    assert trained.trainings is not None and "is trained" in how_long("x", trained, None, folder)


def test_a_search_keeps_the_time_of_its_generations(tmp_path: Path) -> None:
    space = Space(load_search(find_search("cpu_nano")))
    times = [state.seconds for state in islice(advance(space, "random", 0, tmp_path / "s.json", "x"), 2)]
    assert 0 < times[0] < times[1]
    kept = read_state(tmp_path / "s.json", "x")
    assert kept is not None and kept.seconds == times[1]
    raw = json.loads((tmp_path / "s.json").read_text())
    (tmp_path / "s.json").write_text(json.dumps({key: value for key, value in raw.items() if key != "seconds"}))
    old = read_state(tmp_path / "s.json", "x")
    assert old is not None and (old.seconds, old.evaluations) == (0, kept.evaluations)
    (tmp_path / "s.json").write_text(json.dumps(raw | {"seconds": float("nan")}))
    with pytest.raises(ConfigError, match="can't be read"):
        read_state(tmp_path / "s.json", "x")


def test_a_long_history_is_thinned_out() -> None:
    rows = [{"method": "nsga2", "seed": s, "evaluations": e, "hypervolume": e + s} for e in range(500) for s in (0, 1)]
    means = by_method(pd.DataFrame(rows))
    assert 50 < len(means) <= 60 and means["evaluations"].max() == 499
    assert (means["value"] == means["evaluations"] + 0.5).all() and set(means["n"]) == {2}


# -- the page ----------------------------------------------------------------------------------------------------


def draw_run() -> None:
    from hrvit_lab.app.pages import run

    run.show()


@pytest.fixture
def page(results: Path, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    monkeypatch.setattr(sys, "argv", ["app.py", "--results", str(results), "--runs", str(results / "none")])
    return AppTest.from_function(draw_run, default_timeout=TIMEOUT_S)


def draw_finished() -> None:
    import sys
    from pathlib import Path
    from types import SimpleNamespace

    from hrvit_lab.app import watch
    from hrvit_lab.study.results import read_results

    if sys.argv[-1] == "study":
        watch._draw_study(SimpleNamespace(results=read_results(Path(sys.argv[-2])), complete=True))  # type: ignore[arg-type]
    else:
        run = watch.Run("one", "training", Path(sys.argv[-2]), None)
        watch.draw_results(run, watch.look(run))


def test_charts_of_watched_runs_name_their_conditions(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_study(results / "branches")
    for path, kind, expected in (
        (folder, "study", ["digits, 4 epochs of all images", "standard deviation"]),
        (TRAINED, "training", ["composites, 128 × 128 px, batch 16, float32, AMD"]),  # without losses
    ):
        monkeypatch.setattr(sys, "argv", ["app.py", str(path), kind])
        app = AppTest.from_function(draw_finished, default_timeout=TIMEOUT_S).run()
        assert not app.exception
        said = [" ".join(chart["title"]["subtitle"]) for chart in charts_of(app)]
        assert [part in text for part, text in zip(expected, said, strict=True)] == [True] * len(expected), said


def test_a_study_is_composed_started_and_watched(page: AppTest, results: Path) -> None:
    page.run()
    page.radio(key="kind").set_value("A study of your own").run()
    page.multiselect(key="measured").set_value(["params", "macs"]).run()
    assert not page.exception
    assert "No trials to run" in page.info[0].value
    page.button(key="start").click().run()
    assert not page.exception
    assert page.session_state["view"] == "watch"
    name = "branches-1-2-3-of-hrvit-nano"
    assert page.selectbox(key="run").value == name
    wait_for(lambda: not found(results, name).running)
    assert found(results, name).state == "finished", processes.log(found(results, name))
    page.run()
    assert not page.exception
    assert any("costs are computed in closed form" in caption.value for caption in page.caption)
    assert page.dataframe[0].value["variant"].tolist() == ["branches=1", "branches=2", "branches=3"]


def test_a_search_is_started(page: AppTest, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.run()
    page.radio(key="kind").set_value("A search for better networks").run()
    page.number_input(key="networks of cpu_nano").set_value(200).run()
    assert not page.exception and not page.error
    shown = page.dataframe[0].value.set_index("setting")["value"]
    assert shown["networks per run"] == "200" and shown["methods"] == "NSGA-II and random search"
    assert "MACs, lower" in shown["better is"]
    assert "unknown until the first generation" in page.info[0].value
    assert "hrvit_lab.search cpu_nano" in page.code[0].value
    page.button(key="start").click().run()
    assert not page.exception and page.selectbox(key="run").value == "search cpu_nano"
    process = processes.find_one(results, "search", "cpu_nano")
    assert process is not None
    processes.stop(process)


def test_a_stopped_run_offers_to_resume_and_a_full_server_says_so(page: AppTest, results: Path) -> None:
    processes.start(results, request(300, "mine"))
    wait_for(lambda: "begun" in processes.log(found(results, "mine")))
    page.run()
    assert page.session_state["view"] == "watch"
    page.button(key="stop").click().run()
    wait_for(lambda: not found(results, "mine").running)
    for number in range(MOST_RUNNING):
        processes.start(results, request(300, f"run{number}"))
    page.session_state["run"] = "mine"
    page.run()
    assert "Finished work is kept" in page.info[0].value
    page.button(key="resume").click().run()
    assert not page.exception
    assert "runs are the most at a time" in page.error[0].value
    assert not found(results, "mine").running


def test_first_visit_and_hostile_addresses(page: AppTest) -> None:
    page.query_params["view"], page.query_params["run"] = "watch", "../../etc/passwd"
    page.run()
    assert not page.exception
    assert "There are no runs" in page.info[0].value
    page.query_params["view"] = "<script>"
    page.query_params["kind"] = "<script>"
    page.run()
    assert not page.exception


def test_a_short_training_is_shown_with_its_curves(page: AppTest, results: Path) -> None:
    write_short(results / "train" / "mine", "interrupted")
    page.query_params["view"] = "watch"
    page.run()
    assert not page.exception
    assert page.selectbox(key="run").value == "short training mine"
    assert page.dataframe[0].value["eval_top1"].tolist() == [30, 60]
    assert {heading.value for heading in page.subheader} >= {"Loss", "top-1", "Evaluations"}
    assert any("ended early\\: interrupted" in warning.value for warning in page.warning)
    assert any(caption.value.startswith("A short training can't be resumed") for caption in page.caption)
    (results / "train" / "mine" / "result.json").write_text('{"status": "running", "train": {"epochs": 3}}')
    page.run()
    assert not page.exception and not page.warning
    assert any("If its command still runs in a terminal" in caption.value for caption in page.caption)


def test_the_list_of_runs_has_no_link_that_leads_out(results: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "study"
    elsewhere.mkdir()
    (elsewhere / "study.yaml").touch()
    (results / "link").symlink_to(elsewhere)
    (results / "train").symlink_to(elsewhere.parent)
    (elsewhere / "result.json").touch()
    assert watch.find_runs(results, results / "none") == {}
