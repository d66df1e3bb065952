"""``hrvit-lab latency MODEL…``: compare the latency of networks, with interleaved calls and an A/A control.

``hrvit-lab latency profile`` and ``check`` measure and check a profile, from which latencies are predicted.
"""

import sys
from collections.abc import Sequence

from hrvit_lab import cli

EXAMPLES = """\
examples:
  hrvit-lab latency hrvit_b1:deploy --against hrvit_b1 --resolution 224,512
  hrvit-lab latency hrvit_b1 timm:resnet50 --device cuda --batch-size 1,64 \\
      --dtype fp32,bf16 --backend eager,cuda_graph,compile --out results/latency
  hrvit-lab latency hrvit_b1 --batch-size 1,2,4,8,16 --json sweep.jsonl
  hrvit-lab latency hrvit_b1:deploy --backend eager,auto --threads 1
  hrvit-lab latency hrvit_b1 --parts
  hrvit-lab latency hrvit_b1 --training --batch-size 8 --dtype fp32,bf16
  hrvit-lab latency profile lighter_b1 --threads 1 --out laptop.json
  hrvit-lab latency check laptop.json --search lighter_b1
  python -m hrvit_lab.latency.suite      a table of 7 networks on a GPU

MODEL is a preset, the YAML file of a config, or timm:NAME. With the suffix :deploy, a preset or a file is timed in its
form for inference. Weights and BatchNorm statistics are random. The reference is the first model (or --against) with
the first back end and number format. Models are timed in rounds: each runs once a round, in random order; the reference
runs twice (A/A control). Ctrl-C stops the measurement and keeps the rounds so far.

Exit code: 0 all were timed, 1 some were not (the table says why), 2 invalid request, 130 interrupted.
"""

BACKENDS = (
    "eager",
    "packed",
    "compile",
    "compile_whole",
    "aot_inductor",
    "cuda_graph",
    "compile_cuda_graph",
    "onnxruntime",
    "openvino",
    "aot_inductor_int8",
    "onnxruntime_int8",
    "openvino_int8",
)
AUTO = "auto"
MAX_SECONDS = 24 * 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given[:1] in (["profile"], ["check"]):
            return _profile_or_check(given[0], given[1:])
        options = parser().parse_args(given)
        with cli.loading():
            from hrvit_lab.latency.command import run  # imported here to keep --help fast

            console = cli.console()
        return run(options, console)

    return cli.run(work, interrupted="interrupted; finished measurements are kept")


def parser() -> cli.Parser:
    """The command line."""
    description = (
        "Compare the latency of networks. Outputs are checked first; calls are interleaved and compared in pairs."
    )
    parser = cli.Parser("hrvit-lab latency", description, EXAMPLES)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="hrvit_b1, hrvit_b1:deploy, my.yaml, timm:resnet50")
    parser.add_argument("--against", metavar="MODEL", help="the reference (default: the first MODEL)")
    parser.add_argument(
        "--resolution", type=cli.listed(cli.size), default=[(224, 224)], metavar="N|HxW,…",
        help="input size in pixels (default: 224)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", "--batch", type=cli.listed(cli.whole(1, 65536)), default=[1], dest="batch", metavar="N,…",
        help="images per call (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", type=cli.listed(cli.dtype), default=["float32"], metavar="D,…",
        help="number formats of weights and input: fp32 (without TF32), bf16, fp16 (default: fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--backend", type=cli.listed(cli.one_of((*BACKENDS, AUTO), "back end")), default=["eager"], metavar="A,…",
        help=f"{', '.join(BACKENDS)}; or auto: the fastest of those without int8, which is found once and kept "
        "(default: eager)",
    )  # fmt: skip
    parser.add_argument(
        "--device", type=cli.device, default="cpu", metavar="D", help="cpu, cuda or cuda:N (default: cpu)"
    )
    parser.add_argument("--threads", type=cli.threads, metavar="N", help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--memory-format", choices=("contiguous", "channels_last"), default="contiguous",
        help="memory format of the input; channels_last also converts the weights (default: contiguous)",
    )  # fmt: skip
    parser.add_argument(
        "--training", action="store_true",
        help="time a training step (forward, mean square of the outputs as the loss, backward; no optimizer) instead "
        "of inference",
    )  # fmt: skip
    parser.add_argument(
        "--parts", action="store_true",
        help="also time each part of every HRViT, with the eager back end and the first number format",
    )  # fmt: skip
    parser.add_argument(
        "--precision", type=cli.number(0, 99), default=1.0, metavar="PERCENT",
        help="stop when the half-width of every 95 %% interval is below this (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--max-seconds", type=cli.number(0, MAX_SECONDS), default=60.0, metavar="S",
        help="stop the rounds of one comparison after this time, but not before 7 rounds; a warm-up takes at most "
        "this or 10 seconds (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N", help="seed of weights, input and order (default: 0)"
    )
    parser.add_argument(
        "--json", type=cli.path, metavar="FILE", help="append one JSON line per measurement, with its raw samples"
    )
    parser.add_argument("--out", type=cli.path, metavar="DIR", help="write JSON lines, CSV tables and figures here")
    return parser


def _profile_or_check(command: str, arguments: Sequence[str]) -> int:
    options = (profile_parser() if command == "profile" else check_parser()).parse_args(arguments)
    with cli.loading():
        from hrvit_lab.latency import profile_command

    return profile_command.profile(options) if command == "profile" else profile_command.check(options)


def profile_parser() -> cli.Parser:
    """The command line of ``hrvit-lab latency profile``."""
    parser = cli.Parser(
        "hrvit-lab latency profile",
        "Time networks of a search's space by part, so that the latency of any network of the space can be predicted. "
        "Half of them are drawn at random, the others are those whose prediction is least certain. Run it on an idle "
        "machine. It can be stopped; the same command continues.",
    )
    parser.add_argument("search", metavar="NAME|FILE.yaml", help="the search whose space is measured")
    parser.add_argument(
        "--device", type=cli.device, default="cpu", metavar="D", help="cpu, cuda or cuda:N (default: cpu)"
    )
    parser.add_argument(
        "--form", choices=("eager", "served"), default="eager", help="as trained, or deployed (default: eager)"
    )
    parser.add_argument(
        "--dtype",
        type=cli.dtype,
        default="float32",
        metavar="D",
        help="number format: fp32, bf16, fp16 (default: fp32)",
    )
    parser.add_argument(
        "--batch-size", type=cli.whole(1, 65536), default=1, metavar="N", help="images per call (default: 1)"
    )
    parser.add_argument("--threads", type=cli.threads, metavar="N", help="CPU threads (default: torch's own choice)")
    parser.add_argument("--out", type=cli.path, required=True, metavar="DEVICE.json", help="file of the profile")
    _add_networks(parser, "networks to measure", 60)
    return parser


def check_parser() -> cli.Parser:
    """The command line of ``hrvit-lab latency check``."""
    parser = cli.Parser(
        "hrvit-lab latency check",
        "Predict the latency of networks that a profile has not seen, measure them twice, and show how far predictions "
        "are off, beside the two measurements and MACs alone. It can be stopped; the same command continues.",
    )
    parser.add_argument("profile", type=cli.path, metavar="DEVICE.json", help="file of hrvit-lab latency profile")
    parser.add_argument("--search", metavar="NAME|FILE.yaml", help="check random networks of this search's space")
    parser.add_argument("--study", metavar="DIR", help="check the networks of these results, as of a search")
    parser.add_argument("--out", type=cli.path, metavar="FILE", help="file of the check (default: DEVICE.check.json)")
    _add_networks(parser, "networks to check, drawn at random", 200)
    return parser


def _add_networks(parser: cli.Parser, what: str, number: int) -> None:
    parser.add_argument(
        "--resolution", type=cli.listed(cli.size), default=[(224, 224)], metavar="N|HxW,…",
        help="input sizes in pixels, in turn (default: 224)",
    )  # fmt: skip
    parser.add_argument(
        "--networks", type=cli.whole(5, 10_000), default=number, metavar="N", help=f"{what} (default: {number})"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, metavar="N", help="seed of the draws (default: 0)")


if __name__ == "__main__":
    sys.exit(main())
