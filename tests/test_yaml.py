"""YAML and JSON from users: the core schema of YAML 1.2, without duplicate keys; and that written text is read back
equal."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hrvit_lab.config import ConfigError, HRViTConfig, preset, read_json, read_yaml, write_yaml
from hrvit_lab.config.settings import parse_settings
from hrvit_lab.study.files import load_study

# The reference is the specification: YAML 1.2.2, section 10.3.2, its regular expressions and example 10.9, and what
# YAML 1.1 makes of the same text.
CORE = [
    ("true", True), ("True", True), ("FALSE", False),
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("N", "N"),
    ("null", None), ("~", None), ("", None), ("NULL", None), ("none", "none"),
    ("10", 10), ("010", 10), ("-0", 0), ("0o10", 8), ("0x3A", 58), ("-19", -19), ("+12", 12),
    ("0b11", "0b11"), ("1_000", "1_000"), ("0o8", "0o8"), ("-0x1", "-0x1"),
    ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1:30.5", "1:30.5"),
    ("0.", 0.0), (".5", 0.5), ("+12e03", 12000.0), ("-2E+05", -200000.0), ("1e-3", 0.001), ("6e3", 6000.0),
    ("1.5e-3", 0.0015), ("0.278e2", 27.8), (".inf", math.inf), ("-.Inf", -math.inf), ("1e", "1e"), (".", "."),
    ("2001-12-14", "2001-12-14"), ("=", "="), ("<<", "<<"), ("1e-3x", "1e-3x"),
    ("'true'", "true"), ('"010"', "010"), ("!!str 010", "010"), ("!!int 010", 10), ("!!float 1", 1.0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), CORE)
def test_a_scalar_has_the_type_of_yaml_1_2(text: str, value: object) -> None:
    for read in (read_yaml(text, "it"), read_yaml(f"[{text}, 1]", "it")[0] if text else None):
        assert read == value and type(read) is type(value)
    assert read_yaml(f"key: {text}", "it") == {"key": value}
    [(_, set_value)] = parse_settings(f"key={text}")
    assert set_value == value and type(set_value) is type(value)


def test_nan_is_read_as_a_number() -> None:
    assert math.isnan(read_yaml(".NaN", "it"))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("name: a\ngrid: {x: 1}\ngrid: {y: 2}\n", 3, "duplicate key 'grid', first used in line 2"),
        ("a: {b: 1, c: 2,\n b: 3}", 2, "duplicate key 'b', first used in line 1"),
        ("- a: 1\n  a: 1\n", 2, "duplicate key 'a'"),
        ("1: a\n1.0: b\n", 2, "duplicate key"),
        ("? [a]\n: b\n", 1, "a key must be a name"),
        ("a: 1\nb: !!int x\n", 2, "'x' is not a valid int"),
        ("a: !!timestamp 2001-12-14\n", 1, "timestamp"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "python"),
        ("a: &x 1\nb: *x\n", 2, "aliases"),
    ],
)
def test_ambiguous_yaml_is_refused_with_its_line(text: str, line: int, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_yaml(text, "the file")
    assert f"in line {line}:" in str(refused.value) and problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_study_file_and_a_config_refuse_a_key_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("title: t\nquestion: q\nbase: hrvit_nano\ngrid: {branches: [1]}\ngrid: {branches: [2]}\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml is not valid YAML in line 5: duplicate key 'grid'"):
        load_study(path)
    with pytest.raises(ConfigError, match="in line 2: duplicate key 'stem_width'"):
        HRViTConfig.from_yaml("stem_width: 64\nstem_width: 32\n")
    with pytest.raises(ConfigError, match="duplicate key 'stem_width'"):
        HRViTConfig.from_json('{"stem_width": 64, "stem_width": 32}')


def test_words_and_numbers_keep_their_types_in_the_fields(tmp_path: Path) -> None:
    config = HRViTConfig.from_yaml("preset: hrvit_nano\nname: yes\nstem_width: 016\nnorm_eps: 1e-3\n")
    assert (config.name, config.stem_width, config.norm_eps) == ("yes", 16, 1e-3)
    for word in ("yes", "off", "1", "'true'"):
        with pytest.raises(ConfigError, match=r"branch_norm = .*: give true or false"):
            HRViTConfig.from_yaml(f"branch_norm: {word}")
    path = tmp_path / "scales.yaml"
    path.write_text("title: on\nquestion: 1:30\nbase: hrvit_nano\ngrid: {width_scale: [1, 5e-1]}\nseeds: [010]\n")
    spec = load_study(path)
    assert (spec.title, spec.question, spec.seeds) == ("on", "1:30", (10,))
    assert spec.grid == {"width_scale": [1, 0.5]}


WORDS = st.sampled_from(
    [text for text, _ in CORE]
    + [
        "a: b",
        "- x",
        "#",
        "a #b",
        "'",
        '"',
        "%",
        "@",
        "`",
        "{",
        "[",
        "x\ny",
        "x\n\n y ",
        "\t",
        " ",
        "é",
        "日",
        "😀",
        "\x85",
    ]
)
TEXT = st.one_of(WORDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


def exact(value: Any) -> Any:
    """The value with its types, because 1, 1.0 and True are equal in Python."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    return [exact(item) for item in value] if isinstance(value, list) else (type(value).__name__, repr(value))


@given(VALUES)
def test_written_values_are_read_back_equal(value: Any) -> None:
    text = write_yaml(value, width=100)
    assert exact(read_yaml(text, "it")) == exact(value)


@given(VALUES)
def test_text_is_also_text_for_yaml_1_1_readers(value: Any) -> None:
    """Other programs read our files as YAML 1.1: text must also be text there."""

    def texts(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for pair in value.items() for item in pair for text in texts(item)]
        return (
            [text for item in value for text in texts(item)]
            if isinstance(value, list)
            else [*([value] if isinstance(value, str) else [])]
        )

    assert texts(yaml.safe_load(write_yaml(value, width=100))) == texts(value)


@given(TEXT)
def test_a_name_is_restored_from_yaml_and_json(name: str) -> None:
    config = preset("hrvit_nano").replace(name=name[:100])
    assert HRViTConfig.from_yaml(config.to_yaml()) == config
    assert HRViTConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1,\n "b": }', "is not valid JSON in line 2"),
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ("[" * 20_000, "nested too deep"),
        ('{"a": ' + "9" * 5000 + "}", "number with too many digits"),
        (json.dumps({"name": "x" * 70_000}), "larger than 64 KiB"),
    ],
)
def test_broken_json_is_reported_in_one_sentence(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_json(text, "the config")
    assert problem in str(refused.value) and "\n" not in str(refused.value)
