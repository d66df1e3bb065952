"""``hrvit-lab latency MODEL…``: time networks against each other, interleaved, with an A/A control."""

import sys
from collections.abc import Sequence

from hrvit_lab import cli

EXAMPLES = """\
examples:
  hrvit-lab latency hrvit_b1:deploy --against hrvit_b1 --resolution 224,512 --threads 1
  hrvit-lab latency hrvit_b1 timm:resnet50 --device cuda --batch-size 1,64 --dtype fp32,bf16 \\
      --backend eager,cuda_graph,compile --out results/latency
  hrvit-lab latency hrvit_b1 --batch-size 1,2,4,8,16 --json sweep.jsonl
  hrvit-lab latency hrvit_b1 --parts
  hrvit-lab latency hrvit_b1 --training --batch-size 8 --dtype fp32,bf16
  python -m hrvit_lab.latency.suite        the whole table of a GPU: 7 networks, 6 ways each, resumable

MODEL is a preset, a config's YAML file (either with :deploy behind it, for the form for inference), or timm:NAME.
Weights are random, BatchNorms too. All of one resolution and batch race against the first (or --against) with the
first back end and number format: in every round each runs once, in random order, and the first twice (A/A control).
Ctrl-C ends the race and keeps it. Exit code: 0 all are timed, 1 some are not (and say why), 2 the request is invalid,
130 interrupted.
"""

BACKENDS = ("eager", "packed", "compile", "cuda_graph", "compile_cuda_graph", "onnxruntime", "openvino")
MAX_SECONDS = 24 * 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""

    def work() -> int:
        options = parser().parse_args(arguments)
        with cli.loading():
            from hrvit_lab.latency.command import run  # here: --help is quick

            console = cli.console()
        return run(options, console)

    return cli.run(work, interrupted="interrupted; finished measurements are kept")


def parser() -> cli.Parser:
    """The command line."""
    description = "Time networks against each other: numerics first, interleaved, with intervals."
    parser = cli.Parser("hrvit-lab latency", description, EXAMPLES)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hrvit_b1, hrvit_b1:deploy, my.yaml, timm:resnet50")
    parser.add_argument("--against", metavar="MODEL", help="the reference; default: the first MODEL")
    parser.add_argument(
        "--resolution", type=cli.listed(cli.size), default=[(224, 224)], metavar="N|HxW,…", help="in pixels (224)"
    )
    parser.add_argument(
        "--batch-size", "--batch", type=cli.listed(cli.whole(1, 65536)), default=[1], dest="batch", metavar="N,…",
        help="images a call (1)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", type=cli.listed(cli.dtype), default=["float32"], metavar="D,…",
        help="fp32, bf16, fp16 (fp32, without TF32)",
    )  # fmt: skip
    parser.add_argument(
        "--backend", type=cli.listed(cli.one_of(BACKENDS, "back end")), default=["eager"], metavar="A,…",
        help=f"{', '.join(BACKENDS)} (eager)",
    )  # fmt: skip
    parser.add_argument("--device", type=cli.device, default="cpu", metavar="D", help="cpu, cuda or cuda:N (cpu)")
    parser.add_argument("--threads", type=cli.threads, metavar="N", help="CPU threads; default: as many as torch takes")
    parser.add_argument(
        "--memory-format", choices=("contiguous", "channels_last"), default="contiguous", help="of the input"
    )
    parser.add_argument(
        "--training", action="store_true",
        help="time a training step: forward, mean square of the outputs, backward; no optimizer",
    )  # fmt: skip
    parser.add_argument("--parts", action="store_true", help="also latency by part: HRViTs, eager, first number format")
    parser.add_argument(
        "--precision", type=cli.number(0, 99), default=1.0, metavar="PERCENT",
        help="stop at this half-width of all intervals (1)",
    )  # fmt: skip
    parser.add_argument(
        "--max-seconds", type=cli.number(0, MAX_SECONDS), default=60.0, metavar="S",
        help="for a race of at least 7 rounds; also for a warm-up, if under 10 (60)",
    )  # fmt: skip
    parser.add_argument("--seed", type=cli.seed, default=0, metavar="N", help="of weights, input and order (0)")
    parser.add_argument("--json", type=cli.path, metavar="FILE", help="add a line a measurement, raw samples included")
    parser.add_argument("--out", type=cli.path, metavar="DIR", help="the same lines, tables (CSV) and figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
