"""``hrvit-lab train MODEL``: train one network for a few epochs and write its curves and weights."""

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
    """The command line; training options are the fields of ``TrainOptions``, which validates them."""
    description = (
        "Train one network for a few epochs. The top-1 is a proxy that compares networks trained on the same data set."
    )
    parser = cli.Parser("hrvit-lab train", description)
    parser.add_argument("model", metavar="MODEL", help="a preset (hrvit_nano, …) or the YAML file of a config")
    parser.add_argument("--data", default="digits", help=f"data set: {', '.join(DATASETS)} (default: digits)")
    parser.add_argument(
        "--root", type=cli.path, metavar="DIR",
        help="folder with the files of the data set; required for folder, optional for fashion_mnist",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=cli.size, default=(32, 32), metavar="N|HxW", help="input size in pixels (default: 32)"
    )
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N", help="seed of weights, order and augmentation (default: 0)"
    )
    parser.add_argument(
        "--device", type=cli.device, default="cpu", metavar="D", help="device: cpu, cuda, cuda:N or mps (default: cpu)"
    )
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR",
        help="folder of the results (default: results/train/MODEL-DATA-seedN, with -2, -3, … if it exists)",
    )  # fmt: skip
    group = parser.add_argument_group("training options")
    for name, field in TrainOptions.model_fields.items():
        default = "all" if field.default is None else field.default
        group.add_argument(
            f"--{name.replace('_', '-')}", type=cli.threads if name == "threads" else str, metavar="X",
            help=f"{field.description} (default: {default})".replace("%", "%%"),
        )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
