"""Searches with trainings: proposals, the store, halving, resuming, the command."""

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from test_predictors import TINY

from hrvit_lab import load_results, run_study
from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.search.__main__ import main
from hrvit_lab.search.genome import Genome, Space
from hrvit_lab.search.halving import STOPPED, Curve, HalvedStore, limits, train_until
from hrvit_lab.search.outer import Outer, best_of, engine_of, read_outer, run_trainings
from hrvit_lab.search.propose import Proposal, Told, propose
from hrvit_lab.search.run import Search, begun
from hrvit_lab.search.spec import search_from
from hrvit_lab.search.trainings import Halving
from hrvit_lab.study import runner
from hrvit_lab.study.groups import PROBES, ProbeInput
from hrvit_lab.study.trials import Trial

FIELDS: Mapping[str, Any] = {
    "title": "Trained",
    "question": "Which?",
    "base": {**TINY.to_dict(), "num_classes": 10},
    "space": {
        "stem_width": {"choices": {"from": 4, "to": 40, "step": 4}},
        "ffn": ["mixcfn", "mlp"],
        "mlp_ratios": [2, 3, 4],
    },
    "objectives": {"macs": "lower", "top1": "higher"},
    "resolution": 32,
    "trainings": {"networks": 12, "batch": 3, "train": {"epochs": 4, "train_limit": 20}},
}
"""60 networks."""

COSTS = {"macs": "lower", "params": "higher"}
HALVED = {**FIELDS, "trainings": {**FIELDS["trainings"], "halving": {"first_epoch": 1, "factor": 2}}}


def accuracy_of(inputs: ProbeInput, epoch: int = 4) -> float:
    """The accuracy of the stub at an epoch: wider stems are better, and larger ratios cost more and are worse."""
    config = inputs.config
    assert isinstance(config, HRViTConfig)
    return (80 + config.stem_width / 4 - 10 * config.mlp_ratios[0]) * epoch / 4


class Stub:
    """A training that takes no time, and notes which networks it trained for how many epochs."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []

    def __call__(self, inputs: ProbeInput, on_epoch: Callable[[Any], None] = lambda row: None) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        place = len(self.trained)
        for epoch in range(1, 5):
            value = accuracy_of(inputs, epoch)
            rows.append({"epoch": epoch, "val_top1": value, "val_loss": 1.0, "train_loss": 1.0, "seconds": 1.0})
            self.trained[place:] = [(inputs.config.id, epoch)]
            on_epoch(rows[-1])
        return {"top1": value, "train_loss": 1.0, "val_loss": 1.0, "train_seconds": 4.0, "curves": rows}


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr("hrvit_lab.search.outer.PROBES", {**PROBES, "accuracy": made})
    monkeypatch.setattr("hrvit_lab.search.halving.train", made)
    return made


class Silent:
    """A display that shows nothing; raises after a number of finished trials."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.left = stop_after

    @contextlib.contextmanager
    def __call__(self, pending: Sequence[Trial], finished: int) -> Iterator["Silent"]:
        yield self

    def started(self, trial: Trial) -> None: ...
    def stepped(self, trial: Trial, done: int, total: int) -> None: ...
    def interrupted(self, trial: Trial, reason: str) -> None: ...
    def waiting(self, trials: Sequence[Trial], why: str) -> None: ...

    def finished(self, trial: Trial, record: Mapping[str, Any]) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt


def search_in(folder: Path, fields: Mapping[str, Any] = FIELDS) -> Search:
    return Search("trained", search_from(fields), folder / "trained")


def finished(search: Search, stop_after: int | None = None, retry_failed: bool = False) -> Outer:
    with begun(search) as hold:
        return run_trainings(search, hold, engine_of(search, jobs=0), Silent(stop_after), retry_failed)


# -- proposals ---------------------------------------------------------------------------------------------------------


def told_of(space: Space, proposals: Sequence[Proposal]) -> list[Told]:
    """Outcomes of a sphere around the genome (4, 1, 1)."""
    found = []
    for proposal in proposals:
        away = float(np.square(np.subtract(proposal.genome, (4, 1, 1))).sum())
        found.append(Told(proposal, [away, away + proposal.genome[0]]))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", pytest.param("gp", marks=pytest.mark.slow)])
def test_proposals_are_new_reproducible_and_within_the_constraints(sampler: str) -> None:
    space = Space(search_from(FIELDS))

    def allowed(genome: Genome) -> bool:
        return genome[1] != 0

    told: list[Told] = []
    for _ in range(6):
        batch = propose(space, told, 4, sampler, 0, allowed)
        assert batch == propose(space, told, 4, sampler, 0, allowed)
        told += told_of(space, batch)
    genomes = [each.proposal.genome for each in told]
    assert len(set(genomes)) == 24 and all(map(allowed, genomes))
    assert propose(space, told[:4], 4, sampler, 1, allowed) != propose(space, told[:4], 4, sampler, 0, allowed)
    assert optuna.logging.get_verbosity() == optuna.logging.INFO  # that of the user is not changed


def test_tpe_finds_better_networks_than_it_starts_with() -> None:
    space = Space(search_from(FIELDS))
    told: list[Told] = []
    while len(told) < 32:
        told += told_of(space, propose(space, told, 4, "tpe", 0, lambda _: True))
    first, last = ([each.objectives[0] for each in part if each.objectives] for part in (told[:10], told[-10:]))
    assert min(last) <= min(first) and np.median(last) < np.median(first)


def test_nsga2_knows_its_generation_again() -> None:
    space = Space(search_from(FIELDS))
    told: list[Told] = []
    while len(told) < 24:
        told += told_of(space, propose(space, told, 4, "nsga2", 0, lambda _: True))
    generations = [next(iter(each.proposal.attributes.values())) for each in told]
    assert generations[0] == 0 and max(generations) >= 1 and generations == sorted(generations)


def test_a_space_that_is_exhausted_ends_the_proposals() -> None:
    space = Space(search_from({**FIELDS, "space": {"stem_width": [8, 16, 24]}}))
    told = told_of(space, propose(space, [], 10, "tpe", 0, lambda _: True))
    assert len(told) == 3
    assert propose(space, told, 10, "tpe", 0, lambda _: True) == []


# -- halving -----------------------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_best_third_of_cheaper_networks() -> None:
    curves = [Curve([cost], {1: score, 3: score + 1}) for cost, score in ((1, 50), (2, 60), (3, 70), (4, 80), (9, 99))]
    assert limits(curves, [4], [1, 3], 2) == {1: 70, 3: 71}  # of 50 to 80, the second best
    assert limits(curves, [9], [1], 5) == {1: 99}
    assert limits(curves, [2], [1, 3], 3) == {}  # only two are as cheap
    assert limits([*curves, Curve([1], {1: 65})], [4], [1, 3], 3) == {1: 80, 3: 81}
    assert Halving(first_epoch=2, factor=2).epochs(16) == [2, 4, 8]


def test_a_training_below_its_limit_stops_and_keeps_its_curve(stub: Stub) -> None:
    inputs = ProbeInput(config=TINY, resolution=(32, 32))
    values = [accuracy_of(inputs, epoch) for epoch in range(1, 5)]
    below, at = {2: values[1] + 0.1}, {2: values[1]}
    stopped = train_until(inputs, {TINY.id: below}, "val_top1", 1.0)
    assert (stopped[STOPPED], stopped["top1"], stopped["train_seconds"]) == (2, values[1], 2.0)
    assert [row["val_top1"] for row in stopped["curves"]] == values[:2]
    for harmless in ({TINY.id: at}, {"other": below}, {}):
        assert STOPPED not in train_until(inputs, harmless, "val_top1", 1.0)
    assert train_until(inputs, {TINY.id: {1: -0.9}}, "val_loss", -1.0)[STOPPED] == 1


def test_stopped_trainings_are_kept_beside_the_store_and_are_no_trials_of_a_study(tmp_path: Path, stub: Stub) -> None:
    search = search_in(tmp_path, HALVED)
    state = finished(search)
    stopped = [outcome for outcome in state.outcomes if outcome.stopped is not None]
    complete = [outcome for outcome in state.outcomes if outcome.stopped is None]
    assert stopped and len(complete) >= 3
    assert len(list((tmp_path / "trials").glob("*.json"))) == len(complete) + 1  # the base as well
    assert len(list((search.own_folder / "stopped").glob("*.json"))) == len(stopped)
    for outcome in stopped:
        config = search.space.config(outcome.genome)
        assert outcome.values is not None and outcome.values["macs"] == count(config, 32).macs
        inputs = ProbeInput(config=config, resolution=(32, 32))
        assert outcome.values["top1"] == accuracy_of(inputs, outcome.stopped or 0)
    assert dict(stub.trained).keys() >= {search.space.config(o.genome).id for o in state.outcomes}
    assert len(stub.trained) == 13, "no training ran twice"
    assert not any(outcome.genome in best_of(search, state.outcomes).values() for outcome in stopped)
    store = HalvedStore(tmp_path, search.own_folder / "stopped")
    [path] = list((search.own_folder / "stopped").glob("*.json"))[:1]
    record = store.load(path.stem)
    assert record is not None and record["curves"][-1]["epoch"] == record["values"][STOPPED]


# -- the loop ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [FIELDS, HALVED], ids=["whole", "halved"])
def test_an_interrupted_search_continues_to_the_same_networks(
    fields: Mapping[str, Any], tmp_path: Path, stub: Stub
) -> None:
    whole = finished(search_in(tmp_path / "whole", fields))
    trained = len(stub.trained)
    search = search_in(tmp_path / "parts", fields)
    for stop_after in (0, 1, 4, 2):
        with pytest.raises(KeyboardInterrupt):
            finished(search, stop_after)
    assert finished(search) == whole == read_outer(search)
    assert len(stub.trained) == 2 * trained, "nothing was trained twice"


def test_objectives_are_means_over_seeds_and_costs_of_the_network(tmp_path: Path, stub: Stub) -> None:
    fields = {**FIELDS, "trainings": {**FIELDS["trainings"], "networks": 4, "seeds": [0, 1]}}
    search = search_in(tmp_path, fields)
    for outcome in finished(search).outcomes:
        config = search.space.config(outcome.genome)
        expected = accuracy_of(ProbeInput(config=config, resolution=(32, 32)))
        assert outcome.values == {"macs": count(config, 32).macs, "top1": expected}
    assert len(stub.trained) == 10


def test_what_a_study_or_another_search_trained_is_not_trained_again(tmp_path: Path, stub: Stub) -> None:
    first = search_in(tmp_path)
    state = finished(first)
    trained = len(stub.trained)
    again = Search("again", first.spec, tmp_path / "again")
    assert finished(again).outcomes == state.outcomes
    assert len(stub.trained) == trained
    more = search_in(tmp_path, {**FIELDS, "trainings": {**FIELDS["trainings"], "networks": 15}})
    assert finished(more).outcomes[:12] == state.outcomes
    assert len(stub.trained) == trained + 3


def test_a_failed_training_is_an_outcome_with_its_reason(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(inputs: ProbeInput) -> dict[str, Any]:
        if inputs.config.ffn[0] == "mlp":  # type: ignore[union-attr]
            raise RuntimeError("the loss is not finite")
        return stub(inputs)

    monkeypatch.setattr("hrvit_lab.search.outer.PROBES", {**PROBES, "accuracy": broken})
    search = search_in(tmp_path)
    state = finished(search)
    failed = [outcome for outcome in state.outcomes if outcome.values is None]
    assert failed and len(state.outcomes) == 12
    assert all("the loss is not finite" in outcome.reason for outcome in failed)


@pytest.mark.parametrize("fields", [FIELDS, HALVED], ids=["whole", "halved"])
def test_failed_trainings_are_repeated_on_request_and_the_others_are_not(
    fields: Mapping[str, Any], tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks with MLPs fail at first, those with a ratio of 4 always; the second attempt is interrupted."""
    broken = {"mlp"}

    def unsure(inputs: ProbeInput, on_epoch: Callable[[Any], None] = lambda row: None) -> dict[str, Any]:
        config = inputs.config
        assert isinstance(config, HRViTConfig)
        if config.ffn[0] in broken or config.mlp_ratios[0] == 4:
            raise MemoryError("no memory")
        return stub(inputs, on_epoch)

    monkeypatch.setattr("hrvit_lab.search.outer.PROBES", {**PROBES, "accuracy": unsure})
    monkeypatch.setattr("hrvit_lab.search.halving.train", unsure)
    search = search_in(tmp_path, fields)
    before = finished(search).outcomes
    assert finished(search).outcomes == before
    trained = [config_id for config_id, _ in stub.trained]
    broken.clear()
    with pytest.raises(KeyboardInterrupt):
        finished(search, stop_after=1, retry_failed=True)
    after = finished(search, retry_failed=True).outcomes
    assert [outcome.genome for outcome in after] == [outcome.genome for outcome in before]
    configs = [search.space.config(outcome.genome) for outcome in after]
    assert [outcome.values is None for outcome in after] == [config.mlp_ratios[0] == 4 for config in configs]
    repaired = {config.id for config in configs if config.ffn[0] == "mlp" and config.mlp_ratios[0] != 4}
    again = [config_id for config_id, _ in stub.trained[len(trained) :]]
    assert repaired and set(again) == repaired and len(again) == len(repaired), "no finished training ran again"
    assert read_outer(search) == Outer(after, [])


def test_a_training_whose_loss_is_not_finite_is_an_outcome_with_its_reason(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(inputs: ProbeInput) -> dict[str, Any]:
        mlp = inputs.config.ffn[0] == "mlp"  # type: ignore[union-attr]
        return stub(inputs) | ({"val_loss": float("nan")} if mlp else {})

    monkeypatch.setattr("hrvit_lab.search.outer.PROBES", {**PROBES, "accuracy": diverging})
    search = search_in(tmp_path, {**FIELDS, "objectives": {"macs": "lower", "val_loss": "lower"}})
    state = finished(search)
    failed = {outcome.reason for outcome in state.outcomes if outcome.values is None}
    assert failed == {"its val_loss is not finite"} and len(state.outcomes) == 12
    assert read_outer(search) == state


def test_the_best_networks_are_those_that_no_other_one_dominates(tmp_path: Path, stub: Stub) -> None:
    search = search_in(tmp_path)
    outcomes = finished(search).outcomes
    values = [outcome.values for outcome in outcomes if outcome.values is not None]
    naive = {
        f"network {number}"
        for number, ours in enumerate(values, 1)
        if not any(
            other["macs"] <= ours["macs"] and other["top1"] >= ours["top1"] and other != ours for other in values
        )
    }
    assert set(best_of(search, outcomes)) == naive


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_trains_networks_and_its_result_is_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With real trainings, of a second each, in a worker process."""
    trainings = {"networks": 4, "batch": 2, "train": {"epochs": 1, "train_limit": 20, "batch_size": 10}}
    (tmp_path / "real.yaml").write_text(json.dumps({**FIELDS, "trainings": trainings}))
    arguments = [str(tmp_path / "real.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "4 networks were proposed: 4 trained, 0 stopped early, 0 failed" in output
    rows = list(csv.DictReader((tmp_path / "out/real/search/trainings.csv").read_text().splitlines()))
    results = load_results("real", out=tmp_path / "out")
    shown = results.table.set_index("variant")
    for row in rows:
        if row["variant"] in shown.index:
            assert float(row["top1"]) == shown["top1"][row["variant"]]
    before = sorted((tmp_path / "out" / "trials").glob("*.json"))
    again = run_study(tmp_path / "out" / "real" / "study.yaml", out=tmp_path / "out", name="again", jobs=0)
    assert again.table["top1"].notna().all()
    assert sorted((tmp_path / "out" / "trials").glob("*.json")) == before, "the study trained nothing"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_that_is_killed_gives_the_same_outcomes(tmp_path: Path) -> None:
    """With real trainings in worker processes, and kill -9 of the search while it trains: each time after at least one
    more training has ended."""
    trainings = {
        "networks": 10, "batch": 2, "halving": {"factor": 2},
        "train": {"epochs": 3, "train_limit": 20, "batch_size": 10},
    }  # fmt: skip
    (tmp_path / "real.yaml").write_text(json.dumps({**FIELDS, "trainings": trainings}))
    command = [sys.executable, "-m", "hrvit_lab.search", str(tmp_path / "real.yaml"), "--jobs", "2", "--out"]
    rng = np.random.default_rng(0)
    folders = (tmp_path / "killed" / "trials", tmp_path / "killed" / "real" / "search" / "stopped")
    ended = [0]
    for _ in range(4):
        process = subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL)
        while (number := sum(len(list(folder.glob("*.json"))) for folder in folders)) == ended[-1]:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.05)
        ended.append(number)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended by itself"
    assert ended[-1] < 11, "the base and ten networks"
    for name in ("killed", "whole"):
        assert subprocess.run([*command, str(tmp_path / name)], stdout=subprocess.DEVNULL, check=False).returncode == 0
    spec = search_from({**FIELDS, "trainings": trainings})
    killed, whole = (read_outer(Search("real", spec, tmp_path / name / "real")) for name in ("killed", "whole"))
    assert killed == whole is not None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainings": None}, "objective 'top1' needs trainings; add trainings"),
        ({"objectives": {"macs": "lower", "params": "higher"}}, "no objective needs them"),
        ({"constraints": {"top1": {"min": 50}}}, "'top1' is unknown before a training"),
        ({"trainings": {"networks": 1}}, "trainings.networks"),
        ({"trainings": {"networks": 9, "sampler": "tpa"}}, "trainings.sampler"),
        ({"trainings": {"networks": 9, "seeds": [1, 1]}}, "a seed occurs twice"),
        ({"trainings": {"networks": 6000, "seeds": [0, 1]}}, "are 12,002 trainings; use at most 10,000"),
        ({"trainings": {"networks": 9, "halving": {"factor": 1}}}, "trainings.halving.factor"),
        ({"trainings": {"networks": 9, "halving": {"first_epoch": 4}}}, "is not before the last of 4 epochs"),
        ({"trainings": {"networks": 9, "halving": {}, "recipe": {"name": "fashion_mnist"}}}, "not a recipe"),
        ({"trainings": {"networks": 9, "train": {"epoch": 1}}}, "trainings.train.epoch"),
        ({"trainings": {"networks": 9, "train": {"train_limit": 3}}}, "leaves classes without an image"),
        ({"objectives": {"macs": "lower", "miou": "higher"}}, "metric 'miou' needs a recipe for segmentation"),
        ({"base": {**TINY.to_dict(), "head": "none"}}, "head = 'none'"),
        ({"space": {"head": ["pool", "segformer"]}}, "head = 'segformer' does not classify whole images"),
    ],
)
def test_a_bad_search_file_is_one_sentence(
    changes: Mapping[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(json.dumps({**FIELDS, **changes}))
    assert main([str(tmp_path / "bad.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not list((tmp_path / "out").glob("**/*.json"))


def test_constraints_that_no_network_meets_end_a_search_before_it_trains(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = {**FIELDS, "constraints": {"params": {"max": 10}}}
    (tmp_path / "none.yaml").write_text(json.dumps(fields))
    assert main([str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    space = Space(search_from(fields))
    least = min(count(space.config(genome), 32).params for genome in space.all())
    error = " ".join(capsys.readouterr().err.split())
    assert f"of random ones, 256 of 256 miss params (at most 10; the nearest one has {least})" in error
    assert not stub.trained


def test_workers_that_can_not_start_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unable(*_: Any, **__: Any) -> None:
        raise runner.WorkerUnable("a worker could not start: Cannot allocate memory; try fewer --jobs")

    monkeypatch.setattr(runner, "run", unable)
    (tmp_path / "real.yaml").write_text(json.dumps(FIELDS))
    assert main([str(tmp_path / "real.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 1
    error = capsys.readouterr().err
    assert error == "error: a worker could not start: Cannot allocate memory; try fewer --jobs\n"


def test_options_for_searches_without_trainings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "real.yaml").write_text(json.dumps(FIELDS))
    for option in (["--evaluations", "50"], ["--seeds", "0,1"]):
        assert main([str(tmp_path / "real.yaml"), "--out", str(tmp_path / "out"), *option]) == 2
        assert "change trainings in the file" in capsys.readouterr().err


def test_an_option_for_searches_with_trainings_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "costs.yaml").write_text(json.dumps({**FIELDS, "trainings": None, "objectives": COSTS}))
    assert main([str(tmp_path / "costs.yaml"), "--out", str(tmp_path / "out"), "--retry-failed"]) == 2
    assert "--retry-failed is for searches with trainings" in capsys.readouterr().err


def test_states_of_other_searches_and_damaged_ones_are_refused(tmp_path: Path, stub: Stub) -> None:
    search = search_in(tmp_path)
    finished(search)
    other = Search("trained", search_from({**FIELDS, "resolution": 64}), search.folder)
    with pytest.raises(ConfigError, match="state of another search"):
        finished(other)
    (search.own_folder / "trainings.json").write_text("{")
    with pytest.raises(ConfigError, match="can't be read"):
        finished(search)


def test_a_state_with_a_network_outside_the_space_is_refused(tmp_path: Path, stub: Stub) -> None:
    search = search_in(tmp_path)
    finished(search)
    path = search.own_folder / "trainings.json"
    raw = json.loads(path.read_text())
    for genome in ([0, 0], [0, 0, 9], [-1, 0, 0]):
        raw["outcomes"][0]["genome"] = genome
        path.write_text(json.dumps(raw))
        with pytest.raises(ConfigError, match="can't be read"):
            read_outer(search)


def test_a_refused_search_does_not_replace_the_file_of_the_other_one(
    tmp_path: Path, stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    search = search_in(tmp_path)
    finished(search)
    before = (search.own_folder / "search.yaml").read_bytes()
    (tmp_path / "trained.yaml").write_text(json.dumps({**FIELDS, "resolution": 64}))
    assert main([str(tmp_path / "trained.yaml"), "--out", str(tmp_path), "--jobs", "1"]) == 2
    assert "state of another search" in capsys.readouterr().err
    assert (search.own_folder / "search.yaml").read_bytes() == before
