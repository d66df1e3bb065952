"""The audit of other counters, on networks small enough to count by hand and on ours."""

import copy
import io
import logging

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from hrvit_lab import PRESETS, count, create_model
from hrvit_lab.config import with_branches
from hrvit_lab.cost.audit import OperatorLog, audit, plain_name

SMALL = with_branches(PRESETS["hrvit_nano"], 2).replace(depths=((1, 1), (1, 1)))
"""Two stages with a fusion of both branches between them: the tools take seconds a stage."""


class EveryKind(nn.Module):
    """One product of each kind; 64 tokens of 4 channels from a 3 × 8 × 8 image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4, 8)
        self.weight = nn.Parameter(torch.randn(4, 8))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BNC = self.conv(x_BCHW).flatten(2).transpose(1, 2).contiguous()
        x_BNC = F.linear(self.linear(x_BNC), self.weight)
        map_BNN = torch.matmul(x_BNC, x_BNC.transpose(1, 2))
        x_BNC = map_BNN @ x_BNC
        return F.scaled_dot_product_attention(x_BNC[:, None], x_BNC[:, None], x_BNC[:, None])


CONV = 64 * 4 * 3 * 9
LINEAR = 64 * 4 * 8
PRODUCT = 64 * 64 * 4
ATTENTION = 2 * PRODUCT
TOTAL = CONV + 2 * LINEAR + 2 * PRODUCT + ATTENTION


def row(table: pd.DataFrame, tool: str, backend: str, attention: str = "explicit") -> pd.Series:
    found = table[(table.tool == tool) & (table.backend == backend) & (table.attention == attention)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def by_hand() -> pd.DataFrame:
    return audit(EveryKind(), (8, 8), reference_macs=TOTAL)


def unseen(listed: str) -> set[str]:
    return set(listed.split(", ")) - {""}


def test_the_audit_has_a_row_for_every_tool_and_attention_path(by_hand: pd.DataFrame) -> None:
    assert list(by_hand[["tool", "backend", "attention"]].itertuples(index=False, name=None)) == [
        (tool, backend, attention)
        for attention in ("fused", "explicit")
        for tool, backend in [
            ("fvcore", "jit trace"),
            ("ptflops", "pytorch"),
            ("ptflops", "aten"),
            ("torch", "dispatch"),
        ]
    ]


@pytest.mark.parametrize(
    ("tool", "backend", "missed", "missed_macs", "biases"),
    [
        ("fvcore", "jit trace", {"scaled_dot_product_attention ×1"}, ATTENTION, 0),
        ("ptflops", "aten", {"scaled_dot_product_attention ×1"}, ATTENTION, 64 * 4 + 64 * 8),
        # Of these it knows nn.Conv2d, nn.Linear and torch.matmul.
        ("ptflops", "pytorch", {"scaled_dot_product_attention ×1", "mm ×1", "bmm ×1"},
         ATTENTION + LINEAR + PRODUCT, 64 * 4 + 64 * 8),
        ("torch", "dispatch", set(), 0, 0),
    ],
)  # fmt: skip
def test_every_tool_against_hand_computation(
    by_hand: pd.DataFrame, tool: str, backend: str, missed: set[str], missed_macs: int, biases: int
) -> None:
    for attention in ("fused", "explicit"):
        said = row(by_hand, tool, backend, attention)
        assert unseen(said.unseen) == missed
        assert said.unseen_macs == missed_macs
        assert said.extra_macs == biases
        assert said.macs == TOTAL - missed_macs + biases
        assert said.ratio == said.macs / TOTAL


def test_the_operator_log_against_hand_computation() -> None:
    with OperatorLog() as log, torch.no_grad():
        EveryKind()(torch.randn(1, 3, 8, 8))
    assert log.macs == {
        "convolution": CONV,
        "addmm": LINEAR,
        "mm": LINEAR,
        "bmm": 2 * PRODUCT,
        "scaled_dot_product_attention": ATTENTION,
    }
    assert log.calls["bmm"] == 2


@pytest.mark.parametrize(
    ("layer", "size", "macs"),
    [
        (nn.Conv2d(6, 4, 3, groups=2), 10, 8 * 8 * 4 * 3 * 9),
        (nn.ConvTranspose2d(6, 4, 2, stride=2), 10, 10 * 10 * 6 * 4 * 4),
    ],
)
def test_convolutions_against_hand_computation(layer: nn.Module, size: int, macs: int) -> None:
    with OperatorLog() as log, torch.no_grad():
        layer(torch.randn(1, 6, size, size))
    assert dict(log.macs) == {"convolution": macs}


def test_the_count_of_a_hooked_module_replaces_those_inside_it() -> None:
    """ptflops' formula for timm's attention does not include its linears, and the counts of their hooks are dropped."""
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)
    table = audit(model, (32, 32))
    tokens = 4 * 4 + 1
    for attention in ("fused", "explicit"):
        said = row(table, "ptflops", "pytorch", attention)
        assert unseen(said.unseen) == {"addmm ×4"}  # two blocks: query-key-value, and output
        assert said.unseen_macs == 2 * tokens * 32 * (3 * 32 + 32)
    fused, explicit = (row(table, "fvcore", "jit trace", path) for path in ("fused", "explicit"))
    products = 2 * 2 * tokens * tokens * 32
    assert explicit.macs - fused.macs == fused.unseen_macs == products
    assert unseen(fused.unseen) == {"scaled_dot_product_attention ×2"}
    assert unseen(explicit.unseen) == set()


@pytest.fixture(scope="module")
def ours() -> pd.DataFrame:
    return audit(create_model(SMALL), (64, 96))


def test_torch_agrees_with_the_closed_form(ours: pd.DataFrame) -> None:
    macs = count(create_model(SMALL), (64, 96)).macs
    for attention in ("fused", "explicit"):
        said = row(ours, "torch", "dispatch", attention)
        assert (said.macs, said.unseen_macs, said.extra_macs, said.ratio) == (macs, 0, 0, 1.0)


def test_fvcore_additionally_counts_normalisations_and_upsampling(ours: pd.DataFrame) -> None:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(create_model(SMALL).eval(), torch.randn(1, 3, 64, 96))
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    products = ("conv", "linear", "addmm", "matmul")
    extra = {name: macs for name, macs in analysis.by_operator().items() if name not in products}
    assert set(extra) == {"batch_norm", "layer_norm", "upsample_nearest2d"}
    for attention in ("fused", "explicit"):
        assert row(ours, "fvcore", "jit trace", attention).extra_macs == sum(extra.values()) > 0


def test_two_tools_do_not_count_the_fused_kernel(ours: pd.DataFrame) -> None:
    table = count(create_model(SMALL), (64, 96)).table("operator").set_index("operator")
    for tool, backend in (("fvcore", "jit trace"), ("ptflops", "aten")):
        fused, explicit = (row(ours, tool, backend, path) for path in ("fused", "explicit"))
        assert fused.unseen.startswith("scaled_dot_product_attention ×")
        assert fused.unseen_macs - explicit.unseen_macs == table.macs["attention"] == explicit.macs - fused.macs
        assert unseen(explicit.unseen) == set()


def test_output_of_tools_is_hidden_and_the_model_is_unchanged(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model = create_model(SMALL).train()
    state = copy.deepcopy(model.state_dict())
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    audit(model, (32, 32))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    logging.getLogger("afterwards").warning("heard")
    assert [record.message for record in caplog.records] == ["heard"]
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(module.training for module in model.modules())
    assert all(getattr(module, "fused_attn", True) for module in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert isinstance(torch.matmul, type(torch.mm)), "ptflops' wrappers are still in place"


def test_a_tool_that_fails_is_a_row_with_the_reason() -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x_BCHW: Tensor) -> Tensor:
            if torch.jit.is_tracing():
                raise RuntimeError("I can't be traced")
            return self.conv(x_BCHW)

    table = audit(Untraceable(), (8, 8))
    failed = row(table, "fvcore", "jit trace")
    assert pd.isna(failed.macs) and pd.isna(failed.ratio) and pd.isna(failed.extra_macs)
    assert failed.note == "failed: RuntimeError: I can't be traced"
    assert row(table, "torch", "dispatch").macs == 64 * 3 * 4


def test_the_table_is_read_back_from_csv(ours: pd.DataFrame) -> None:
    again = pd.read_csv(io.StringIO(ours.to_csv(index=False)), keep_default_na=False)
    assert list(again.columns) == list(ours.columns)
    assert again.macs.tolist() == ours.macs.tolist()


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("aten::_convolution", "convolution"),
        ("aten.bmm", "bmm"),
        ("aten._scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention"),
        ("aten::scaled_dot_product_attention", "scaled_dot_product_attention"),
    ],
)
def test_variants_of_an_operator_have_one_plain_name(operator: str, name: str) -> None:
    assert plain_name(operator) == name
