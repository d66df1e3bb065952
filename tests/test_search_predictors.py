"""Predictors as objectives of a search, kept scores, and ``hrvit-lab search score``."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_predictors import TINY

from hrvit_lab.config import ConfigError, HRViTConfig
from hrvit_lab.cost.count import count
from hrvit_lab.search.__main__ import main
from hrvit_lab.search.archive import box
from hrvit_lab.search.genome import Space
from hrvit_lab.search.predictors import PREDICTORS
from hrvit_lab.search.predictors.choice import BatchChoice
from hrvit_lab.search.predictors.kept import KeptScores
from hrvit_lab.search.predictors.score import load_batch, score_config
from hrvit_lab.search.run import Search
from hrvit_lab.search.spec import search_from
from hrvit_lab.search.state import Evaluator

FIELDS: Mapping[str, Any] = {
    "title": "Small",
    "question": "Which?",
    "base": TINY.to_dict(),
    "space": {"stem_width": [8, 16], "ffn": ["mixcfn", "mlp"]},
    "objectives": {"macs": "lower", "synflow": "higher"},
    "resolution": 32,
    "budget": {"evaluations": 12, "population": 4, "seeds": [0]},
}


def test_a_search_by_a_predictor_scores_every_network_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(FIELDS))
    arguments = [str(file), "--out", str(tmp_path / "out"), "--jobs", "1"]
    scored = []

    def counted(*given: Any) -> dict[str, float]:
        scored.append(given[0].id)
        return score_config(*given)

    monkeypatch.setattr("hrvit_lab.search.predictors.score.score_config", counted)
    assert main(arguments) == 0
    assert len(set(scored)) == 4 == len(scored) - 2  # the base and one are scored first, before anything is written
    monkeypatch.setattr("hrvit_lab.search.predictors.score.score_config", None)
    assert main(arguments) == 0
    assert "were enumerated" not in capsys.readouterr().out

    search = Search("small", search_from(FIELDS), tmp_path / "out" / "small")
    batch, classes = load_batch(BatchChoice())
    rows = list(csv.DictReader((search.own_folder / "pareto.csv").read_text().splitlines()))
    by_id = {config.id: config for config in (search.space.base, *map(search.space.config, search.space.all()))}
    assert len(rows) > 1
    for row in rows:
        expected = score_config(by_id[row["config_id"]], ["synflow"], batch, classes, 0)["synflow"]
        assert float(row["synflow"]) == expected


def test_a_score_that_is_not_finite_is_outside_the_constraints(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Search("x", search_from(FIELDS), Path()).space
    monkeypatch.setattr("hrvit_lab.search.predictors.score.score_config", lambda *_: {"synflow": float("-inf")})
    scores = Evaluator(space)(list(space.all()))
    assert (scores.violation == 1).all() and (scores.objectives[:, 1] == 0).all()


def test_a_score_that_is_not_finite_does_not_move_the_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks with MLPs have no score, the others 108 or 116; half of the difference is added on both sides."""

    def scored(config: HRViTConfig, *_: Any) -> dict[str, float]:
        return {"synflow": float("-inf") if config.ffn[0] == "mlp" else 100.0 + config.stem_width}

    space = Search("x", search_from(FIELDS), Path()).space
    monkeypatch.setattr("hrvit_lab.search.predictors.score.score_config", scored)
    best, worst = box(space, Evaluator(space))
    macs = [count(TINY.replace(stem_width=width), 32).macs for width in (8, 16)]
    assert (best[1], worst[1]) == (-120, -104)
    assert (best[0], worst[0]) == (1.5 * macs[0] - 0.5 * macs[1], 1.5 * macs[1] - 0.5 * macs[0])
    monkeypatch.setattr("hrvit_lab.search.predictors.score.score_config", lambda *_: {"synflow": float("nan")})
    assert np.isfinite(box(space, Evaluator(space))).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": {**TINY.to_dict(), "in_chans": 1}}, "base: in_chans = 1, but images for predictors have 3 channels"),
        ({"space": {"in_chans": [1, 3]}}, "space: in_chans can't vary with predictors"),
        ({"space": {"num_classes": [2, 3]}}, "space: num_classes can't vary with predictors"),
    ],
)
def test_channels_and_classes_are_those_of_the_images(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        search_from({**FIELDS, **changes})
    costs = {"macs": "lower", "params": "higher"}
    assert Space(search_from({**FIELDS, **changes, "objectives": costs})).genes


@pytest.mark.parametrize(
    ("predictors", "said"),
    [
        ({"batch_size": 8}, "predictors: batch_size = 8 leaves classes without an image; use at least 10"),
        ({"data": {"name": "fashion_mnist", "root": "nowhere"}}, "nowhere"),
        ({"data": {"name": "folder", "resolution": 32, "root": "~nobody-here/x"}}, "home folder in '~nobody-here/x'"),
        ({"data": {"name": "digits", "resolution": 32, "root": "."}}, "has no root; remove root"),
    ],
)
@pytest.mark.parametrize("more", [["--dry-run"], []], ids=["dry run", "run"])
def test_images_that_can_not_be_loaded_are_refused_by_a_dry_run_as_by_a_run(
    more: list[str], predictors: Mapping[str, Any], said: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(json.dumps({**FIELDS, "predictors": predictors}))
    assert main(["small.yaml", "--out", "out", *more]) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split()) and "Traceback" not in error
    assert not Path("out").exists()


def test_other_images_and_costs_alone_give_other_and_equal_digests() -> None:
    def digest(**changes: Any) -> str:
        return Search("x", search_from({**FIELDS, **changes}), Path()).digest

    assert digest() == digest(predictors={"batch_size": 32}) != digest(predictors={"batch_size": 64})


def test_kept_scores_survive_lines_of_killed_processes(tmp_path: Path) -> None:
    choice = BatchChoice()
    first, second = KeptScores(tmp_path, choice), KeptScores(tmp_path, choice)
    first.add("a", {"snip": 1.5})
    assert second.find("a") == {"snip": 1.5}
    [path] = tmp_path.iterdir()
    with path.open("a") as file:
        file.write('["b", {"snip": "x"}]\n[1\n["c", {"sni')
    assert KeptScores(tmp_path, choice).find("b") == {}
    assert KeptScores(tmp_path, choice).find("a") == {"snip": 1.5}
    assert KeptScores(tmp_path, BatchChoice(seed=1)).find("a") == {}


def test_the_command_prints_costs_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY.to_yaml())
    assert main(["score", str(file), "--predictors", "synflow,naswot", "--csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    batch, classes = load_batch(BatchChoice())
    assert float(row["synflow"]) == score_config(TINY, ["synflow"], batch, classes, 0)["synflow"]
    assert set(row) == {"network", "params", "macs", "activations", "synflow", "naswot"}
    assert main(["score", str(file), "--predictors", "synflow"]) == 0
    assert "SynFlow" in capsys.readouterr().out


def test_the_table_of_all_scores_fits_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One column for each network, so that no label and no number is broken."""
    monkeypatch.setenv("COLUMNS", "80")
    scores = dict.fromkeys(PREDICTORS, -1234.5678)
    monkeypatch.setattr("hrvit_lab.search.score_command.score_config", lambda *_: scores)
    files = [tmp_path / name for name in ("tiny.yaml", "another.yaml")]
    for file in files:
        file.write_text(TINY.to_yaml())
    monkeypatch.chdir(tmp_path)
    assert main(["score", *(file.name for file in files)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for predictor in PREDICTORS.values():
        [line] = [line for line in lines if line.strip().startswith(predictor.label + " ")]
        assert line.split()[-2:] == ["-1235", "-1235"]
    [head] = [line for line in lines if "tiny.yaml" in line]
    assert head.split() == ["tiny.yaml", "another.yaml"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["score"], "CONFIG"),
        (["score", "hrvit_nono"], "hrvit_nono"),
        (["score", "hrvit_nano", "--predictors", "zicco"], "unknown predictor 'zicco'"),
        (["score", "hrvit_nano", "--data", "digit"], "unknown data set 'digit'"),
        (["score", "hrvit_nano", "--batch-size", "4"], "leaves classes without an image"),
        (["score", "hrvit_nano", "--resolution", "8"], "too small"),
        (["score", "timm:resnet18", "--predictors", "dss"], "supports HRViTs only"),
    ],
)
def test_a_bad_request_is_one_sentence(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
