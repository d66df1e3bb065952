"""Each thing that ``hrvit-lab insight`` shows: numbers, figures, and a sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hrvit_lab import cli
from hrvit_lab.errors import ConfigError
from hrvit_lab.insight.attention import BlockAttention, block_attention, mean_over_heads, remarks
from hrvit_lab.insight.contributions import contributions
from hrvit_lab.insight.evidence import class_label, gradient_evidence, occlusion_evidence, predicted_class
from hrvit_lab.insight.features import coloured, feature_maps
from hrvit_lab.insight.locate import on_image, pixels_of, token_at
from hrvit_lab.insight.places import find_blocks
from hrvit_lab.insight.receptive_field import receptive_fields
from hrvit_lab.insight.rollout import branch_rollout, by_branch, network_rollout
from hrvit_lab.insight.segments import IGNORED, boundary_errors, segments
from hrvit_lab.insight.similarity import similarity
from hrvit_lab.insight.statistics import attention_statistics
from hrvit_lab.network.model import HRViT
from hrvit_lab.network.named import NamedNetwork
from hrvit_lab.plots import Figure
from hrvit_lab.plots import insight as pictures
from hrvit_lab.plots import insight_numbers as numbers
from hrvit_lab.plots.images import Box, Pixel

OCCLUSIONS = 8
"""Squares along the shorter side of the image."""
BOUNDARY_PX = 3


@dataclass(frozen=True, eq=False)
class Subject:
    """A network, an image, and what is asked of them.

    Attributes:
        image: uint8 (H, W, 3), as it is drawn.
        tensor: the same, as the network reads it, (1, C, H, W).
        pixel: (row, column).
        block: whose heads are shown; None: the last one of the finest branch.
        class_number: None: the predicted one.
        truth: class numbers (H, W), if they are known.
        beside: a second network with the same image, to which the first is compared.
        attention_of: computes the attention of all blocks, which does not depend on the pixel; a caller that shows many
            pixels can give one that remembers.
    """

    network: NamedNetwork
    image: NDArray[Any]
    tensor: Tensor
    pixel: Pixel
    block: str | None = None
    class_number: int | None = None
    truth: NDArray[Any] | None = None
    beside: "Subject | None" = None
    attention_of: Callable[[nn.Module, Tensor], tuple[BlockAttention, ...]] = block_attention

    @property
    def model(self) -> nn.Module:
        """The network's module."""
        return self.network.model

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[0], self.image.shape[1]

    @property
    def label(self) -> str:
        """Network and size of the image, for titles."""
        return f"{self.network.name}, {cli.show_size(self.size)}"

    @cached_property
    def note(self) -> str:
        """Where the weights are from, and what must be said about them."""
        said = remarks(self.model, self.network.trained)
        if not self.network.trained:
            return " ".join(said)
        weights = f"{self.network.weights[:1].upper()}{self.network.weights[1:]}"
        own = self.network.resolution_px
        return " ".join((f"{weights}, trained at {cli.show_size(own)}." if own else f"{weights}.", *said))

    @cached_property
    def attention(self) -> tuple[BlockAttention, ...]:
        """The attention of all blocks."""
        return self.attention_of(self.model, self.tensor)

    def attention_in(self, block: str) -> BlockAttention:
        """The attention of a block.

        Raises:
            ConfigError: for an unknown block, or a block without a map.
        """
        known = next((one for one in self.attention if one.place.name == block), None)
        return known or block_attention(self.model, self.tensor, [block])[0]


class Shown(NamedTuple):
    """The result of a view.

    Attributes:
        figures: by file name.
        arrays: for the NPZ file.
        said: one sentence with a number.
    """

    figures: dict[str, Figure]
    arrays: dict[str, NDArray[Any]]
    said: str


def attention(subject: Subject) -> Shown:
    """A montage over branches and stages, and the heads of one block."""
    if subject.block is not None and isinstance(subject.model, HRViT):
        find_blocks(subject.model, [subject.block])  # first, because the name may be wrong
    named_block = subject.attention_in(subject.block) if subject.block is not None else None
    maps = {
        one.place.name: one.of_token(token_at(subject.pixel, subject.size, one.place.stride))
        for one in subject.attention
    }

    def drawn_map(one: BlockAttention) -> tuple[NDArray[Any], Box]:
        mean = mean_over_heads(maps[one.place.name])
        return on_image(mean, subject.size, one.place.stride), _box(one, subject)

    last = {(one.place.stage, one.place.branch): one for one in subject.attention}
    if isinstance(subject.model, HRViT):
        drawn = {key: drawn_map(one) for key, one in last.items()}
        figures = {
            "attention": pictures.attention_montage(subject.image, drawn, subject.pixel, subject.label, subject.note)
        }
        finest = max(last, key=lambda key: (-key[1], key[0]))
        chosen = named_block or last[finest]
    else:
        named = {one.place.title: drawn_map(one) for one in subject.attention}
        figures = {
            "attention": pictures.attention_of_blocks(subject.image, named, subject.pixel, subject.label, subject.note)
        }
        chosen = named_block or subject.attention[-1]
    figures["attention_heads"] = pictures.attention_heads(
        subject.image, on_image(maps[chosen.place.name], subject.size, chosen.place.stride), _box(chosen, subject),
        subject.pixel, chosen.place.title, subject.label, subject.note,
    )  # fmt: skip
    most = mean_over_heads(maps[chosen.place.name]).max()
    said = (
        f"{len(maps)} blocks; in {chosen.place.title}, the token at row {subject.pixel[0]}, column {subject.pixel[1]} "
        f"gives {pictures.percent(float(most))} to the token that it attends to most (mean of {chosen.num_heads} heads)"
    )
    return Shown(figures, maps, said)


def rollout(subject: Subject) -> Shown:
    """Through the whole network, from every branch's last map; and through the blocks of each branch and stage."""
    model = _hrvit(subject)
    found: dict[str, NDArray[Any]] = {}
    drawn: dict[str, tuple[NDArray[Any], Box]] = {}
    for branch, side in enumerate(model.config.strides):
        token = token_at(subject.pixel, subject.size, (side, side))
        map_hw = network_rollout(model, subject.tensor, branch, token, attention=subject.attention)
        found[f"branch {branch}"] = map_hw
        place = pixels_of(token, subject.size, (side, side))
        drawn[f"branch {branch}"] = on_image(map_hw, subject.size, (4, 4)), _rectangle(place)
    counts = [int((map_hw > 0).sum()) for map_hw in found.values()]
    said = f"tokens of the stem that reach the token, by branch: {', '.join(f'{count:,}' for count in counts)}"
    of_branch = {}
    for key, blocks in by_branch(subject.attention).items():
        stride = blocks[-1].place.stride
        map_hw = branch_rollout(blocks, token_at(subject.pixel, subject.size, stride))
        found[f"stage {key[0]}, branch {key[1]}"] = map_hw
        of_branch[key] = on_image(map_hw, subject.size, stride), _box(blocks[-1], subject), len(blocks)
    about = subject.pixel, subject.label, subject.note
    figures = {
        "rollout": pictures.rollouts(subject.image, drawn, *about),
        "branch_rollout": pictures.branch_rollouts(subject.image, of_branch, *about),
    }
    return Shown(figures, found, said)


def paths(subject: Subject) -> Shown:
    """What each path of a block adds."""
    found = contributions(subject.model, subject.tensor)
    rows = [numbers.BlockShares(one.place.stage, one.place.branch, one.shares) for one in found]
    names = list(dict.fromkeys(name for one in found for name in one.parts))
    table = np.array([[one.shares.get(name, np.nan) for name in names] for one in found])
    arrays = {
        "blocks": np.array([one.place.name for one in found]), "paths": np.array(names), "shares": table,
        "stream": np.array([one.norms["stream"] for one in found]),
    }  # fmt: skip
    means = ", ".join(f"{name} {_mean(100 * table[:, i])} %" for i, name in enumerate(names))
    figure = numbers.contributions(rows, subject.label, subject.note)
    return Shown({"contributions": figure}, arrays, f"norm relative to the residual stream, mean over blocks: {means}")


def statistics(subject: Subject) -> Shown:
    """Distance, entropy and diversity."""
    _hrvit(subject)
    found = [attention_statistics(one) for one in subject.attention]
    rows = [
        numbers.BlockNumbers(one.place.stage, one.place.branch, one.distance_px, one.entropy_share, one.head_diversity)
        for one in found
    ]
    arrays: dict[str, NDArray[Any]] = {"head_diversity": np.array([one.head_diversity for one in found])}
    for one in found:
        name = one.place.name
        arrays |= {
            f"{name}.distance_px": one.distance_px, f"{name}.entropy_nats": one.entropy_nats,
            f"{name}.max_entropy_nats": one.max_entropy_nats,
        }  # fmt: skip
    distances = np.concatenate([one.distance_px for one in found])
    entropy = _mean(np.concatenate([one.entropy_share for one in found]))
    said = f"mean distance {distances.mean():.1f} px, mean entropy {entropy} of its maximum"
    return Shown({"statistics": numbers.attention_numbers(rows, subject.label, subject.note)}, arrays, said)


def fields(subject: Subject) -> Shown:
    """The effective receptive field of the token of every branch that covers the pixel."""
    found = receptive_fields(subject.model, subject.tensor, subject.pixel)
    drawn, arrays = {}, {}
    for name, field in found.items():
        box = _rectangle(pixels_of(field.token, subject.size, field.stride))
        drawn[name] = field.influence, box, field.area_px(0.5), field.area_px(0.99)
        arrays[name] = field.influence
    said = "; ".join(f"{name}: 50 % in {half:,} px, 99 % in {most:,} px" for name, (_, _, half, most) in drawn.items())
    figure = pictures.receptive_fields(subject.image, drawn, subject.pixel, subject.label, subject.note)
    return Shown({"receptive_field": figure}, arrays, said)


def likeness(subject: Subject) -> Shown:
    """CKA between all maps, or between those of the two networks."""
    beside = subject.beside
    if beside is None:
        found = similarity([subject.tensor], subject.model)
        pairs = found.cka[~np.eye(len(found.cka), dtype=bool)]
        of, note, networks, other = f"{len(found.rows)} maps", subject.note, None, {}
    else:
        found = similarity([(subject.tensor, beside.tensor)], subject.model, beside.model)
        pairs = found.cka.ravel()
        networks = subject.network.name, beside.network.name
        of = f"{len(found.rows)} maps, and {len(found.columns)} of {networks[1]},"
        note = f"{networks[0]}: {subject.note} {networks[1]}: {beside.note}"
        other = {"maps_beside": np.array(found.columns)}
    arrays = {"cka": found.cka, "maps": np.array(found.rows), **other}
    said = f"{of} at {found.grid[0]} × {found.grid[1]} positions; mean CKA of pairs {_mean(pairs)}"
    figure = numbers.similarity(found.cka, found.rows, found.columns, found.grid, subject.label, note, networks)
    return Shown({"similarity": figure}, arrays, said)


def colours(subject: Subject) -> Shown:
    """Principal components of every map."""
    maps = feature_maps(subject.model, subject.tensor)
    found = {name: coloured(x, subject.size) for name, x in maps.items() if min(x.shape[1], x[0, 0].numel()) >= 3}
    if not found:
        raise ConfigError("no map has three positions and three channels; use a larger image")
    drawn = {name: (one.rgb, one.explained, one.size) for name, one in found.items()}
    arrays = {name: one.rgb.astype(np.float32) for name, one in found.items()}
    shares = ", ".join(f"{100 * one.explained.sum():.0f} %" for one in list(found.values())[-3:])
    said = f"{len(found)} maps; variance that three components show in the last ones: {shares}"
    return Shown({"features": pictures.features(drawn, subject.image, subject.label, subject.note)}, arrays, said)


def seen_class(subject: Subject) -> Shown:
    """Evidence for one class."""
    predicted, probability = predicted_class(subject.model, subject.tensor)
    number = predicted if subject.class_number is None else subject.class_number
    patch = max(1, min(subject.size) // OCCLUSIONS)
    occlusion = occlusion_evidence(subject.model, subject.tensor, number, patch)
    gradients = gradient_evidence(subject.model, subject.tensor, number) if isinstance(subject.model, HRViT) else {}
    named = partial(class_label, subject.network.class_names)
    figure = pictures.evidence(subject.image, gradients, occlusion, patch, named(number), subject.label, subject.note)
    said = f"largest score: {named(predicted)}, softmax {probability:.2f}; evidence for {named(number)}"
    return Shown({"evidence": figure}, {"occlusion": occlusion, **gradients}, said)


def segmented(subject: Subject) -> Shown:
    """Prediction, entropy, and errors where the truth is known."""
    found = segments(subject.model, subject.tensor)
    share = found.entropy_nats / max(found.max_entropy_nats, 1e-12)
    arrays = {"prediction": found.prediction, "entropy_nats": found.entropy_nats}
    said = f"{len(np.unique(found.prediction))} classes; mean entropy {share.mean():.2f} of its maximum"
    truth, errors = None, ""
    if subject.truth is not None:
        result = boundary_errors(found.prediction, subject.truth, BOUNDARY_PX)
        truth = subject.truth, result.wrong
        arrays |= {"wrong": result.wrong, "near_boundary": result.near & (subject.truth != IGNORED)}
        errors = (
            f"Wrong: {result.error_percent:.1f} % of the pixels; {result.near_error_percent:.1f} % within "
            f"{BOUNDARY_PX} px of a boundary, {result.far_error_percent:.1f} % elsewhere."
        )
        said += f". {errors.rstrip('.')}"
    figure = pictures.segments(
        subject.image, found.prediction, share, truth, errors, subject.network.class_names, subject.label, subject.note
    )
    return Shown({"segments": figure}, arrays, said)


VIEWS: dict[str, Callable[[Subject], Shown]] = {
    "attention": attention,
    "rollout": rollout,
    "contributions": paths,
    "statistics": statistics,
    "receptive_field": fields,
    "similarity": likeness,
    "features": colours,
    "evidence": seen_class,
    "segments": segmented,
}
"""The function of each name of `hrvit_lab.insight.what.WHAT`."""


def show(what: str, subject: Subject) -> Shown:
    """A view of `VIEWS`.

    Raises:
        ConfigError: if the network does not have this view, or is a model of timm that does not accept the image.
    """
    try:
        return VIEWS[what](subject)
    except ConfigError:
        raise
    except Exception as error:  # timm's models raise different exceptions for sizes they do not support
        both = [one for one in (subject, subject.beside) if one is not None]
        theirs = [one.network.name for one in both if not isinstance(one.model, HRViT)]
        if not theirs:
            raise
        reason = " ".join(f"{type(error).__name__}: {error!s:.200}".split())
        raise ConfigError(
            f"{'the network' if len(both) == 1 else ' or '.join(theirs)} can't be run with an image of "
            f"{cli.show_size(subject.size)} ({reason}); choose another size or another view"
        ) from error


def _hrvit(subject: Subject) -> HRViT:
    if not isinstance(subject.model, HRViT):
        raise ConfigError(
            f"{subject.network.name} is not an HRViT, whose branches and blocks this needs; choose attention, "
            "features, similarity or receptive_field"
        )
    return subject.model


def _mean(values: NDArray[Any]) -> str:
    """The mean of the values that are numbers, as text."""
    known = values[~np.isnan(values)]
    return f"{known.mean():.2f}" if known.size else "unknown"


def _box(one: BlockAttention, subject: Subject) -> Box:
    token = token_at(subject.pixel, subject.size, one.place.stride)
    return _rectangle(pixels_of(token, subject.size, one.place.stride))


def _rectangle(place: tuple[slice, slice]) -> Box:
    return place[0].start, place[1].start, place[0].stop, place[1].stop
