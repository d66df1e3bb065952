"""Supernets: slices against naive loops, shared gradients, resuming, the command, and the verdict."""

import copy
import itertools
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrvit_lab.config import ConfigError, HRViTConfig, preset, with_branches
from hrvit_lab.network.blocks import ATTENTION
from hrvit_lab.network.build import build
from hrvit_lab.network.seeding import seeded
from hrvit_lab.search.__main__ import main
from hrvit_lab.search.genome import Space
from hrvit_lab.search.hold import held
from hrvit_lab.search.quality import SUPERNET, quality, supernet_verdict
from hrvit_lab.search.spec import load_search
from hrvit_lab.search.supernet import training as supernets
from hrvit_lab.search.supernet.family import Family, family_of, largest_of
from hrvit_lab.search.supernet.model import RANDOM, Supernet, calibrate
from hrvit_lab.search.supernet.scores import FOLDER, TABLE, Row, read_rows, write_rows
from hrvit_lab.search.supernet.slices import cut
from hrvit_lab.search.supernet_command import about_training, check_same, networks_of
from hrvit_lab.study.executors.host import timing_lock
from hrvit_lab.study.files import load_study
from hrvit_lab.study.results import read_results
from hrvit_lab.train import state as states
from hrvit_lab.train.data import ImageData, load_dataset
from hrvit_lab.train.engine import Engine
from hrvit_lab.train.loop import TrainingDiverged
from hrvit_lab.train.options import TrainOptions
from hrvit_lab.train.training import Interrupted, Listener, Progress, as_state, from_state

ROOT = Path(__file__).resolve().parent.parent
BRANCHES = 2
LARGE = with_branches(preset("hrvit_nano"), BRANCHES).replace(
    name="", widths=(16, 48), stem_width=16, head_dims=4, num_classes=10, mlp_ratios=(2, 3), head_features=32,
    depths=((2,), (1, 2)),
)  # fmt: skip
SMALL = LARGE.replace(widths=(8, 32), mlp_ratios=(2, 2), depths=((1,), (1, 1)), stem_width=8)
WITHOUT = SMALL.replace(ffn=("none", "mixcfn"), shortcut="none", fusion="late", widths=(16, 32))
NARROW_HEAD = LARGE.replace(head_widths=(2, 4), head_features=16, window_sizes=1)
OTHERS = (SMALL, WITHOUT, NARROW_HEAD)
FAMILY = Family(LARGE, SMALL, (WITHOUT, NARROW_HEAD, SMALL))


def supernet_of(family: Family = FAMILY, seed: int = 0) -> Supernet:
    """A supernet whose parameters are all random, also those that are 0 or 1 at initialisation."""
    with seeded(seed):
        supernet = Supernet(family)
        for parameter in supernet.parameters():
            parameter.data.normal_(std=0.3)
    return supernet


def images(number: int = 4) -> Tensor:
    with seeded(5):
        return torch.randn(number, 3, 32, 32)


# -- slices ----------------------------------------------------------------------------------------------------------


def naive_indices(name: str, have: tuple[int, ...], want: tuple[int, ...]) -> list[list[int]]:
    """The indices of each dimension that a smaller network has, for networks with cross-shaped attention."""
    groups = dict.fromkeys(range(len(have)), 1)
    if "to_qv" in name:
        groups[0] = 4  # query of rows and of columns, value of rows and of columns
    if "parallel_conv" in name:
        groups[0] = 2  # values of rows, of columns
    if name.endswith("attn.proj.weight"):
        groups[1] = 2
    found = []
    for dim, (a, b) in enumerate(zip(have, want, strict=True)):
        if dim >= 2:
            first = (a - b) // 2
            found.append([first + index for index in range(b)])
        else:
            indices = []
            for group in range(groups[dim]):
                for index in range(b // groups[dim]):
                    indices.append(group * (a // groups[dim]) + index)
            found.append(indices)
    return found


@pytest.mark.parametrize("config", OTHERS)
def test_a_network_has_the_slices_of_a_naive_loop(config: HRViTConfig) -> None:
    supernet = supernet_of()
    large = dict(supernet.largest.named_parameters())
    network = supernet.extract(config)
    assert {type(module) for module in network.modules()} <= {type(module) for module in supernet.modules()} | {
        type(build(WITHOUT).get_submodule("stages.0.branches.0.0.shortcut"))
    }
    for name, parameter in network.named_parameters():
        indices = naive_indices(name, tuple(large[name].shape), tuple(parameter.shape))
        for small in itertools.islice(np.ndindex(tuple(parameter.shape)), 0, None, 7):
            place = tuple(each[index] for each, index in zip(indices, small, strict=True))
            assert parameter[small] == large[name][place], name


def test_kernels_are_cut_in_the_middle_and_channels_in_each_part() -> None:
    kernel = torch.arange(2 * 7 * 7).view(2, 1, 7, 7)
    assert cut(kernel, (1, 1, 3, 5), {}).tolist() == kernel[:1, :, 2:5, 1:6].tolist()
    assert cut(torch.arange(12), (6,), {0: 3}).tolist() == [0, 1, 4, 5, 8, 9]
    assert cut(torch.arange(12), (6,), {}).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("ffn", ["mixcfn", "swiglu_conv", "hrformer"])
def test_the_largest_network_with_zeros_elsewhere_computes_what_the_smaller_one_does(attention: str, ffn: str) -> None:
    """So slices have the channels that belong together. Without LayerNorms, channels of zeros have no effect."""
    fields = {"attention": attention, "ffn": ffn, "window_sizes": (2, 2)}
    large, small = LARGE.replace(**fields), SMALL.replace(**fields)
    if attention == "shifted_window":  # a block is shifted or not depending on the blocks before it
        small = small.replace(depths=large.depths)
    assert largest_of([small, large]) == large
    supernet = supernet_of(Family(large, small, (small,)))
    network = supernet.extract(small)
    own = {name: torch.zeros_like(parameter) for name, parameter in supernet.largest.named_parameters()}
    weights = supernet.weights(network)
    torch.stack([weight.sum() for weight in weights.values()]).sum().backward()
    for name, parameter in supernet.largest.named_parameters():
        if parameter.grad is not None:
            own[name] = parameter.detach() * parameter.grad  # the gradient is 1 where the smaller network reads
    largest = copy.deepcopy(supernet.largest)
    largest.load_state_dict(own, strict=False)
    x_BCHW = images()
    with torch.no_grad():
        logits = [without_layer_norms(model).eval()(x_BCHW) for model in (largest, network)]
    assert logits[1].std() > 1e-3
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-5)


def without_layer_norms(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.LayerNorm):
                setattr(module, name, nn.Identity())
    return model


# -- shared weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("config", OTHERS)
def test_a_network_of_slices_computes_what_its_copy_does(config: HRViTConfig, training: bool) -> None:
    supernet = supernet_of().train(training)
    copied = supernet.extract(config).train(training)
    assert torch.equal(supernet.run(config, images()), copied(images()))


def test_the_largest_network_is_the_supernet_itself() -> None:
    supernet = supernet_of().eval()
    copied = supernet.extract(LARGE).eval()
    assert torch.equal(supernet.largest(images()), copied(images()))
    assert torch.equal(supernet.largest(images()), supernet.run(LARGE, images()))
    assert {id(parameter) for parameter in supernet.parameters()} == {
        id(parameter) for parameter in supernet.largest.parameters()
    }


def test_gradients_are_the_sum_of_those_of_all_networks() -> None:
    """Against copies that are trained separately, whose gradients are added by a naive loop."""
    supernet, x_BCHW, labels = supernet_of(), images(), torch.arange(4)
    with seeded(11):
        drawn = [FAMILY.networks[index] for index in torch.randint(len(FAMILY.networks), (RANDOM,)).tolist()]
    expected = {name: torch.zeros_like(p) for name, p in supernet.largest.named_parameters()}
    total = 0.0
    for config in (LARGE, SMALL, *drawn):
        network = supernet.extract(config).train()
        loss = F.cross_entropy(network(x_BCHW), labels, label_smoothing=0.1)
        loss.backward()
        total += loss.item()
        for name, parameter in network.named_parameters():
            if parameter.grad is None:
                continue
            indices = naive_indices(name, tuple(expected[name].shape), tuple(parameter.shape))
            place = np.ix_(*indices)
            sums = expected[name].numpy()
            sums[place] = sums[place] + parameter.grad.numpy()
    with seeded(11):
        loss = supernets.summed_loss(supernet(x_BCHW), labels, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(total, rel=1e-6)
    for name, parameter in supernet.largest.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_statistics_are_the_means_over_batches() -> None:
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    nn.init.constant_(norm.get_buffer("running_mean"), 9)
    model = nn.Sequential(conv, norm).eval()
    batches = list(images(6).split(3))
    calibrate(model, batches)
    with torch.no_grad():
        maps = [conv(batch).transpose(0, 1).flatten(1) for batch in batches]
    torch.testing.assert_close(norm.running_mean, (maps[0].mean(1) + maps[1].mean(1)) / 2)
    torch.testing.assert_close(norm.running_var, (maps[0].var(1) + maps[1].var(1)) / 2)
    assert norm.momentum == 0.1 and not model.training


# -- families --------------------------------------------------------------------------------------------------------


def test_the_largest_network_contains_all() -> None:
    sparse = LARGE.replace(fusion="sparse", widths=(8, 32), depths=((1,), (3, 1)), name="sparse")
    four = preset("hrvit_nano").replace(
        widths=(8, 32, 32, 64), head_dims=4, num_classes=10, head_features=32, shortcut="none", ffn="none"
    )
    largest = largest_of([WITHOUT, sparse, four])
    assert largest.widths == (16, 32, 32, 64) and largest.depths[:2] == ((1,), (3, 1)) and len(largest.depths) == 6
    assert (
        largest.fusion == "dense" and largest.shortcut == "des" and largest.ffn == ("mixcfn", "mixcfn", "none", "none")
    )
    names = {name: parameter.shape for name, parameter in build(largest).named_parameters()}
    for config in (WITHOUT, sparse, four):
        for name, parameter in build(config).named_parameters():
            assert all(a <= b for a, b in zip(parameter.shape, names[name], strict=True)), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": ("global", "cross_shaped")}, r"attention\[0\] is 'global' and 'cross_shaped', of which neither"),
        ({"ffn": "mlp"}, r"ffn\[0\] is 'mlp' and 'mixcfn'"),
        ({"shortcut": "linear"}, "shortcut is 'linear' and 'des'"),
        ({"fusion": "weighted_sum"}, "fusion is 'weighted_sum' and 'dense'"),
        ({"head_dims": (8, 4)}, r"head_dims\[0\] is 8 and 4"),
        ({"drop_path_rate": 0.1}, "drop_path_rate is 0.1 and 0.0"),
        ({"widths": (16, 128)}, r"widths\[1\] = 48 and 128 can't share the weights of DES, whose rows have 8 and 16"),
        ({"attention": "shifted_window"}, r"attention\[0\] is 'shifted_window' and 'cross_shaped'"),
        ({"head": "pool"}, "head = 'pool' can't be cut"),
    ],
)
def test_networks_that_share_no_weights_are_refused(changes: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        largest_of([LARGE.replace(**changes), LARGE])
    assert str(raised.value).count(". ") == 0 and "\n" not in str(raised.value)


@pytest.mark.parametrize("changes", [{"fusion": "weighted_sum"}, {"patch_embed": "none"}])
def test_parts_whose_convolutions_depend_on_widths_are_refused(changes: Mapping[str, Any]) -> None:
    with pytest.raises(ConfigError, match="can't be cut to fewer channels"):
        largest_of([LARGE.replace(**changes), SMALL.replace(**changes)])


def test_alternating_blocks_need_equal_depths() -> None:
    with pytest.raises(ConfigError, match=r"attention\[0\] = 'shifted_window' alternates .*; use equal depths"):
        largest_of([network.replace(attention="shifted_window") for network in (LARGE, SMALL)])


def test_the_networks_of_the_shipped_study_are_parts_of_one_network() -> None:
    networks = networks_of(load_study(ROOT / "studies" / "predictor_quality.yaml"))
    space = Space(load_search(ROOT / "studies" / "search" / "nano_by_zico.yaml"))
    family = family_of(space, networks.values(), 10, (32, 32), seed=0)
    assert len(networks) == 48 and len(family.networks) == 1000
    assert largest_of([family.largest, *networks.values()]) == family.largest
    assert not {config.id for config in networks.values()} & {config.id for config in family.networks}
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in build(family.largest).named_parameters()}
    for config in itertools.islice(networks.values(), 0, None, 8):
        for name, parameter in build(config).named_parameters():
            assert all(a <= b for a, b in zip(parameter.shape, shapes[name], strict=True)), name


# -- training --------------------------------------------------------------------------------------------------------

OPTIONS = TrainOptions(epochs=2, batch_size=40, train_limit=120)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    data = load_dataset("digits", resolution=32, train_limit=120)
    return ImageData(**{**vars(data), "val_images": data.val_images[:50], "val_labels": data.val_labels[:50]})


class Killed(Exception):
    pass


def trained(digits: ImageData, folder: Path, kill_at: int | None = None) -> tuple[supernets.Training, Progress]:
    """Train to the end, or to a step in which the process is killed before it saves its state."""
    training = supernets.begin(FAMILY, digits, OPTIONS, seed=3)
    training = training._replace(plan=training.plan.__class__(**{**vars(training.plan), "save_every_s": 0.0}))
    progress = Progress()
    state, _ = states.latest(folder)
    if state is not None:
        progress = from_state(training.engine, state)
    about = about_training(training)

    def step(number: int, *_: float) -> None:
        if number == kill_at:
            raise Killed

    def save(engine: Engine, seen: Progress) -> None:
        states.save(folder, as_state(engine, seen, about), keep=1)

    listener = Listener(step, lambda *_: None, save)
    supernets.proceed(training, progress, listener)
    return training, progress


def test_a_killed_training_continues_bit_by_bit(digits: ImageData, tmp_path: Path) -> None:
    whole, rows = trained(digits, tmp_path / "a")
    with pytest.raises(Killed):
        trained(digits, tmp_path / "b", kill_at=4)
    resumed, resumed_rows = trained(digits, tmp_path / "b")
    for name, tensor in whole.supernet.state_dict().items():
        assert torch.equal(tensor, resumed.supernet.state_dict()[name]), name
    for a, b in zip(rows.rows, resumed_rows.rows, strict=True):
        assert {key: a[key] for key in ("step", "train_loss", "eval_top1", "eval_loss")} == {
            key: b[key] for key in ("step", "train_loss", "eval_top1", "eval_loss")
        }
    assert supernets.score(whole, SMALL) == supernets.score(resumed, SMALL)
    random_state = torch.get_rng_state()
    supernets.score(resumed, SMALL)
    assert torch.equal(random_state, torch.get_rng_state())
    assert rows.rows[1]["train_loss"] < rows.rows[0]["train_loss"] < (2 + RANDOM) * 2.6


def test_batches_are_those_of_the_whole_epoch(digits: ImageData) -> None:
    training = supernets.begin(FAMILY, digits, OPTIONS, seed=3)
    whole = list(supernets.batches(training, 0, 6))
    for epoch in (whole[:3], whole[3:]):
        assert sorted(torch.cat([batch.indices for batch in epoch]).tolist()) == list(range(120))
    assert not torch.equal(whole[0].indices, whole[3].indices)
    assert all(
        torch.equal(a.images, b.images) for a, b in zip(whole[2:5], supernets.batches(training, 2, 5), strict=True)
    )
    assert torch.equal(whole[2].targets, digits.train_labels[whole[2].indices])


def test_a_supernet_of_other_settings_is_refused(digits: ImageData) -> None:
    training = supernets.begin(FAMILY, digits, OPTIONS, seed=3)
    about = about_training(training)
    other = json.loads(json.dumps(about))
    check_same(about, other, Path("folder"))
    other["recipe"]["epochs"] = 7
    with pytest.raises(ConfigError, match="epochs = 2, but the supernet in folder has 7; use that"):
        check_same(about, other, Path("folder"))


# -- the command -----------------------------------------------------------------------------------------------------

SEARCH: Mapping[str, Any] = {
    "title": "Tiny",
    "question": "Which?",
    "base": SMALL.to_dict(),
    "space": {"widths": {"per": "branch", "choices": [[8, 16], [32, 48]]}, "fusion": ["dense", "late"]},
    "objectives": {"macs": "lower", "params": "higher"},
    "resolution": 32,
    "budget": {"evaluations": 12, "population": 4, "seeds": [0]},
}
STUDY: Mapping[str, Any] = {
    "title": "Tiny",
    "question": "Which?",
    "base": SMALL.to_dict(),
    "grid": {"fusion": ["dense", "late"], "depths": [[[1], [1, 1]], [[2], [1, 2]]]},
    "metrics": ["params", "top1"],
    "resolution": 32,
    "data": {"name": "digits", "resolution": 32},
    "train": {"epochs": 1, "batch_size": 50, "train_limit": 100},
}


def command(folder: Path, **changes: Any) -> list[str]:
    for name, fields in (("tiny_space", SEARCH), ("tiny", {**STUDY, **changes})):
        (folder / f"{name}.yaml").write_text(json.dumps(fields))
    out = ["--out", str(folder / "out"), "--epochs", "2"]
    return ["supernet", str(folder / "tiny_space.yaml"), str(folder / "tiny.yaml"), *out]


def test_the_command_scores_the_networks_of_a_study_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hrvit_lab.search.supernet.family.DRAWN", 8)
    arguments = command(tmp_path)
    score, scored = supernets.score, []

    def interrupted(training: supernets.Training, config: HRViTConfig) -> dict[str, float]:
        if training.engine.step == training.plan.total_steps:
            scored.append(config.id)
            if len(scored) == 4:  # the first call is the evaluation of the largest network
                raise KeyboardInterrupt
        return score(training, config)

    monkeypatch.setattr(supernets, "score", interrupted)
    assert main(arguments) == 130
    folder = tmp_path / "out" / "tiny" / FOLDER
    assert len(read_rows(folder)) == 2
    capsys.readouterr()
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "steps of 4 networks, 4 of which are done" in output and "top-1 of 4 networks is" in output
    assert len(scored) == 4 + 2, "networks are scored once, and the training is not repeated"
    rows = pd.read_csv(folder / TABLE)
    networks = networks_of(load_study(tmp_path / "tiny.yaml"))
    assert rows["variant"].tolist() == list(networks)
    assert rows["config_id"].tolist() == [config.id for config in networks.values()]
    expected = [sum(p.numel() for p in build(config).parameters()) for config in networks.values()]
    assert rows["params"].tolist() == expected and rows["top1"].between(0, 100).all()
    assert (folder / "summary.csv").exists()

    assert main([*arguments, "--epochs", "3"]) == 2
    assert "epochs = 3, but the supernet in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        (Interrupted(signal.SIGINT), 130, "interrupted after step 0 of 4; run the same command to resume"),
        (Interrupted(signal.SIGTERM), 143, "interrupted after step 0 of 4"),
        (TrainingDiverged("the training loss is not finite"), 1, "error: the training loss is not finite"),
    ],
)
def test_a_training_that_ends_early_is_one_sentence(
    ending: Exception,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def end(*_: Any) -> None:
        assert timing_lock(exclusive=True) is None, "a latency could be measured"
        raise ending

    monkeypatch.setattr("hrvit_lab.search.supernet.family.DRAWN", 2)
    monkeypatch.setattr(supernets, "proceed", end)
    assert main(command(tmp_path)) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_folder_that_is_held_or_can_not_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hrvit_lab.search.supernet.family.DRAWN", 2)
    arguments = command(tmp_path)
    folder = tmp_path / "out" / "tiny" / FOLDER
    folder.mkdir(parents=True)
    with held(folder):
        assert main(arguments) == 2
    assert f"has run this search in {folder.parent} since" in capsys.readouterr().err
    (tmp_path / "file").touch()
    arguments[arguments.index("--out") + 1] = str(tmp_path / "file")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "can't be written" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"base": {**SMALL.to_dict(), "attention": ["global", "global"]}},
            "attention[0] is 'cross_shaped' and 'global'",
        ),
        ({"recipe": {"name": "fashion_mnist"}, "data": None, "train": None}, "a supernet needs the short training"),
        ({"grid": None, "variants": [{"name": "r", "set": {"model": "timm:resnet18"}}]}, "'r' is no HRViT"),
    ],
)
def test_a_study_whose_networks_share_no_weights_is_refused(
    changes: Mapping[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path)
    fields = {key: value for key, value in {**STUDY, **changes}.items() if value is not None}
    (tmp_path / "tiny.yaml").write_text(json.dumps(fields))
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_broken_table_is_one_sentence(tmp_path: Path) -> None:
    row = Row("=a", "0123", 10, 20, 55.5, 1.25)
    write_rows(tmp_path, [row])
    assert read_rows(tmp_path) == {"0123": row} and read_rows(tmp_path / "none") == {}
    for text in ("variant\nx\n", "variant,config_id,params,macs,top1,val_loss\na,b,1,2,nan,0\n", "\xff"):
        (tmp_path / TABLE).write_bytes(text.encode("latin-1"))
        with pytest.raises(ConfigError, match=r"networks\.csv .*remove it to score the networks again"):
            read_rows(tmp_path)


# -- the verdict -----------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The committed branch sweep, with stub scores of predictors."""
    folder = tmp_path / "branch_sweep"
    shutil.copytree(ROOT / "studies" / "measured" / "branch_sweep", folder)
    monkeypatch.setattr(
        "hrvit_lab.search.quality_command.score_config",
        lambda config, keys, *_: {key: float(config.num_branches + len(key)) for key in keys},
    )
    monkeypatch.setattr("hrvit_lab.search.quality.RESAMPLES", 50)
    yield folder


def test_quality_compares_the_supernet_with_predictors(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quality", str(sweep)]) == 0
    assert "supernet" not in capsys.readouterr().out
    results = read_results(sweep)
    accuracy = dict(zip(results.table["variant"], results.table["top1"], strict=True))
    rows = [
        Row(name, HRViTConfig.from_dict(fields).id, 1, 1, accuracy[name], 1.0)
        for name, fields in results.configs.items()
        if name in accuracy
    ]
    (sweep / FOLDER).mkdir()
    write_rows(sweep / FOLDER, rows[:-1])
    assert main(["quality", str(sweep)]) == 0
    assert "The supernet has no score of" in capsys.readouterr().out
    write_rows(sweep / FOLDER, rows)
    assert main(["quality", str(sweep)]) == 0
    assert (
        "The supernet has τ 1.00 [1.00, 1.00], at least 0.6 and above every other predictor" in capsys.readouterr().out
    )
    written = pd.read_csv(sweep / "predictors" / "quality.csv").set_index("predictor")
    assert written["tau"][SUPERNET] == 1


def found(supernet: float, **others: float) -> pd.DataFrame:
    taus = {"params": 0.3, "macs": 0.5, **others, SUPERNET: supernet}
    rows = [(name, tau, tau - 0.1, tau + 0.1) for name, tau in taus.items()]
    return pd.DataFrame(rows, columns=["predictor", "tau", "tau_low", "tau_high"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (found(0.6, zico=0.55), "τ 0.60 [0.50, 0.70], at least 0.6 and above every other predictor (ZiCo, τ 0.55)"),
        (found(0.59), "τ 0.59 [0.49, 0.69], below 0.6: it is left out."),
        (found(0.7, zico=0.7), "not above the best other predictor (ZiCo, τ 0.70): it is left out."),
        (found(0.4), "below 0.6 and not above the best other predictor (macs, τ 0.50): it is left out."),
        (
            found(0.7, early=0.9),
            "(early, τ 0.90): it is left out. Without predictions from the learning curve of each network, the best "
            "one is macs, τ 0.50.",
        ),
        (found(0.7, zico=float("nan")), "above every other predictor (macs, τ 0.50): it is kept."),
        (found(float("nan")), "it is left out."),
    ],
)  # fmt: skip
def test_the_verdict_on_a_supernet(table: pd.DataFrame, said: str) -> None:
    assert said in supernet_verdict(table, {"zico": "ZiCo"})


def test_the_verdict_reads_what_quality_computes() -> None:
    rng = np.random.default_rng(0)
    accuracy = rng.normal(size=40)
    table = pd.DataFrame({"top1": accuracy, "params": rng.normal(size=40), "macs": rng.normal(size=40)})
    table[SUPERNET] = accuracy * 3
    assert "it is kept" in supernet_verdict(quality(table, "top1", {SUPERNET: "higher"}), {})
