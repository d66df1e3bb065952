"""Every command under the conditions in which people run it: other encodings, terminals, pipes, Ctrl-C, full disks."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from forked import Command
from test_cost import in_terminal

from hrvit_lab import __main__ as root
from hrvit_lab.environment import command_line
from hrvit_lab.search import space_size
from hrvit_lab.study.files import load_study, study_file
from hrvit_lab.study.sweep import prepare

ROOT = Path(__file__).resolve().parent.parent

COSTS = """
title: What does a branch cost – 枝 – ψ?
question: How many parameters does each branch add – ★?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [1, 2]}
metrics: [params, macs]
resolution: 32
"""
COMMANDS = {
    "cost": ("cost hrvit_nano --by stage", 0),
    "cost, invalid": ("cost hrvit_nanö", 2),
    "latency": ("latency hrvit_nano --resolution 32 --max-seconds 0.1 --precision 99 --threads 1", 0),
    "latency, invalid": ("latency nö", 2),
    "train": ("train hrvit_nano --epochs 1 --train-limit 64 --out trained", 0),
    "train, invalid": ("train hrvit_nano --data zïffern", 2),
    "list": ("study --list", 0),
    "data list": ("data list", 0),
    "train list": ("train list", 0),
    "dry run": ("study costs.yaml --dry-run", 0),
    "study": ("study costs.yaml", 0),
    "report": ("study report costs --into copy", 0),
    "study, invalid": ("study brünch", 2),
    "report, invalid": ("study report brünch", 2),
    **{f"{name} --help": (f"{name} --help", 0) for name in root.COMMANDS},
}
"""Arguments of ``hrvit-lab`` with their exit codes; ``costs.yaml`` and its results are in the working folder."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study and its results; not to be changed."""
    path = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        (path / "costs.yaml").write_text(COSTS, encoding="utf-8")
        assert root.main(["study", "costs.yaml"]) == 0
    return path


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test runs."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def and_slow(first: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """Cases of the default run, and cases that only a slow run adds."""
    cases = (other if isinstance(other, tuple) else (other,) for other in others)
    return [*first, *(pytest.param(*case, marks=pytest.mark.slow) for case in cases)]


def python(*arguments: str, shell: str = "", **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """A command in a separate process; ``shell`` is the text that follows it in bash."""
    line = f'set -o pipefail; "$@" {shell}'
    command = ["bash", "-c", line, "bash", sys.executable, "-m", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run(command, capture_output=True, timeout=250, env=environment)


# -- encodings -----------------------------------------------------------------------------------------------


# Every command in ASCII; in an encoding with some of the characters, the command that prints both kinds.
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *((name, "ascii") for name in COMMANDS if name != "latency"),
        *and_slow(
            [("dry run", "cp932")], [("latency", "ascii"), *((name, "cp932") for name in COMMANDS if name != "dry run")]
        ),
    ],
)
def test_unencodable_text_is_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, encoding: str) -> None:
    """Characters that the encoding lacks become question marks; the others are as in UTF-8."""
    arguments, code = COMMANDS[name]
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        assert root.main(arguments.split()) == code
    output, errors = (stream.buffer.getvalue().decode(encoding) for stream in streams)
    assert (not output, errors.count("\n")) == (bool(code), int(bool(code)))
    if name == "dry run":
        assert ("ψ" in output or "枝" in output or "×" in output) == (encoding == "cp932")
    if "invalid" in name:
        assert re.search(r"hrvit_nan\?|n\?|z\?ffern|br\?nch", errors)


def test_unencodable_text_of_the_design_space_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert space_size.main([]) == 0
    assert b"networks; exactly: " in stream.buffer.getvalue()


@pytest.mark.parametrize("name", and_slow(["study", "study, invalid"], ["cost", "list", "report", "cost --help"]))
def test_the_locale_c_without_utf8_mode(folder: Path, name: str) -> None:
    """Files and the command line are then in ASCII as well."""
    arguments, code = COMMANDS[name]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = python("hrvit_lab", *arguments.split(), **plain)
    assert done.returncode == code and b"Traceback" not in done.stderr, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert load_study(folder / "results" / "costs" / "study.yaml").title == "What does a branch cost – 枝 – ψ?"


@pytest.mark.parametrize("name", and_slow(["cost"], ["list", "dry run", "study"]))
def test_a_terminal_in_ascii(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shown = in_terminal([sys.executable, "-m", "hrvit_lab", *COMMANDS[name][0].split()], 80)
    assert shown.isascii() and "?" in shown and "Traceback" not in shown


def test_names_of_files_that_are_not_utf8(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = os.fsdecode(b"out\xff"), os.fsdecode(b"mine\xff.yaml")
    Path(config).write_text("preset: hrvit_nano\n")
    assert command_line(["x", "--out", out]) == r"x --out out\udcff"
    assert root.main(["cost", config]) == 0
    assert r"mine\udcff.yaml" in capsys.readouterr().out
    arguments = ["study", "costs.yaml", "--out", out]
    monkeypatch.setattr(sys, "argv", ["hrvit-lab", *arguments])
    assert root.main(arguments) == root.main(["study", "report", "costs", "--out", out]) == 0
    assert (Path(out) / "costs" / "report.html").is_file()


# -- closed streams ------------------------------------------------------------------------------------------


SHELLS = {">&-": {0}, "<&- >&- 2>&-": {0}, "| head -1": {0, 141}}
CLOSED = [("cost", ">&-"), ("report", "<&- >&- 2>&-"), ("study", "| head -1")]


@pytest.mark.parametrize(
    ("name", "shell"),
    and_slow(
        CLOSED,
        [
            (name, shell)
            for name in ("cost", "list", "dry run", "study", "report")
            for shell in SHELLS
            if (name, shell) not in CLOSED
        ],
    ),
)
def test_no_command_prints_a_traceback_if_a_stream_is_closed(folder: Path, name: str, shell: str) -> None:
    """With ``| head -1``, a command with little output may end before its reader."""
    codes = SHELLS[shell]
    done = python("hrvit_lab", *COMMANDS[name][0].split(), shell=shell)
    assert done.returncode in codes and done.stderr == b""
    if name == "report" and codes == {0}:
        assert (folder / "copy" / "report.html").is_file()


# -- Ctrl-C --------------------------------------------------------------------------------------------------


def interrupt(arguments: str, when: Callable[[int], bool], module: str = "hrvit_lab") -> tuple[int, str]:
    """Send SIGINT once ``when(pid)`` is true; returns the exit code and standard error."""
    process = Command(module, *arguments.split())
    until = time.monotonic() + 200
    while not when(process.pid) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode is not None
    return process.returncode, errors


@pytest.mark.parametrize(
    ("arguments", "file"),
    and_slow(
        # After the files of the second list a command ends within milliseconds, so that a busy machine can be too late.
        [("study costs.yaml --out new", "new/costs/study.yaml"), ("study report costs --into new", "new/study.yaml")],
        [("study costs.yaml --out new", "new/costs/figures"), ("study report costs --into new", "new/table.csv")],
    ),
)
def test_ctrl_c_while_results_are_drawn_or_written(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: str, file: str
) -> None:
    """The moment is when a certain file appears. No partial file and no lock is left, and the same command completes
    the study."""
    code, errors = interrupt(arguments, lambda _: (folder / file).exists())
    assert code == 130, errors
    assert re.fullmatch("interrupted.*\n", errors)
    assert not [path for path in folder.rglob("*") if path.suffix in (".tmp", ".lock")]
    assert root.main(arguments.split()) == 0
    assert next(folder.glob("new/**/report.html"))


@pytest.mark.parametrize("tool", and_slow(["fvcore jit trace"], ["ptflops pytorch", "ptflops aten", "torch dispatch"]))
def test_ctrl_c_while_other_counters_run(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a counter runs the network: C++ calls its callbacks, and an exception in them can abort the process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COUNTING", tool)
    code, errors = interrupt("hrvit_nano --audit", lambda _: Path(tool).exists(), "counting")
    assert (code, errors) == (130, "interrupted\n")
    assert Path(tool).exists(), "it was interrupted before"


# -- full disks ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "name",
    and_slow(
        [*(name for name in COMMANDS if name != "latency"), "data list", "train list", "--help", "--version"],
        ["latency"],
    ),
)
def test_a_full_standard_output_is_reported_in_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    arguments, _ = COMMANDS.get(name, (name, 0))
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        code = root.main(arguments.split())
    assert code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: standard output: No space left on device; ") != ("invalid" in name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.usefixtures("light_studies")
@pytest.mark.parametrize("file", ["record", "journal"])
def test_a_disk_that_is_full_when_a_trial_is_kept(folder: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    """The file and a remedy are named, the values of the first trial are kept, and a rerun completes the study."""
    study = folder / "costs.yaml"
    study.write_text(COSTS.replace("macs]", "peak_memory_mib]"), encoding="utf-8")
    out = folder / "new"
    trials = prepare("costs", load_study(study), study_file(study), out, 1).trials
    records = [out / "trials" / f"{trial.key}.json" for trial in trials]
    full = out / "trials" / "journal.jsonl" if file == "journal" else records[1].with_suffix(".json.tmp")
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    arguments = ["study", "costs.yaml", "--out", "new", "--jobs", "1"]
    assert root.main(arguments) == 2
    errors = capsys.readouterr().err
    named = full if file == "journal" else records[1]
    assert errors.count("\n") == 1 and named.name in errors and "free some space" in errors
    kept = [path.read_bytes() for path in records if path.exists()]
    assert len(kept) == (0 if file == "journal" else 1)
    full.unlink(missing_ok=True)
    assert root.main(arguments) == 0
    assert "peak_memory_mib" in (out / "costs" / "table.csv").read_text() and all(map(Path.exists, records))
    assert [path.read_bytes() for path in records if path.exists()][: len(kept)] == kept
