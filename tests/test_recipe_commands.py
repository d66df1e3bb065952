"""``hrvit-lab train`` with recipes: flags of the release, list, show, copy, validate, and the choice of the loop."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab.config.settings import parse_settings
from hrvit_lab.errors import ConfigError
from hrvit_lab.train import __main__ as train
from hrvit_lab.train import command, engine_command
from hrvit_lab.train.datasets import IN_MEMORY
from hrvit_lab.train.flags import RunOptions, parse
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.recipe import AnyRecipe, changed, list_recipes, load_recipe

RELEASED = (
    "--data PATH --model {model} -b 32 --lr 1e-3 --weight-decay .05 --amp --img-size 224 --warmup-epochs 20 "
    "--drop-path 0.1 --head-drop 0.1 --clip-grad 1 --sync-bn"
)
"""The published command line behind its launcher."""


# -- flags -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["hrvit_b1", "HRViT_b1_224"])
def test_the_published_flags_give_the_recipe(model: str) -> None:
    recipe, options = parse(["imagenet_hrvit", *RELEASED.format(model=model).split()])
    assert recipe == load_recipe("imagenet_hrvit")
    assert options == RunOptions(recipe="imagenet_hrvit", root=Path("PATH"))


def test_the_published_flag_for_checkpointing_changes_only_that() -> None:
    arguments = RELEASED.format(model="hrvit_b1").split()
    recipe, _ = parse(["imagenet_hrvit", *arguments, "--with-cp"])
    assert changes(recipe, "imagenet_hrvit") == {"precision.gradient_checkpointing": True}
    assert recipe.network(1000).grad_checkpointing


def changes(recipe: AnyRecipe, name: str) -> dict[str, Any]:
    """Settings that differ from the shipped recipe's."""
    shipped = load_recipe(name).settings
    return {key: value for key, value in recipe.settings.items() if shipped[key] != value}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-b 64", {"data.batch_size_per_process": 64}),
        ("--batch-size 16", {"data.batch_size_per_process": 16}),
        ("--lr 2e-3", {"optimiser.learning_rate": 0.002}),
        ("--weight-decay 0", {"optimiser.weight_decay": 0}),
        ("--img-size 256", {"data.resolution_px": (256, 256), "evaluation.resolution_px": (256, 256)}),
        ("--epochs 100", {"schedule.epochs": 100}),
        ("--warmup-epochs 5", {"schedule.warmup_epochs": 5}),
        ("--drop-path 0.2", {"regularisation.drop_path": 0.2}),
        ("--head-drop 0", {"regularisation.head_drop": 0}),
        ("--clip-grad 5", {"optimiser.clip_gradients": 5}),
        ("--model-ema", {"regularisation.ema": True}),
        ("--seed 1 -j 0", {"run.seed": 1, "run.workers": 0}),
        ("--model timm:resnet50", {"model.name": "timm:resnet50"}),
        ("--amp --set precision.dtype=bfloat16", {"precision.dtype": "bfloat16"}),
        ("--set schedule.epochs=50,run.seed=3 --set data.mean=[0,0,0]",
         {"schedule.epochs": 50, "run.seed": 3, "data.mean": (0, 0, 0)}),
        ("--lr 1 --set optimiser.learning_rate=2", {"optimiser.learning_rate": 2}),
    ],
)  # fmt: skip
def test_a_flag_changes_its_setting_and_nothing_else(flags: str, expected: dict[str, Any]) -> None:
    recipe, _ = parse(["imagenet_hrvit", *flags.split()])
    assert changes(recipe, "imagenet_hrvit") == expected


@pytest.mark.parametrize("name", ["imagenet_hrvit", "cityscapes_segformer"])
def test_every_setting_can_be_set_and_is_checked(name: str) -> None:
    """No setting accepts such a mapping, so each must be reported by its own key."""
    recipe = load_recipe(name)
    for key in recipe.settings:
        with pytest.raises(ConfigError) as error:
            changed(recipe, parse_settings(f"{key}={{a: [null]}}"))
        assert "'a'" in str(error.value) and (key in str(error.value) or key == "model.changes"), key


def test_mixed_precision_is_float16_if_the_recipe_has_none() -> None:
    recipe, _ = parse(["fashion_mnist", "--amp"])
    assert changes(recipe, "fashion_mnist") == {"precision.dtype": "float16"}


def test_the_size_of_a_segmentation_recipe_is_the_crop_size() -> None:
    recipe, _ = parse(["ade20k_segformer", "--img-size", "256x512"])
    assert changes(recipe, "ade20k_segformer") == {"data.resolution_px": (256, 512)}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--lr fast", "the command line: optimiser.learning_rate = 'fast': give a number"),
        ("-b 0", "the command line: data.batch_size_per_process = 0: give at least 1"),
        ("-b 48", "global_batch_size = 1024 is not a multiple of batch_size_per_process = 48"),
        ("--epochs 5", "schedule: warmup_epochs = 20 is longer than the training (5); lower the warm-up"),
        ("--epochs 1.5", "schedule.epochs = 1.5: give a whole number"),
        ("--img-size x", "--img-size: 'x' is not a size"),
        ("--img-size 16", "model: resolution = 16×16 is too small"),
        ("--model hrvit_b7", "'hrvit_b7' is unknown; did you mean"),
        ("--set schedule.epohcs=1", "unknown key 'schedule.epohcs'; did you mean 'epochs'"),
        ("--set epochs", "--set 'epochs' is not of the form key=value"),
        ("--set schedule.epochs.x=1", "'schedule.epochs' has no keys"),
        ("--drop-path 1.0", "regularisation.drop_path = 1.0: give less than 1"),
        ("--lrr 1", "unrecognized arguments: --lrr 1"),
    ],
)
def test_a_wrong_flag_is_reported_in_one_sentence(flags: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(["imagenet_hrvit", *flags.split()])
    assert told in str(error.value) and "\n" not in str(error.value)


def test_the_device_is_not_part_of_the_recipe() -> None:
    arguments = ["fashion_mnist", "--data", "A", "--out", "B", "--device", "cuda:1", "--resume", "auto", "--download"]
    recipe, options = parse(arguments)
    assert changes(recipe, "fashion_mnist") == {}
    assert options == RunOptions("fashion_mnist", Path("A"), Path("B"), "cuda:1", "auto", True)


# -- list, show, copy, validate --------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_the_terminal_and_breaks_no_name(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert train.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    assert [line.split()[0] for line in lines if line[:1].strip()][1:-1] == list(list_recipes())
    text = " ".join(" ".join(lines).split())
    for recipe in map(load_recipe, list_recipes()):
        assert f"{recipe.title} {recipe.task}, {recipe.data.name}, {recipe.model.name}, " in text
    assert "300 + 10 epochs" in text and "160,000 iterations" in text


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", ["imagenet_hrvit", "cityscapes_segformer"])
def test_show_has_each_setting_in_a_line_with_its_value_and_source(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert train.main(["show", name]) == 0
    output = capsys.readouterr().out
    recipe = load_recipe(name)
    rows = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines() if re.match(r" \w+\.\w+ ", line)]
    assert [(row[0], row[2]) for row in rows] == [(key, recipe.source(key)) for key in recipe.settings]
    assert all(len(line) <= columns for line in output.splitlines() if line.startswith(" "))
    shown = {row[0]: row[1] for row in rows}
    assert shown["optimiser.learning_rate"] in ("0.001", "6e-5")
    assert all(note in output for note in recipe.notes)


def test_show_says_what_differs_for_other_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["show", "cityscapes_segformer"]) == 0
    output = capsys.readouterr().out
    assert "With --model hrvit_b2: regularisation.drop_path = 0.2\n" in output
    assert "regularisation.drop_path = 0.3, model.changes = {window_sizes: [1, 2, 3, 9]}\n" in output
    assert "512 × 512" in output and "1024 × 1024" in output


def test_a_copied_recipe_equals_the_file_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["copy", "fashion_mnist", "mine.yaml"]) == 0
    assert Path("mine.yaml").read_bytes() == list_recipes()["fashion_mnist"].read_bytes()
    Path("mine.yaml").write_text("mine", encoding="utf-8")
    capsys.readouterr()
    assert train.main(["copy", "fashion_mnist", "mine.yaml"]) == 2
    assert capsys.readouterr().err == "error: mine.yaml already exists and is never overwritten; choose another name\n"
    assert Path("mine.yaml").read_text(encoding="utf-8") == "mine"
    assert train.main(["copy", "fashion_mnist", "mine.txt"]) == 2
    assert train.main(["copy", "fashion_mnist", "no/mine.yaml"]) == 2
    assert "no/mine.yaml: No such file or directory; check the path" in capsys.readouterr().err
    assert os.listdir() == ["mine.yaml"]


def test_a_failed_copy_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: the file is created, but its content cannot be written."""
    real = open

    def open_full(path: Any, mode: str) -> Any:
        real(path, mode).close()
        return real("/dev/full", "wb")

    monkeypatch.setitem(vars(sys.modules["hrvit_lab.train.recipe_command"]), "open", open_full)
    assert train.main(["copy", "fashion_mnist", str(tmp_path / "mine.yaml")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_validate_reports_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    text = list_recipes()["cifar10"].read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    assert train.main(["validate", str(path)]) == 0
    assert "is a valid recipe: classification on cifar10, 60 epochs." in " ".join(capsys.readouterr().out.split())
    for wrong, told in (
        (text.replace("curve: cosine", "curve: cosin"), "schedule.curve = 'cosin': use 'cosine', 'poly' or 'constant'"),
        (text.replace("name: adamw", "name: adamwx"), "optimiser.name = 'adamwx': timm has no such optimizer"),
        (text.replace("name: hrvit_micro", "name: timm:resnet1"), "timm has no such model; did you mean 'resnet1"),
    ):
        path.write_text(wrong, encoding="utf-8")
        assert train.main(["validate", str(path)]) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


# -- which loop is run -----------------------------------------------------------------------------------------


def engine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[AnyRecipe, RunOptions]]:
    """A replacement of the engine that records its arguments."""
    given: list[tuple[AnyRecipe, RunOptions]] = []

    def run_recipe(recipe: AnyRecipe, options: RunOptions) -> int:
        given.append((recipe, options))
        return 7

    monkeypatch.setattr(engine_command, "run_recipe", run_recipe)
    return given


def test_a_recipe_is_passed_to_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = engine(monkeypatch)
    assert train.main(["fashion_mnist", "--epochs", "2"]) == 7
    copy = tmp_path / "mine.yaml"
    copy.write_bytes(list_recipes()["textures"].read_bytes())
    assert train.main([str(copy), "--out", "X"]) == 7
    assert given == [
        (load_recipe("fashion_mnist", settings=[("schedule.epochs", 2)]), RunOptions("fashion_mnist")),
        (load_recipe("textures"), RunOptions("mine", out=Path("X"))),
    ]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], TrainOptions]]:
    """The arguments with which the short training is called."""
    calls: list[tuple[dict[str, Any], TrainOptions]] = []

    def record(options: argparse.Namespace, train_options: TrainOptions) -> int:
        names = ("model", "data", "resolution", "seed", "root", "out", "device")
        calls.append(({name: getattr(options, name) for name in names}, train_options))
        return 0

    monkeypatch.setattr(command, "train_shortly", record)
    return calls


def test_the_proxy_recipe_makes_the_same_call_as_no_recipe(short: list[Any]) -> None:
    assert train.main(["hrvit_nano", "--data", "digits"]) == 0
    assert train.main(["proxy"]) == 0
    more = ["--epochs", "2", "--seed", "5", "--out", "X"]
    assert train.main(["hrvit_micro", *more, "--resolution", "64"]) == 0
    assert train.main(["proxy", "--model", "hrvit_micro", *more, "--img-size", "64"]) == 0
    assert short[0] == short[1] and short[2] == short[3] and short[0] != short[2]
    assert train.main(["proxy", "--resume", "auto"]) == 2
    assert len(short) == 4


def test_a_file_with_a_config_is_not_read_as_a_recipe(short: list[Any], tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text("preset: hrvit_nano\nwidths: [8, 16, 32, 32]\n", encoding="utf-8")
    assert train.main([str(path)]) == 0
    assert short[0][0]["model"] == str(path)


def test_a_misspelled_recipe_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["imagnet_hrvit", "--data", "X"]) == 2
    assert capsys.readouterr().err == "error: unknown model or recipe 'imagnet_hrvit'; did you mean 'imagenet_hrvit'?\n"


def test_names_of_proxy_data_sets_are_known() -> None:
    assert load_recipe("proxy").data.name in IN_MEMORY
