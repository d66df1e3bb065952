"""Every notebook runs from top to bottom in a new kernel, is stored without outputs, and its conclusion agrees with its
numbers.

A last cell is added to each notebook. It prints the numbers of the conclusion, as JSON, computed in another way where
that is possible.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from scipy import stats

from hrvit_lab import PRESETS, count, with_branches

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FINDING = "## What we found"

NUMBERS = {
    "quickstart": """{"ratio": list(times[["ratio", "ratio_low", "ratio_high"]].iloc[1]),
        "control": list(times[["control_low", "control_high"]].iloc[1])}""",
    "branch_and_depth_ablation": """{
        "rows": found[["before", "after", "p_holm"]].to_dict("records"),
        "interaction": [interaction.low, interaction.high],
        "values": {name: [by_seed[seed] for seed in SEEDS] for name, by_seed in top1.items()}}""",
    "latency_and_roofline": """{
        "macs": {name: measurement.macs for name, measurement in zip(MODELS, measured)},
        "ratios": {m.model: m.ratio for m in measured if m.ratio}, "verdicts": {m.model: m.verdict for m in measured},
        "control": measured[1].control,
        "parts": parts.frame.groupby("part").latency_ms.sum().to_dict(),
        "distance": measured[0].latency.value * measured[0].ceilings.gemm_flop_s / (2e3 * measured[0].macs)}""",
    "attention_and_receptive_fields": """{
        "gains": {label: list(values.values()) for label, values in gains.items()},
        "areas": {label: {branch: list(of.values()) for branch, of in areas_of.items()}
                  for label, areas_of in fields.items()}}""",
    "your_own_attention": """{
        "checked": checked.to_dict("list"), "products": {c.name: [
            sum(r.cost.macs for r in count(c, size).rows if r.cost.part == "attention products") for size in (32, 512)
        ] for c in (published, mine)},
        "ratio": list(times[["ratio", "ratio_low", "ratio_high"]].iloc[1]), "verdict": times.verdict[1],
        "values": {name: rows.sort_values("epoch").groupby("seed").val_top1.last().tolist()
                   for name, rows in results.curves.groupby("variant")},
        "p_holm": dict(zip(compared.after, compared.p_holm))}""",
    "train_and_evaluate_segmentation": """{
        "iou": {label: [float(np.sum((p == c) & (t == c)) / np.sum((p == c) | (t == c))) for c in range(len(names))
                        for p, t in [(np.stack(maps), np.stack(truths))]] for label, maps in predicted.items()},
        "right": {label: [100 * float((p == t).mean()) for p, t in zip(maps, truths)]
                  for label, maps in predicted.items()},
        "near": [near[number] for number in far], "far": list(far.values()), "names": names}""",
}
"""What the last cell prints, by notebook: an expression of its variables."""


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, and with the cell that prints its numbers."""
    notebook = nbformat.read(path, as_version=4)
    printed = f"import json\nprint(json.dumps({NUMBERS[path.stem]}, default=lambda value: value.item()))"
    notebook.cells.append(nbformat.v4.new_code_cell(printed))
    NotebookClient(notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    return notebook


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def finding(notebook: nbformat.NotebookNode) -> str:
    """What the cell after the heading prints."""
    cells = notebook.cells
    [place] = [index for index, cell in enumerate(cells) if cell.source.startswith(FINDING)]
    assert cells[place + 1].cell_type == "code"
    return printed(cells[place + 1])


def interval(ours: list[float], theirs: list[float] | None = None) -> tuple[float, float]:
    """The 95 % interval of the mean paired difference, by scipy, which has none if all of them are 0."""
    differences = [a - b for a, b in zip(ours, theirs or [0.0] * len(ours), strict=True)]
    if not any(differences):
        return 0.0, 0.0
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return float(low), float(high)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_without_outputs(path: Path) -> None:
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert code
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def check_quickstart(said: str, found: dict[str, Any]) -> None:
    one, four, five = (count(with_branches(PRESETS["hrvit_nano"], branches), 224) for branches in (1, 4, 5))
    assert f"parameters grow by a factor of {five.params / one.params:.1f}, MACs of {five.macs / one.macs:.1f}" in said
    added = (100 * (five.params / four.params - 1), 100 * (five.macs / four.macs - 1))
    assert f"adds {added[0]:.0f} % to the parameters and {added[1]:.0f} % to the MACs" in said
    (ratio, low, high), control = found["ratio"], found["control"]
    error = max(abs(math.log(end)) for end in control)
    tie = low <= 1 <= high or abs(math.log(ratio)) <= error
    word = "tie" if tie else "faster" if ratio < 1 else "slower"
    assert f"takes {ratio:.2f} times as long as hrvit_nano (95 % interval {low:.2f} to {high:.2f}): {word}" in said


def check_latency_and_roofline(said: str, found: dict[str, Any]) -> None:
    first = found["macs"]["hrvit_nano"]
    for name, (ratio, low, high) in found["ratios"].items():
        macs = found["macs"][name] / first
        error = max(abs(math.log(found["control"][1])), abs(math.log(found["control"][2])))
        beyond = abs(math.log(ratio / macs)) > error
        more, less = beyond and low > macs, beyond and high < macs
        words = "more than" if more else "less than" if less else "a difference from what"
        about = f"{macs:.2f} × the MACs of hrvit_nano and {ratio:.2f} × its latency"
        about += f" (95 % interval {low:.2f} to {high:.2f})"
        assert f"{name} has {about}: {found['verdicts'][name]}; {words} its MACs predict" in said
    part, time = max(found["parts"].items(), key=lambda entry: entry[1])
    share = 100 * time / sum(found["parts"].values())
    assert f"largest share of the time is {'FFN' if part == 'ffn' else part}: {share:.0f} % of the time" in said
    assert f"takes {found['distance']:.3g} times as long as its MACs" in said


def check_branch_and_depth_ablation(said: str, found: dict[str, Any]) -> None:
    lines = said.splitlines()
    for row, line in zip(found["rows"], lines, strict=False):
        low, high = interval(found["values"][row["after"]], found["values"][row["before"]])
        assert f"{row['before']} → {row['after']}" in line and f"95 % interval {low:+.1f} to {high:+.1f}" in line
        if row["p_holm"] < 0.05:
            words = "higher top-1" if low > 0 else "lower top-1"
        else:
            words = "because the interval includes 0" if low <= 0 <= high else "not shown after correction"
        assert words in line
    significant = sum(row["p_holm"] < 0.05 for row in found["rows"])
    assert f"{significant} of {len(found['rows'])} effects are shown" in said
    low, high = found["interaction"]
    assert f"depends on the number of branches is{' not' if low <= 0 <= high else ''} shown" in said


def check_attention_and_receptive_fields(said: str, found: dict[str, Any]) -> None:
    for label, values in found["gains"].items():
        low, high = interval(values)
        words = "to the item more" if low > 0 else "to the item less" if high < 0 else "it is not shown that"
        [line] = [line for line in said.splitlines() if line.startswith(f"With {label} weights, ")]
        assert words in line and f"{low:+.1f} to {high:+.1f}" in line
    low, high = interval(found["gains"]["trained"], found["gains"]["random"])
    assert f"difference between the two is {'not shown' if low <= 0 <= high else 'shown'}" in said
    for branch, values in found["areas"]["trained"].items():
        low, high = interval(values, found["areas"]["random"][branch])
        words = "field is larger" if low > 0 else "field is smaller" if high < 0 else "not shown in"
        assert any(words in line and branch in line for line in said.splitlines())


def check_your_own_attention(said: str, found: dict[str, Any]) -> None:
    checked = found["checked"]
    assert checked["params"] == checked["params built"] and checked["MACs"] == checked["MACs by PyTorch"]
    assert "equals both witnesses at 3 resolutions" in said
    factors = {name: large / small for name, (small, large) in found["products"].items()}
    assert f"cross-shaped by {factors['cross-shaped']:.0f} and those of pooled by {factors['pooled']:.0f}" in said
    assert f"takes {found['ratio'][0]:.2f} times as long" in said and said.count(found["verdict"]) >= 1
    for name, p_holm in found["p_holm"].items():
        low, high = interval(found["values"][name], found["values"]["pooled"])
        shown = p_holm < 0.05
        words = "a higher accuracy" if shown and low > 0 else "a lower accuracy" if shown and high < 0 else "not shown"
        [line] = [line for line in said.splitlines() if line.startswith(f"{name} ")]
        assert words in line and f"{low:+.1f} to {high:+.1f}" in line


def check_train_and_evaluate_segmentation(said: str, found: dict[str, Any]) -> None:
    trained, random = (100 * sum(found["iou"][label]) / 6 for label in ("trained", "random weights"))
    assert f"{trained:.1f} %; with random weights: {random:.1f} %" in said
    for label, values in found["right"].items():
        if label == "trained":
            continue
        low, high = interval(found["right"]["trained"], values)
        words = "has more pixels" if low > 0 else "has fewer pixels" if high < 0 else "It is not shown that"
        [line] = [line for line in said.splitlines() if f"'{label}'" in line]
        assert words in line and f"{low:+.1f} to {high:+.1f}" in line
    low, high = interval(found["near"], found["far"])
    words = "are more frequent" if low > 0 else "are less frequent" if high < 0 else "It is not shown that"
    [line] = [line for line in said.splitlines() if "of a boundary" in line]
    assert words in line and f"{low:+.1f} to {high:+.1f}" in line
    best = max(zip(found["iou"]["trained"], found["names"], strict=True))[1]
    assert f"highest IoU is {best} " in said


CHECKS: dict[str, Callable[[str, dict[str, Any]], None]] = {
    "quickstart": check_quickstart,
    "latency_and_roofline": check_latency_and_roofline,
    "branch_and_depth_ablation": check_branch_and_depth_ablation,
    "attention_and_receptive_fields": check_attention_and_receptive_fields,
    "your_own_attention": check_your_own_attention,
    "train_and_evaluate_segmentation": check_train_and_evaluate_segmentation,
}
"""Whether the printed sentences agree with the numbers, by notebook."""


def test_every_notebook_has_a_check() -> None:
    assert {path.stem for path in NOTEBOOKS} == NUMBERS.keys() == CHECKS.keys()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_conclusion_agrees_with_its_numbers(path: Path) -> None:
    notebook = executed(path)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    said = finding(notebook)
    assert re.search(r"\d", said) and not re.search(r"\bnan\b", said) and said.rstrip().endswith(".")
    CHECKS[path.stem](said, json.loads(printed(notebook.cells[-1])))
