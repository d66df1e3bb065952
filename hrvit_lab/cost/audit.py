"""Compare our count of a network with those of other tools, and explain the differences.

The result of a tool has three terms: our count, minus the multiply-accumulates of operators that the tool does not
count, plus other operations that it counts (biases, normalisations, activations). All three are measured: our log of
the dispatched operators is compared with the report of the tool.
"""

import contextlib
import copy
import io
import logging
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from types import FrameType
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from hrvit_lab.cost.count import count
from hrvit_lab.cost.operators import COUNTED, attention_macs
from hrvit_lab.cost.tools import PATHS, predictions
from hrvit_lab.network.blocks import use_explicit_attention
from hrvit_lab.network.inputs import input_channels
from hrvit_lab.network.model import HRViT

FUSED = "scaled_dot_product_attention"


def audit(
    model: nn.Module,
    resolution: tuple[int, int] = (224, 224),
    *,
    reference_macs: int | None = None,
) -> pd.DataFrame:
    """Count the MACs of one image with fvcore, ptflops (both back ends) and torch. ``model`` is not changed.

    Each tool runs twice: with the fused attention kernel, and with explicit products (in modules with a ``fused_attn``
    attribute: ours and timm's). This takes ten forward passes on the CPU. The output of the tools is hidden.

    Args:
        model: any module with input (1, C, H, W).
        resolution: input height and width in pixels.
        reference_macs: the true count; None takes ours.
    Returns:
        One row per tool, back end and attention path, with columns
        ``tool``, ``backend``, ``version``, ``attention`` (``"fused"`` or ``"explicit"``);
        ``macs``: the result in multiply-accumulates; missing if the tool failed;
        ``ratio``: ``macs`` divided by the reference;
        ``predicted_macs``: the prediction of ``hrvit_lab.cost.tools`` from the ledger; missing unless the model is an
        HRViT. It holds for the versions named there and for a model returned by ``build``;
        ``unseen``: operators with multiply-accumulates that the tool did not count, with calls;
        ``unseen_macs``: the MACs of these operators;
        ``extra_macs``: other operations that it counted; negative where it counted too few;
        ``unsupported``: operators that the tool itself reports as unknown, with calls;
        ``note``: how the result was read, or why there is none.
    """
    reference = count(model, resolution).macs if reference_macs is None else reference_macs
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(1, input_channels(model), *resolution, generator=generator)
    rows = []
    predicted = _predicted(model, resolution)
    for attention in PATHS:
        with _private_copy(model, attention) as ours, OperatorLog() as log, torch.no_grad():
            ours(images_BCHW)
        total = sum(log.macs.values())
        for tool in TOOLS:
            with _private_copy(model, attention) as theirs:
                reading = _run(tool, theirs, images_BCHW, log)
            unseen_macs = sum(reading.unseen_macs.values())
            rows.append(
                {
                    "tool": tool.package,
                    "backend": tool.backend,
                    "version": metadata.version(tool.package),
                    "attention": attention,
                    "macs": reading.macs,
                    "ratio": reading.macs / reference if reading.macs is not None else None,
                    "predicted_macs": predicted.get((tool.package, tool.backend, attention)),
                    "unseen": _listed(reading.unseen),
                    "unseen_macs": unseen_macs,
                    "extra_macs": reading.macs - (total - unseen_macs) if reading.macs is not None else None,
                    "unsupported": _listed(reading.unsupported),
                    "note": reading.note,
                }
            )
    return pd.DataFrame(rows).astype(
        {"macs": "Int64", "predicted_macs": "Int64", "extra_macs": "Int64", "ratio": "float64"}
    )


def _predicted(model: nn.Module, resolution: tuple[int, int]) -> dict[tuple[str, str, str], int]:
    """Predicted MACs by package, back end and attention path; empty for models without a ledger."""
    if not isinstance(model, HRViT):
        return {}
    predicted = predictions(row.cost for row in count(model, resolution).rows)
    return {(p.tool.package, p.tool.backend, p.attention): p.macs for p in predicted}


class OperatorLog(TorchDispatchMode):
    """Lists the operators that run below autograd, with their multiply-accumulates.

    Attributes:
        calls: how often each operator ran, by its plain name (``"bmm"``).
        macs: multiply-accumulates by operator, of those that have any.
    """

    def __init__(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """``wanted`` is called at every operator with multiply-accumulates; the operator is listed if it is true."""
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.macs: Counter[str] = Counter()
        self._wanted = wanted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = plain_name(str(func.overloadpacket))
        macs = 0
        if name == FUSED:
            macs = attention_macs(*args)
        elif func in COUNTED:
            macs = COUNTED[func].macs(output, *args)
        if macs and not self._wanted():
            return output
        self.calls[name] += 1
        if macs:
            self.macs[name] += macs
        return output


def plain_name(operator: str) -> str:
    """An operator's name without namespace and leading underscores; kernels of fused attention have one name.

    Example:
        >>> plain_name("aten._scaled_dot_product_flash_attention_for_cpu"), plain_name("aten::_convolution")
        ('scaled_dot_product_attention', 'convolution')
    """
    name = re.split(r"::|\.", operator)[-1].lstrip("_")
    return FUSED if name.startswith("scaled_dot_product") else name


@dataclass
class Reading:
    """The result of a tool; operators by plain name."""

    macs: int | None
    unseen: Counter[str] = field(default_factory=Counter)
    unseen_macs: Counter[str] = field(default_factory=Counter)
    unsupported: Counter[str] = field(default_factory=Counter)
    note: str = ""


@dataclass(frozen=True)
class Tool:
    """A counter: ``run(model, images_BCHW, log)``."""

    package: str
    backend: str
    run: Callable[[nn.Module, Tensor, OperatorLog], Reading]


def _fvcore(model: nn.Module, images_BCHW: Tensor, log: OperatorLog) -> Reading:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, images_BCHW)
    macs = int(analysis.total())
    unsupported = _plain(analysis.unsupported_ops())
    return Reading(macs, *_restrict(log, unsupported), unsupported, "its flops are multiply-accumulates")


def _ptflops_aten(model: nn.Module, images_BCHW: Tensor, log: OperatorLog) -> Reading:
    macs, said = _ptflops(model, images_BCHW, "aten")
    unsupported = _plain(Counter(re.findall(r"Warning: (\S+) operation is treated as a zero-op", said)))
    return Reading(macs, *_restrict(log, unsupported), unsupported)


def _ptflops_pytorch(model: nn.Module, images_BCHW: Tensor, log: OperatorLog) -> Reading:
    """ptflops counts in hooks of module types and in wrappers of functions, and does not report what it misses.

    So at every operator the call stack is searched for a hooked module or a wrapper. The count of a hooked module
    replaces the counts of the hooked modules inside it; the operators of these are not counted.
    """
    from ptflops.pytorch_engine import torch_function_wrapper

    def uncounted() -> bool:
        hooked = set()
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, torch_function_wrapper):
                return False
            if isinstance(caller, nn.Module) and hasattr(caller, "__flops_handle__"):
                hooked.add(caller)
            frame = frame.f_back
        return len(hooked) != 1

    missed = OperatorLog(wanted=uncounted)
    with missed:
        macs, _ = _ptflops(model, images_BCHW, "pytorch")
    return Reading(macs, *_restrict(missed, missed.macs), note="it counts known module types and some functions")


def _ptflops(model: nn.Module, images_BCHW: Tensor, backend: str) -> tuple[int, str]:
    """Multiply-accumulates by one back end of ptflops, and its printed output."""
    from ptflops import get_model_complexity_info

    said = io.StringIO()
    macs, _ = get_model_complexity_info(
        model,
        tuple(images_BCHW.shape[1:]),
        as_strings=False,
        print_per_layer_stat=False,
        input_constructor=lambda _: images_BCHW,
        backend=backend,
        verbose=True,
        ost=said,
    )
    if macs is None:  # the reason is in its printed output
        raise RuntimeError("ptflops returned no result")
    return int(macs), said.getvalue()


def _torch(model: nn.Module, images_BCHW: Tensor, log: OperatorLog) -> Reading:
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        model(images_BCHW)
    counted = {plain_name(str(operator)) for operator in counter.get_flop_counts().get("Global", {})}
    unseen = _restrict(log, log.macs.keys() - counted)
    note = "it counts two operations per multiply-accumulate; halved here"
    return Reading(counter.get_total_flops() // 2, *unseen, note=note)


TOOLS: tuple[Tool, ...] = (
    Tool("fvcore", "jit trace", _fvcore),
    Tool("ptflops", "pytorch", _ptflops_pytorch),
    Tool("ptflops", "aten", _ptflops_aten),
    Tool("torch", "dispatch", _torch),
)


def _run(tool: Tool, model: nn.Module, images_BCHW: Tensor, log: OperatorLog) -> Reading:
    """Run a tool. If it fails in any way, its reading has no number."""
    with _quiet() as printed, torch.no_grad():
        try:
            return tool.run(model, images_BCHW, log)
        except Exception as error:
            lines = [*printed.getvalue().strip().splitlines(), f"{type(error).__name__}: {error}"]
            return Reading(None, note=f"failed: {lines[-1]}")


@contextlib.contextmanager
def _private_copy(model: nn.Module, attention: str) -> Iterator[nn.Module]:
    """A copy of the model in eval mode on the CPU, since the tools leave hooks and attributes behind."""
    ours = copy.deepcopy(model).cpu().eval()
    with use_explicit_attention(ours) if attention == "explicit" else contextlib.nullcontext():
        yield ours


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Catch prints, warnings and log messages; yields the printed text."""
    printed = io.StringIO()
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield printed
    finally:
        logging.disable(level)


def _restrict(log: OperatorLog, names: Container[str]) -> tuple[Counter[str], Counter[str]]:
    """Calls and multiply-accumulates of those operators of the log that have MACs and are in ``names``."""
    calls = Counter({name: log.calls[name] for name in log.macs if name in names})
    return calls, Counter({name: log.macs[name] for name in calls})


def _plain(operators: "Counter[str]") -> Counter[str]:
    plain: Counter[str] = Counter()
    for name, calls in operators.items():
        plain[plain_name(name)] += calls
    return plain


def _listed(operators: Counter[str]) -> str:
    return ", ".join(f"{name} ×{calls}" for name, calls in operators.most_common())
