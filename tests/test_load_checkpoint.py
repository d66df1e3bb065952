"""`load_checkpoint`: every wrapper, prefix and layout; untrusted files; all tensors or none."""

import argparse
import hashlib
import io
import os
import pickle
import resource
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
from naive import NaiveHRViT
from safetensors.torch import save_file
from test_checkpoints import decoder_keys
from timm.utils import CheckpointSaver
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from hrvit_lab import ConfigError, HRViTConfig, create_model, load_checkpoint
from hrvit_lab.network import checkpoint_files
from hrvit_lab.network.blocks.mixcfn import cut_in_halves
from hrvit_lab.network.checkpoints import EMA_WEIGHTS, WEIGHTS
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.published_layout import our_name

SMALL = HRViTConfig(
    name="small", depths=((1,), (1, 1)), widths=8, head_dims=4, window_sizes=2, mlp_ratios=2, stem_width=8,
    head_widths=4, head_features=16, num_classes=5, segformer_width=6, upernet_width=6,
)  # fmt: skip
"""Both branches are of one width, so that tensors of one fit into the other's place."""
IMAGE = torch.randn(2, 3, 32, 48)
State = dict[str, Tensor]


def randomized(module: nn.Module, seed: int = 1) -> nn.Module:
    """Randomize every parameter and every statistic; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + 0.1)
    return module.eval()


def output(model: nn.Module, image: Tensor = IMAGE) -> Tensor:
    with torch.no_grad():
        return model.eval()(image)


def small(**changes: Any) -> HRViT:
    return create_model(SMALL, **changes)


def digest(model: nn.Module) -> str:
    total = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        total.update(name.encode() + tensor.numpy().tobytes())
    return total.hexdigest()


# -- wrappers, prefixes, layouts --------------------------------------------------------------------------------------


def published() -> tuple[State, dict[str, str], Tensor]:
    """Weights of the naive network, the fields with which our model is built, and the output of the naive network."""
    naive = randomized(NaiveHRViT(SMALL))
    return naive.state_dict(), {"head": "classifier"}, output(naive)


def ours() -> tuple[State, dict[str, str], Tensor]:
    model = randomized(small())
    return model.state_dict(), {"head": "classifier"}, output(model)


def mmsegmentation(head: str) -> tuple[State, dict[str, str], Tensor]:
    """A segmenter of ours under mmsegmentation's names."""
    model = randomized(small(head=head))
    state = model.state_dict()
    body = {
        f"backbone.{key}": state[str(our_name(key))]
        for key in cut_in_halves(published()[0])
        if not key.startswith("head.")
    }
    decoder = {key: state[name] for key in decoder_keys(head, 2) if (name := our_name(key, head))}
    return body | decoder, {"head": head}, output(model)


LAYOUTS: dict[str, Callable[[], tuple[State, dict[str, str], Tensor]]] = {
    "ours": ours,
    "published": published,
    "segformer": lambda: mmsegmentation("segformer"),
    "upernet": lambda: mmsegmentation("upernet"),
}
PREFIXES = ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.")
LONGEST = "module._orig_mod."
NESTINGS = (
    (), *((key,) for key in (*WEIGHTS, *EMA_WEIGHTS)), ("model", "state_dict"), ("state_dict", "model"),
    ("state_dict_ema", "module"),
)  # fmt: skip


def nested(state: Mapping[str, Any], keys: tuple[str, ...]) -> Mapping[str, Any]:
    for key in reversed(keys):
        state = {"epoch": 3, key: state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    return state


@pytest.mark.parametrize(
    ("layout", "prefix"),
    [
        pytest.param(
            layout, prefix, marks=() if layout == "ours" or prefix == "module._orig_mod." else pytest.mark.slow
        )
        for layout in LAYOUTS
        for prefix in PREFIXES
    ],
)
def test_every_wrapper_prefix_and_layout_gives_the_output_of_the_source(layout: str, prefix: str) -> None:
    state, changes, expected = LAYOUTS[layout]()
    prefixed = {prefix + key: tensor for key, tensor in state.items()}
    for keys in NESTINGS:
        model = small(**changes)
        report = load_checkpoint(model, nested(prefixed, keys))
        assert (report.loaded, report.missing, report.unexpected) == (len(cut_in_halves(state)), (), ()), keys
        assert report.weights == ".".join(keys)
        torch.testing.assert_close(output(model), expected)


def test_a_safetensors_file_is_never_mistaken_for_a_pickle(tmp_path: Path) -> None:
    """It begins with the length of its header, whose lowest byte can be the first byte of a pickle."""
    path = tmp_path / "weights.safetensors"
    state = {key: tensor.contiguous() for key, tensor in ours()[0].items()}
    firsts = set()
    for padding in range(0, 256, 8):  # a header's length is a multiple of 8
        save_file(state, path, metadata={"padding": "x" * padding})
        firsts.add(path.read_bytes()[0])
        if path.read_bytes()[0] == 0x80:
            break
    assert 0x80 in firsts
    assert load_checkpoint(small(), path).loaded == len(state)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_kind_of_file_is_loaded(layout: str, kind: str, tmp_path: Path) -> None:
    state, changes, expected = LAYOUTS[layout]()
    path = tmp_path / "weights"
    if kind == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=kind == "zip")
    model = small(**changes)
    assert load_checkpoint(model, path).loaded == len(cut_in_halves(state))
    path.unlink()  # the model must not depend on the file any more
    torch.testing.assert_close(output(model), expected)


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_a_first_word_that_all_names_share_is_ignored_if_nothing_fits_with_it(layout: str) -> None:
    state, changes, expected = LAYOUTS[layout]()
    for prefix in ("model.", "net.", "module.net."):
        model = small(**changes)
        report = load_checkpoint(model, {"state_dict": {prefix + key: tensor for key, tensor in state.items()}})
        assert (report.loaded, report.missing) == (len(cut_in_halves(state)), ())
        torch.testing.assert_close(output(model), expected)
    mixed = {("net." if number else "other.") + key: tensor for number, (key, tensor) in enumerate(state.items())}
    with pytest.raises(ConfigError, match="nothing in the checkpoint fits"):
        load_checkpoint(small(**changes), mixed)


def test_names_with_prefixes_inside_are_loaded() -> None:
    """As in models whose regions are compiled separately."""
    state, _, expected = ours()
    inside = {key.replace(".branches.0.", ".branches.0._orig_mod."): tensor for key, tensor in state.items()}
    assert inside.keys() != state.keys()
    model = small()
    load_checkpoint(model, inside)
    assert torch.equal(output(model), expected)


@pytest.mark.parametrize(
    "changes", [{"topology": "pyramid", "depths": ((1, 1),)}, {"head": "norm_pool"}, {"head": "none"}]
)
def test_our_layout_is_loaded_for_other_networks(changes: dict[str, Any]) -> None:
    source, model = randomized(small(**changes)), small(**changes)
    load_checkpoint(model, source.state_dict())
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_weights_written_by_training_load(tmp_path: Path) -> None:
    from hrvit_lab.train.__main__ import main

    (tmp_path / "small.yaml").write_text(SMALL.to_yaml(), encoding="utf-8")
    options = ["--epochs", "1", "--train-limit", "32", "--batch-size", "16", "--out", str(tmp_path / "run")]
    assert main([str(tmp_path / "small.yaml"), *options]) == 0
    config = HRViTConfig.from_yaml((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    trained = timm.models.load_state_dict(str(tmp_path / "run" / "model.safetensors"))
    for strict in (True, False):
        model = create_model(config)
        assert load_checkpoint(model, tmp_path / "run" / "model.safetensors", strict=strict).unexpected == ()
        for name, tensor in trained.items():
            assert torch.equal(model.state_dict()[name], tensor), name


def test_a_training_file_of_timm_and_its_moving_average(tmp_path: Path) -> None:
    model, ema = randomized(small(), 1), randomized(small(), 2)
    args = argparse.Namespace(model="hrvit_nano", lr=0.1, mean=(0.5,), output=Path("out"), amp=None)
    optimizer = torch.optim.AdamW(model.parameters())
    holder = nn.Module()
    holder.module = ema  # as timm's ModelEma holds it
    saver = CheckpointSaver(model, optimizer, args, model_ema=holder, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(3, metric=np.float64(71.5))
    path = tmp_path / "last.pth.tar"
    for wanted, source, keys in ((False, model, "state_dict"), (True, ema, "state_dict_ema")):
        loaded = small()
        report = load_checkpoint(loaded, path, ema=wanted)
        assert report.weights == keys and report.missing == report.unexpected == ()
        assert torch.equal(output(loaded), output(source))
    torch.save({"state_dict": model.state_dict()}, path)
    with pytest.raises(ConfigError, match=r"contains no moving average \(state_dict_ema, model_ema, ema\)"):
        load_checkpoint(small(), path, ema=True)


@pytest.mark.parametrize("extra", [np.float32(1), np.int64(3), np.arange(3), Path("a"), argparse.Namespace(a=[1])])
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_objects_other_than_weights_are_ignored(extra: Any, kind: str, tmp_path: Path) -> None:
    state, _, expected = ours()
    torch.save({"model": state, "extra": extra}, tmp_path / "x.pth", _use_new_zipfile_serialization=kind == "zip")
    assert isinstance(checkpoint_files.read_checkpoint(tmp_path / "x.pth")["extra"], checkpoint_files.Ignored)
    model = small()
    load_checkpoint(model, tmp_path / "x.pth")
    assert torch.equal(output(model), expected)


# -- models to load into ----------------------------------------------------------------------------------------------


@contextmanager
def process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("layout", ["ours", "published"])
def test_a_wrapped_model_loads_the_same_as_the_model_inside(layout: str) -> None:
    state, _, expected = LAYOUTS[layout]()
    with process_group():
        wraps: list[Callable[[nn.Module], nn.Module]] = [
            DistributedDataParallel, nn.DataParallel, AveragedModel, nn.Sequential,
            torch.compile, lambda model: DistributedDataParallel(torch.compile(model)),  # type: ignore[list-item]
        ]  # fmt: skip
        for wrap in wraps:
            wrapped = wrap(small())
            load_checkpoint(wrapped, state)
            [inside] = [module for module in wrapped.modules() if isinstance(module, HRViT)]
            torch.testing.assert_close(output(inside), expected)
            if wrap is not nn.Sequential:  # which numbers its modules
                again = small()
                load_checkpoint(again, {"state_dict": wrapped.state_dict()})
                assert torch.equal(output(again), output(inside))


def test_a_features_only_model_loads_the_network_without_its_head() -> None:
    source = create_model("hrvit_nano").eval()
    randomized(source)
    features: Any = timm.create_model("hrvit_nano", features_only=True)
    report = load_checkpoint(features, source.state_dict())
    assert report.missing == () and {key.partition(".")[0] for key in report.unexpected} == {"head"}
    with torch.no_grad():
        for found, expected in zip(features.eval()(IMAGE), source.forward_features(IMAGE), strict=True):
            assert torch.equal(found, expected)
    state = source.state_dict()
    del state["stem.conv1.bias"]
    with pytest.raises(ConfigError, match=r"1 missing \(stem.conv1.bias\)"):
        load_checkpoint(features, state)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (nn.ModuleList([small(), small()]), "ModuleList contains 2 HRViTs; give one of them"),
        ("hrvit_nano", "str is not a module; give a network"),
    ],
)
def test_an_invalid_target_is_reported_in_one_sentence(model: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_checkpoint(model, {})


def test_a_model_of_timm_is_loaded_by_its_own_names(tmp_path: Path) -> None:
    source, target = (timm.create_model("test_resnet", num_classes=7) for _ in range(2))
    torch.save({"state_dict": {f"module.{name}": x for name, x in source.state_dict().items()}}, tmp_path / "r.pth")
    report = load_checkpoint(target, tmp_path / "r.pth")
    assert report.loaded == len(source.state_dict()) and not report.missing and not report.unexpected
    assert all(torch.equal(x, target.state_dict()[name]) for name, x in source.state_dict().items())
    with pytest.raises(ConfigError, match="nothing in the checkpoint fits ResNet"):
        load_checkpoint(target, small().state_dict())
    state = source.state_dict()
    del state["conv1.0.weight"]
    with pytest.raises(ConfigError, match=r"does not fit ResNet: .* 1 missing \(conv1.0.weight\)"):
        load_checkpoint(target, state)
    with pytest.raises(ConfigError, match="has shape"):
        load_checkpoint(timm.create_model("test_resnet", num_classes=3), source.state_dict())


def test_a_model_on_the_meta_device_is_refused() -> None:
    with torch.device("meta"):
        model = small()
    with pytest.raises(ConfigError, match=r"the model's .* is on the meta device, without values"):
        load_checkpoint(model, ours()[0])


# -- what differs, on request -----------------------------------------------------------------------------------------


def test_steps_of_batch_norms_may_be_missing() -> None:
    state, _, expected = published()
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    model = small()
    assert load_checkpoint(model, old).missing == ()
    torch.testing.assert_close(output(model), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_other_classes_the_classifier_keeps_its_values(layout: str) -> None:
    state, changes, _ = LAYOUTS[layout]()
    model = small(**changes, num_classes=9)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items() if "classifier" in name}
    before = digest(model)
    with pytest.raises(ConfigError, match=r"has shape \(5, .*or use adapt=True"):
        load_checkpoint(model, state)
    assert digest(model) == before
    report = load_checkpoint(model, state, adapt=True)
    assert set(report.kept) == set(fresh) and report.loaded == len(cut_in_halves(state)) - len(fresh)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in fresh.items())
    source = small(**changes)
    load_checkpoint(source, state)
    with torch.no_grad():
        for found, expected in zip(
            model.eval().forward_features(IMAGE), source.eval().forward_features(IMAGE), strict=True
        ):
            assert torch.equal(found, expected)


@pytest.mark.parametrize(("in_chans", "repeats"), [(1, 3), (6, 1), (9, 1)])
def test_other_input_channels_are_adapted_by_timms_rule(in_chans: int, repeats: int) -> None:
    """A grey image equals one with three equal channels; an image concatenated with itself gives the output of the
    image."""
    state, _, _ = ours()
    source, model = small(), small(in_chans=in_chans)
    load_checkpoint(source, state)
    with pytest.raises(ConfigError, match="in_chans"):
        load_checkpoint(model, state)
    report = load_checkpoint(model, state, adapt=True)
    assert report.adapted == ("stem.conv1.weight",) and report.kept == ()
    image = IMAGE[:, :1] if in_chans == 1 else IMAGE.repeat(1, in_chans // 3, 1, 1)
    same = IMAGE[:, :1].repeat(1, 3, 1, 1) if in_chans == 1 else IMAGE
    torch.testing.assert_close(output(model, image), output(source, same))


def test_channels_that_timms_rule_does_not_support_are_refused() -> None:
    state = randomized(small(in_chans=4)).state_dict()
    for in_chans in (3, 5):
        with pytest.raises(ConfigError, match=r"\(4, 4, 3, 3\).*in_chans$"):
            load_checkpoint(small(in_chans=in_chans), state, adapt=True)


def test_a_model_without_a_classifier_loads_the_other_weights() -> None:
    state, _, _ = ours()
    model = small(num_classes=0)
    assert load_checkpoint(model, state).unexpected == ("head.classifier.weight", "head.classifier.bias")


@pytest.mark.parametrize("theirs", ["classifier", "pool", "segformer", "upernet"])
@pytest.mark.parametrize("mine", ["classifier", "pool", "segformer", "upernet", "none"])
def test_from_a_checkpoint_with_another_head_only_the_rest_is_loaded(theirs: str, mine: str) -> None:
    """All kinds of heads have a `head.classifier`."""
    source, model = randomized(small(head=theirs)), small(head=mine)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items() if name.startswith("head.")}
    if mine not in (theirs, "none"):
        with pytest.raises(ConfigError, match="does not fit small"):
            load_checkpoint(model, source.state_dict())
    report = load_checkpoint(model, source.state_dict(), strict=False)
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(tensor, source.state_dict()[name]), name
        elif mine != theirs:
            assert name in report.missing or name.endswith("num_batches_tracked")
            assert torch.equal(tensor, fresh[name]), name


# -- refusals: one sentence, and the model as it was ------------------------------------------------------------------


def refusal(checkpoint: Any, **options: Any) -> str:
    """The error message of a refused load, which must not change the model for any options."""
    model = small()
    before = digest(model)
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(model, checkpoint, **options)
    assert digest(model) == before
    sentence = str(caught.value)
    assert sentence.isprintable() and len(sentence) < 700, sentence
    return sentence


def test_a_checkpoint_of_which_nothing_fits_is_an_error() -> None:
    resnet = timm.create_model("resnet18", num_classes=5).state_dict()
    for state in (resnet, {"head.classifier.gamma": torch.zeros(5)}, {"stem.bn1.num_batches_tracked": torch.tensor(3)}):
        assert "nothing in the checkpoint fits small: it contains" in refusal(state, strict=False)
    no_states: list[Any] = [{}, {"state_dict": {}}, {"model": {}, "epoch": 3}, {3: torch.zeros(1)}, {"a": 3}]
    for content in no_states:
        assert "contains no state dict" in refusal(content, strict=False)


def test_a_mapping_that_contains_itself_is_an_error() -> None:
    content: dict[str, Any] = {"epoch": 3}
    content["model"] = content
    assert "contains no state dict" in refusal(content)


def test_two_layouts_or_two_prefixes_are_not_mixed() -> None:
    assert "mixes two layouts" in refusal(ours()[0] | published()[0], strict=False)
    twice = ours()[0] | {"module.stem.conv1.bias": torch.zeros(4)}
    assert "contains stem.conv1.bias twice" in refusal(twice, strict=False)


FLAWS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "sparse": (lambda x: x.to_sparse(), "not dense (torch.sparse_coo)"),
    "quantized": (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "is quantized (torch.qint8)"),
    "meta": (lambda x: x.to("meta"), "meta device"),
    "complex": (lambda x: x.to(torch.complex64), "complex64"),
    "whole numbers": (lambda x: x.to(torch.int8), "int8"),
    "shape": (lambda x: x[:-1], "has shape"),
    "one number for all": (lambda x: x.sum(), "has shape ()"),
    "huge": (lambda x: x[:1].expand(10**12), "has shape (1000000000000,)"),
    "many sides": (lambda x: x.view(*[1] * 60, *x.shape), "has shape"),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # deprecated, but existing files contain it
@pytest.mark.parametrize("kind", ["mapping", "zip", "legacy"])
@pytest.mark.parametrize("flaw", FLAWS)
def test_if_one_tensor_does_not_fit_nothing_is_loaded(flaw: str, kind: str, tmp_path: Path) -> None:
    """It is one of the last names, and the tensors before it differ from the model's."""
    state, _, _ = ours()
    make, fragment = FLAWS[flaw]
    key = next(name for name in reversed(state) if name.startswith("stages.1.") and name.endswith("weight"))
    checkpoint: Any = state | {key: make(state[key])}
    if kind != "mapping":
        torch.save(checkpoint, tmp_path / "x.pth", _use_new_zipfile_serialization=kind == "zip")
        checkpoint = tmp_path / "x.pth"
    for options in ({}, {"strict": False}, {"strict": False, "adapt": True}):
        sentence = refusal(checkpoint, **options)
        assert fragment in sentence and key in sentence


def test_half_precision_tensors_are_loaded() -> None:
    state, _, expected = ours()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        model = small()
        load_checkpoint(model, {key: t.to(dtype) if t.is_floating_point() else t for key, t in state.items()})
        assert model.stem.conv1.weight.dtype == torch.float32  # type: ignore[union-attr]
        torch.testing.assert_close(output(model), expected, rtol=0.2, atol=0.2)


def compressed(path: Path) -> None:
    """A file as PyTorch writes it, but compressed: 64 MiB of zeros take 64 KiB."""
    stored = io.BytesIO()
    torch.save({"state_dict": ours()[0] | {"x": torch.zeros(2**24)}}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


def overlapping(path: Path) -> None:
    """One stored megabyte with a thousand names."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({}, 2))
        archive.writestr("x/data/0", bytes(2**20))
        last = archive.filelist[-1]
        for i in range(1, 1000):
            entry = zipfile.ZipInfo(f"x/data/{i}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(entry, field, getattr(last, field))
            archive.filelist.append(entry)


def allocating(path: Path) -> None:
    """``bytearray(2 ** 32)``, which PyTorch allows."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x01\x85R.")
        archive.writestr("x/version", b"3\n")


def pickled_model(path: Path, zipped: bool = True) -> None:
    torch.save(small(), path, _use_new_zipfile_serialization=zipped)


def array_file(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def long_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", b"}" * (checkpoint_files.MAX_PICKLE_BYTES + 1))


def truncated(path: Path, kind: str) -> None:
    if kind == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in ours()[0].items()}, path)
    else:
        torch.save(ours()[0], path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:-2000])


def unallowed(path: Path) -> None:
    path.touch(mode=0o000)


def ragged(path: Path, zipped: bool = True) -> None:
    """A nested tensor, which torch itself does not load."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that nested tensors are a prototype
        nested_tensor = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    torch.save({"x": nested_tensor}, path, _use_new_zipfile_serialization=zipped)


def unnamed(path: Path) -> None:
    """A pickle whose operation torch does not know; it names no object."""
    torch.save({"x": frozenset({1})}, path, pickle_protocol=4)


HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "is not a file"),
    "directory": (lambda path: path.mkdir(), "is a directory"),
    "fifo": (os.mkfifo, "is not a file"),
    "empty": (lambda path: path.touch(), "it is empty"),
    "text": (lambda path: path.write_text("version https://git-lfs.github.com\n"), "begins with b'version https"),
    "escapes": (lambda path: path.write_bytes(b"\x1b[31mred\n\x1b[0m"), r"\x1b[31mred\n"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1}, 2)), "can't be read"),
    "zip of something": (array_file, "has no data.pkl, or several"),
    "compressed": (compressed, "is compressed: its"),
    "overlapping": (overlapping, "would inflate to 1,04"),
    "allocating": (allocating, "contains builtins.bytearray"),
    "long pickle": (long_pickle, "describes more than 16 MiB"),
    "pickled model": (pickled_model, "contains hrvit_lab.network.model.HRViT, but only tensors are loaded"),
    "pickled model, legacy": (lambda path: pickled_model(path, False), "contains hrvit_lab.network.model.HRViT, but"),
    "nested tensor": (ragged, "contains torch._utils._rebuild_nested_tensor, but only tensors are loaded"),
    "nested tensor, legacy": (lambda path: ragged(path, False), "contains torch._utils._rebuild_nested_tensor, but"),
    "unknown operation": (unnamed, "contains an object that is no tensor, but only tensors are loaded"),
    "truncated zip": (lambda path: truncated(path, "zip"), "can't be read (File is not a zip file)"),
    "truncated legacy": (lambda path: truncated(path, "legacy"), "can't be read ("),
    "truncated safetensors": (lambda path: truncated(path, "safetensors"), "can't be read ("),
    "unreadable": (unallowed, "can't be read (Permission denied)"),
}  # fmt: skip


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run as the user nobody, because root can read everything."""
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_untrusted_file_is_reported_in_one_sentence(name: str, tmp_path: Path) -> None:
    write, fragment = HOSTILE[name]
    path = tmp_path / "x.pth"
    write(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if name == "unreadable":
        with without_privileges():
            sentence = refusal(path)
    else:
        sentence = refusal(path)
    assert sentence.startswith(f"checkpoint {path} ") and fragment in sentence
    assert "Weights only" not in sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 32 * 1024  # KiB


def test_names_and_paths_are_printed_without_codes(tmp_path: Path) -> None:
    path = tmp_path / "x\x1b[31m\u202e.pth"
    path.write_bytes(b"text")
    assert r"x\u202e.pth" in refusal(path)
    assert r"1 unexpected (a\n\x07bb" in refusal(ours()[0] | {"a\n\x07" + "b" * 10_000: torch.zeros(1)})


def test_an_object_in_a_name_does_not_run_code(tmp_path: Path) -> None:
    witness = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (witness,)

    for zipped in (True, False):
        torch.save(ours()[0] | {"x": Evil()}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        assert "only tensors are loaded" in refusal(tmp_path / "x.pth")
    assert not witness.exists()
