"""Closed-form costs compared with sums by hand, torch's counter, live tensors and other tools; and their speed."""

import contextlib
import csv
import io
import json
import os
import pty
import random
import re
import subprocess
import sys
import termios
import time
from pathlib import Path

import bench_cost
import pandas as pd
import pytest
import torch
from operators import TorchFlops, continued_outputs
from random_configs import odd_resolution, random_config, with_one_block_a_branch
from torch.utils.flop_counter import FlopCounterMode

from hrvit_lab import HRViTConfig, count
from hrvit_lab.cli import si
from hrvit_lab.config import PRESETS, read_config, scale_widths, with_branches
from hrvit_lab.cost.__main__ import main
from hrvit_lab.cost.audit import audit
from hrvit_lab.cost.dispatch import count_run
from hrvit_lab.cost.ledger import ledger, part_totals, totals
from hrvit_lab.cost.memory import peak_memory_bytes
from hrvit_lab.cost.tools import TOOLS, predict, predictions
from hrvit_lab.latency.memory import measure_peak_memory
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.network.build import build
from hrvit_lab.network.model import HRViT
from hrvit_lab.parts import HEAD
from hrvit_lab.parts.ops import Cost, sum_costs

SIZES = ((224, 224), (288, 288), (512, 512), (64, 96), (97, 161))
NANO_WITH = {head: PRESETS["hrvit_nano"].replace(head=head) for head in HEAD if head != "classifier"}


def in_two_stages(config: HRViTConfig) -> HRViTConfig:
    """Two copies of each branch with a fusion between them: every kind of part of a parallel network, in few blocks."""
    return config.replace(depths=2 * (tuple(1 for _ in config.depths[-1]),))


def small(config: HRViTConfig) -> HRViTConfig:
    """Two stages of two branches with a fusion between them: one branch with attention, the other one with an FFN."""
    halves = {"attention": ("cross_shaped", "identity"), "ffn": ("none", "mixcfn"), "upernet_width": 64}
    return in_two_stages(with_branches(config, 2)).replace(**halves)


# -- against torch ----------------------------------------------------------------------------------------------------


CONFIGS = PRESETS | NANO_WITH
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
# With one block per branch, these are mit_b1, cswin_tiny or hrvit_b1, some with other widths. Slow tests use all
# blocks.
ALIKE = ("mit_b2", "mit_b3", "mit_b4", "mit_b5", "cswin_small", "cswin_base", "hrvit_b2", "hrvit_micro")
POOLS = ("pool", "norm_pool", "none")  # the smallest heads, which slow tests count, too
every_kind_of_part = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in POOLS else ()) for n in CONFIGS if n not in ALIKE]
)


@every_config
def test_every_preset_and_head_has_its_parameters_and_buffers(config: HRViTConfig) -> None:
    with torch.device("meta"):
        model = build(config)
    for kind, closed in ((config, totals(config)), (headless := config.replace(head="none"), totals(headless))):
        parts = [p for n, p in model.named_parameters() if kind is config or not n.startswith("head.")]
        buffers = [b for n, b in model.named_buffers() if kind is config or not n.startswith("head.")]
        assert closed.params == sum(p.numel() for p in parts)
        assert closed.buffers == sum(b.numel() for b in buffers if b.is_floating_point())


@every_kind_of_part
def test_every_preset_and_head_has_the_counts_of_torchs_formulas(name: str) -> None:
    model, sizes = with_every_part(name)
    for size in sizes:
        with torch.no_grad(), use_explicit_attention(model), TorchFlops() as run:
            maps = model.forward_features(zeros(model, size))
            body = run.flops
            model.forward_head(maps)
        assert 2 * totals(model.config, size).macs == run.flops
        assert 2 * totals(model.config.replace(head="none"), size).macs == body


@every_kind_of_part
def test_activations_and_moved_maps_equal_those_of_dispatched_operators(name: str) -> None:
    model, sizes = with_every_part(name)
    for size in sizes:
        check_dispatched(model, size)


@pytest.mark.slow
@every_config
def test_activations_and_moved_maps_of_whole_networks_equal_those_of_dispatched_operators(config: HRViTConfig) -> None:
    with torch.device("meta"):
        model = build(config).eval()
    for size in SIZES:
        check_dispatched(model, size)


def check_dispatched(model: HRViT, size: tuple[int, int]) -> None:
    """Two maps are read twice when the network runs and once in the closed form: the key, where it is also the value,
    and the input of MixCFN's halves. The halves have two outputs when the network runs; in the closed form, the second
    is accumulated into the first."""
    config = model.config
    closed, dispatched = count(model.config, size), count_run(model, zeros(model, size)).totals
    costs = [row.cost for row in closed.rows]
    shared = config.attention[0] == "cross_shaped"
    keys = shared * sum(cost.inputs for cost in costs if cost.operator == "attention") // 2
    halved = config.ffn[0] == "mixcfn"
    expanding = [c for c in costs if halved and c.part == "ffn" and c.operator == "linear" and c.inputs < c.outputs]
    twice = keys + sum(cost.inputs for cost in expanding)
    continued = continued_outputs(closed)
    assert closed.activations + continued == dispatched.activations and bool(continued) == halved
    assert closed.totals.moved + twice + continued == dispatched.moved
    assert closed.totals.macs_padded >= closed.macs == dispatched.macs


@pytest.mark.slow
@every_config
def test_every_preset_and_head_has_the_counts_of_torchs_counter_at_every_size(config: HRViTConfig) -> None:
    with torch.device("meta"):
        model = build(config).eval()
    for size in SIZES:
        with torch.no_grad(), use_explicit_attention(model), FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, *size, device="meta"))
        head = sum(counter.get_flop_counts().get("HRViT.head", {}).values())
        assert 2 * totals(config, size).macs == counter.get_total_flops()
        assert 2 * totals(config.replace(head="none"), size).macs == counter.get_total_flops() - head


def with_every_part(name: str) -> tuple[HRViT, tuple[tuple[int, int], ...]]:
    """hrvit_nano unchanged, for every size; other networks with one block per branch, for two sizes (slow tests use all
    blocks)."""
    if name == "hrvit_nano":
        return with_zeros(PRESETS[name]), SIZES
    shallow = with_one_block_a_branch(CONFIGS[name]).replace(upernet_width=32)  # its products are large
    return with_zeros(shallow), ((224, 224), (97, 161))


def with_zeros(config: HRViTConfig) -> HRViT:
    """The network with weights of zero on the CPU.

    Operators do not depend on values. Small ones run faster on the CPU than on the meta device, with kernels in Python.
    """
    with torch.device("meta"):
        model = build(config).eval()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.zero_()
    return model


def zeros(model: HRViT, size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(1, 3, *size, device=next(model.parameters()).device)


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_weights_and_moved_bytes_against_hand_computation() -> None:
    """One stage, one branch, one block at 32×32: 8×8 tokens, width 8, hidden width 16."""
    config = HRViTConfig(depths=((1,),), widths=8, head_dims=4, window_sizes=2, mlp_ratios=2, stem_width=4, head="none")
    n = 8 * 8
    stem = (3 * 32 * 32 + 2 * 256) + (2 * 256 + 4 * n)
    embed = (4 * n + 8 * n) + (8 * n + 8 * n)
    attention = (8 + 16) * n + (8 + 4 + 8 + 4) * n  # to query and value; both halves' query, value and output
    attention += (8 + 8) * n + (8 + 8) * n  # parallel convolution, projection
    des = 2 * (8 + 8) * n
    ffn = (8 + 16) * n + 2 * (8 + 8) * n + (16 + 8) * n
    counts = count(config, 32)
    assert counts.totals.moved == stem + embed + attention + des + ffn
    assert counts.moved_bytes(3, "bfloat16") == 2 * (3 * counts.totals.moved + counts.params)
    batch_norms = 2 + 4 + 8
    assert counts.weight_bytes() == 4 * (counts.params + 2 * batch_norms)
    assert counts.weight_mib == counts.weight_bytes() / 2**20 and counts.moved_mib == counts.moved_bytes() / 2**20


def test_macs_of_padded_windows_against_hand_computation() -> None:
    """Window 7 on a 10×10 map, which is padded to 14: the windows of the second row and column have 3 real rows or
    columns."""
    config = HRViTConfig(
        depths=((1,),), widths=16, head_dims=8, window_sizes=7, mlp_ratios=2, stem_width=4, head="none"
    )
    waste = 2 * (2 * 8 * (70**2 - 30**2))
    counts = count(config, 40)
    assert counts.macs_padding == waste
    table = counts.table("part").set_index("part")
    assert table.macs_padding["attention products"] == waste == table.macs_padding.sum()


def test_totals_equal_the_sums_of_the_ledger() -> None:
    rng = random.Random(3)
    configs = [*PRESETS.values(), *(random_config(rng) for _ in range(50))]
    for config in configs:
        size = odd_resolution(rng, config)
        assert totals(config, size) == sum_costs(row.cost for row in ledger(config, size))


def test_an_error_names_an_unknown_dtype() -> None:
    for ask in (count("hrvit_nano").weight_bytes, lambda dtype: peak_memory_bytes(PRESETS["hrvit_nano"], dtype=dtype)):
        with pytest.raises(ValueError, match="dtype 'int3' is unknown; use one of float32"):
            ask("int3")


# -- peak memory ------------------------------------------------------------------------------------------------------


def live_ratio(config: HRViTConfig, size: tuple[int, int], batch_size: int, dtype: str) -> tuple[float, float]:
    """Predicted divided by measured: total memory, and memory without the weights."""
    measured = measure_peak_memory(build(config), size, batch_size=batch_size, dtype=dtype) * 2**20
    predicted = peak_memory_bytes(config, size, batch_size=batch_size, dtype=dtype)
    weights = totals(config, size).weight_bytes(dtype)
    return predicted / measured, (predicted - weights) / (measured - weights)


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("hrvit_b1", 224),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (
            ("hrvit_b1", 512), ("hrvit_b2", 224), ("hrvit_b2", 512), ("hrvit_b3", 224), ("hrvit_b3", 512),
        )),
    ],
)  # fmt: skip
def test_peak_memory_of_the_published_networks(name: str, side: int) -> None:
    everything, maps = live_ratio(PRESETS[name], (side, side), 1, "float32")
    assert everything == pytest.approx(1, abs=0.15) and maps == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(
    ("name", "size", "batch_size", "dtype", "head"),
    [
        ("hrvit_nano", (97, 161), 8, "float32", "classifier"),
        ("hrvit_nano", (33, 47), 1, "bfloat16", "none"),
        ("hrvit_micro", (224, 224), 8, "float32", "none"),
        pytest.param("hrvit_b1", (224, 224), 8, "float32", "classifier", marks=pytest.mark.slow),
        *(("hrvit_nano", (97, 161), 2, "float32", head) for head in NANO_WITH),
        ("hrvit_b1", (224, 224), 1, "float32", "segformer"),
    ],
)
def test_peak_memory_of_other_networks(
    name: str, size: tuple[int, int], batch_size: int, dtype: str, head: str
) -> None:
    everything, maps = live_ratio(PRESETS[name].replace(head=head), size, batch_size, dtype)
    assert everything == pytest.approx(1, abs=0.15) and maps == pytest.approx(1, abs=0.15)


def test_peak_memory_of_random_networks() -> None:
    rng = random.Random(5)
    for _ in range(20):
        config = random_config(rng)
        size = odd_resolution(rng, config)
        everything, maps = live_ratio(config, size, rng.choice((1, 2, 5)), "float32")
        assert everything == pytest.approx(1, abs=0.15) and maps == pytest.approx(1, abs=0.15), (config, size)


# -- what other tools would say ---------------------------------------------------------------------------------------


SOME_VARIANTS = PRESETS["hrvit_nano"].replace(
    ffn=("mixcfn_3_7", "mixffn", "mlp", "swiglu"), shortcut="linear", patch_embed="dense", stem="conv7",
    fusion="weighted_sum", upsample="bilinear",
)  # fmt: skip
OTHER_VARIANTS = PRESETS["hrvit_nano"].replace(
    ffn=("swiglu_conv", "hrformer", "none", "mixcfn_5_7"), shortcut="none", patch_embed="none",
    stem="patchify", upsample="bilinear",
)  # fmt: skip


def check_tools(config: HRViTConfig, size: tuple[int, int]) -> None:
    """Every tool on both paths, to the last multiply-accumulate: its count, what it does not count, what it adds."""
    said = audit(build(config), size)
    costs = [row.cost for row in ledger(config, size)]
    for row in said.to_dict("records"):
        [tool] = [tool for tool in TOOLS if (tool.package, tool.backend) == (row["tool"], row["backend"])]
        predicted = predict(costs, tool, row["attention"])
        assert row["macs"] == row["predicted_macs"] == predicted.macs, row
        assert row["unseen_macs"] == sum(predicted.unseen.values()), row
        assert row["extra_macs"] == sum(predicted.extra.values()), row


@pytest.mark.parametrize(
    ("config", "size"),
    [
        pytest.param(PRESETS["hrvit_nano"], (97, 161), marks=pytest.mark.slow),
        pytest.param(in_two_stages(PRESETS["hrvit_b1"]), (97, 161), marks=pytest.mark.slow),
        pytest.param(PRESETS["hrvit_b1"], (224, 224), marks=pytest.mark.slow),
        (in_two_stages(SOME_VARIANTS), (97, 161)),
        pytest.param(SOME_VARIANTS, (97, 161), marks=pytest.mark.slow),
        pytest.param(in_two_stages(OTHER_VARIANTS), (97, 161), marks=pytest.mark.slow),
        pytest.param(OTHER_VARIANTS, (97, 161), marks=pytest.mark.slow),
        *(
            pytest.param(small(config), (33, 47), marks=() if head in ("none", "upernet") else pytest.mark.slow)
            for head, config in NANO_WITH.items()
        ),
        *(pytest.param(config, (33, 47), marks=pytest.mark.slow) for config in NANO_WITH.values()),
    ],
    ids=[
        "hrvit_nano", "two stages of hrvit_b1", "hrvit_b1", "some variants in two stages",
        "some variants", "other variants in two stages", "other variants",
        *(f"two stages of two branches with {head}" for head in NANO_WITH), *NANO_WITH,
    ],
)  # fmt: skip
def test_tools_say_what_is_predicted(config: HRViTConfig, size: tuple[int, int]) -> None:
    check_tools(config, size)


def test_a_model_without_a_ledger_has_no_prediction() -> None:
    assert audit(torch.nn.Conv2d(3, 4, 3), (8, 8)).predicted_macs.isna().all()


def test_a_prediction_against_hand_computation() -> None:
    """A linear, a product written with @, and a norm: 10 × 4 × 8 multiply-accumulates for each product, 80 outputs."""
    costs = [
        Cost("a", "linear", macs=320, outputs=80, additions=80, run_as="module"),
        Cost("b", "attention", macs=320, outputs=80, additions=80, run_as="bmm"),
        Cost("norm", "layer_norm", outputs=80),
    ]
    figures = {f"{tool.package} {tool.backend}": predict(costs, tool, "fused").macs for tool in TOOLS}
    assert figures == {
        "fvcore jit trace": 640 + 5 * 80,
        "ptflops pytorch": 320 + 80 + 80,
        "ptflops aten": 640 + 160,
        "torch dispatch": 640,
    }


# -- speed ------------------------------------------------------------------------------------------------------------


def test_totals_are_fast_enough_to_search_with() -> None:
    """Totals take less than two thirds of the time of the ledgers (0.4 is typical). Both are timed alternately, so that
    other load affects both. ``bench_cost.py`` measures networks per second."""
    of_totals = of_ledgers = 0.0
    part_totals.cache_clear()
    for config in bench_cost.draw(200):
        began = time.process_time()
        totals(config, bench_cost.RESOLUTION)
        between = time.process_time()
        sum_costs(row.cost for row in ledger(config, bench_cost.RESOLUTION))
        of_totals += between - began
        of_ledgers += time.process_time() - between
    assert of_totals < 2 / 3 * of_ledgers


def test_totals_of_a_search_compute_no_ledger_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of equal parts are shared: a network that differs in the window of one branch adds only the changed
    parts."""
    part_totals.cache_clear()
    totals(PRESETS["hrvit_b1"], 224)
    first = part_totals.cache_info().misses
    totals(PRESETS["hrvit_b1"].replace(window_sizes=(1, 2, 7, 5)), 224)
    assert 0 < part_totals.cache_info().misses - first < first / 4


def test_the_benchmark_prints_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    bench_cost.main(configs=40, rounds=2)
    figures = json.loads(capsys.readouterr().out)
    assert figures["configs"] == 40 and figures["configs_per_s"] > 0 and figures["ms_median"] <= figures["ms_max"]


# -- the command line -------------------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_without_audit_the_table_shows_no_other_counters(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "hrvit_b1", "--resolution", "512")
    out = out.replace("\N{NO-BREAK SPACE}", " ")
    assert (code, err) == (0, "")
    # Exact MACs, and those that padding would add.
    assert "hrvit_b1 at 512×512" in out and "15.76 G" in out and "196.6 M" in out
    assert "padding" in out.split() and "Padding:" in out.split()
    assert not any(tool.package in out for tool in TOOLS)
    _, out, _ = said(capsys, "hrvit_b1")
    assert "padding" not in out.split() and "No window needs padding." in " ".join(out.split())


def whole_words(out: str) -> set[str]:
    return set(re.split("[ \n]+", out))


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("by", ["part", "operator", "branch", "stage"])
@pytest.mark.parametrize("model", ["hrvit_b1", "hrvit_b1_upernet_ade20k", "mit_b5"])
def test_a_table_fits_the_terminal_without_cut_values(
    model: str, by: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is too long, no head is cut, and every value of the ledger is shown in full with its unit."""
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = said(capsys, model, "--resolution", "512", "--by", by)
    assert max(map(len, out.splitlines())) <= columns and "…" not in out
    words = whole_words(out)
    assert {by, "parameters", "weights", "MiB", "MACs", "activations", "moved", "total"} <= words
    for row in count(read_config(model), 512).sums(by):
        assert {
            *str(row[by]).split(),
            *(si(row[name]) for name in ("params", "macs", "activations") if row[name]),
        } <= words
        assert (
            f"{row['moved_bytes'] / 2**20:.{1 if row['moved_bytes'] >= 100 * 2**20 else 2}f}" in words
            or not row["macs"]
        )


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_the_same_table_as_a_pipe(columns: int) -> None:
    """On a pseudo-terminal of that width."""
    shown = in_terminal([sys.executable, "-m", "hrvit_lab.cost", "hrvit_b1", "--resolution", "512"], columns)
    assert max(map(len, shown.splitlines())) <= columns
    assert {
        "parameters",
        "activations",
        "total",
        "196.6\N{NO-BREAK SPACE}M",
        "196.4\N{NO-BREAK SPACE}M",
    } <= whole_words(shown)


def in_terminal(command: list[str], columns: int) -> str:
    """The output of a command on a terminal of that many columns, without escape sequences."""
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(secondary, (50, columns))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    process = subprocess.Popen(command, stdout=secondary, stderr=secondary, stdin=secondary, env=environment)
    os.close(secondary)
    shown = b""
    with contextlib.suppress(OSError):  # Linux raises an error at the end of the output
        while chunk := os.read(primary, 65536):
            shown += chunk
    os.close(primary)
    assert process.wait(timeout=250) == 0
    return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown.decode()).replace("\r", "")


def test_costs_of_a_config_load_no_torch(tmp_path: Path) -> None:
    """Neither the command nor its table and CSV import torch, timm or pandas."""
    script = (
        "import sys\n"
        "from hrvit_lab.cost.__main__ import main\n"
        "assert main(['hrvit_b1', '--set', 'branches=3']) == main(['hrvit_b1', '--csv']) == 0\n"
        "loaded = {'torch', 'timm', 'torchvision', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=250)


@pytest.mark.parametrize("by", ["operator", "branch", "stage", "part"])
def test_csv_contains_exact_numbers(capsys: pytest.CaptureFixture[str], by: str) -> None:
    _, out, _ = said(capsys, "hrvit_nano", "--resolution", "97x161", "--by", by, "--dtype", "bfloat16", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    counts = count("hrvit_nano", (97, 161))
    sums = {name: sum(int(row[name]) for row in rows) for name in ("macs", "params", "macs_padding", "weight_bytes")}
    assert sums == {
        "macs": counts.macs, "params": counts.params, "macs_padding": counts.macs_padding,
        "weight_bytes": counts.weight_bytes("bfloat16"),
    }  # fmt: skip


def test_the_audit_is_shown_beside_the_prediction(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    macs = [prediction.macs for prediction in predictions(row.cost for row in ledger(PRESETS["hrvit_nano"], 32))]
    table = pd.DataFrame({"macs": macs, "predicted_macs": macs}, dtype="Int64")
    monkeypatch.setattr("hrvit_lab.cost.audit.audit", lambda *_, **__: table)
    _, out, _ = said(capsys, "hrvit_nano", "--resolution", "32", "--audit")
    assert "measured" in out and "failed" not in out and "other rules" not in out
    for tool in TOOLS:
        assert f"{tool.package} ({tool.backend})" in out
    for columns in ("80", "120"):
        monkeypatch.setenv("COLUMNS", columns)
        _, out, _ = said(capsys, "hrvit_nano", "--resolution", "32", "--audit")
        assert max(map(len, out.splitlines())) <= int(columns) and "…" not in out
        assert {"attention", "predicted", "measured", *(si(m, 6) for m in macs)} <= whole_words(out)
    table.loc[0, "macs"] = pd.NA
    _, out, _ = said(capsys, "hrvit_nano", "--resolution", "32", "--audit")
    assert "failed" in out and "other rules" in out
    _, out, _ = said(capsys, "hrvit_nano", "--resolution", "32", "--audit", "--csv")
    assert list(csv.DictReader(io.StringIO(out)))[1]["predicted_macs"] == str(macs[1])


def test_a_config_from_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("preset: hrvit_nano\nname: mine\nwindow_sizes: 3\n", encoding="utf-8")
    code, out, _ = said(capsys, str(path), "--resolution", "64")
    assert code == 0 and "mine at 64×64" in out
    # The config does not keep the preset's name.
    path.write_text("preset: hrvit_nano\nwindow_sizes: 3\n", encoding="utf-8")
    _, out, _ = said(capsys, str(path), "--resolution", "64", "--set", "branches=3")
    assert "mine.yaml, branches=3 at 64×64" in out


def test_settings_change_the_config(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "branches=3,mlp_ratios=[4, 2, 2]", "--set", "width_scale=2"]
    _, out, _ = said(capsys, "hrvit_nano", *settings, "--resolution", "64", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    config = scale_widths(with_branches(PRESETS["hrvit_nano"], 3).replace(mlp_ratios=(4, 2, 2)), 2)
    assert sum(int(row["macs"]) for row in rows) == count(config, 64).macs
    _, out, _ = said(capsys, "hrvit_nano", "--set", "stem=patchify", "--resolution", "64")
    assert "hrvit_nano, stem=patchify at 64×64" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["hrvit_b9"], "unknown preset 'hrvit_b9'"),
        (["hrvit_b1", "--resolution", "16"], "is too small"),
        (["missing.yaml"], "the config missing.yaml cannot be read: No such file"),
        (["hrvit_b1", "--set", "windows=7"], "--set: unknown axis 'windows'"),
        (["hrvit_b1", "--set", "stem=patchfy"], "--set: stem = 'patchfy': unknown variant; did you mean 'patchify'?"),
        (["hrvit_b1", "--set", "widths=[32, 64]"], "--set: widths = (32, 64) has 2 entries for 4 branches"),
        (["hrvit_b1", "--set", "branches"], "--set 'branches' is not of the form key=value"),
        (["timm:resnet18"], "'timm:resnet18' is a timm model and has no HRViT config; use hrvit_lab.count"),
    ],
)
def test_an_invalid_request_is_reported_in_one_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and sentence in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "option", [["--resolution", "a"], ["--resolution", "1x2x3"], ["--batch-size", "0"], ["--by", "x"]]
)
def test_an_impossible_option_exits_with_2(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    assert main(["hrvit_nano", *option]) == 2
    assert option[0] in capsys.readouterr().err
