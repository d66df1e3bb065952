"""``hrvit-lab export MODEL --format onnx``: a file that a runtime loads, checked and timed, with a card.

``hrvit-lab export sensitivity MODEL`` measures what int8 costs each part of a network.
"""

import sys
from collections.abc import Sequence

from hrvit_lab import cli

FORMATS = {
    "pt2": "a graph of torch.export, for PyTorch",
    "onnx": "for ONNX Runtime and many others",
    "openvino": "OpenVINO's format, model.xml and model.bin",
    "torchscript": "a trace, for PyTorch and its C++ library",
}
DTYPES = (*cli.DTYPES, "int8")
FREE_AXES = ("batch", "size")

EXAMPLES = """\
examples:
  hrvit-lab export hrvit_nano.fashion_mnist --format onnx
  hrvit-lab export hrvit_b1 --format openvino --resolution 512 --threads 1
  hrvit-lab export hrvit_nano --format pt2 --dynamic batch,size --no-race
  hrvit-lab export runs/b1 --format onnx --dynamic batch --out exported/b1
  hrvit-lab export timm:resnet18 --format torchscript
  hrvit-lab export hrvit_nano.fashion_mnist --format onnx --dtype int8 \\
      --data fashion_mnist
  hrvit-lab export sensitivity hrvit_nano.fashion_mnist --data fashion_mnist

formats:
{formats}

The file computes the deployed form of the network. It is loaded again in its runtime and compared with the plain
network on random, constant, very large and NaN images; a file with wrong outputs is not kept. Then it is timed against
the deployed network in PyTorch, with interleaved calls and an A/A control. The folder also has card.md and card.json:
config, costs, errors, latency, versions, and how to load the file.

Images and outputs are float32 in every number format. Weights that are not trained are random, with BatchNorm and layer
scale randomized. Ctrl-C leaves nothing. Exit code: 0 success, 2 invalid request, 130 interrupted.
"""

SENSITIVITY_EXAMPLES = """\
examples:
  hrvit-lab export sensitivity hrvit_nano.fashion_mnist --data fashion_mnist
  hrvit-lab export sensitivity runs/b1 --data photographs/ --out b1-int8
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["sensitivity"]:
        return cli.run(
            lambda: _sensitivity(given[1:]),
            interrupted="interrupted; finished parts are kept, run it again to continue",
        )

    def work() -> int:
        options = parser().parse_args(given)
        with cli.loading():
            from hrvit_lab.export.command import export  # imported here to keep --help fast

        return export(options)

    return cli.run(work, interrupted="interrupted; no file was left")


def dtype(text: str) -> str:
    """Parse a number format into its name in torch."""
    name = cli.one_of(DTYPES, "number format")(text.lower())
    return cli.DTYPES.get(name, name)


def parser() -> cli.Parser:
    """The command line."""
    width = max(map(len, FORMATS))
    listed = "\n".join(f"  {name:{width}}  {what}" for name, what in FORMATS.items())
    parser = cli.Parser(
        "hrvit-lab export", "Write a network to a file that a runtime loads.", EXAMPLES.format(formats=listed)
    )
    parser.add_argument("model", metavar="MODEL", help=cli.MODEL)
    parser.add_argument(
        "--format", type=cli.one_of(FORMATS, "format"), required=True, metavar="F", help=", ".join(FORMATS)
    )
    parser.add_argument(
        "--resolution", type=cli.size, metavar="N|HxW",
        help="input size in pixels (default: that of the network's training, or 224, or 512 for segmentation)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", "--batch", type=cli.whole(1, 65536), default=1, dest="batch_size", metavar="N",
        help="images per call (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--dynamic", type=cli.listed(cli.one_of(FREE_AXES, "axis")), default=[], metavar="AXIS,…",
        help="axes that are free in the file: batch, size (default: none)",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", type=dtype, default="float32", metavar="D",
        help="number format of weights and arithmetic: fp32, bf16, fp16, int8 (default: fp32)",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="NAME|DIR",
        help="images for int8, which needs them to compute its scales: a recipe (its validation images give the "
        "accuracy before and after), or a folder of images (default: none)",
    )  # fmt: skip
    _add_images(parser, "the accuracy of int8 is measured on", 2000)
    parser.set_defaults(calibration_images=None, test_images=None)  # command.py has the defaults
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR",
        help="a new or empty folder (default: a new folder results/export/MODEL-FORMAT, MODEL-FORMAT-2, …)",
    )  # fmt: skip
    parser.add_argument("--no-race", action="store_true", help="do not measure the latency")
    parser.add_argument(
        "--max-seconds", type=cli.number(0, 24 * 3600), metavar="S",
        help="stop the rounds of the race after this time, but not before 7 rounds (default: 10)",
    )  # fmt: skip
    parser.add_argument("--threads", type=cli.threads, metavar="N", help="CPU threads (default: torch's own choice)")
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N",
        help="seed of weights that are not trained, and of images (default: 0)",
    )  # fmt: skip
    return parser


def sensitivity_parser() -> cli.Parser:
    """The command line of ``hrvit-lab export sensitivity``."""
    parser = cli.Parser(
        "hrvit-lab export sensitivity",
        "Quantize one part of a trained network to int8 at a time (by stage, branch and part; by module for timm's "
        "networks), and show how far the outputs and the accuracy change. It needs ONNX Runtime. It can be stopped; "
        "the same command continues.",
        SENSITIVITY_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="a network with trained weights, as for hrvit-lab export")
    parser.add_argument(
        "--data", required=True, metavar="NAME|DIR",
        help="a recipe, whose training images calibrate and whose validation images test; or a folder of images, for "
        "which the accuracy is not measured",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=cli.size, metavar="N|HxW", help="input size in pixels (default: that of the training)"
    )
    parser.add_argument(
        "--batch-size", "--batch", type=cli.whole(1, 65536), default=16, dest="batch_size", metavar="N",
        help="images per call (default: 16)",
    )  # fmt: skip
    _add_images(parser, "outputs and accuracy are compared on", 1000)
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR", help="folder (default: results/export/MODEL-sensitivity)"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, metavar="N", help="seed of the images (default: 0)")
    return parser


def _add_images(parser: cli.Parser, tested: str, tests: int) -> None:
    parser.add_argument(
        "--calibration-images", type=cli.whole(1, 100_000), default=256, metavar="N",
        help="largest number of images that calibrate int8 (default: 256)",
    )  # fmt: skip
    parser.add_argument(
        "--test-images", type=cli.whole(2, 1_000_000), default=tests, metavar="N",
        help=f"largest number of images that {tested} (default: {tests})",
    )  # fmt: skip


def _sensitivity(arguments: Sequence[str]) -> int:
    options = sensitivity_parser().parse_args(arguments)
    with cli.loading():
        from hrvit_lab.export.sensitivity_command import show_sensitivity

    return show_sensitivity(options)


if __name__ == "__main__":
    sys.exit(main())
