"""Compare two products with the fused kernel for attention in windows: ``python tests/bench_attention.py``.

One line for each shape: windows, heads, tokens and channels of a head, and the time of `attend_served` with its limits
lifted divided by that of the fused kernel: median over rounds with its 95 % interval, one thread, float32 and bfloat16.
Ratios are below 1 at 16 to 60 tokens, in bfloat16 to 98, unless the scores leave the cache: these are the limits in
`hrvit_lab.network.blocks.attend`. It takes about two minutes.
"""

import importlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from hrvit_lab.latency.compare import Budget, compare, paired_ratio
from hrvit_lab.latency.timing import cpu_stopwatch, primed

attend: Any = importlib.import_module("hrvit_lab.network.blocks.attend")  # the package has a function of this name
SHAPES = [
    *((64, 1, tokens, 16) for tokens in (8, 14, 16, 28, 32, 48, 56, 60, 64, 98)),
    (112, 1, 56, 16), (28, 1, 56, 32), (28, 2, 56, 32), (2, 4, 49, 32), (896, 1, 56, 16), (256, 1, 128, 16),
]  # fmt: skip
"""The second line has shapes of hrvit_b1 at 224 × 224, in batches of 1 and 8, and at 512 × 512."""


def ratio(q: torch.Tensor, v: torch.Tensor) -> str:
    """Time of two products divided by that of the fused kernel, as text."""
    calls = {"two products": partial(attend.attend_served, q, v), "fused": partial(attend.attend_by_head, q, v, v)}
    with torch.inference_mode():
        watches = {name: primed(call, cpu_stopwatch(call, time.perf_counter)) for name, call in calls.items()}
        rounds = compare(watches, Budget(min_rounds=20, max_seconds=3.0))
    found = paired_ratio(rounds.wall_ms("two products"), rounds.wall_ms("fused"))
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> int:
    torch.set_num_threads(1)
    attend.FEWEST_TOKENS, attend.MOST_SCORES = 0, 10**12
    attend.MOST_TOKENS = dict.fromkeys(attend.MOST_TOKENS, 10**9)
    print("windows  heads  tokens  channels  two products / fused: float32, bfloat16")
    for windows, heads, tokens, channels in SHAPES:
        q, v = torch.randn(2, windows, tokens, heads, channels).transpose(2, 3)
        ratios = [ratio(q.to(dtype), v.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
        print(f"{windows:7} {heads:6} {tokens:7} {channels:9}  {'  '.join(ratios)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
