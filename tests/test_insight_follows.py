"""Views depend on what their line in `WHAT` says, and on nothing else; receptive fields follow the pixel."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from test_attention import tiny, woken
from test_insight_features import Stack

from hrvit_lab.insight.attention import attention_blocks, block_attention
from hrvit_lab.insight.features import feature_maps, map_strides
from hrvit_lab.insight.receptive_field import receptive_fields
from hrvit_lab.insight.views_command import VIEWS, Subject
from hrvit_lab.insight.what import WHAT
from hrvit_lab.network.build import build
from hrvit_lab.network.named import NamedNetwork

SIDE = 64


def subject(seed: int = 0) -> Subject:
    """A small segmenter with random weights."""
    torch.manual_seed(seed)
    model = woken(build(tiny("cross_shaped", head="segformer"))).eval()
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    network = NamedNetwork("small", model, "random", trained=False)
    truth = np.zeros((SIDE, SIDE), dtype=np.int64)
    return Subject(network, image, tensor, (9, 50), class_number=0, truth=truth)


CHANGES: dict[str, Any] = {
    "pixel": (40, 3), "block": "stages.0.branches.1.0", "class_number": 2, "truth": np.ones((SIDE, SIDE), np.int64),
    "beside": subject(seed=1),
}  # fmt: skip


def seen(what: str, one: Subject) -> list[Any]:
    """All that a view shows: its sentence, arrays, and the pictures and texts of its figures."""
    shown = VIEWS[what](one)
    drawn = [
        np.asarray(picture.get_array()).tobytes()
        for figure in shown.figures.values() for ax in figure.axes for picture in ax.images
    ]  # fmt: skip
    return [shown.said, {name: array.tobytes() for name, array in shown.arrays.items()}, drawn]


def test_every_field_is_read_by_a_view() -> None:
    assert {field for what in WHAT.values() for field in what.reads} == set(CHANGES)


@pytest.mark.parametrize("what", WHAT)
def test_a_view_depends_on_what_its_line_says(what: str) -> None:
    before = subject()
    shown = seen(what, before)
    for field, value in CHANGES.items():
        changed = seen(what, replace(before, **{field: value}))
        assert (changed != shown) == (field in WHAT[what].reads), field


@pytest.mark.parametrize("pixel", [(0, 0), (40, 11), (48, 34)])
def test_the_receptive_field_follows_the_pixel(pixel: tuple[int, int]) -> None:
    """On odd sizes, the token of a branch of stride s is that of row // s and column // s, as a loop finds it; without
    attention and fusion its influence lies around the pixel."""
    image = torch.randn(1, 3, 49, 35)
    model = woken(build(tiny("window"))).eval()
    found = receptive_fields(model, image, pixel, samples=1)
    for name, stride in (("stage 0, branch 0", 4), ("stage 0, branch 1", 8)):
        row = next(i for i in range(49) if i * stride <= pixel[0] < (i + 1) * stride)
        column = next(i for i in range(35) if i * stride <= pixel[1] < (i + 1) * stride)
        assert found[name].token == (row, column) and found[name].stride == (stride, stride)
    layers = ((3, 2, 1), (3, 2, 1))  # reach: 7 pixels, 3 on each side of the token's first pixel
    [field] = receptive_fields(Stack(*layers), torch.randn(1, 1, 49, 35), pixel).values()
    rows, columns = (np.flatnonzero(field.influence.any(axis)) for axis in (1, 0))
    for reached, at, length in ((rows, pixel[0], 49), (columns, pixel[1], 35)):
        first = at // 4 * 4
        assert (reached[0], reached[-1]) == (max(0, first - 3), min(length - 1, first + 3))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_strides_of_timms_maps_are_known(name: str) -> None:
    """On a size that the strides do not divide: the nearest division of the sides would give another stride."""
    side = 160 if name == "test_vit" else 150
    model, image = timm.create_model(name, num_classes=4).eval(), torch.randn(1, 3, side, side)
    maps = feature_maps(model, image)
    strides = map_strides(model, maps, (side, side))
    for name_, x in maps.items():
        assert strides[name_] in {(2, 2), (4, 4), (8, 8), (16, 16), (32, 32)}
        assert x.shape[2] == -(-side // strides[name_][0])


def test_blocks_with_a_map_are_known_without_an_image() -> None:
    mixed = build(tiny(("window", "identity"))).eval()
    assert attention_blocks(mixed) == [f"stages.0.branches.0.{number}" for number in (0, 1)]
    vision = timm.create_model("test_vit", num_classes=4).eval()
    for model, side in ((mixed, 64), (vision, 160)):
        found = block_attention(model, torch.randn(1, 3, side, side))
        assert attention_blocks(model) == [one.place.name for one in found]
    assert attention_blocks(timm.create_model("test_resnet", num_classes=4)) == []
