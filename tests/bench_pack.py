"""Compare packed weights with plain ones: ``python tests/bench_pack.py``.

One line for each product: its shape, its multiply-accumulates, and the time with packed weights divided by that with
plain ones, alone and followed by GELU; median over rounds with its 95 % interval, one thread, float32. Ratios are near
or below 1 above the limits in `hrvit_lab.network.blocks.packed`. Then the same for whole deployed networks. This takes
two minutes.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

from hrvit_lab.config import preset
from hrvit_lab.latency.compare import Budget, compare, paired_ratio
from hrvit_lab.latency.models import randomize_norms
from hrvit_lab.latency.timing import cpu_stopwatch, primed
from hrvit_lab.network.blocks import packed as blocks
from hrvit_lab.network.blocks.packed import Activation, PackedConv, PackedLinear
from hrvit_lab.network.build import create_model
from hrvit_lab.network.deploy import deploy
from hrvit_lab.network.pack import pack

LINEARS = [(49, 64, 256), (196, 64, 64), (196, 64, 128), (784, 32, 64), (196, 64, 256), (3136, 32, 32), (784, 64, 128)]
"""Tokens, input and output channels."""
CONVS = [(1, 28, 32), (1, 14, 128), (1, 28, 64), (3, 8, 32), (3, 8, 64), (3, 16, 32)]
"""Kernel side, map side, channels."""
NETWORKS = [("hrvit_nano", 64, 1), ("hrvit_nano", 64, 8), ("hrvit_micro", 64, 1), ("hrvit_b1", 224, 1)]
CALLS = 20


def race(plain: Callable[[], object], packed: Callable[[], object], seconds: float = 1.5) -> str:
    """The ratio of packed to plain, as text."""
    calls = {"plain": plain, "packed": packed}
    with torch.inference_mode():
        watches = {name: primed(call, cpu_stopwatch(call, time.perf_counter)) for name, call in calls.items()}
        rounds = compare(watches, Budget(min_rounds=15, max_seconds=seconds))
    ratio = paired_ratio(rounds.wall_ms("packed"), rounds.wall_ms("plain"))
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"


def repeated(layer: nn.Module, x: Tensor, activation: Activation) -> Callable[[], None]:
    """Some calls of a layer; a packed one computes the activation itself."""

    def run() -> None:
        for _ in range(CALLS):
            y = layer(x)
            if activation == "gelu" and not isinstance(layer, blocks.Packed):
                torch.ops.aten.gelu_(y)

    return run


def main() -> int:
    torch.set_num_threads(1)
    limits, blocks.FEWEST_MACS = blocks.FEWEST_MACS, {"none": 0, "gelu": 0}
    print("product                         million MACs  alone               with GELU")
    for tokens, into, out in LINEARS:
        linear, x = nn.Linear(into, out), torch.randn(1, tokens, into)
        ratios = [
            race(repeated(linear, x, kind), repeated(PackedLinear(linear.weight, linear.bias, x.shape, kind), x, kind))
            for kind in limits
        ]
        name = f"linear {tokens} × {into} × {out}"
        print(f"{name:31} {tokens * into * out / 1e6:12.2f}  {'  '.join(ratios)}")
    for kernel, side, channels in CONVS:
        conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2).to(memory_format=torch.channels_last)
        x = torch.randn(1, channels, side, side).to(memory_format=torch.channels_last)
        ratios = [race(repeated(conv, x, kind), repeated(PackedConv(conv, x.shape, kind), x, kind)) for kind in limits]
        name = f"convolution {kernel}², {side}², {channels} channels"
        print(f"{name:31} {conv.weight.numel() * side**2 / 1e6:12.2f}  {'  '.join(ratios)}")
    blocks.FEWEST_MACS = limits
    print("network                                       packed / deployed")
    for name, side, batch in NETWORKS:
        model = create_model(preset(name)).eval()
        randomize_norms(model)
        served, images = deploy(model), torch.randn(batch, 3, side, side)
        setting = f"{name}, {side}², batch {batch}"
        print(f"{setting:44}  {race(partial(served, images), partial(pack(served, images), images), 20)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
