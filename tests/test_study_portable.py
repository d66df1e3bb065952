"""A study runs where Python lacks what only POSIX systems have."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

HIDE = """
import os, signal, sys
sys.modules["fcntl"] = None  # an import of it fails, as on Windows
for name in ("getuid", "geteuid", "sched_getaffinity", "killpg", "getpgid", "setsid"):
    delattr(os, name)
del signal.SIGHUP
"""

STUDY = """
title: Does it run elsewhere?
question: Is the table whole where fcntl is missing?
base: {preset: hrvit_nano, num_classes: 10}
grid: {branches: [1]}
metrics: [params, top1]
resolution: 32
data: {name: digits, resolution: 32}
train: {epochs: 1, train_limit: 64, batch_size: 32}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_runs_without_fcntl(tmp_path: Path) -> None:
    """In this interpreter and in its workers; every Python process imports ``sitecustomize`` at its start."""
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    (tmp_path / "study.yaml").write_text(STUDY)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": paths, "USERNAME": "somebody"}  # which Windows always sets
    check = "import os\ntry:\n    import fcntl\nexcept ImportError:\n    print(hasattr(os, 'getuid'))"
    hidden = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True)
    assert hidden.stdout == "False\n"
    command = [sys.executable, "-m", "hrvit_lab.study", "study.yaml", "--out", "out", "--jobs", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    with (tmp_path / "out" / "study" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok"]
    assert all(float(row["top1"]) >= 0 for row in rows)
    assert list((tmp_path / "out" / "trials").glob("*.claim*")) == []
