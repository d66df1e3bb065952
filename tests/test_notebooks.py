"""Every notebook runs from top to bottom in a new kernel, and is stored without outputs."""

import re
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from hrvit_lab import PRESETS, count, with_branches

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_notebooks_exist() -> None:
    assert NOTEBOOKS


@cache
def executed(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    return notebook


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    assert executed(path).cells


@pytest.mark.slow
def test_the_conclusion_of_the_quickstart_agrees_with_its_numbers() -> None:
    code = [cell for cell in executed(ROOT / "notebooks" / "quickstart.ipynb").cells if cell.cell_type == "code"]
    assert any("run_study(" in cell.source for cell in code)
    said = "".join(output.text for output in code[-1].outputs)
    one, four, five = (count(with_branches(PRESETS["hrvit_nano"], branches), 224) for branches in (1, 4, 5))
    assert f"parameters grow by a factor of {five.params / one.params:.1f}, MACs of {five.macs / one.macs:.1f}" in said
    added = (100 * (five.params / four.params - 1), 100 * (five.macs / four.macs - 1))
    assert f"adds {added[0]:.0f} % to the parameters and {added[1]:.0f} % to the MACs" in said
    assert re.search(r"takes \d+\.\d\d times as long as hrvit_nano .*: (faster|slower|tie)", said)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
