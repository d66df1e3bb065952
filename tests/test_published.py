"""Published figures as data, and the table of a study that compares ours with them."""

import csv
import doctest
import io
import json
import re
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from hrvit_lab import published
from hrvit_lab.config import ConfigError, preset
from hrvit_lab.cost.count import count
from hrvit_lab.metrics import METRICS, format_value
from hrvit_lab.published import GIGA, MEGA, by_key, rounds_to
from hrvit_lab.study import columns, show
from hrvit_lab.study.__main__ import main
from hrvit_lab.study.analysis import table
from hrvit_lab.study.columns import comparisons
from hrvit_lab.study.files import load_study
from hrvit_lab.study.report.page import render
from hrvit_lab.study.report.summary import summary
from hrvit_lab.study.report.table import headings, table_columns
from hrvit_lab.study.results import read_results
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.trials import plan


@pytest.mark.parametrize("module", [published, show, columns])
def test_docstring_examples(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted and not done.failed


def test_every_row_has_a_unique_key_and_complete_figures() -> None:
    results = published.published_results()
    assert len(results) == 37 and len(by_key()) == 37 + len(published.published_ablations())
    assert {row.source for row in results} == {"HRViT release", "CSWin release", "SegFormer paper", "HRFormer release"}
    for row in results:
        assert row.metric in ("top1", "miou") and 30 < row.value < 90
        assert row.params_m is None or 3 < row.params_m < 110
    upernet = by_key()["hrvit_b1 ade20k upernet"]
    assert isinstance(upernet, published.PublishedResult)
    assert (upernet.value, upernet.params_m, upernet.gflops) == (Decimal("47.19"), Decimal("35.9"), Decimal(219))


@pytest.mark.parametrize(
    ("count", "printed", "unit", "same"),
    [
        (219_499_999_999, "219", GIGA, True),
        (219_500_000_001, "219", GIGA, False),
        (13_749_999, "13.7", MEGA, True),
        (13_750_001, "13.7", MEGA, False),
        (50_249_999, "50.2", MEGA, True),
    ],
)
def test_rounding_is_to_the_printed_digit(count: int, printed: str, unit: Decimal, same: bool) -> None:
    assert rounds_to(count, Decimal(printed), unit) is same


def spec(**fields: Any) -> Spec:
    shared = {"title": "t", "question": "q?", "base": "hrvit_nano", "resolution": 64, "data": {"resolution": 32}}
    return Spec.model_validate(shared | fields)


def tabulate(study: Spec, top1: dict[str, dict[int, float]]) -> pd.DataFrame:
    """The study's table for given accuracies of every variant by seed; costs are computed."""
    variants = expand(study).variants
    planned = plan(study, variants, "chip")
    records = {}
    for name, trials in planned.items():
        for trial in trials:
            costs = count(trial.inputs.config, trial.inputs.resolution)
            values = {key: getattr(costs, key) for key in ("params", "macs", "macs_paper")}
            if trial.group == "accuracy":
                if trial.inputs.seed not in top1[name]:
                    continue
                values = {"top1": top1[name][trial.inputs.seed]}
            records[trial.key] = {"status": "ok", "values": values}
    return table(study, variants, planned, records).set_index("variant")


def test_differences_are_paired_by_seed() -> None:
    """Seeds 0, 1, 2 differ by 1, 2 and 6: mean 3, standard deviation √7; seed 3 has no counterpart."""
    study = spec(grid={"window_sizes": [1, 2]}, metrics=["top1"], seeds=[0, 1, 2, 3])
    accuracies = {"window_sizes=1": {0: 50.0, 1: 80.0, 2: 60.0}, "window_sizes=2": {0: 51.0, 1: 82.0, 2: 66.0, 3: 99.0}}
    frame = tabulate(study, accuracies)
    other = frame.loc["window_sizes=2"]
    assert other["top1_delta"] == pytest.approx(3)
    assert other["top1_delta_se"] == pytest.approx(np.sqrt(7) / np.sqrt(3))
    assert other["top1_delta_n"] == 3
    assert frame["top1_delta"].isna().tolist() == [True, False]


def test_the_base_is_the_reference_at_any_position() -> None:
    study = spec(grid={"drop_rate": [0.1, 0.0]}, metrics=["top1"])
    frame = tabulate(study, {"drop_rate=0.1": {0: 40.0}, "drop_rate=0.0": {0: 42.5}})
    assert frame.loc["drop_rate=0.1", "top1_delta"] == -2.5
    assert frame["top1_delta"].isna().tolist() == [False, True]
    chosen = spec(grid={"drop_rate": [0.1, 0.0]}, metrics=["top1"], compare_to="drop_rate=0.1")
    assert tabulate(chosen, {"drop_rate=0.1": {0: 40.0}, "drop_rate=0.0": {0: 42.5}})["top1_delta"].tolist()[1] == 2.5


ABLATION: dict[str, Any] = {
    "cost_base": {"preset": "hrvit_b1", "num_classes": 19},
    "compare_to": "whole",
    "variants": [
        {"name": "whole", "set": {}},
        {"name": "sparse", "set": {"fusion": "sparse"}, "published": "ablation sparse fusion"},
        {"name": "dense", "set": None, "published": "ablation dense patch embedding", "note": "later"},
    ],
    "metrics": ["params", "macs_paper", "top1"],
    "seeds": [0, 1],
}


def test_costs_and_accuracies_can_be_of_different_networks() -> None:
    study = spec(**ABLATION)
    whole, sparse = expand(study).variants
    assert whole.config.id == preset("hrvit_nano").id
    assert sparse.config.id == preset("hrvit_nano").replace(fusion="sparse").id
    frame = tabulate(study, {"whole": {0: 50.0, 1: 52.0}, "sparse": {0: 49.0, 1: 49.0}})
    b1 = preset("hrvit_b1").replace(num_classes=19)
    counts, thinner = count(b1, 64), count(b1.replace(fusion="sparse"), 64)
    assert frame.loc["whole", "params"] == counts.params
    assert frame.loc["sparse", "macs_paper"] == thinner.macs_paper
    assert frame.loc["sparse", "params_change_percent"] == pytest.approx(100 * (thinner.params / counts.params - 1))
    assert frame.loc["sparse", "top1_delta"] == -2
    assert frame.loc["sparse", "imagenet_top1_delta_published"] == "-0.57"
    assert frame.loc["dense", "params_change_percent_published"] == 22
    assert frame.loc["dense", "status"] == "not built here"
    assert not frame["pareto"].any()
    titles = [column.title for column in comparisons(study, frame.reset_index())]
    assert "Δ ImageNet top-1, published" in titles and "Δ top-1 on digits (proxy)" in titles


def shown(study: Spec, frame: pd.DataFrame, terminal_width: int) -> list[str]:
    """The lines of a study's table in a terminal."""
    console = Console(file=io.StringIO(), width=terminal_width)
    console.print(show.result_table(study, frame, terminal_width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("terminal_width", "blocks"), [(40, 5), (80, 2), (120, 1)])
def test_a_table_fits_any_terminal(terminal_width: int, blocks: int) -> None:
    study = spec(**ABLATION)
    frame = tabulate(study, {"whole": {0: 50.0, 1: 52.0}, "sparse": {0: 49.0, 1: 49.0}}).reset_index()
    lines = shown(study, frame, terminal_width)
    assert max(map(len, lines)) <= terminal_width
    of_whole = [line for line in lines if line.startswith(" whole")]
    assert len(of_whole) == blocks
    params, macs, *_ = (format_value(METRICS[key], frame[key][0]) for key in ("params", "macs_paper"))
    assert re.split(r"  +", "  ".join(of_whole).replace("whole", "").strip())[:3] == [params, macs, "51.0 ± 1.4 %"]
    text = " ".join(" ".join(lines).split())
    for figure in (
        f"{frame['params_change_percent'][1]:+.1f} %",
        "49.0 ± 0.0 %",
        "-2.0 [-14.7, +10.7]",
        "-0.57",
        "-0.37",
    ):
        assert figure in text, figure
    for word in ("Cityscapes", "published", "proxy", "cheaper", "parameters,"):
        assert word in text, word


def test_a_table_with_only_latencies_says_how_they_were_measured() -> None:
    study = spec(grid={"drop_rate": [0.0, 0.1]}, metrics=["latency_ms"])
    text = " ".join(shown(study, tabulate(study, {}).reset_index(), 120))
    assert "Latency: cpu, batch 1, float32, 64×64, median" in " ".join(text.split())


def test_a_zero_difference_has_no_minus_sign() -> None:
    study = spec(grid={"drop_rate": [0.0, 0.1]}, metrics=["top1"], seeds=[0, 1], compare_to="drop_rate=0.0")
    frame = tabulate(study, {"drop_rate=0.0": {0: 96.1, 1: 97.2}, "drop_rate=0.1": {0: 97.2 - 1e-12, 1: 96.1}})
    [column] = comparisons(study, frame.reset_index())
    assert column.texts == ["–", "+0.0 [-14.0, +14.0]"]


def test_headings_of_the_report_are_above_their_columns(tmp_path: Path) -> None:
    study = spec(**ABLATION)
    frame = tabulate(study, {"whole": {0: 50.0, 1: 52.0}, "sparse": {0: 49.0, 1: 49.0}}).reset_index()
    frame.to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "study.yaml").write_text(study.to_yaml(), encoding="utf-8")
    results = read_results(tmp_path)
    columns = table_columns(results, comparisons(results.spec, results.table))
    heads = [(group, [(place, column.head) for place, column in members]) for group, members in headings(columns)]
    assert heads == [
        ("parameters", [(1, "ours"), (2, "Δ")]),
        ("MACs, the paper's count", [(3, "ours"), (4, "Δ")]),
        ("top-1 on digits (proxy)", [(5, "ours"), (6, "Δ")]),
        ("published", [(7, "Δ cost"), (8, "Δ ImageNet top-1"), (9, "Δ Cityscapes mIoU")]),
    ]
    assert [column.cells[1][0] for column in columns[4:6]] == ["49.0 ± 0.0 %", "-2.0 [-14.7, +10.7]"]
    page = render(results, {})
    assert page.count("data-sort=") == 1 + len(columns)


def test_the_summary_distinguishes_differences_from_noise() -> None:
    study = spec(grid={"drop_rate": [0.0, 0.1, 0.2]}, metrics=["top1"], seeds=[0, 1, 2], compare_to="drop_rate=0.0")
    accuracies = {
        "drop_rate=0.0": {0: 50.0, 1: 51.0, 2: 52.0},
        "drop_rate=0.1": {0: 45.0, 1: 46.2, 2: 46.8},  # −5.0 ± 0.12
        "drop_rate=0.2": {0: 48.0, 1: 52.0, 2: 51.0},  # −0.7 ± 0.9
    }
    first, other = summary(tabulate(study, accuracies).reset_index(), "digits", "drop_rate=0.0")
    assert (
        "1 of 2 variants differs significantly" in first
        and "drop_rate=0.1 (-5.0 points)" in first
        and "drop_rate=0.2" not in first
    )
    assert other == "No effect of the other was detected at this training budget."
    accuracies["drop_rate=0.1"] = {0: 46.0, 1: 47.9, 2: 46.0}  # p = 0.036 alone, 0.073 corrected for two comparisons
    first, none, alone = summary(tabulate(study, accuracies).reset_index(), "digits", "drop_rate=0.0")
    assert "0 of 2 variants differ" in first and none == "No effect was detected at this training budget."
    assert "1 of these" in alone and "drop_rate=0.1 (-4.4 points)" in alone and "up to 10 % of such studies" in alone


PUBLISHED: dict[str, Any] = {
    "title": "t",
    "question": "q?",
    "base": "hrvit_b1",
    "variants": [
        {"name": "b1", "set": {}, "resolution": 224, "published": "hrvit_b1 imagenet-1k hrnet", "note": "a note"},
        {"name": "b1 at 64", "set": {}, "published": "hrvit_b1 imagenet-1k hrnet"},
        {"name": "other", "set": None, "published": "hrformer_tiny imagenet-1k"},
    ],
    "metrics": ["params", "macs", "macs_paper"],
    "resolution": 64,
}


def test_a_study_of_published_rows_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "rows.yaml"
    study.write_text(json.dumps(PUBLISHED))
    assert main([str(study), "--out", str(tmp_path), "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.split("note: ")[0].splitlines()[1:])) <= 120
    assert "note: b1: a note" in shown
    with (tmp_path / "rows" / "table.csv").open() as file:
        b1, small, other = csv.DictReader(file)
    assert (b1["resolution"], small["resolution"], other["resolution"]) == ("224×224", "64×64", "")
    assert float(b1["macs"]) == 2_775_573_440 and float(b1["macs_published"]) == 2.7e9
    assert (b1["params_agrees"], b1["macs_agrees"], b1["macs_paper_agrees"]) == ("True", "False", "True")
    assert float(b1["macs_difference_percent"]) == pytest.approx(2.7990, abs=1e-4)
    assert small["macs_paper_agrees"] == "False"
    assert (other["params"], other["params_published"], other["status"]) == ("", "8000000", "not built here")
    assert load_study(tmp_path / "rows" / "study.yaml") == load_study(study)
    results = read_results(tmp_path / "rows")
    assert not results.comparable
    params, flops = summary(results.table, "digits")
    assert params.startswith("Published parameters: our values equal 2 of 2 when rounded")
    assert flops.startswith(
        "Published FLOPs, counted by the convention of each source: our values equal 1 of 2 when rounded"
    )  # b1, as the paper counts


@pytest.mark.parametrize(
    ("fields", "fragments"),
    [
        ({"variants": [{"name": "a", "published": "hrvit_b1 ade20k"}]}, ["no published row", "hrvit_b1 ade20k"]),
        ({"variants": [{"name": "a", "set": None}]}, ["set is null in all variants"]),
        ({"variants": [{"name": "a", "resolution": 128}], "match": "equal macs"}, ["match can't be combined"]),
        ({"grid": {"branches": [1]}, "cost_base": "hrvit_b1", "match": "equal macs"}, ["match can't be combined"]),
        ({"grid": {"branches": [1]}, "cost_base": "hrvit_b9"}, ["cost_base", "hrvit_b1"]),
        ({"grid": {"branches": [1, 2]}, "compare_to": "branches=3"}, ["compare_to = 'branches=3'", "'branches=2'"]),
        ({"grid": {"branches": [1, 4]}, "compare_to": "branches=4", "resolution": 16}, ["is excluded", "16×16", "32"]),
    ],
)
def test_a_wrong_reference_is_reported_in_one_sentence(
    tmp_path: Path, fields: dict[str, Any], fragments: list[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"title": "t", "question": "q?", "base": "hrvit_nano", **fields}))
    with pytest.raises(ConfigError) as caught:
        expand(load_study(path))
    assert "\n" not in str(caught.value)
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []
