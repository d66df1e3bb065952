"""``hrvit-lab evaluate CHECKPOINT``: score a checkpoint on a data set, and write predictions and overlays."""

import sys
from collections.abc import Sequence

from hrvit_lab import cli

EXAMPLES = """\
examples:
  hrvit-lab evaluate runs/fashion_mnist-hrvit_nano-seed0
  hrvit-lab evaluate hrvit_nano.fashion_mnist
  hrvit-lab evaluate b1.pth --recipe imagenet_hrvit --data DIR
  hrvit-lab evaluate r18.pth --recipe imagenet_hrvit --model timm:resnet18
  hrvit-lab evaluate runs/b1 --set evaluation.flip=true

A folder written by hrvit-lab train contains its recipe. For any other file, --recipe gives the preprocessing of the
images and the network; --model selects another network.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 2 (invalid request) or 130 (interrupted)."""

    def work() -> int:
        options = parser().parse_args(arguments)
        with cli.loading():
            from hrvit_lab.evaluate.command import evaluate  # imported here to keep --help fast

        return evaluate(options)

    return cli.run(work)


def parser() -> cli.Parser:
    """The command line."""
    parser = cli.Parser("hrvit-lab evaluate", "Score a checkpoint on the validation images of a data set.", EXAMPLES)
    parser.add_argument(
        "checkpoint", type=cli.path, metavar="CHECKPOINT",
        help="a folder of hrvit-lab train RECIPE, a file of weights (.safetensors, .pth), or a trained network of this "
        "package (hrvit_nano.fashion_mnist)",
    )  # fmt: skip
    parser.add_argument(
        "--recipe", metavar="RECIPE", help="a recipe of hrvit-lab train list, or a YAML file (default: the folder's)"
    )
    parser.add_argument(
        "--model", metavar="NAME",
        help="a preset, timm:NAME, or the YAML file of a config (default: the recipe's model)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=cli.path, metavar="DIR",
        help="folder with the files of the data set (default: the usual folder of the data set)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE,…",
        help="change a setting of the recipe (evaluation.flip=true); can be repeated",
    )  # fmt: skip
    parser.add_argument("--ema", action="store_true", help="use the moving average of the weights in the file")
    parser.add_argument(
        "--device", type=cli.device, metavar="D", help="cpu, cuda, cuda:N or mps (default: a GPU if there is one)"
    )
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR",
        help="folder of the results without earlier ones (default: a new folder evaluation, evaluation-2, … in the "
        "folder of the checkpoint, or in runs/NAME for a trained network)",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
