"""The report: correct values, justified sentences, and no script from an untrusted study file."""

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hrvit_lab.config import ConfigError
from hrvit_lab.cost.count import count
from hrvit_lab.study import results
from hrvit_lab.study.folder import write_results
from hrvit_lab.study.report.figures import costs_by_part
from hrvit_lab.study.report.page import MAX_ROWS
from hrvit_lab.study.report.summary import remarks, summary, unfinished
from hrvit_lab.study.results import read_results
from hrvit_lab.study.space import expand
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.statistics import against_best

HOSTILE = "<script>alert(1)</script><img src=//evil.test onerror=alert(2)>{{ 7 * 7 }}\" onload='x'"


def write_study(folder: Path, top1: tuple[float, ...] = (88.0, 92.0, 92.3), std: float = 0.5, **changes: Any) -> Path:
    """A study's folder as a run writes it: computed costs, artificial accuracies."""
    fields = {
        "title": "How many branches?",
        "question": "Do branches pay?",
        "base": "hrvit_nano",
        "grid": {"branches": [1, 2, 3]},
        "metrics": ["params", "macs", "top1"],
        "seeds": [0, 1, 2],
        "resolution": 32,
    }
    spec = Spec.model_validate(fields | changes)
    variants, _ = expand(spec)
    rows = []
    seeds = [
        {seed: value + std * place for seed, place in enumerate(places)}
        for value, places in zip(top1, ((-1, 0, 1), (1, -1, 0), (0, 1, -1)), strict=True)
    ]
    for variant, value, below in zip(variants, top1, against_best(seeds), strict=True):
        costs = count(variant.config, spec.resolution)
        rows.append(
            {"variant": variant.name, "config_id": variant.config.id, **variant.point, "params": costs.params}
            | {
                "macs": costs.macs,
                "top1": value,
                "top1_std": std,
                "top1_n": 3,
                "top1_below_best": below.mean,
                "top1_below_best_p": below.p,
                "status": "ok",
                "pareto": True,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    curves = [
        {
            "variant": v.name,
            "seed": s,
            "epoch": e,
            "train_loss": 1,
            "train_top1": 80 + e,
            "val_loss": 1,
            "val_top1": 79 + e,
        }
        for v in variants
        for s in (0, 1, 2)
        for e in (0, 1)
    ]
    pd.DataFrame(curves).to_csv(folder / "curves.csv", index=False)
    (folder / "study.yaml").write_text(spec.to_yaml(), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({"cpu": "a processor", "versions": {"torch": "2.x"}}))
    configs = {variant.name: variant.config.to_dict() for variant in variants}
    (folder / "configs.json").write_text(json.dumps(configs))
    return folder


def written(folder: Path) -> str:
    """The report's HTML, made from the files in the folder."""
    return Path(write_results(folder, read_results(folder))["report"]).read_text(encoding="utf-8")


class Page(HTMLParser):
    """A parsed page: elements, their attributes, scripts and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts and not self.scripts[-1]:
            self.scripts[-1] = data
        else:
            self.text.append(data)

    @property
    def all_text(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_the_report_contains_the_figures_of_the_study(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "branches")
    page = Page(written(folder))
    assert (folder / "report.html").is_file()
    for said in (
        "Do branches pay?",
        "92.3 ± 0.5 %",
        "0, 1, 2",
        "a processor",
        "python -m hrvit_lab.study branches",
    ):
        assert said in page.all_text
    assert sum(tag == "svg" for tag, _ in page.elements) == 5  # two trade-offs, the axis, parts, training
    assert "Accuracy here is a proxy: short training from scratch on digits" in page.all_text
    assert "top-1 on digits (proxy)" in page.all_text


@pytest.mark.usefixtures("blank_figures")
def test_a_long_table_is_shortened_but_contains_the_front(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    row = pd.read_csv(folder / "table.csv").iloc[[0]]
    long = pd.concat([row] * (MAX_ROWS + 5), ignore_index=True)
    long["variant"] = [f"v{index}" for index in range(len(long))]
    long["pareto"] = long.index >= MAX_ROWS
    long.to_csv(folder / "table.csv", index=False)
    page = written(folder)
    shown = re.findall(r'<td class="name" data-value="([^"]*)"', page)
    assert shown == [f"v{index}" for index in [*range(MAX_ROWS - 5), *range(MAX_ROWS, MAX_ROWS + 5)]]
    assert f"Shown: {MAX_ROWS:,} of {MAX_ROWS + 5:,} variants" in page and f"{MAX_ROWS + 5} variants" in page


@pytest.mark.usefixtures("blank_figures")
def test_latency_is_shown_with_its_spread(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", metrics=["macs", "latency_ms"])
    table = pd.read_csv(folder / "table.csv")
    table[["latency_ms", "latency_ms_p10", "latency_ms_p90"]] = [[12.34, 11.9, 13.07]] * 3
    table.to_csv(folder / "table.csv", index=False)
    assert "12.3 ms (11.9–13.1)" in Page(written(folder)).all_text


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The HTML of a usual study's report, with all its figures."""
    return written(write_study(tmp_path_factory.mktemp("usual") / "s"))


def test_the_report_has_no_external_resources(usual: str) -> None:
    assert "://" not in usual
    for _, attributes in Page(usual).elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#")


def test_ids_are_unique_and_references_are_valid(usual: str) -> None:
    page = Page(usual)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    references = [attributes["xlink:href"] for _, attributes in page.elements if "xlink:href" in attributes]
    assert len(ids) == len(set(ids))
    assert references and {str(reference)[1:] for reference in references} <= set(ids)


def test_the_security_policy_allows_only_our_script(usual: str) -> None:
    page = Page(usual)
    [policy] = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_hostile_study_files_are_shown_as_text(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s", title=HOSTILE, question=HOSTILE)
    table = pd.read_csv(folder / "table.csv").astype({"status": object, "branches": object})
    table.loc[1, ["variant", "status", "config_id", "branches"]] = [
        HOSTILE,
        f"failed: {HOSTILE}",
        HOSTILE,
        HOSTILE,
    ]
    table["note"] = HOSTILE
    table.to_csv(folder / "table.csv", index=False)
    curves = pd.read_csv(folder / "curves.csv")
    curves.assign(variant=HOSTILE).to_csv(folder / "curves.csv", index=False)
    (folder / "environment.json").write_text(json.dumps({HOSTILE: HOSTILE, "command": HOSTILE}))
    (folder / "dropped.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    page = Page(written(folder))
    assert [tag for tag, _ in page.elements if tag in ("script", "img", "iframe", "object")] == ["script"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.all_text.count(HOSTILE) >= 8


@pytest.mark.parametrize(
    ("top1", "std", "expected", "absent"),
    [
        ((88, 92.0, 92.3), 0.5, "significantly better than 1 of 2 other networks (5 % level): branches=1.", "each of"),
        ((88, 92.0, 92.3), 0.5, "Of these 2 networks, branches=2 has the fewest MACs: 92.0 ± 0.5 % at", "each of"),
        ((88, 90.0, 95.0), 0.5, "better than each of the 2 other networks (5 % level)", "not significant"),
        ((88, 90.0, 95.0), 0.5, "The second best, branches=2, is 5.0 points lower", "not significant"),
        ((92.4, 92.0, 92.3), 0.5, "better than none of 2 other networks (5 % level).", "each of"),
        ((92.4, 92.0, 92.3), 0.5, "Of these 3 networks, it also has the fewest MACs: ", "each of"),
        ((88, 92.0, 92.3), float("nan"), "at least two seeds", "5 % level"),
    ],
)
def test_the_summary_claims_only_significant_differences(
    tmp_path: Path, top1: tuple[float, ...], std: float, expected: str, absent: str
) -> None:
    kept = read_results(write_study(tmp_path / "s", top1, std))
    said = " ".join(summary(kept.table, "digits"))
    assert expected in said and absent not in said
    assert f"Highest mean top-1 on digits (a proxy): branches={top1.index(max(top1)) + 1}" in said


def test_the_summary_without_training_is_about_costs(tmp_path: Path) -> None:
    table = read_results(write_study(tmp_path / "s")).table.drop(columns="top1")
    said = summary(table, "digits")
    assert "(branches=1)" in said[0] and "(branches=3)" in said[0]
    assert said[-1] == "No network was trained, so there are no accuracies."


def test_one_trained_variant_is_not_ranked(tmp_path: Path) -> None:
    table = read_results(write_study(tmp_path / "s")).table.head(1)
    assert "there is no comparison" in " ".join(summary(table, "digits"))


def test_remarks_name_failures_notes_and_dropped(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    table = pd.read_csv(folder / "table.csv")
    table["note"] = [None, "far from the base", None]
    table.loc[0, "status"] = "failed: accuracy (seed 1): loss is not finite"
    table.loc[2, "status"] = "partial"
    table.to_csv(folder / "table.csv", index=False)
    (folder / "dropped.json").write_text(json.dumps({"branches=5": "too many MACs"}))
    assert str(unfinished(read_results(folder).table)).startswith("1 of 3 variants is not finished, so Pareto fronts")
    assert unfinished(table.head(2)) is None
    assert remarks(read_results(folder)) == [
        ("branches=1", "failed: accuracy (seed 1): loss is not finite"),
        ("branches=3", "not finished"),
        ("branches=2", "far from the base"),
        ("branches=5", "not measured: too many MACs"),
    ]


def test_costs_by_part_sum_to_the_tables_macs(tmp_path: Path) -> None:
    kept = read_results(write_study(tmp_path / "s"))
    sums = costs_by_part(kept).sum(axis=1)
    assert sums.tolist() == kept.table["macs"].tolist()
    assert sums.index.tolist() == kept.table["variant"].tolist()


NESTED = "environment.json is left out: it is nested more than 20 deep"


def spoil(folder: Path, name: str, content: str | None) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_text(content)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("table.csv", None, "there is no s/table.csv; run the study first"),
        ("table.csv", "", "s/table.csv can't be read: it has no column 'variant'"),
        ("table.csv", "a,b\n1,2\n", "s/table.csv can't be read: it has no column 'variant'"),
        ("table.csv", "variant,macs\n", "s/table.csv can't be read: it has no rows"),
        ("table.csv", "variant,macs\n,3\n", "s/table.csv can't be read: no row has a variant name"),
        ("study.yaml", "title: [", "not valid YAML"),
        ("study.yaml", None, "study.yaml cannot be read"),
    ],
)
def test_broken_folders_are_reported_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, expected: str
) -> None:
    folder = write_study(tmp_path / "s")
    spoil(folder, name, content)
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")) as error:
        read_results(folder)
    assert "\n" not in str(error.value)


def test_the_size_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_study(tmp_path / "s")
    monkeypatch.setattr(results, "MAX_FILE_BYTES", 50)
    with pytest.raises(ConfigError, match="larger than"):
        read_results(folder)


@pytest.mark.usefixtures("blank_figures")
def test_unreadable_configs_are_ignored(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    configs = json.loads((folder / "configs.json").read_text())
    configs["branches=1"] = {"widths": "nonsense"}
    configs["branches=2"] = ["of", "another", "shape"]
    (folder / "configs.json").write_text(json.dumps(configs))
    assert costs_by_part(read_results(folder)).index.tolist() == ["branches=3"]
    assert "macs_by_part" in written(folder)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("environment.json", "{", "environment.json is left out: it is not JSON"),
        ("environment.json", "[1, 2]", "environment.json is left out: its content has the wrong type"),
        ("environment.json", '{"cpu": NaN}', "environment.json is left out: NaN is not JSON"),
        ("environment.json", "[" * 100_000, "environment.json is left out: it is not JSON"),
        (
            "environment.json",
            '{"a":' * 50 + "1" + "}" * 50,
            "environment.json is left out: it is nested more than 20 deep",
        ),
        ("configs.json", "[" * 100_000, "configs.json is left out: it is not JSON"),
        ("dropped.json", '"all of them"', "dropped.json is left out: its content has the wrong type"),
        ("measured_in.json", "{}", "measured_in.json is left out: its content has the wrong type"),
        ("curves.csv", "variant,seed\nbranches=1,0\n", "curves.csv is left out: it has no column 'epoch'"),
        ("curves.csv", None, "there is no curves.csv: training curves are missing"),
    ],
)
@pytest.mark.usefixtures("blank_figures")
def test_invalid_files_beside_the_table_are_ignored_and_reported_once(
    tmp_path: Path, name: str, content: str | None, fault: str
) -> None:
    folder = write_study(tmp_path / "s")
    spoil(folder, name, content)
    assert list(read_results(folder).faults) == [fault]
    assert Page(written(folder)).all_text.count(fault) == 1


@pytest.mark.slow
def test_the_cost_of_a_report_grows_no_faster_than_its_rows(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "s")
    rows = pd.read_csv(folder / "table.csv")

    def seconds(number: int) -> float:
        """CPU time to read a table of this many rows and to write its report."""
        table = pd.concat([rows] * (-(-number // len(rows))), ignore_index=True)[:number]
        table["variant"] = [f"variant {index}" for index in range(number)]
        table["top1"] = [50 + index % 97 / 3 for index in range(number)]
        table.to_csv(folder / "table.csv", index=False)
        start = time.process_time()
        write_results(folder, read_results(folder))
        return time.process_time() - start

    few, many = (min(seconds(number) for _ in range(2)) for number in (1_000, 8_000))
    assert many < 8 * few
