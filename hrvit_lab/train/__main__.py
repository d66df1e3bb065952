"""``hrvit-lab train MODEL``: train one network for a few epochs; ``hrvit-lab train RECIPE``: train by a recipe.

``hrvit-lab train list | show | copy | validate`` show and check recipes.
"""

import difflib
import sys
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.errors import ConfigError
from hrvit_lab.train.datasets import IN_MEMORY
from hrvit_lab.train.options import TrainOptions

EXAMPLES = """\
examples:
  hrvit-lab train hrvit_nano --data digits
  hrvit-lab train list
  hrvit-lab train show imagenet_hrvit
  hrvit-lab train copy fashion_mnist mine.yaml
  hrvit-lab train validate mine.yaml
  hrvit-lab train mine.yaml --set schedule.epochs=20

Run 'hrvit-lab train RECIPE --help' for the options of a recipe. A recipe is the first argument.
"""

UNTRAINED = "interrupted before anything was trained"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns 0, 1 (diverged, out of memory), 2 (invalid request) or 130 (interrupted)."""

    def work() -> int:
        given = list(sys.argv[1:] if arguments is None else arguments)
        if given and not given[0].startswith("-"):
            with cli.loading():  # imported here to keep --help fast
                from hrvit_lab.train import recipe, recipe_command
            if given[0] in recipe_command.COMMANDS:
                return recipe_command.run(given)
            if recipe.is_recipe(given[0]):
                return train_by_recipe(given)
            _check_spelling(given[0], list(recipe.list_recipes()))
        options = parser().parse_args(given)
        with cli.loading():
            from hrvit_lab.train.command import train

        return train(options)

    return cli.run(work, interrupted=UNTRAINED)


def train_by_recipe(arguments: Sequence[str]) -> int:
    """Run a command line whose first argument is a recipe; returns the exit code.

    Raises:
        ConfigError: for an invalid request.
    """
    from hrvit_lab.train import flags

    recipe, options = flags.parse(arguments)
    with cli.loading():
        if recipe.run.loop == "proxy":
            from hrvit_lab.train.command import train_proxy
        else:
            from hrvit_lab.train.engine_command import run_recipe
    return train_proxy(recipe, options) if recipe.run.loop == "proxy" else run_recipe(recipe, options)


def _check_spelling(name: str, recipes: Sequence[str]) -> None:
    """Raise an error for a name that is more similar to a recipe than to a preset."""
    from hrvit_lab.config import own_name, preset_names

    near = difflib.get_close_matches(own_name(name), [*preset_names(), *recipes], n=1, cutoff=0.6)
    if near and near[0] in recipes:
        raise ConfigError(f"unknown model or recipe {name!r:.80}; did you mean {near[0]!r}?")


def parser() -> cli.Parser:
    """The command line without a recipe. The training options are the fields of ``TrainOptions``, which validates
    them."""
    description = (
        "Train one network for a few epochs. The top-1 is a proxy that compares networks trained on the same data set. "
        "'hrvit-lab train RECIPE' trains a network fully, by a recipe."
    )
    parser = cli.Parser("hrvit-lab train", description, EXAMPLES)
    parser.add_argument("model", metavar="MODEL", help="a preset (hrvit_nano, …) or the YAML file of a config")
    parser.add_argument("--data", default="digits", help=f"data set: {', '.join(IN_MEMORY)} (default: digits)")
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
