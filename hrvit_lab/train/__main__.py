"""``hrvit-lab train MODEL``: train one network briefly and keep its curves and weights."""

import sys
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.train.datasets import DATASETS
from hrvit_lab.train.options import TrainOptions

UNTRAINED = "interrupted before anything was trained"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 (diverged, out of memory), 2 (invalid request) or 130 (interrupted)."""

    def work() -> int:
        options = parser().parse_args(arguments)
        with cli.loading():
            from hrvit_lab.train.command import train  # here: --help is quick

        return train(options)

    return cli.run(work, interrupted=UNTRAINED)


def parser() -> cli.Parser:
    """The command line; training options come from ``TrainOptions``, which validates them."""
    description = "Train one network briefly, for a top-1 that compares networks on that data set."
    parser = cli.Parser("hrvit-lab train", description)
    parser.add_argument("model", metavar="MODEL", help="a preset (hrvit_nano, …) or a config's YAML file")
    parser.add_argument("--data", default="digits", help=f"{', '.join(DATASETS)} (digits)")
    parser.add_argument("--root", type=cli.path, metavar="DIR", help="folder with the data set's files")
    parser.add_argument("--resolution", type=cli.size, default=(32, 32), metavar="N|HxW", help="input in pixels (32)")
    parser.add_argument("--seed", type=cli.seed, default=0, metavar="N", help="of weights, order and augmentation (0)")
    parser.add_argument("--device", type=cli.device, default="cpu", metavar="D", help="where to train (cpu)")
    parser.add_argument("--out", type=cli.path, metavar="DIR", help="folder for the results (results/train/…)")
    group = parser.add_argument_group("training options")
    for name, field in TrainOptions.model_fields.items():
        default = "all" if field.default is None else field.default
        group.add_argument(
            f"--{name.replace('_', '-')}", type=cli.threads if name == "threads" else str, metavar="X",
            help=f"{field.description} ({default})".replace("%", "%%"),
        )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
