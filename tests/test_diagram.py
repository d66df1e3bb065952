"""The drawing of a network: every part once, with its true share; names are escaped."""

import random
import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from random_configs import odd_resolution, random_config

from hrvit_lab.config import PRESETS, SEGMENTERS, ConfigError, HRViTConfig, preset
from hrvit_lab.cost.count import count
from hrvit_lab.cost.ledger import ledger
from hrvit_lab.plots import diagram
from hrvit_lab.plots.diagram import COSTS, DARK, LIGHT, color, costs_of, shares

SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def shapes(root: ElementTree.Element) -> Iterator[tuple[str, ElementTree.Element]]:
    """Every shape with a tooltip."""
    for group in root.iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and box is not None and title.text
        yield title.text, box


def inside(box: ElementTree.Element, width: float, height: float) -> bool:
    x, y, w, h = (float(box.get(name, "nan")) for name in ("x", "y", "width", "height"))
    return x >= 0 and x + w <= width and y >= 0 and y + h <= height and w > 0 and h > 0


def check(config: HRViTConfig, resolution: int | tuple[int, int], cost: str) -> None:
    root = parsed(diagram(config, resolution, cost))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    drawn = list(shapes(root))
    titles = [title for title, _ in drawn]
    assert {title.partition(":")[0] for title in titles if title.startswith("stage")} == places(config)
    assert len(titles) == len({title.partition(":")[0] for title in titles})
    assert all(inside(box, width, height) for _, box in drawn)
    shown = sum(float(found[1]) for title in titles if (found := re.search(r"([\d.]+)% of the network", title)))
    assert shown == pytest.approx(100, abs=0.05 * len(drawn) + 0.1)


def places(config: HRViTConfig) -> set[str]:
    """The places of all branches in all stages, computed from the config."""
    if config.topology == "pyramid":
        return {f"stage {s}, branch {s}" for s in range(len(config.depths[0]))}
    return {f"stage {s}, branch {b}" for s, depths in enumerate(config.depths) for b in range(len(depths))}


@pytest.mark.parametrize("name", [*PRESETS, *SEGMENTERS])
def test_every_part_is_drawn_once_and_inside_the_frame(name: str) -> None:
    check(preset(name), 224, "macs")


def test_random_networks_are_drawn() -> None:
    draw = random.Random(3)
    for cost in COSTS * 10:
        config = random_config(draw)
        check(config, odd_resolution(draw, config), cost)


@pytest.mark.parametrize("cost", COSTS)
def test_shares_equal_those_of_the_ledger(cost: str) -> None:
    """A naive loop over its rows."""
    config = preset("hrvit_nano")
    expected: dict[object, float] = {}
    for stage, branch, row in ledger(config, 64):
        place = (stage, None if stage == "head" or row.part == "fusion" else branch)
        value = (row.moved + row.params) * 4 / 2**20 if cost == "moved_mib" else getattr(row, cost)
        expected[place] = expected.get(place, 0) + value
    found = shares(costs_of(count(config, 64), cost))
    assert {place: value for place, (value, _) in found.items()} == pytest.approx(expected)
    total = getattr(count(config, 64), cost)
    assert all(share == pytest.approx(value / total) for value, share in found.values())


def test_the_largest_share_is_darkest() -> None:
    root = parsed(diagram(preset("hrvit_b1")))
    fills = {title.partition(":")[0]: box.get("fill") for title, box in shapes(root)}
    found = shares(costs_of(count("hrvit_b1", 224), "macs"))
    largest = max(found, key=lambda place: found[place])
    assert largest == ("head", None) and fills["head"] == color(1)
    assert [name for name, fill in fills.items() if fill == color(1)] == ["head"]


def test_more_blocks_are_wider_and_more_channels_taller() -> None:
    boxes = {title.partition(":")[0]: box for title, box in shapes(parsed(diagram(preset("hrvit_b1"))))}
    side = {name: (float(box.get("width", 0)), float(box.get("height", 0))) for name, box in boxes.items()}
    assert side["stage 2, branch 2"][0] > side["stage 5, branch 2"][0] > side["stage 2, branch 1"][0]
    assert side["stage 5, branch 3"][1] > side["stage 5, branch 2"][1] > side["stage 5, branch 1"][1]


def test_a_dark_drawing_differs_in_colours_alone() -> None:
    light, dark = (diagram(preset("hrvit_b1"), dark=dark) for dark in (False, True))
    assert light != dark and re.sub("#[0-9a-f]{6}", "", light) == re.sub("#[0-9a-f]{6}", "", dark)
    fills = {title.partition(":")[0]: box.get("fill") for title, box in shapes(parsed(dark))}
    assert fills["head"] == color(1, DARK) != color(1, LIGHT)


def test_given_values_are_drawn_in_place_of_counts() -> None:
    values = costs_of(count("hrvit_nano", 64), "macs")
    values["value"] = [3.0 if stage == "stem" else 1.0 if stage == "head" else 0.0 for stage in values["stage"]]
    values.loc[1:, "value"] = values["value"].where(values["stage"] == "head", 0.0)[1:]
    root = parsed(diagram(preset("hrvit_nano"), 64, "latency_ms", values=values))
    titles = [title for title, _ in shapes(root)]
    ends = [title for title in titles if not title.endswith(", 0.0% of the network")]
    assert len(ends) == 2 and "3 latency" not in ends[1] and ends[0].startswith("stem")
    assert sum(float(title.rpartition(", ")[2].partition("%")[0]) for title in ends) == pytest.approx(100, abs=0.1)


def test_names_are_escaped() -> None:
    hostile = '</text><script>alert(1)</script>" onload="x'
    root = parsed(diagram(preset("hrvit_nano").replace(name=hostile)))
    assert not list(root.iter(f"{SVG}script")) and "onload" not in root.attrib
    assert any((text.text or "").startswith("</text><script>") for text in root.iter(f"{SVG}text"))


def test_an_invalid_drawing_is_reported_in_one_sentence() -> None:
    with pytest.raises(
        ValueError, match="cost = 'latency' is not drawn; use one of macs, params, activations, moved_mib"
    ):
        diagram(preset("hrvit_nano"), 64, "latency")
    with pytest.raises(ConfigError, match="too small"):
        diagram(preset("hrvit_nano"), 8)
