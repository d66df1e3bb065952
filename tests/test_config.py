"""The config: identity, text, errors, transforms."""

import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from random_configs import random_config

from hrvit_lab import PRESETS, ConfigError, HRViTConfig, diff, preset
from hrvit_lab.config import (
    SEGMENTERS,
    read_config,
    scale_depths,
    scale_widths,
    valid_widths,
    with_branches,
    with_stages,
    with_topology,
)
from hrvit_lab.cost.ledger import ledger

B1 = PRESETS["hrvit_b1"]


def test_defaults_are_b1() -> None:
    assert HRViTConfig(name="hrvit_b1") == B1


def test_defaults_of_fewer_branches_are_the_first_of_b1() -> None:
    config = HRViTConfig(depths=((1,), (1, 1)))
    assert config.widths == (32, 64) and config.window_sizes == (1, 2) and config.head_widths == (32, 64)
    assert HRViTConfig(depths=((1,) * 5,)).widths[-1] == 512


def test_a_single_value_applies_to_every_branch() -> None:
    config = B1.replace(window_sizes=7, head_dims=16, attention="cross_shaped")
    assert config.window_sizes == (7, 7, 7, 7)
    assert config.head_dims == (16, 16, 16, 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another"},
        {"attention": "cross_shaped"},
        {"head_dims": (64, 32, 32, 32)},  # half of 32 channels is one head of 16 either way
        {"mlp_ratios": (4.001, 4, 4, 4)},  # int(32 · 4.001) is 128 too
    ],
)
def test_equal_networks_have_equal_ids(changes: dict) -> None:
    assert B1.replace(**changes).id == B1.id


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        ({"depths": ((1,),)}, {"drop_path_rate": 0.3}),  # the only block is the first, whose rate is 0
        (
            {"topology": "pyramid", "depths": ((2,),), "stem_width": 32},
            {"patch_embed": "dense"},
        ),  # opens further scales
        ({"head": "none"}, {"num_classes": 7, "head_features": 5, "head_widths": 3, "drop_rate": 0.5}),
    ],
)
def test_unused_settings_do_not_change_the_id(base: dict, changes: dict) -> None:
    assert HRViTConfig(**base).id == HRViTConfig(**(base | changes)).id


@pytest.mark.parametrize(
    "changes",
    [
        {"window_sizes": (1, 2, 7, 9)},
        {"widths": (32, 64, 128, 320)},
        {"head_dims": (32, 16, 32, 32)},
        {"mlp_ratios": 3},
        {"depths": ((1,), (1, 1), (1, 1, 6), (1, 1, 6), (1, 1, 6, 2), (1, 1, 2, 3))},
        {"stem_width": 32},
        {"num_classes": 10},
        {"drop_path_rate": 0.1},
        {"grad_checkpointing": True},
        {"in_chans": 1},
        {"head": "none"},
    ],
)
def test_different_networks_have_different_ids(changes: dict) -> None:
    assert B1.replace(**changes).id != B1.id


def test_ids_of_presets_differ_and_do_not_depend_on_the_process() -> None:
    assert len({config.id for config in PRESETS.values()}) == len(PRESETS)
    code = "from hrvit_lab.config import PRESETS; print(*[c.id for c in PRESETS.values()])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [config.id for config in PRESETS.values()]


def test_diff_and_replace() -> None:
    changed = B1.replace(stem_width=32, window_sizes=7)
    assert diff(B1, changed) == {"stem_width": (64, 32), "window_sizes": ((1, 2, 7, 7), (7, 7, 7, 7))}
    assert diff(B1, B1) == {}
    with pytest.raises(ValueError, match="frozen"):
        B1.stem_width = 32  # type: ignore[misc]


def test_a_preset_can_be_the_base_of_a_mapping() -> None:
    assert HRViTConfig.from_dict({"preset": "hrvit_nano", "num_classes": 10}) == preset("hrvit_nano").replace(
        num_classes=10
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"widths": (30, 64, 128, 256)}, ["widths[0]", "30", "28 or 32"]),
        ({"head_dims": 24}, ["widths[1]", "64", "48 or 96"]),
        ({"widths": (33, 64, 128, 256)}, ["widths[0]", "33", "even", "32"]),
        ({"window_sizes": 0}, ["window_sizes[0]", "0", "give at least 1"]),
        ({"widths": (32, 64)}, ["widths", "2 entries", "4 branches"]),
        ({"depths": ((1, 1), (1,))}, ["depths", "fewer branches in stage 1"]),
        ({"attention": "cross_shape"}, ["attention", "cross_shape", "did you mean 'cross_shaped'"]),
        ({"width": 3}, ["unknown field 'width'", "widths"]),
        ({"stem_width": 63}, ["stem_width", "63", "64"]),
        ({"mlp_ratios": (0.3, 4, 4, 4)}, ["widths[0]", "MixCFN", "9", "or mlp_ratios[0] = 1"]),
        ({"mlp_ratios": 0.01}, ["mlp_ratios[0] = 0.01", "hidden channels", "or mlp_ratios[0] = 1"]),
        ({"head_dims": 5}, ["head_dims[0] = 5", "20 or 40", "or head_dims[0] = 4 or 8"]),
        ({"attention": ("window", "globl", "window", "window")}, ["attention[1] = 'globl'", "'global'"]),
        ({"head": 3}, ["head = 3", "segformer"]),
        ({"widths": None}, ["widths = None", "one value for all branches"]),
        ({"depths": 3}, ["depths = 3", "give a list"]),
        ({"stem_width": 3.5}, ["stem_width = 3.5", "give a whole number"]),
        ({"drop_rate": 1}, ["drop_rate = 1", "give less than 1"]),
        ({"branches": 2}, ["'branches' is not a field", "with_branches(config, 2)", "axis of a study"]),
        ({"width_scale": 0.5}, ["'width_scale' is not a field", "scale_widths(config, 0.5)"]),
    ],
)
def test_errors_name_field_value_and_remedy(changes: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        B1.replace(**changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("field", HRViTConfig.model_fields)
def test_errors_of_fields_are_in_our_words(field: str) -> None:
    for value in (None, -1, 0, 2.5, math.nan, "x", [], [[]], {}, "x" * 200, b"\xff", object()):
        try:
            B1.replace(**{field: value})
        except ConfigError as error:
            assert not re.search("input should|valid |unable|Value error", str(error), re.IGNORECASE), error


def test_suggested_remedies_for_a_width_are_accepted() -> None:
    for remedy in ({"head_dims": (4, 32, 32, 32)}, {"head_dims": (8, 32, 32, 32)}, {"mlp_ratios": (1, 4, 4, 4)}):
        B1.replace(**remedy)


def test_suggested_widths_are_accepted() -> None:
    for width, remedies in ((30, (28, 32)), (132, (128, 192))):
        branch = 0 if width == 30 else 2
        for remedy in remedies:
            widths = list(B1.widths)
            widths[branch] = remedy
            B1.replace(widths=tuple(widths))


def test_input_too_small_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"resolution = 31×64 is too small.*at least 32"):
        B1.check_resolution((31, 64))
    assert B1.map_sizes(32)[-1] == (1, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("widths: [1\nb: 2", "line 2"),
        ("- 1\n- 2", "mapping"),
        ("widths: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("x: " + "a" * 70_000, "larger than 64 KiB"),
        ("depths: {a: 1}", "depths"),
        ("x: " + "[" * 5000, "nested too deep"),
        ("stem_width: " + "9" * 5000, "number with too many digits"),
        ("name: \x00", "not valid YAML"),
    ],
)
def test_untrusted_text_is_reported_in_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HRViTConfig.from_yaml(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_are_refused_before_they_are_expanded() -> None:
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{n}: &{n} [{','.join(['*' + m] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ConfigError, match="line 2: aliases"):
        HRViTConfig.from_yaml(bomb + "depths: *i")


def test_branches_are_dropped_and_added() -> None:
    nano = PRESETS["hrvit_nano"]
    assert with_branches(nano, 4) == nano
    assert with_branches(nano, 2).depths == ((1,), (1, 1), (1, 1), (1, 1), (1, 1), (1, 1))
    five = with_branches(nano, 5)
    assert (
        five.widths == (8, 16, 32, 64, 128)
        and five.depths[-1] == (1, 1, 1, 1, 1)
        and five.depths[:-1] == nano.depths[:-1]
    )
    for n in (0, 6):
        with pytest.raises(ConfigError, match=f"branches = {n}"):
            with_branches(nano, n)


def test_stages_are_dropped_and_added() -> None:
    b1 = preset("hrvit_b1")
    assert with_stages(b1, 6) == b1
    assert with_stages(b1, 8).depths == (*b1.depths, (1, 1, 2, 2), (1, 1, 2, 2))
    short = with_stages(b1, 3)
    assert short.depths == ((1,), (1, 1), (1, 1, 6))
    assert short.widths == (32, 64, 128) and short.attention == ("cross_shaped",) * 3
    for stages in (0, 33):
        with pytest.raises(ConfigError, match=f"stages = {stages} is out of range; use 1 to 32"):
            with_stages(b1, stages)
    with pytest.raises(ConfigError, match="a pyramid has one"):
        with_stages(preset("mit_b0"), 2)


def blocks_of_branches(config: HRViTConfig) -> list[int]:
    return [sum(stage[b] for stage in config.depths if b < len(stage)) for b in range(config.num_branches)]


@pytest.mark.parametrize("name", [*PRESETS, *SEGMENTERS])
def test_every_preset_converts_to_the_other_topology(name: str) -> None:
    config = preset(name)
    other = with_topology(config, "pyramid" if config.topology == "parallel" else "parallel")
    assert other.topology != config.topology and with_topology(config, config.topology) is config
    branches = range(config.num_branches)
    if other.topology == "pyramid":
        assert other.depths == (tuple(blocks_of_branches(config)),)
        assert other.stem_width == other.widths[0] == config.widths[0]
    else:
        assert [len(stage) for stage in other.depths] == [b + 1 for b in branches]
        assert blocks_of_branches(other) == [max(config.depths[0][b], config.num_branches - b) for b in branches]
        assert with_topology(other, "pyramid").widths == config.widths
    kept = {"topology": config.topology, "depths": config.depths, "stem_width": config.stem_width}
    assert other.replace(**kept) == config


def test_random_networks_convert_and_keep_their_blocks() -> None:
    """There and back: blocks of each branch are as before, unless a pyramid has fewer than its stages need."""
    draw = random.Random(11)
    for _ in range(200):
        config = random_config(draw)
        pyramid = with_topology(config, "pyramid")
        assert blocks_of_branches(config) == list(pyramid.depths[0])
        parallel = with_topology(pyramid, "parallel")
        assert all(a >= b for a, b in zip(blocks_of_branches(parallel), pyramid.depths[0], strict=True))
        assert parallel.widths == pyramid.widths and pyramid.widths[1:] == config.widths[1:]


def test_a_first_scale_that_no_stem_gives_becomes_the_nearest_that_one_does() -> None:
    odd = preset("hrvit_b1").replace(attention="identity", shortcut="none", ffn="mlp", widths=(33, 64, 128, 256))
    assert with_topology(odd, "pyramid").widths[0] in (32, 34)
    wide = preset("hrvit_b1").replace(widths=(2048, 64, 128, 256))
    assert with_topology(wide, "pyramid").stem_width == 1024
    deep = preset("hrvit_b1").replace(depths=((64,), (64, 1)), widths=(32, 64), head_dims=32, window_sizes=7,
                                      mlp_ratios=4, attention="cross_shaped", ffn="mixcfn", head_widths=32)  # fmt: skip
    assert with_topology(deep, "pyramid").depths == ((64, 1),)  # the most that a config accepts


def test_widths_scale_to_the_nearest_valid_ones() -> None:
    for factor in (0.5, 0.9, 1.3, 2.0):
        scaled = scale_widths(B1, factor)
        for branch, (width, base) in enumerate(zip(scaled.widths, B1.widths, strict=True)):
            ours = abs(width - base * factor)
            assert all(abs(w - base * factor) >= ours for w in valid_widths(B1, branch, 2, 1000))
    assert scale_widths(B1, 1.0) == B1


def test_a_scaled_pyramids_stem_is_as_wide_as_its_first_scale() -> None:
    for name in ("mit_b0", "cswin_base"):
        scaled = scale_widths(PRESETS[name], 0.7)
        assert scaled.stem_width == scaled.widths[0] < PRESETS[name].widths[0]
    narrow = HRViTConfig(
        topology="pyramid", depths=((1,),), widths=8, head_dims=1, stem_width=8, shortcut="none", ffn="none",
        attention="global",
    )  # fmt: skip
    assert scale_widths(narrow, 0.85).widths == (6,)  # 7 has no half for the stem's first convolution


def test_depths_scale_and_are_at_least_one() -> None:
    assert scale_depths(B1, 0.1).depths == tuple((1,) * len(stage) for stage in B1.depths)
    assert scale_depths(B1, 2).depths[4] == (2, 2, 12, 4)


def test_drop_path_grows_linearly_over_all_stages() -> None:
    rates = [rate for stage in B1.replace(drop_path_rate=0.2).drop_path_rates for rate in stage]
    assert len(rates) == 1 + 1 + 6 + 6 + 6 + 2
    assert rates == pytest.approx([0.2 * i / 21 for i in range(22)])


def test_ledger_needs_no_torch() -> None:
    """Costs are plain arithmetic: computing them imports neither torch nor timm."""
    code = (
        "import sys, types; sys.modules['hrvit_lab'] = m = types.ModuleType('hrvit_lab'); m.__path__ = ['hrvit_lab'];"
        "from hrvit_lab.cost.ledger import ledger; from hrvit_lab.config import PRESETS; ledger(PRESETS['hrvit_b1']);"
        "print('torch' in sys.modules, 'timm' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]
    assert sum(row.cost.params for row in ledger(B1)) == 19_685_152


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: hrvit_nano\n  bad: [", "{path} is not valid YAML in line 2"),
        (
            "preset: hrvit_nano\ndepths: many",
            r"{path}: depths = 'many': give a list of stages, .*: \[\[1\], \[",
        ),
        ("preset: hrvit_nano\ndepths: [many]", r"{path}: depths\[0\] = 'many': give a list of stages"),
        ("preset: hrvit_nano\nwidths: 3", r"{path}: widths\[0\] = 3"),
    ],
)
def test_an_error_in_a_file_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "variant.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="^" + message.replace("{path}", re.escape(str(path)))):
        read_config(path)
