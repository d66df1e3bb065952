"""Search: genomes, repair, hypervolume, NSGA-II against enumeration, resuming, and the command."""

import contextlib
import csv
import io
import itertools
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrvit_lab import cli, load_results, run_study
from hrvit_lab.config import ConfigError, HRViTConfig, preset, with_branches
from hrvit_lab.cost.count import count
from hrvit_lab.search import front, pace
from hrvit_lab.search.__main__ import main
from hrvit_lab.search.archive import Archive, box, hypervolume
from hrvit_lab.search.files import find_search, list_searches
from hrvit_lab.search.genome import Genome, Space
from hrvit_lab.search.methods import METHODS
from hrvit_lab.search.outside import missed_by_most
from hrvit_lab.search.run import Search, begun, front_of, run, truth_of
from hrvit_lab.search.spec import SearchSpec, load_search, search_from
from hrvit_lab.search.state import Evaluator, State, advance, enumerate_all, read_state
from hrvit_lab.study.executors.host import timing_lock
from hrvit_lab.study.files import study_name

ROOT = Path(__file__).resolve().parent.parent

SMALL: Mapping[str, Any] = {
    "title": "Small",
    "question": "Which?",
    "base": "hrvit_nano",
    "space": {
        "widths": {"per": "branch", "choices": [[8, 12, 16], [16, 18, 24, 32], [32, 48], [64, 96]]},
        "head_dims": {"per": "branch", "choices": [[8], [8, 12], [8, 16], [8]]},
        "mlp_ratios": [2, 3],
        "stem_width": [8, 16],
    },
    "objectives": {"macs": "lower", "params": "higher"},
    "resolution": 64,
    "budget": {"evaluations": 60, "population": 12, "seeds": [0, 1]},
}
"""384 combinations, some of which are invalid: a width of 18 is no multiple of 12."""

WIDE: Mapping[str, Any] = {
    **SMALL,
    "space": {
        "branches": [2, 3, 5],
        "widths": {"per": "branch", "choices": {"from": 8, "to": 64, "step": 4}},
        "head_dims": {"per": "branch", "choices": [4, 6, 8]},
        "window_sizes": {"per": "branch", "choices": [1, 2, 7], "when": {"attention": ["cross_shaped", "window"]}},
        "attention": {"per": "branch", "choices": ["cross_shaped", "window", "linear", "global"]},
        "ffn": ["mixcfn", "mlp"],
        "depths": {"per": "place", "choices": [1, 2, 3]},
        "width_scale": [0.5, 1, 1.5],
    },
}


def space_of(fields: Mapping[str, Any], **changes: Any) -> Space:
    return Space(search_from({**fields, **changes}))


# -- genomes -------------------------------------------------------------------------------------------------------


def test_a_small_space_has_exactly_the_valid_combinations() -> None:
    """Enumerated a second time without genomes: every combination of fields that is a valid config, also those that are
    the same network as another one."""
    space, fields = space_of(SMALL), SMALL["space"]
    naive = []
    for *widths, ratio, stem in itertools.product(*fields["widths"]["choices"], [2, 3], [8, 16]):
        for dims in itertools.product(*fields["head_dims"]["choices"]):
            changes = {"widths": widths, "head_dims": dims, "mlp_ratios": ratio, "stem_width": stem}
            try:
                naive.append(preset("hrvit_nano").replace(name="", **changes).id)
            except ConfigError:
                continue
    found = [space.config(genome).id for genome in space.all()]
    assert sorted(found) == sorted(naive)
    assert 0 < len(set(found)) < len(found) < space.size  # some combinations are one network, some are invalid


@pytest.mark.parametrize("base", ["hrvit_nano", "mit_b0"])
def test_every_repaired_genome_is_a_valid_network_and_stays_what_it_is(base: str) -> None:
    fields = {**WIDE, "base": base}
    if base == "mit_b0":
        fields["space"] = {key: value for key, value in WIDE["space"].items() if key != "depths"}
    space, rng = space_of(fields), np.random.default_rng(0)
    branches = set()
    for _ in range(60):
        genome = space.repaired(rng.integers(0, space.lengths).tolist())
        config = space.config(genome)
        assert space.repaired(genome) == genome
        assert HRViTConfig(**config.model_dump()) == config
        branches.add(config.num_branches)
    assert branches == {2, 3, 5}


def test_repair_changes_a_valid_genome_in_genes_without_effect_only() -> None:
    space = space_of(WIDE, space={"branches": [2, 4], "widths": {"per": "branch", "choices": [16, 32, 64]}})
    assert [gene.place for gene in space.genes] == [(), (0,), (1,), (2,), (3,)]
    assert space.repaired((1, 2, 1, 2, 1)) == (1, 2, 1, 2, 1)
    assert space.repaired((0, 2, 1, 2, 1)) == (0, 2, 1, 0, 0)
    assert space.config((0, 2, 1, 0, 0)).widths == (64, 32)


def test_a_gene_whose_condition_is_not_met_keeps_the_bases_value() -> None:
    space = space_of(
        SMALL,
        space={
            "attention": {"per": "branch", "choices": ["cross_shaped", "global"]},
            "window_sizes": {"per": "branch", "choices": [7, 3], "when": {"attention": ["cross_shaped"]}},
        },
    )
    genome = space.repaired((0, 1, 0, 1, 1, 1, 1, 1))
    assert genome == (0, 1, 0, 1, 1, 0, 1, 0)
    windows = preset("hrvit_nano").window_sizes
    assert space.config(genome).window_sizes == (3, windows[1], 3, windows[3])


def test_repair_moves_to_the_nearest_valid_width() -> None:
    """A width of 18 is invalid with heads of 12 channels; the only other width is 24."""
    space = space_of(SMALL, space={"widths": {"per": "branch", "choices": [[8], [18, 24], [32], [64]]},
                                   "head_dims": {"per": "branch", "choices": [[8], [12], [8], [8]]}})  # fmt: skip
    repaired = space.config(space.repaired((0, 0, 0, 0, 0, 0, 0, 0)))
    assert repaired.widths[1] == 24 and repaired.head_dims[1] == 12


FINE = {
    "widths": {"per": "branch", "choices": {"from": 8, "to": 256, "step": 1}},
    "head_dims": {"per": "branch", "choices": {"from": 4, "to": 64, "step": 1}},
    "mlp_ratios": {"per": "branch", "choices": {"from": 2, "to": 6, "step": 0.1}},
}


def test_a_fine_grid_is_repaired_by_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its 622,749 combinations in each branch, valid widths are sought for few head dims and ratios."""
    space, asked = space_of(SMALL, space=FINE), [0]
    rule = HRViTConfig.width_accepts

    def counted(config: HRViTConfig, branch: int) -> Callable[[int], bool]:
        asked[0] += 1
        return rule(config, branch)

    rng = np.random.default_rng(0)
    with monkeypatch.context() as patched:
        patched.setattr(HRViTConfig, "width_accepts", counted)
        genomes = [space.random(rng) for _ in range(100)]
    assert 100 < asked[0] <= 2501  # head dims × ratios
    for genome in genomes:
        HRViTConfig(**space.config(genome).model_dump())


def test_repair_finds_the_nearest_of_all_combinations() -> None:
    """As if all of them were tried, in the order of their distance."""
    fields = {
        "widths": {"per": "branch", "choices": {"from": 8, "to": 40, "step": 1}},
        "head_dims": {"per": "branch", "choices": {"from": 4, "to": 16, "step": 3}},
        "mlp_ratios": {"per": "branch", "choices": [2, 2.5, 3, 4]},
    }
    space, rng = space_of(SMALL, space=fields), np.random.default_rng(0)
    places = [[(gene.field, gene.place) for gene in space.genes].index((field, (1,))) for field in fields]
    combinations = list(itertools.product(*(range(len(space.genes[place].choices)) for place in places)))
    repaired = 0
    for _ in range(25):
        drawn = rng.integers(0, space.lengths).tolist()
        now = [drawn[place] for place in places]

        def away(choices: tuple[int, ...], now: list[int] = now) -> tuple[int, ...]:
            steps = [abs(choice - index) for choice, index in zip(choices, now, strict=True)]
            return (sum(steps), *steps[::-1])

        for nearest in sorted(combinations, key=away):
            values = [space.genes[place].choices[choice] for place, choice in zip(places, nearest, strict=True)]
            if valid_in_branch_1(*values):
                break
        genome = space.repaired(drawn)
        assert tuple(genome[place] for place in places) == nearest
        repaired += tuple(now) != nearest
    assert repaired > 10


def valid_in_branch_1(width: int, head_dim: int, ratio: float) -> bool:
    base = preset("hrvit_nano")
    fields = {"widths": width, "head_dims": head_dim, "mlp_ratios": ratio}
    try:
        base.replace(
            **{key: (*getattr(base, key)[:1], value, *getattr(base, key)[2:]) for key, value in fields.items()}
        )
    except ConfigError:
        return False
    return True


def test_a_space_without_a_valid_width_is_refused() -> None:
    fields = {"widths": {"per": "branch", "choices": [[8], [7], [32], [64]]}}
    with pytest.raises(ConfigError, match=r"branch 1 has no valid width with attention cross_shaped"):
        space_of(SMALL, space=fields)


def test_a_space_that_is_too_fine_to_try_all_is_refused() -> None:
    fields = {**FINE, "widths": {"per": "branch", "choices": {"from": 1, "to": 1000, "step": 1}}}
    with pytest.raises(ConfigError, match=r"2,501,000 combinations of .* in branch 0; use at most"):
        space_of(SMALL, space=fields)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"head_dims": [8, 12, 16]}, "branch 2 has no valid width with .*, head_dims 12"),
        ({"mlp_ratios": [2, 2.3]}, "branch 2 has no valid width with .*, mlp_ratios 2.3"),
        (
            {"head_dims": [8, 12], "widths": {"per": "branch", "choices": [[8, 24], [16, 24], [48], [64, 80]]}},
            "branch 3 has no valid width with .*, head_dims 12",
        ),
    ],
)
def test_a_shared_value_without_a_valid_width_in_a_branch_is_refused(fields: dict[str, Any], said: str) -> None:
    """Without the check, the first random genome with the value fails."""
    with pytest.raises(ConfigError, match=said):
        space_of(SMALL, space=fields)


def test_a_shared_value_is_refused_also_after_thousands_of_valid_combinations() -> None:
    """With the first four head dims, all 2,400 combinations are valid; with 12, none in the first branch is."""
    widths = {"per": "branch", "choices": [[32], [64], [96], [128]]}
    ratios = [2 + step / 100 for step in range(600)]
    space = {"head_dims": [2, 4, 8, 16, 12], "mlp_ratios": ratios, "ffn": ["mlp"], "widths": widths}
    space_of(SMALL, space={**space, "head_dims": [2, 4, 8, 16]})
    with pytest.raises(ConfigError, match=r"branch 0 has no valid width with .* head_dims 12"):
        space_of(SMALL, space=space)


def test_a_combination_that_was_not_checked_ends_a_search_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hrvit_lab.search.genome.MAX_CHECKED", 1)
    widths = {"per": "branch", "choices": [[32], [64], [96], [128]]}
    fields = {**SMALL, "space": {"head_dims": [8, 12], "mlp_ratios": [2, 3], "widths": widths}}
    (tmp_path / "s.yaml").write_text(json.dumps(fields))
    assert main([str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert "branch 0 has no valid width with attention cross_shaped, ffn" in error and "head_dims 12" in error
    assert error.count("error:") == 1 and "Traceback" not in error


def test_every_genome_of_a_space_with_shared_values_can_be_repaired() -> None:
    """To networks of the space, which are enumerated without genomes."""
    widths = [[8, 24], [16, 24], [32, 48], [64, 96]]
    space = space_of(SMALL, space={"head_dims": [8, 12], "widths": {"per": "branch", "choices": widths}})
    valid = set()
    for head_dim, *chosen in itertools.product([8, 12], *widths):
        with contextlib.suppress(ConfigError):
            valid.add(preset("hrvit_nano").replace(name="", head_dims=head_dim, widths=chosen).id)
    genomes = itertools.product(*(range(len(gene.choices)) for gene in space.genes))
    assert {space.config(space.repaired(genome)).id for genome in genomes} == valid
    assert 2 < len(valid) < 32


# -- what is better --------------------------------------------------------------------------------------------------


def test_scores_are_the_costs_of_the_network_with_signs_and_violations() -> None:
    space = space_of(SMALL, constraints={"macs": {"max": 3e6}, "params": {"min": 400_000}})
    genomes = list(space.all())[::37]
    scores = Evaluator(space)(genomes)
    for genome, objectives, violation in zip(genomes, scores.objectives, scores.violation, strict=True):
        costs = count(space.config(genome), 64)
        assert objectives.tolist() == [costs.macs, -costs.params]
        assert (violation == 0) == (costs.macs <= 3e6 and costs.params >= 400_000)


def test_the_archive_keeps_what_a_comparison_of_all_pairs_keeps() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 12, (300, 3)).astype(float)
    archive = Archive(3)
    for start in range(0, 300, 50):
        archive.add([(index,) for index in range(start, start + 50)], values[start : start + 50])
    best = {
        tuple(a) for a in values.tolist()
        if not any(all(np.less_equal(b, a)) and any(np.less(b, a)) for b in values.tolist())
    }  # fmt: skip
    assert {tuple(row) for row in archive.objectives.tolist()} == best
    assert len(archive.genomes) == len(best)
    assert all(tuple(values[index]) in best for (index,) in archive.genomes)


def test_the_hypervolume_is_the_share_of_points_that_are_dominated() -> None:
    """Against a grid of cells that are counted one by one."""
    points = np.array([[0.1, 0.7], [0.4, 0.4], [0.9, 0.2], [0.5, 0.5]])
    ticks = (np.arange(100) + 0.5) / 100
    dominated = sum(any((x >= points[:, 0]) & (y >= points[:, 1])) for x in ticks for y in ticks)
    low, high = np.zeros(2), np.array([2.0, 4.0])
    assert hypervolume(points * high, low, high) == pytest.approx(dominated / 1e4)
    assert hypervolume(np.empty((0, 2)), low, high) == 0
    assert hypervolume(np.array([[3.0, 0.0]]), low, high) == 0


# -- the search ------------------------------------------------------------------------------------------------------


def finished(space: Space, method: str, seed: int, path: Path) -> State:
    for _ in advance(space, method, seed, path, "x"):
        pass
    state = read_state(path, "x")
    assert state is not None
    return state


def test_nsga2_finds_the_front_of_a_small_space(tmp_path: Path) -> None:
    space = space_of(SMALL, budget={"evaluations": 400, "population": 40})
    networks, front, volume = enumerate_all(space)
    state = finished(space, "nsga2", 0, tmp_path / "s.json")
    assert state.history[-1][1] == pytest.approx(volume, rel=0.01)
    assert networks == len(list(space.all()))
    scores = Evaluator(space)
    truth = {tuple(row) for row in scores(front).objectives.tolist()}
    everything = scores(list(space.all())).objectives
    naive = {tuple(a) for a in everything.tolist()
             if not any((everything <= a).all(axis=1) & (everything < a).any(axis=1))}  # fmt: skip
    assert truth == naive


def test_a_run_ends_when_there_is_no_new_network(tmp_path: Path) -> None:
    space = space_of(SMALL, space={"stem_width": [8, 16, 24]})
    state = finished(space, "nsga2", 0, tmp_path / "s.json")
    assert state.exhausted and state.evaluations == 3


MEDIUM: Mapping[str, Any] = {
    **SMALL,
    "base": {"preset": "hrvit_nano", "num_classes": 10},
    "space": {
        "widths": {"per": "branch", "choices": [[8, 16, 24], [16, 32, 48], [32, 64, 96], [64, 96, 128, 160]]},
        "mlp_ratios": [2, 3, 4],
        "window_sizes": {"per": "branch", "choices": [[1, 2], [1, 2], [1, 4], [1]]},
        "stem_width": [8, 16],
    },
    "objectives": {"macs": "lower", "moved_mib": "lower", "params": "higher"},
    "budget": {"evaluations": 500, "population": 40},
}
"""3456 networks, of which 47 are on the front."""


def share_found(space: Space, state: State, front: Sequence[Genome]) -> float:
    """Which share of the points of the true front a run found."""
    score = Evaluator(space)
    truth, found = ({tuple(row) for row in score(each).objectives.tolist()} for each in (front, state.archive))
    return len(truth & found) / len(truth)


def test_nsga2_finds_most_of_a_front_that_random_search_misses(tmp_path: Path) -> None:
    """At equal evaluations. Random search dominates most of the volume, too, so the volume does not tell them apart."""
    space = space_of(MEDIUM)
    networks, front, volume = enumerate_all(space)
    assert (networks, len(front)) == (3456, 47)
    for seed in (0, 1):
        guided, blind = (finished(space, method, seed, tmp_path / f"{method}{seed}") for method in ("nsga2", "random"))
        assert max(guided.evaluations, blind.evaluations) <= 0.16 * networks
        assert share_found(space, guided, front) > 0.6 and share_found(space, blind, front) < 0.3
        assert volume > guided.history[-1][1] > blind.history[-1][1] > 0.95 * volume


@pytest.mark.slow
def test_the_front_of_87480_networks_is_found_in_five_percent_of_the_evaluations(tmp_path: Path) -> None:
    """The volume and the points of the front; random search dominates much of the volume, but finds few points."""
    spec = load_search(ROOT / "studies" / "search" / "cpu_nano.yaml")
    space = Space(spec)
    networks, front, volume = enumerate_all(space)
    assert networks == 87_480
    for seed in (0, 1):
        guided, blind = (finished(space, method, seed, tmp_path / f"{method}{seed}") for method in ("nsga2", "random"))
        assert max(guided.evaluations, blind.evaluations) <= 0.05 * networks
        assert guided.history[-1][1] >= 0.99 * volume
        assert share_found(space, guided, front) >= 0.9 and share_found(space, blind, front) <= 0.2


def test_constraints_hold_in_the_result(tmp_path: Path) -> None:
    space = space_of(SMALL, constraints={"macs": {"max": 8e6}})
    state = finished(space, "nsga2", 0, tmp_path / "s.json")
    assert state.archive
    assert all(count(space.config(genome), 64).macs <= 8e6 for genome in state.archive)


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_run_continues_to_the_same_networks(method: str, tmp_path: Path) -> None:
    space = space_of(SMALL)
    whole = finished(space, method, 3, tmp_path / "whole.json")
    for stop in (1, 2):
        for generation, _ in enumerate(advance(Space(space.spec), method, 3, tmp_path / "parts.json", "x"), 1):
            if generation == stop:
                break
    parts = finished(Space(space.spec), method, 3, tmp_path / "parts.json")
    assert parts == whole
    assert whole.generation >= 5


def test_seeds_differ_and_a_box_does_not(tmp_path: Path) -> None:
    space = space_of(WIDE)
    first, second = (finished(space, "nsga2", seed, tmp_path / f"{seed}.json") for seed in (0, 1))
    assert first.population != second.population
    assert all(map(np.array_equal, box(space, Evaluator(space)), box(space, Evaluator(space))))


def test_a_search_that_is_killed_ten_times_gives_the_same_pareto_set(tmp_path: Path) -> None:
    """By SIGKILL while it computes, each time after at least one more generation; see `killed_search`."""
    fields = {**WIDE, "budget": {"evaluations": 500, "population": 10, "seeds": [0]}}
    whole, killed = (Search("wide", search_from(fields), tmp_path / name / "wide") for name in ("whole", "killed"))
    with begun(whole) as hold:
        run(whole, hold, 1, lambda _: None)
    (tmp_path / "wide.yaml").write_text(json.dumps(fields))
    command = [sys.executable, "-m", "killed_search", str(tmp_path / "wide.yaml"), str(tmp_path / "killed"), "10"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    output = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, text=True, stdout=subprocess.PIPE, check=True
    ).stdout
    at = [int(line) for line in output.split()]
    total = sum(state.generation for state in whole.states().values())
    assert len(at) == 10 and at[0] > 0 and at == sorted(set(at)) and at[-1] < total
    with begun(killed) as hold:
        run(killed, hold, 1, lambda _: None)
    assert killed.states() == whole.states()
    assert front_of(killed, killed.states())[0] == front_of(whole, whole.states())[0]


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search file and the results of its search."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "small.yaml").write_text(json.dumps(SMALL))
    assert main([str(folder / "small.yaml"), "--out", str(folder / "out"), "--jobs", "1"]) == 0
    return folder


def test_the_result_of_a_search_is_a_study_that_can_be_read_and_measured(ran: Path, tmp_path: Path) -> None:
    results = load_results("small", out=ran / "out")
    spec = search_from(SMALL)
    search = Search("small", spec, ran / "out" / "small")
    genomes, objectives = front_of(search, search.states())
    rows = results.table[results.table["variant"] != "hrvit_nano"]
    assert rows["macs"].tolist() == objectives[:, 0].tolist()
    assert rows["params"].tolist() == (-objectives[:, 1]).tolist()
    assert rows["config_id"].tolist() == [search.space.config(genome).id for genome in genomes]
    again = run_study(ran / "out" / "small" / "study.yaml", out=tmp_path, settings={"metrics": ["activations"]})
    assert again.table["activations"].notna().all()
    assert again.folder == tmp_path / "small"


def test_studies_of_several_searches_have_their_names(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of their files are named study.yaml; one that is not in a folder of results keeps that name."""
    for name, title in (("one", "First"), ("two", "Second")):
        shutil.copytree(ran / "out" / "small", tmp_path / name)
        text = (tmp_path / name / "study.yaml").read_text()
        (tmp_path / name / "study.yaml").write_text(text.replace("title: Small", f"title: {title}"))
        run_study(tmp_path / name / "study.yaml", out=tmp_path / "out", settings={"metrics": ["params"]})
    assert [load_results(name, out=tmp_path / "out").spec.title for name in ("one", "two")] == ["First", "Second"]
    out = shutil.copytree(ran / "out", tmp_path / "searched")
    beside = run_study(out / "small" / "study.yaml", out=out, settings={"metrics": ["activations"]})
    assert beside.folder == out / "small-2"
    monkeypatch.chdir(tmp_path / "one")
    assert study_name(Path("study.yaml")) == "one"
    monkeypatch.chdir(tmp_path)
    shutil.copy("one/study.yaml", "study.yaml")
    assert study_name(Path("study.yaml")) == "study"


def test_all_of_the_pareto_set_and_the_base_are_in_a_table(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The study shows three of the networks, under the names that they have in the table of all."""
    out = shutil.copytree(ran / "out", tmp_path / "out")
    monkeypatch.setattr(front, "MAX_SHOWN", 3)
    assert main([str(ran / "small.yaml"), "--out", str(out), "--jobs", "1"]) == 0
    rows = list(csv.DictReader((out / "small" / "search" / "pareto.csv").read_text().splitlines()))
    search = Search("small", search_from(SMALL), out / "small")
    genomes, _ = front_of(search, search.states())
    configs = [preset("hrvit_nano"), *map(search.space.config, genomes)]
    costs = [count(config, 64) for config in configs]
    assert [row["config_id"] for row in rows] == [config.id for config in configs] and len(rows) > 4
    assert [(float(row["macs"]), float(row["params"])) for row in rows] == [(c.macs, c.params) for c in costs]
    table = load_results("small", out=out).table
    by_name = {row["variant"]: row["config_id"] for row in rows}
    assert len(table) == 4 and table["variant"].tolist()[:2] == ["hrvit_nano", "found 1"]
    assert [by_name[name] for name in table["variant"]] == table["config_id"].tolist()
    as_good = sum(found.macs <= costs[0].macs and found.params >= costs[0].params for found in costs[1:])
    assert f"at least as good as the base in all objectives: {as_good}." in capsys.readouterr().out
    assert 0 < as_good < len(genomes)


def test_a_table_of_costs_says_nothing_about_accuracy(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no path is wrapped at 80 columns."""
    shutil.copytree(ran / "out", tmp_path / "out")
    monkeypatch.setenv("COLUMNS", "80")
    assert main([str(ran / "small.yaml"), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "Δ: difference to 'hrvit_nano'." in " ".join(printed.split()) and "accuracy" not in printed.lower()
    files = f"search       {tmp_path}/out/small/search: hypervolume.csv, pareto.csv, figure, states of the runs"
    assert files in printed.splitlines()


def test_the_search_leaves_its_history_and_the_truth(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ran / "out" / "small" / "search"
    assert {"hypervolume.csv", "hypervolume.svg", "hypervolume.png", "search.yaml", "truth.json"} <= {
        path.name for path in own.iterdir()
    }
    assert load_search(own / "search.yaml") == search_from(SMALL)
    capsys.readouterr()
    assert main([str(ran / "small.yaml"), "--out", str(ran / "out"), "--jobs", "1"]) == 0  # nothing runs again
    output = capsys.readouterr().out
    search = Search("small", search_from(SMALL), ran / "out" / "small")
    truth = truth_of(search)
    assert truth is not None
    assert f"All {truth.networks:,} valid combinations of the space were enumerated" in output
    assert "NSGA-II: median hypervolume" in output and "random search: median hypervolume" in output


@pytest.mark.parametrize("fields", [SMALL, WIDE], ids=["enumerated", "not enumerated"])
def test_constraints_that_no_network_meets_are_an_error_that_names_the_hardest(
    fields: Mapping[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds = {"macs": {"max": 1e12}, "moved_mib": {"min": 0.001, "max": 0.01}}
    budget = {"evaluations": 60, "population": 12, "seeds": [0, 1]}
    fields = {**fields, "constraints": bounds, "budget": budget}
    (tmp_path / "none.yaml").write_text(json.dumps(fields))
    arguments = [str(tmp_path / "none.yaml"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    search = Search("none", search_from(fields), tmp_path / "out" / "none")
    for _ in range(2):  # results are kept: the second call runs nothing
        assert main(arguments) == 1
        printed = capsys.readouterr()
        assert "reach" not in printed.out and "NSGA-II found" not in printed.out
        states = search.states()
        last = [genome for (method, _), state in states.items() if method == "nsga2" for genome in state.population]
        nearest = min(count(search.space.config(genome), search.spec.resolution).moved_mib for genome in last)
        error = " ".join(printed.err.split())
        assert "of the last ones, 24 of 24 miss moved_mib (at least 0.001 and at most 0.01; the nearest one " in error
        assert f"has {nearest:.4g}); loosen the constraints" in error
        assert ("none is within the constraints" in printed.out) == (search.space.size <= 300_000)
    rows = csv.reader((search.own_folder / "pareto.csv").read_text().splitlines())
    assert [row[0] for row in rows] == ["variant", "hrvit_nano"]


def test_scores_that_are_never_finite_are_said() -> None:
    space = space_of(SMALL)
    evaluator = Evaluator(space)
    evaluator.quantities = lambda config: (math.inf, 1.0)  # type: ignore[assignment]
    assert missed_by_most(evaluator, list(itertools.islice(space.all(), 3))) == "macs is not finite for 3 of 3"


RATE = {"from": 0, "to": 0.8999, "step": 0.001}
LARGEST = {
    "base": {**with_branches(preset("hrvit_nano"), 5).to_dict(), "depths": [[1] * 5] * 32},
    "space": {
        "depths": {"per": "place", "choices": {"from": 1, "to": 64, "step": 1}},
        "widths": {"per": "branch", "choices": {"from": 8, "to": 4000, "step": 4}},
        "drop_rate": {"choices": RATE}, "drop_path_rate": {"choices": RATE}, "proj_drop_rate": {"choices": RATE},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"space": {"drop_rate": {"choices": RATE}, "drop_path_rate": {"choices": RATE}}}, "2 choices, 810,000 comb"),
        (LARGEST, "168 choices, 7.1 · 10³¹² combinations"),
    ],
    ids=["small", "more than any float"],
)
def test_the_number_of_combinations_is_readable(
    fields: Mapping[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """64¹⁶⁰ · 999⁵ · 900³ = 9.745 · 10²⁸⁸ · 9.950 · 10¹⁴ · 7.29 · 10⁸ = 7.07 · 10³¹²."""
    (tmp_path / "many.yaml").write_text(json.dumps({**SMALL, **fields}))
    assert main([str(tmp_path / "many.yaml"), "--dry-run", "--out", str(tmp_path)]) == 0
    assert said in capsys.readouterr().out.replace("\xa0", " ")


def test_more_evaluations_continue_a_search(ran: Path) -> None:
    before = Search("small", search_from(SMALL), ran / "out" / "small").states()["nsga2", 0]
    more = search_from({**SMALL, "budget": {**SMALL["budget"], "evaluations": 90}})
    search = Search("small", more, ran / "out" / "small")
    with begun(search) as hold:
        run(search, hold, 1, lambda _: None)
    after = search.states()["nsga2", 0]
    assert after.generation > before.generation
    assert after.history[: len(before.history)] == before.history


def test_shipped_searches_are_valid() -> None:
    assert "cpu_nano" in list_searches()
    for path in list_searches().values():
        assert Space(load_search(path)).size > 1


def test_every_part_and_number_of_branches_is_checked_before_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base has 4 branches of stride 32 and classifies; other choices do not fit."""
    scored = {
        "objectives": {"macs": "lower", "zico": "higher"},
        "predictors": {"data": {"name": "digits", "resolution": 32}},
    }
    for changes, said in (
        ({"resolution": 32, "space": {"branches": [3, 5]}}, "branches = 5 can't be searched: resolution = 32×32"),
        ({**scored, "space": {"branches": [3, 5]}}, "branches = 5 can't be searched: resolution = 32×32"),
        (
            {**scored, "space": {"head": ["pool", "segformer"]}},
            "head = 'segformer' can't be searched: predictor 'zico'",
        ),
    ):
        (tmp_path / "bad.yaml").write_text(json.dumps({**SMALL, **changes}))
        assert main([str(tmp_path / "bad.yaml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert f"space: networks with {said}" in error and error.count("\n") == 1


def test_examples_have_every_part_once_also_those_with_a_condition() -> None:
    space = space_of(
        WIDE,
        space={
            **WIDE["space"],
            "shortcut": {"choices": ["none", "des"], "when": {"ffn": ["mlp"]}},
            "fusion": ["dense", "sparse"],
        },
    )
    configs = {name: space.config(genome) for name, genome in space.examples().items()}
    assert {config.num_branches for config in configs.values()} == {2, 3, 5}
    assert {config.ffn[0] for config in configs.values()} == {"mixcfn", "mlp"}
    assert {config.fusion for config in configs.values()} == {"dense", "sparse"}
    assert {config.shortcut for config in configs.values()} == {"none", "des"}
    for branch in range(5):
        of_branch = {config.attention[branch] for config in configs.values() if config.num_branches > branch}
        assert of_branch == {"cross_shaped", "window", "linear", "global"}
    assert configs["shortcut = 'des'"].shortcut == "des" and configs["shortcut = 'des'"].ffn == ("mlp",) * 5


def _with(key: str, value: Any) -> dict[str, Any]:
    """`SMALL` with a value at a dotted key."""
    fields = json.loads(json.dumps(SMALL))
    *path, last = key.split(".")
    inner = fields
    for part in path:
        inner = inner[part]
    inner[last] = value
    return dict(fields)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base", "hrvit_b9", "hrvit_b9"),
        ("space", {}, "space"),
        ("space.widht", [8], "unknown field 'widht'"),
        ("space.topology", ["pyramid"], "topology can't vary"),
        ("space.depths", [1, 2], "per: place is for depths"),
        ("space.stem_width", {"per": "branch", "choices": [8]}, "per: branch needs a field per branch"),
        ("space.stem_width", {"from": 8, "to": 16, "step": 4}, "space.stem_width"),
        ("space.stem_width", {"choices": {"from": 8, "to": 16, "step": 0}}, "is not a range"),
        ("space.stem_width", {"choices": {"from": 8, "to": 1e9, "step": 1}}, "use at most 1,000"),
        ("space.stem_width", {"choices": {"from": 1, "to": 1001, "step": 1}}, "use at most 1,000"),
        ("space.stem_width", {"choices": {"from": 2, "to": 3, "step": 1e-320}}, "use at most 1,000"),
        ("space.stem_width", {"choices": {"from": 8, "to": math.inf, "step": 8}}, "with ends of at most"),
        ("space.stem_width", {"choices": {"from": 8, "to": math.nan, "step": 8}}, "with ends of at most"),
        ("space.stem_width", {"choices": {"from": 8, "to": 10**400, "step": 8}}, "with ends of at most"),
        ("space.stem_width", [8, 8], "a choice occurs twice"),
        ("space.stem_width", [-8], "space.stem_width = -8"),
        ("space.widths.choices", [[10**9], [16], [32], [64]], "space.widths[0] = 1000000000: give at most 4096"),
        ("space.depths", {"per": "place", "choices": [0]}, "space.depths[0][0] = 0"),
        ("space.mlp_ratios", [None], "space.mlp_ratios = None"),
        ("space.widths.choices", [[8], [16]], "2 lists for 4 branches"),
        ("space.widths.choices", [[8], 16, [32], [64]], "a list for every branch"),
        ("space.stem_width", {"choices": [8], "when": {"ffn": ["mlp"]}}, "'ffn' is not another dimension"),
        ("space.stem_width", {"choices": [8], "when": {"mlp_ratios": [9]}}, "9 is not among its choices"),
        ("space.stem_width", {"choices": [8], "when": {"widths": [8]}}, "'widths' has a value per branch"),
        (
            "space",
            {"shortcut": ["des", "none"], "branches": {"choices": [2, 3], "when": {"shortcut": ["des"]}}},
            "the number of branches can't have a condition",
        ),
        ("objectives", {"macs": "lower"}, "objectives"),
        ("objectives.latency", "lower", "unknown objective 'latency'"),
        ("objectives.macs", "less", "objectives.macs"),
        ("constraints", {"macs": {"max": 1, "min": 2}}, "min = 2 is more than max = 1"),
        ("constraints", {"speed": {"max": 1}}, "unknown objective 'speed'"),
        ("resolution", 16, "too small"),
        ("budget.population", 100, "population = 100 is more than evaluations = 60"),
        ("budget.seeds", [0, 0], "a seed occurs twice"),
        ("budget.seeds", [True], "budget.seeds.0 = True"),
        ("extra", 1, "extra"),
        ("objectives.predicted_latency_ms", "lower", "need each other; add profile: DEVICE.json"),
        ("profile", "here.json", "need each other; add predicted_latency_ms to the objectives"),
        ("objectives.zicco", "higher", "unknown objective 'zicco'; did you mean 'zico'"),
        ("predictors", {"batch_size": 16}, "none is among objectives and constraints"),
        ("predictors", {"batch_size": 1}, "predictors.batch_size"),
        ("predictors", {"data": {"name": "digit"}}, "predictors.data.name"),
    ],
)
def test_a_bad_search_file_is_one_sentence(
    key: str, value: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    text = json.dumps(_with(key, value)).replace("Infinity", ".inf").replace("NaN", ".nan")
    file.write_text(text.replace("1e-320", "1.0e-320"))
    assert main([str(file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert error.count("\n") <= 3
    assert not (tmp_path / "out").exists()


def test_names_folders_and_states_that_do_not_fit_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(json.dumps(SMALL))
    arguments = [str(file), "--out", str(out), "--jobs", "1"]

    def refused(said: str, given: list[str] = arguments) -> None:
        for arguments in (given, [*given, "--dry-run"]):
            assert main(arguments) == 2
            error = capsys.readouterr().err
            assert said in error and "Traceback" not in error

    refused("unknown search 'cpu_nan'; did you mean", ["cpu_nan"])
    refused("search file 'none.yaml' not found", ["none.yaml"])
    refused("no search given", [])
    (out / "small").mkdir(parents=True)
    (out / "small" / "study.yaml").write_text("title: other\n")
    refused("holds a study of that name")
    (out / "small" / "study.yaml").unlink()
    (out / "small" / "search").mkdir()
    state = out / "small" / "search" / "nsga2-seed0.json"
    state.write_text("{")
    refused("can't be read")
    state.write_text(json.dumps({"version": 1, "search": "other"}))
    refused("is the state of another search")
    assert state.read_text() == json.dumps({"version": 1, "search": "other"})


def test_without_a_terminal_progress_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rate and the time left, without what earlier calls of the command did."""
    now = [0.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])
    text = io.StringIO()
    with pace.Watch(cli.console(file=text)) as watch:
        say = watch.of("networks", "searched", 10_000)
        for now[0], number in ((1000, 400), (1020, 2400), (1040, 4400), (1060, 5000), (1090, 6400), (1100, 9000)):
            say(number)
        say = watch.of("steps", "done", 100)
        for now[0], number in ((2000, 0), (2100, 0), (2600, 1)):
            say(number)
    assert text.getvalue().splitlines() == [
        "4,400 of 10,000 networks are searched (6,000 a minute, about 56 s left).",
        "6,400 of 10,000 networks are searched (4,000 a minute, about 54 s left).",
        "1 of 100 steps are done (0.1 a minute, about 16 h 30 min left).",
    ]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_command_prints_lines_of_progress(
    jobs: int, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search that goes on counts what was found before, but not in its rate."""
    monkeypatch.setattr(pace, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr("hrvit_lab.search.command.choose_jobs", lambda *_: (jobs, ""))
    monkeypatch.setattr("hrvit_lab.search.run.POLL_S", 0.01)
    shutil.copytree(ran / "out", tmp_path / "out")
    (tmp_path / "out" / "small" / "search" / "truth.json").unlink()
    assert main([str(ran / "small.yaml"), "--out", str(tmp_path / "out"), "--evaluations", "120"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" left).")]
    searched, enumerated = ([line for line in lines if word in line] for word in (" searched (", " enumerated ("))
    numbers = [int(line.split()[0]) for line in searched]
    assert numbers == sorted(numbers) and numbers[0] > 240 and all("of 480 networks are" in line for line in searched)
    assert enumerated[-1].startswith("768 of 768 combinations are enumerated (")


def test_a_killed_worker_ends_a_search_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill_and_wait(*arguments: Any) -> Any:
        for process in multiprocessing.active_children():
            process.kill()
        return wait(*arguments)

    monkeypatch.setattr("hrvit_lab.search.run.wait", kill_and_wait)
    monkeypatch.setattr("hrvit_lab.search.command.choose_jobs", lambda *_: (2, ""))
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    assert main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: a worker process of the search was killed") and error.count("\n") == 1, error
    assert not [path for path in (tmp_path / "out/small/search").iterdir() if "claim" in path.name]


def test_no_latency_is_measured_while_a_search_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def look(*_: Any) -> None:
        assert timing_lock(exclusive=True) is None
        computing = timing_lock(exclusive=False)
        assert computing is not None, "trials may run"
        computing.release(unlink=True)
        raise Stop

    monkeypatch.setattr("hrvit_lab.search.command.run", look)
    (tmp_path / "small.yaml").write_text(json.dumps(SMALL))
    with pytest.raises(Stop):
        main([str(tmp_path / "small.yaml"), "--out", str(tmp_path / "out")])
    after = timing_lock(exclusive=True)
    assert after is not None
    after.release(unlink=True)


def test_runs_on_two_processes_equal_runs_on_one(ran: Path, tmp_path: Path) -> None:
    spec = search_from({**SMALL, "budget": {**SMALL["budget"], "seeds": [7]}})
    one, two = (Search("small", spec, tmp_path / name / "small") for name in ("one", "two"))
    for search, jobs in ((one, 1), (two, 2)):
        with begun(search) as hold:
            run(search, hold, jobs, lambda _: None)
    assert one.states() == two.states()
    assert isinstance(find_search("cpu_nano"), Path)
    assert SearchSpec.model_fields["budget"].default.seeds == (0, 1, 2, 3, 4)
