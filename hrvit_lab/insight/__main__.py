"""``hrvit-lab insight MODEL IMAGE``: figures and arrays of what a network does with an image.

``hrvit-lab insight items MODEL`` measures over many scenes whether attention is on the item under a token.
"""

import argparse
import sys
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.insight.what import WHAT

EXAMPLES = """\
examples:
  hrvit-lab insight hrvit_nano.fashion_mnist shirt.png
  hrvit-lab insight runs/b1 street.jpg --what attention,rollout --pixel 200,310
  hrvit-lab insight timm:resnet18 photo:chelsea --what features,receptive_field
  hrvit-lab insight hrvit_nano photo:coffee --what attention --block stages.3.branches.0.0

Shown by --what (default: all that the network has):
{what}

Every figure is written as PNG and SVG, and its numbers as NPZ. Untrained weights are random, and the figures say so.
Exit code: 0 success, 2 invalid request. 'hrvit-lab insight items MODEL' measures many scenes; see its --help.
"""

ITEMS_EXAMPLES = """\
examples:
  hrvit-lab insight items hrvit_nano.composites
  hrvit-lab insight items runs/mine --scenes 50 --size 128
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""

    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["items"]:
        return cli.run(lambda: _items(given[1:]))

    def work() -> int:
        options = parser().parse_args(given)
        with cli.loading():
            from hrvit_lab.insight.command import insight  # imported here to keep --help fast

        return insight(options)

    return cli.run(work)


def _items(arguments: Sequence[str]) -> int:
    options = items_parser().parse_args(arguments)
    with cli.loading():
        from hrvit_lab.insight.items_command import items  # imported here to keep --help fast

    return items(options)


def pixel(text: str) -> tuple[int, int]:
    """Parse ``ROW,COLUMN``."""
    row, comma, column = text.partition(",")
    if not comma or not all(part.strip().isdecimal() and len(part) < 7 for part in (row, column)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pixel; write ROW,COLUMN, counted from 0, such as 100,80")
    return int(row), int(column)


def parser() -> cli.Parser:
    """The command line."""
    width = max(map(len, WHAT))
    listed = "\n".join(f"  {name:{width}}  {what.says}" for name, what in WHAT.items())
    parser = cli.Parser(
        "hrvit-lab insight", "Look inside a network: figures and arrays for one image.", EXAMPLES.format(what=listed)
    )
    parser.add_argument("model", metavar="MODEL", help=cli.MODEL)
    parser.add_argument(
        "image", metavar="IMAGE", help="an image file, or photo:NAME for a photograph of scikit-image (photo:chelsea)"
    )
    parser.add_argument(
        "--what", type=cli.listed(cli.one_of(WHAT, "view")), metavar="NAME,…", help="what to show (see below)"
    )
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR",
        help="folder of the files, new or of the same model, image and settings (default: a new folder "
        "results/insight/MODEL-IMAGE, MODEL-IMAGE-2, …)",
    )  # fmt: skip
    parser.add_argument(
        "--resolution", type=cli.size, metavar="N|HxW",
        help="size that the image is scaled and cropped to, in pixels (default: that of the network's training)",
    )  # fmt: skip
    parser.add_argument(
        "--pixel", type=pixel, metavar="ROW,COLUMN", help="the pixel whose tokens are shown (default: the centre)"
    )
    parser.add_argument(
        "--block", metavar="NAME", help="the block whose heads are shown (default: the last one of the finest branch)"
    )
    parser.add_argument(
        "--beside", metavar="MODEL", help="a second network, whose maps similarity compares with those of the first"
    )
    parser.add_argument(
        "--class", dest="class_number", type=cli.whole(0, 99_999), metavar="N",
        help="the class of the evidence (default: the predicted one)",
    )  # fmt: skip
    parser.add_argument(
        "--truth", type=cli.path, metavar="FILE", help="a mask with the true class of each pixel (PNG), for segments"
    )
    parser.add_argument(
        "--seed", type=cli.seed, default=0, metavar="N", help="of weights that are not trained (default: 0)"
    )
    return parser


def items_parser() -> cli.Parser:
    """The command line of ``hrvit-lab insight items``."""
    parser = cli.Parser(
        "hrvit-lab insight items",
        "Measure how much of a token's attention is on the item that it lies on, over test scenes of the data set "
        "composites: with the network's weights, with random weights, and if attention were equal.",
        ITEMS_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="an HRViT with trained weights, as for hrvit-lab insight")
    parser.add_argument(
        "--scenes", type=cli.whole(2, 1000), default=200, metavar="N", help="number of scenes (default: 200)"
    )
    parser.add_argument(
        "--size", type=cli.whole(32, 512), metavar="N",
        help="side of a scene in pixels (default: that of the network's training)",
    )  # fmt: skip
    parser.add_argument(
        "--root", type=cli.path, metavar="DIR",
        help="folder of Fashion-MNIST's files (default: that of Debian's package)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=cli.path, metavar="DIR", help="folder (default: a new one, results/insight/MODEL-items)"
    )
    parser.add_argument("--seed", type=cli.seed, default=0, metavar="N", help="of the random weights (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
