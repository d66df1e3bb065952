"""Load a checkpoint into a network: several layouts and wrappers, all tensors or none."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hrvit_lab.config import ConfigError
from hrvit_lab.config.text import shortened
from hrvit_lab.network.blocks.mixcfn import cut_in_halves
from hrvit_lab.network.checkpoint_files import read_checkpoint, shown
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.published_layout import BACKBONE, DECODER, HEAD_RENAMES, our_name

WEIGHTS = ("state_dict", "model", "model_state_dict", "net", "module")
"""Keys under which training scripts save the weights."""
EMA_WEIGHTS = ("state_dict_ema", "model_ema", "ema")
"""Keys under which they save the moving average of the weights."""
MAX_NESTING = 4
WRAPPERS = frozenset({"module", "_orig_mod"})
"""Prefixes that DistributedDataParallel, AveragedModel and torch.compile add to names of tensors."""
COUNTERS = (".num_batches_tracked", "n_averaged")
"""Counters without influence on outputs: steps of BatchNorm and of AveragedModel."""

FIRST_CONV = "stem.conv1.weight"
CLASSIFIERS = ("head.classifier.", "head.auxiliary.classifier.")
HEADS_OF_DECODERS = HEAD_RENAMES.keys() - {"classifier"}
PUBLISHED_CLASSIFIERS = ("head.classifier.", "decode_head.conv_seg.", "auxiliary_head.conv_seg.")


class LoadReport(NamedTuple):
    """The result of ``load_checkpoint``.

    Attributes:
        loaded: number of tensors that were loaded.
        missing: our names that the checkpoint lacks.
        unexpected: the checkpoint's names that have no place in the model.
        adapted: our names that were loaded with another shape: the first convolution, if the input channels differ.
        kept: our names that keep their values: the classifier, if the number of classes differs.
        weights: the keys under which the weights were found, for example ``"state_dict_ema"``.
    """

    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    adapted: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    weights: str = ""

    def __str__(self) -> str:
        return "; ".join((f"{self.loaded} tensors loaded", *self.remarks))

    @property
    def new_head(self) -> bool:
        """Whether tensors of the head keep their values, because the checkpoint has none of their shape."""
        return any(name.startswith("head.") for name in (*self.kept, *self.missing))

    @property
    def remarks(self) -> list[str]:
        """Sentences about tensors that were not loaded, or were adapted."""
        lists = {what: getattr(self, what) for what in ("missing", "unexpected", "adapted", "kept")}
        return [f"{len(names)} {what} ({_some(names)})" for what, names in lists.items() if names]


def load_checkpoint(
    model: nn.Module,
    checkpoint: str | Path | Mapping[str, Any],
    *,
    strict: bool = True,
    ema: bool = False,
    adapt: bool = False,
) -> LoadReport:
    """Load weights in our layout (as ``hrvit_lab.train`` writes them), in the published one, or in mmsegmentation's.

    The layout is recognized by the names of the tensors. Everything is checked before anything is loaded: after an
    error the model is unchanged.

    Args:
        model: an HRViT built with the checkpoint's config, or a module around one: DistributedDataParallel, a compiled
            or a features-only model. Tensors of a head that the model does not have are ignored. Any other module,
            such as a model of timm, is loaded by the names of its own tensors.
        checkpoint: the path of a PyTorch or safetensors file of at most 8 GiB, from which only tensors are read; or a
            mapping. The state dict may be nested under ``WEIGHTS`` and ``EMA_WEIGHTS``, and its names may contain
            ``module.`` and ``_orig_mod.``. If none of them fits, a first word that all names share (``model.``,
            ``net.``) is ignored.
        strict: raise an error for missing or unexpected names; otherwise load what fits. BatchNorm's
            ``num_batches_tracked`` may always be missing.
        ema: load the moving average of the weights. Otherwise it is loaded only if there are no other weights.
        adapt: accept another number of classes (the classifier keeps its values) and of input channels (the
            first convolution by timm's rule: from three channels to any number, from any number to one).
    Returns:
        The number of loaded tensors, and the names of missing, unexpected, adapted and kept ones.
    Raises:
        ConfigError: for a file that can't be read, a tensor of another shape or kind; if strict, for names that don't
            match; and always if nothing fits.
    """
    network = _network(model)
    if isinstance(checkpoint, Mapping):
        where, content = "the checkpoint", checkpoint
    else:
        where, content = f"checkpoint {shown(str(checkpoint))}", read_checkpoint(checkpoint)
    tensors, weights = _weights(content, ema, where)
    ours = {_bare(name): tensor for name, tensor in network.state_dict().items()}
    placed, unexpected = _places(tensors, ours, network, where)
    if all(map(_is_counter, placed)) and (inside := _without_first_word(tensors)):
        tensors = inside
        placed, unexpected = _places(tensors, ours, network, where)
    if all(map(_is_counter, placed)):
        raise ConfigError(
            f"nothing in {where} fits {_label(network)}: it contains {_some(tensors)}, but the model has "
            f"{_some(ours)}; give a checkpoint of this network"
        )
    found: dict[str, Tensor] = {}
    adapted, kept = [], []
    for name, key in placed.items():
        tensor, own = tensors[key], ours[name]
        if flaw := _flaw(own) or _flaw(tensor, own):
            whose = "the model's" if _flaw(own) else f"{where}:"
            raise ConfigError(f"{whose} {shown(key)} {flaw}; only dense, unquantized tensors can be loaded")
        if tensor.shape == own.shape:
            found[name] = tensor
        elif adapt and name.startswith(CLASSIFIERS) and tensor.shape[1:] == own.shape[1:]:
            kept.append(name)
        elif adapt and name == FIRST_CONV and (fitted := _adapted(tensor, own)) is not None:
            found[name] = fitted
            adapted.append(name)
        else:
            raise ConfigError(
                f"{where}: {shown(key)!r} has shape {shortened(tuple(tensor.shape))} but the model's {name!r} has "
                f"{tuple(own.shape)}; build the model with the checkpoint's widths, depths, num_classes and in_chans"
                + ("" if adapt else ", or use adapt=True if only the last two differ")
            )
    missing = tuple(name for name in ours if name not in placed and not _is_counter(name))
    report = LoadReport(len(found), missing, unexpected, tuple(adapted), tuple(kept), weights)
    unread = _unread(network, tensors)
    if strict and (missing or any(not key.startswith(unread) for key in unexpected)):
        remarks = "; ".join((f"{len(found)} of its tensors fit", *report.remarks))
        raise ConfigError(f"{where} does not fit {_label(network)}: {remarks}; strict=False loads what fits")
    with torch.no_grad():
        for name, tensor in found.items():
            ours[name].copy_(tensor)  # a state dict shares memory with the model
    return report


load_published = load_checkpoint
"""Alias from earlier versions, which supported the published layout only."""


def _network(model: nn.Module) -> nn.Module:
    """The HRViT that ``model`` is or contains; ``model`` itself if it contains none."""
    if not isinstance(model, nn.Module):
        raise ConfigError(f"load_checkpoint: {type(model).__name__} is not a module; give a network")
    inside = [module for module in model.modules() if isinstance(module, HRViT)]
    if len(inside) > 1:
        raise ConfigError(f"load_checkpoint: {type(model).__name__} contains {len(inside)} HRViTs; give one of them")
    return inside[0] if inside else model


def _weights(content: Any, ema: bool, where: str) -> tuple[dict[str, Tensor], str]:
    """The state dict with names without prefixes of wrappers, and the keys under which it was found."""
    wrappers = (*EMA_WEIGHTS, *WEIGHTS) if ema else (*WEIGHTS, *EMA_WEIGHTS)
    path: list[str] = []
    while isinstance(content, Mapping) and len(path) < MAX_NESTING:
        wrapper = next((key for key in wrappers if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        path.append(wrapper)
        content = content[wrapper]
    if ema and not set(path) & set(EMA_WEIGHTS):
        raise ConfigError(f"{where} contains no moving average ({', '.join(EMA_WEIGHTS)}); load it with ema=False")
    if not isinstance(content, Mapping) or not content or not all(map(_is_entry, content.items())):
        raise ConfigError(f"{where} contains no state dict; save one with torch.save(model.state_dict(), …)")
    tensors: dict[str, Tensor] = {}
    for key, tensor in content.items():
        if (name := _bare(key)) in tensors:
            raise ConfigError(
                f"{where} contains {shown(name)} twice, with and without the prefix of a wrapper; remove one of them"
            )
        if name not in COUNTERS:
            tensors[name] = tensor
    return cut_in_halves(tensors), ".".join(path)


def _is_entry(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _is_counter(name: str) -> bool:
    return name.endswith(COUNTERS)


def _bare(name: str) -> str:
    """A tensor's name without prefixes of wrappers, at any position.

    >>> _bare("module._orig_mod.stem.conv1.bias")
    'stem.conv1.bias'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _without_first_word(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the first word that all their names share; empty if they share none."""
    words = {name.partition(".")[0] for name in tensors}
    inside = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    return cut_in_halves(inside) if len(words) == 1 and all(inside) else {}


def _places(
    tensors: Mapping[str, Tensor], ours: Mapping[str, Tensor], network: nn.Module, where: str
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The checkpoint's names by our names, and its names that have no counterpart in the model."""
    if not isinstance(network, HRViT):
        return {name: name for name in tensors if name in ours}, tuple(name for name in tensors if name not in ours)
    inner = [key.removeprefix(BACKBONE) for key in tensors]
    published = any(key.startswith(("features.", "head.incre_modules.")) for key in inner)
    if published and any(key.startswith(("stages.", "fusions.")) for key in inner):
        raise ConfigError(f"{where} mixes two layouts, features.… and stages.…; give the weights of one network")
    segmentation = any(key.startswith(BACKBONE) for key in tensors)
    other_head = not published and _other_head(tensors, ours)
    placed: dict[str, str] = {}
    unexpected = []
    for key, inside in zip(tensors, inner, strict=True):
        decoder = key.startswith(DECODER)
        name = our_name(key, network.config.head) if published or decoder else inside
        beside = segmentation and not key.startswith((BACKBONE, *DECODER))
        if name is None or name not in ours or name in placed or beside or (other_head and inside.startswith("head.")):
            unexpected.append(key)
        else:
            placed[name] = key
    return placed, tuple(unexpected)


def _other_head(tensors: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> bool:
    """Whether weights in our layout are of another kind of head: all kinds have a ``head.classifier``."""
    theirs, mine = (
        {(name, tensor.shape) for name, tensor in side.items() if name.startswith("head.") and not _is_counter(name)}
        for side in (tensors, ours)
    )
    same_names = {name for name, _ in theirs} == {name for name, _ in mine}
    nested = theirs <= mine or mine <= theirs
    # The tensors of a linear-only head are a subset of those of every other head of that width.
    bare = [all(name.startswith(CLASSIFIERS) for name, _ in side) for side in (theirs, mine)]
    return not (same_names or (nested and bare[0] == bare[1]))


def _unread(network: nn.Module, tensors: Iterable[str]) -> tuple[str, ...]:
    """Prefixes of names of heads that the model does not have; tensors with them are ignored."""
    if not isinstance(network, HRViT):
        return ()
    if network.head is None:
        return ("head.", f"{BACKBONE}head.", *DECODER)
    if network.config.head in HEADS_OF_DECODERS or not any(key.startswith(BACKBONE) for key in tensors):
        return () if network.num_classes else (*CLASSIFIERS, *PUBLISHED_CLASSIFIERS)
    return DECODER


def _adapted(weight: Tensor, own: Tensor) -> Tensor | None:
    """The first convolution's weight for the model's input channels, by timm's rule; None where it has none."""
    if weight.ndim != 4:
        return None
    from timm.models import adapt_input_conv  # imported here because it is as slow as importing torch

    try:
        fitted = adapt_input_conv(own.shape[1], weight)
    except (NotImplementedError, AssertionError):
        return None
    return fitted if fitted.shape == own.shape else None


def _flaw(tensor: Tensor, own: Tensor | None = None) -> str | None:
    """Why a tensor can't be copied (into the model's ``own``), or None."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"is a {type(tensor).__name__}"
    if tensor.is_quantized:
        return f"is quantized ({tensor.dtype})"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"is not dense ({tensor.layout})"
    if tensor.device.type == "meta":
        return "is on the meta device, without values"
    if tensor.is_complex() or (own is not None and own.is_floating_point() and not tensor.is_floating_point()):
        return f"is of {tensor.dtype}"
    return None


def _label(network: nn.Module) -> str:
    return (network.config.name or "the model") if isinstance(network, HRViT) else type(network).__name__


def _some(names: Iterable[str]) -> str:
    """The first three names, as printable text."""
    listed = list(names)
    return ", ".join(shown(name, 80) for name in listed[:3]) + (", …" if len(listed) > 3 else "")
