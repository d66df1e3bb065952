"""``hrvit-lab cost MODEL``: parameters, MACs, activations and memory of a network, computed in closed form."""

import sys
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.cost.count import GROUPINGS

EXAMPLES = """\
examples:
  hrvit-lab cost hrvit_b1 --resolution 512
  hrvit-lab cost hrvit_b1 --resolution 512x1024 --dtype bf16 --batch-size 8
  hrvit-lab cost hrvit_b1 --by stage
  hrvit-lab cost mine.yaml --by operator --csv > costs.csv
  hrvit-lab cost hrvit_b1 --set "branches=3,window_sizes=[1, 2, 7]"
  hrvit-lab cost hrvit_b1 --audit

The costs are computed from the config. No network is built, except with --audit.
Exit code: 0 success, 2 invalid request.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    def work() -> int:
        options = parser().parse_args(arguments)
        with cli.loading():
            from hrvit_lab.cost.command import show  # imported here to keep --help fast

        show(options)
        return 0

    return cli.run(work)


def parser() -> cli.Parser:
    """The command line."""
    description = "Show what a network costs: parameters, MACs, activations and memory, computed in closed form."
    parser = cli.Parser("hrvit-lab cost", description, EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a preset (hrvit_b1, …) or the YAML file of a config")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE,…",
        help="change the config: any field, or branches, width_scale, depth_scale; values are YAML; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=cli.size, default=(224, 224), metavar="N|HxW", help="input size in pixels (default: 224)"
    )
    parser.add_argument("--by", choices=GROUPINGS, default="part", help="what each row sums over (default: part)")
    parser.add_argument(
        "--dtype", type=cli.dtype, default="float32", metavar="D",
        help="number format of weights and activations: fp32, bf16, fp16 (default: fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=cli.whole(1, 65536), default=1, metavar="N",
        help="images in the batch whose memory is shown below the table (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--audit", action="store_true",
        help="also build the network and count it with fvcore, ptflops and torch (about a minute)",
    )  # fmt: skip
    parser.add_argument(
        "--csv", action="store_true", help="print CSV with exact values; with --audit, the table of the audit"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
