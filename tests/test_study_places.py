"""Hosts and devices of finished trials: shown by status, report and ``measured_in.json``, and absent from copies."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_report import Page

from hrvit_lab.study.__main__ import main
from hrvit_lab.study.files import spec_from
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.places import places, said
from hrvit_lab.study.reporting import plan_under
from hrvit_lab.study.space import expand
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import in_order

pytestmark = pytest.mark.usefixtures("blank_figures")

CONDITIONS = {"hardware": "a chip", "versions": {"torch": "9.9.9", "timm": "9.9.9"}}
PLACES = [("vm", "cpu"), ("node7", "cuda:1"), ("node7", "cuda:1"), ("node7", "cuda:0")]


def study_in(out: Path, where: list[tuple[str, str]], failed: int = 0) -> Path:
    """The folder of a study with a record for each place; an empty place is that of an older version. The last ones
    failed."""
    fields: dict[str, Any] = {"title": "T", "question": "Q?", "base": "hrvit_nano", "resolution": 32}
    fields |= {"grid": {"stem_width": list(range(8, 8 + 8 * len(where), 8))}, "metrics": ["params", "peak_memory_mib"]}
    spec = spec_from(fields)
    store = Store(out)
    store.create()
    trials = in_order(plan_under(CONDITIONS, spec, expand(spec)))
    for index, (trial, (host, device)) in enumerate(zip(trials, where, strict=True)):
        ok = index < len(where) - failed
        outcome: dict[str, Any] = {
            "status": "ok" if ok else "failed", "reason": "" if ok else "no memory", "started": 1.7e9, "seconds": 3.5,
            "values": {metric.key: 12.5 + index for metric in GROUPS["memory"].metrics} if ok else {},
            "environment": {**CONDITIONS, "date_utc": "2026-01-01"},
        }  # fmt: skip
        store.save(trial.head() | outcome | ({"host": host, "on_device": device} if host else {}))
    folder = out / "s"
    folder.mkdir()
    (folder / "study.yaml").write_text(spec.to_yaml())
    (folder / "environment.json").write_text(json.dumps(CONDITIONS))
    return folder


def hosts_in(folder: Path) -> set[str]:
    """The files of a folder that name a host."""
    return {path.name for path in folder.rglob("*") if path.is_file() and b"node7" in path.read_bytes()}


def test_status_report_and_environments_say_where_trials_ran_and_copies_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study_in(tmp_path / "out", PLACES)
    out = ["--out", str(tmp_path / "out")]
    assert main(["status", "s", *out]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["s: 4 trials: 4 done.", "done: 2 on node7, cuda:1; 1 on node7, cuda:0; 1 on vm, cpu"]
    assert main(["report", "s", *out]) == 0
    [there] = json.loads((folder / "measured_in.json").read_text())
    assert there["trials"] == {"memory": 4}
    assert there["trials_on"] == {"node7, cuda:1": 2, "node7, cuda:0": 1, "vm, cpu": 1}
    text = Page((folder / "report.html").read_text(encoding="utf-8")).all_text
    assert "trials on node7, cuda:1 2" in text and "trials on vm, cpu 1" in text
    assert hosts_in(folder) == {"measured_in.json", "report.html"}

    copy = tmp_path / "copy"
    for records in ("of the store", "in the folder's files"):
        assert main(["report", "s", *out, "--into", str(copy)]) == 0, records
        assert hosts_in(copy) == set() and (copy / "report.html").exists()
        [kept] = json.loads((copy / "measured_in.json").read_text())
        assert there.keys() - kept.keys() == {"trials_on"}
        for path in (tmp_path / "out" / "trials").glob("*.json"):
            path.unlink()
    assert hosts_in(folder) == {"measured_in.json", "report.html"}


def test_equal_records_of_other_hosts_have_equal_results(tmp_path: Path) -> None:
    written = []
    for name, where in {"local": [("vm", "cpu")] * 4, "cluster": PLACES, "older": [("", "")] * 4}.items():
        folder = study_in(tmp_path / name, where)
        assert main(["report", "s", "--out", str(tmp_path / name)]) == 0
        [there] = json.loads((folder / "measured_in.json").read_text())
        assert ("trials_on" in there) is (name != "older")
        there.pop("trials_on", None)
        written.append(((folder / "table.csv").read_bytes(), there))
    assert written[0] == written[1] == written[2]


def test_only_finished_trials_count_and_an_older_record_has_no_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_in(tmp_path / "some", [("vm", "cpu"), ("", ""), ("vm", "cpu"), ("node7", "cpu")], failed=1)
    assert main(["status", "s", "--out", str(tmp_path / "some")]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[:2] == ["s: 4 trials: 3 done, 1 failed.", "done: 2 on vm, cpu; 1 on an unknown host"]
    study_in(tmp_path / "older", [("", "")] * 2)
    assert main(["status", "s", "--out", str(tmp_path / "older")]) == 0
    assert capsys.readouterr().out == "s: 2 trials: 2 done.\n"


def test_a_device_is_not_always_known() -> None:
    assert places([{"host": "a"}, {"host": "b", "on_device": "cpu"}, {"on_device": ""}, {"host": "a"}]) == {
        "a": 2, "": 1, "b, cpu": 1,
    }  # fmt: skip
    assert said({}) == said({"": 3}) == ""
