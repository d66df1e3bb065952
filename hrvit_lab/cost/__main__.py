"""``hrvit-lab cost MODEL``: parameters, MACs, activations and memory of a network, in closed form."""

import sys
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.cost.count import GROUPINGS

EXAMPLES = """\
examples:
  hrvit-lab cost hrvit_b1 --resolution 512
  hrvit-lab cost hrvit_b1 --resolution 512x1024 --by stage --dtype bf16 --batch-size 8
  hrvit-lab cost mine.yaml --by operator --csv > costs.csv
  hrvit-lab cost hrvit_b1 --set "branches=3,window_sizes=[1, 2, 7]"
  hrvit-lab cost hrvit_b1 --audit        runs fvcore, ptflops and torch's counter too (a minute)

Everything is arithmetic on the config: no network is built, except with --audit.
Exit code: 0, or 2 if the request is invalid.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""

    def work() -> int:
        options = parser().parse_args(arguments)
        from hrvit_lab.cost.command import show  # here: --help is quick

        show(options)
        return 0

    return cli.run(work)


def parser() -> cli.Parser:
    """The command line."""
    description = "What a network costs, in closed form, and what other counters say about it."
    parser = cli.Parser("hrvit-lab cost", description, EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a preset (hrvit_b1, …) or a config's YAML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE,…",
        help="change the config, as in studies: fields, branches, width_scale, depth_scale (YAML values)",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=cli.size, default=(224, 224), metavar="N|HxW", help="input in pixels (224)"
    )
    parser.add_argument("--by", choices=GROUPINGS, default="part", help="what a line of the table is (part)")
    parser.add_argument(
        "--dtype", type=cli.dtype, default="float32", metavar="D", help="of weights and maps: fp32, bf16, fp16 (fp32)"
    )
    parser.add_argument("--batch-size", type=cli.whole(1, 65536), default=1, metavar="N", help="for memory (1)")
    parser.add_argument("--audit", action="store_true", help="build the network and ask the other counters too")
    parser.add_argument(
        "--csv", action="store_true", help="print the table as CSV, unrounded; with --audit, the audit's"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
