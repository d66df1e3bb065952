"""Recipes: shipped ones compared with the published settings; errors about wrong files."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hrvit_lab.config import SEGMENTERS, ConfigError, read_yaml, write_yaml
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.proxy import SETTINGS, proxy_options
from hrvit_lab.train.recipe import (
    SECTIONS,
    TASKS,
    list_recipes,
    load_recipe,
    read_recipe,
    settings_of,
)

ROOT = Path(__file__).resolve().parent.parent
NAMES = tuple(list_recipes())


def raw(name: str) -> dict[str, Any]:
    return read_yaml(list_recipes()[name].read_text(encoding="utf-8"), name)


def test_the_expected_recipes_are_shipped() -> None:
    assert {
        "ade20k_segformer", "ade20k_upernet", "cifar10", "cityscapes_segformer", "composites", "fashion_mnist",
        "imagenet_hrvit", "oxford_pets", "oxford_pets_masks", "proxy", "textures",
    } <= set(NAMES)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_recipe_lists_every_setting_and_its_source(name: str) -> None:
    """So that a new default of the schema does not change a shipped recipe."""
    fields = raw(name)
    written = [f"{section}.{setting}" for section in SECTIONS for setting in fields[section]]
    recipe = load_recipe(name)
    assert written == settings_of(TASKS[fields["task"]]) == list(recipe.settings)
    assert {key for key in written if recipe.source(key) not in ("paper", "release", "ours")} == set()
    assert set(fields["sources"]) <= {*SECTIONS, *written}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_restored_from_its_yaml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "mine.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


PUBLISHED = {
    "imagenet_hrvit": {
        "data.resolution_px": (224, 224), "data.batch_size_per_process": 32, "data.global_batch_size": 4 * 8 * 32,
        "schedule.epochs": 300, "schedule.cooldown_epochs": 10, "schedule.curve": "cosine",
        "schedule.min_rate": 1e-5, "schedule.warmup_epochs": 20, "schedule.warmup_start_rate": 1e-6,
        "optimiser.name": "adamw", "optimiser.learning_rate": 1e-3, "optimiser.weight_decay": 0.05,
        "optimiser.clip_gradients": 1, "optimiser.clip_mode": "value", "optimiser.head_rate_multiple": 1,
        "augmentation.auto_augment": "rand-m9-mstd0.5-inc1", "augmentation.mixup_alpha": 0.8,
        "augmentation.cutmix_alpha": 1, "augmentation.mix_switch_probability": 0.5,
        "augmentation.erasing_probability": 0.25, "augmentation.erasing_mode": "pixel",
        "augmentation.interpolation": "random", "regularisation.drop_path": 0.1, "regularisation.head_drop": 0.1,
        "regularisation.label_smoothing": 0.1, "regularisation.ema_decay": 0.99992, "precision.dtype": "float16",
        "precision.sync_batch_norm": True, "precision.gradient_checkpointing": False,
        "evaluation.crop_fraction": 0.9, "evaluation.interpolation": "bicubic", "run.seed": 42,
    },
    "ade20k_segformer": {
        "data.resolution_px": (512, 512), "data.global_batch_size": 16, "schedule.iterations": 160_000,
        "schedule.curve": "poly", "schedule.poly_power": 1, "schedule.warmup_iterations": 1500,
        "schedule.warmup_start_rate": 1e-6, "optimiser.name": "adamw", "optimiser.learning_rate": 6e-5,
        "optimiser.betas": (0.9, 0.999), "optimiser.weight_decay": 0.01, "optimiser.head_rate_multiple": 10,
        "model.head": "segformer", "model.initialisation": "truncated_normal",
        "augmentation.base_size_px": (2048, 512), "augmentation.resize_ratio": (0.5, 2),
        "augmentation.cat_max_ratio": 0.75, "augmentation.crop_tries": 10,
        "augmentation.photometric_distortion": True, "augmentation.pad_label": 255, "regularisation.drop_path": 0.1,
        "regularisation.head_drop": 0.1, "regularisation.auxiliary_loss_weight": 0.4,
        "evaluation.mode": "whole", "evaluation.base_size_px": (2048, 512), "evaluation.scales": (1,),
        "evaluation.flip": False,
    },
    "cityscapes_segformer": {
        "data.resolution_px": (1024, 1024), "data.global_batch_size": 8, "schedule.iterations": 160_000,
        "optimiser.learning_rate": 6e-5, "regularisation.drop_path": 0.15, "evaluation.mode": "slide",
        "evaluation.crop_px": (1024, 1024), "evaluation.stride_px": (768, 768),
    },
}  # fmt: skip
"""The release's figures (arXiv 2111.01236), typed in from its description and not from the files."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_have_the_published_settings(name: str) -> None:
    settings = load_recipe(name).settings
    assert {key: settings[key] for key in PUBLISHED[name]} == PUBLISHED[name]


def test_upernet_recipes_differ_from_segformers_only_in_the_head() -> None:
    one, other = (load_recipe(f"ade20k_{head}").settings for head in ("segformer", "upernet"))
    assert {key for key in one if one[key] != other[key]} == {"model.head"}


@pytest.mark.parametrize("head, dataset", [("segformer", "ade20k"), ("upernet", "ade20k"), ("segformer", "cityscapes")])
@pytest.mark.parametrize("backbone", ["hrvit_b1", "hrvit_b2", "hrvit_b3"])
def test_networks_of_published_recipes_are_the_published_ones(backbone: str, head: str, dataset: str) -> None:
    """The preset of that result, with the stochastic depth of the release: 0.1, 0.2, 0.3, b1 on Cityscapes 0.15."""
    published = SEGMENTERS[f"{backbone}_{head}_{dataset}"]
    rate = {"hrvit_b1": 0.1, "hrvit_b2": 0.2, "hrvit_b3": 0.3}[backbone]
    rate = 0.15 if (backbone, dataset) == ("hrvit_b1", "cityscapes") else rate
    recipe = load_recipe(f"{dataset}_{head}", model=backbone)
    network = recipe.network(num_classes=published.num_classes)
    assert network.replace(name="") == published.replace(name="", drop_path_rate=rate)


def test_the_contradiction_in_the_release_is_documented() -> None:
    assert any("512 × 512" in note and "1024 × 1024" in note for note in load_recipe("cityscapes_segformer").notes)


def test_the_proxy_recipe_equals_the_training_of_studies() -> None:
    assert proxy_options(load_recipe("proxy")) == TrainOptions()
    assert {*SETTINGS, "max_shift"} == set(TrainOptions.model_fields)


def test_the_proxy_accepts_only_settings_that_its_loop_supports() -> None:
    changed = [
        ("schedule.epochs", 7), ("data.batch_size_per_process", 10), ("data.global_batch_size", 10),
        ("optimiser.learning_rate", 1e-3), ("schedule.min_rate", 1e-5), ("data.train_limit", 30), ("run.threads", 2),
        ("regularisation.label_smoothing", 0.1), ("optimiser.clip_gradients", None), ("run.seed", 3),
    ]  # fmt: skip
    options = proxy_options(load_recipe("proxy", settings=changed))
    assert options == TrainOptions(
        epochs=7, batch_size=10, learning_rate=1e-3, train_limit=30, threads=2, label_smoothing=0.1,
        grad_clip_value=None,
    )  # fmt: skip
    for key, value in (
        ("augmentation.mixup_alpha", 0.8), ("optimiser.learning_rate", 1e-3), ("optimiser.clip_mode", "norm"),
        ("precision.dtype", "bfloat16"), ("data.global_batch_size", 128),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=r"run\.loop"):
            proxy_options(load_recipe("proxy", settings=[(key, value)]))
    with pytest.raises(ConfigError, match="supports classification only"):
        proxy_options(load_recipe("composites", settings=[("run.loop", "proxy")]))


def test_settings_of_a_model_are_applied_before_those_of_the_command_line() -> None:
    load = load_recipe
    assert load("cityscapes_segformer", model="hrvit_b3").settings["regularisation.drop_path"] == 0.3
    changed = load("cityscapes_segformer", model="hrvit_b3", settings=[("regularisation.drop_path", 0.5)])
    assert changed.settings["regularisation.drop_path"] == 0.5
    assert changed.per_model == {}  # so that its YAML gives the same recipe again
    assert set(read_recipe(list_recipes()["cityscapes_segformer"]).per_model) == {"hrvit_b2", "hrvit_b3"}


@pytest.mark.parametrize("processes, passes", [(32, 1), (8, 4), (1, 32)])
def test_the_global_batch_is_kept_with_fewer_processes(processes: int, passes: int) -> None:
    assert load_recipe("imagenet_hrvit").accumulation(processes) == passes


@pytest.mark.parametrize("processes", [3, 64])
def test_processes_that_cannot_share_a_batch_are_refused(processes: int) -> None:
    with pytest.raises(ConfigError, match=rf"1024 is not a multiple of {processes} processes × 32 images; change"):
        load_recipe("imagenet_hrvit").accumulation(processes)


SHORT = """\
title: mine
task: classification
data: {name: digits, resolution_px: 32}
model: {name: hrvit_nano}
optimiser: {learning_rate: 1e-3}
schedule: {epochs: 2}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_short_file_is_a_recipe_with_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SHORT))
    assert recipe.settings["data.resolution_px"] == (32, 32)
    assert recipe.settings["augmentation.mixup_alpha"] == recipe.settings["regularisation.drop_path"] == 0
    assert recipe.source("data.name") is None


WRONG = [
    ("", "must be a mapping with title, task and sections"),
    (SHORT.replace("classification", "detection"), "task = 'detection': use classification or segmentation"),
    (SHORT.replace("task: classification\n", ""), "task = None: use classification or segmentation"),
    (SHORT.replace("title: mine\n", ""), "'title' is missing; add it"),
    (SHORT.replace("epochs: 2", "epoch: 2"), "unknown key 'schedule.epoch'; did you mean 'epochs'?"),
    (SHORT.replace("schedule:", "scheduel:"), "unknown key 'scheduel'; did you mean 'schedule'?"),
    (SHORT + "title: twice\n", "duplicate key 'title'"),
    (SHORT + "x: &a [1]\ny: *a\n", "aliases"),
    (SHORT + f"# {'x' * 70_000}\n", "it is larger than 64 KiB"),
    (SHORT.replace("epochs: 2", "epochs: true"), "schedule.epochs = True: give a whole number"),
    (SHORT.replace("epochs: 2", "epochs: 0"), "schedule.epochs = 0: give at least 1"),
    (SHORT.replace("1e-3", ".nan"), "optimiser.learning_rate = nan: give"),
    (SHORT.replace("1e-3", "-1"), "optimiser.learning_rate = -1: give at least 0"),
    (SHORT.replace("epochs: 2", "epochs: 2, iterations: 5"), "give epochs or iterations"),
    (SHORT.replace("epochs: 2", "epochs: 2, warmup_epochs: 3"), "warmup_epochs = 3 is longer than the training (2)"),
    (SHORT.replace("name: digits", "name: ../digits"), "data.name = '../digits'"),
    (SHORT.replace("hrvit_nano", "hrvit_nan"), "'hrvit_nan' is unknown; did you mean 'hrvit_nano'"),
    (SHORT.replace("hrvit_nano", "hrvit_nano, head: segformer"), "'segformer' does not support classification; use"),
    (SHORT.replace("hrvit_nano", "timm:resnet18, head: pool"), "for classification with a timm model, use null"),
    (SHORT.replace("hrvit_nano", "hrvit_nano, changes: {widths: 7}"), "model: widths"),
    (SHORT.replace("hrvit_nano", "hrvit_nano, changes: {num_classes: 7}"), "num_classes has its own setting"),
    (SHORT.replace("resolution_px: 32", "resolution_px: 16"), "model: resolution = 16×16 is too small"),
    (SHORT.replace("resolution_px: 32", "batch_size_per_process: 7"), "not a multiple of batch_size_per_process = 7"),
    (SHORT.replace("resolution_px: 32", "mean: null"), "only one of mean and std is given"),
    (SHORT.replace("resolution_px: 32", "mean: null, std: null"), "which only run.loop proxy supports"),
    (SHORT + "augmentation: {crop_area: [1, 0.5]}\n", "crop_area = [1, 0.5] falls"),
    (SHORT + "augmentation: {cat_max_ratio: 0.5}\n", "unknown key 'augmentation.cat_max_ratio'"),
    (SHORT + "evaluation: {mode: whole}\n", "unknown key 'evaluation.mode'"),
    (SHORT + "regularisation: {drop_path: 1}\n", "regularisation.drop_path = 1: give less than 1"),
    (SHORT + "sources: {data.nmae: ours}\n", "unknown setting 'data.nmae'; did you mean 'data.name'"),
    (SHORT + "sources: {data: theirs}\n", "sources.data = 'theirs': use 'paper', 'release' or 'ours'"),
    (SHORT + 'notes: ["a\\x1b[2J"]\n', "contains a control character"),
    (SHORT + "per_model: {hrvit_micro: {schedule: {epochs: 0}}}\n", "per_model: hrvit_micro: schedule.epochs = 0"),
    (SHORT + "per_model: {hrvit_micro: {schedul: {epochs: 1}}}\n", "per_model: hrvit_micro: unknown section 'schedul'"),
    (SHORT + "per_model: {hrvit_micro: {title: {x: 1}}}\n", "unknown section 'title'; use one of augmentation"),
    (SHORT.replace("classification", "[classification]"), "task = ['classification']: use classification or"),
    (SHORT + "1: 2\n", "1 = 1: give a string as the key"),
    (SHORT + "evaluation: {resolution_px: 16}\n", "resolution = 16×16 is too small"),
    (SHORT + "per_model: {hrvit_micr: {schedule: {epochs: 1}}}\n", "'hrvit_micr' is unknown"),
    (SHORT + "per_model: [hrvit_micro]\n", "per_model = ['hrvit_micro']: give a mapping"),
]  # fmt: skip


@pytest.mark.parametrize("text, told", WRONG, ids=[told[:40] for _, told in WRONG])
def test_a_wrong_recipe_is_reported_in_one_sentence(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(write(tmp_path, text))
    assert told in str(error.value) and "\n" not in str(error.value)
    assert "mine.yaml" in str(error.value)


def test_window_settings_need_sliding_inference(tmp_path: Path) -> None:
    fields = raw("cityscapes_segformer")
    for change, told in (
        ({"mode": "whole"}, "belong to mode slide"),
        ({"stride_px": None}, "belong to mode slide"),
        ({"stride_px": [768, 1025]}, "would leave pixels without a window"),
        ({"scales": []}, "give at least 1"),
    ):
        changed = fields | {"evaluation": fields["evaluation"] | change}
        with pytest.raises(ConfigError, match=told):
            load_recipe(write(tmp_path, write_yaml(changed, width=100)))


def test_changed_settings_have_ours_as_their_source() -> None:
    released = load_recipe("imagenet_hrvit")
    changed = load_recipe("imagenet_hrvit", settings=[("optimiser.learning_rate", 2e-3), ("schedule.epochs", 300)])
    assert (released.source("optimiser.learning_rate"), changed.source("optimiser.learning_rate")) == (
        "release",
        "ours",
    )
    assert changed.source("schedule.epochs") == "release"  # set to what it was
    assert load_recipe("imagenet_hrvit", model="hrvit_b3").source("model.name") == "paper"
    assert load_recipe("imagenet_hrvit", model="timm:resnet50").source("model.name") == "ours"
    assert load_recipe("ade20k_upernet", model="hrvit_micro").source("model.name") == "ours"


def test_an_unknown_recipe_gets_the_nearest_names() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'fashon_mnist'; did you mean 'fashion_mnist'\?"):
        load_recipe("fashon_mnist")
    with pytest.raises(ConfigError, match=r"the recipe no\.yaml cannot be read: No such file"):
        load_recipe("no.yaml")


def test_recipes_need_no_torch() -> None:
    code = "import sys; from hrvit_lab.train.recipe import load_recipe; load_recipe('proxy'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert not {"torch", "timm", "numpy", "pandas"} & set(done.stdout.split())


def test_every_data_file_of_the_package_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    package = ROOT / "hrvit_lab"
    found = {path for path in package.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    packed = {path for it in project["tool"]["setuptools"]["package-data"]["hrvit_lab"] for path in package.glob(it)}
    assert found == packed and package / "train/recipes/imagenet_hrvit.yaml" in packed


def test_the_documentation_explains_every_setting_in_the_words_of_the_schema() -> None:
    page = (ROOT / "docs/train.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `(\w+\.\w+)`(?: \((\w+)\))? \| (.+) \|$", page, re.MULTILINE))
    expected = set()
    for task, schema in TASKS.items():
        for key in settings_of(schema):
            section, _, name = key.partition(".")
            shared = all(key in settings_of(other) for other in TASKS.values())
            annotation: Any = schema.model_fields[section].annotation
            expected.add((key, "" if shared else task, annotation.model_fields[name].description))
    assert shown == expected
