"""What Build exports: a config, code that creates its network, and a study that compares it with a preset."""

import re
from collections.abc import Mapping
from typing import Any

from hrvit_lab import cli
from hrvit_lab.app.builder.kinds import exact
from hrvit_lab.config import HRViTConfig, diff, preset, write_yaml

LINE = 80  # characters

STUDY_METRICS = ("params", "macs", "activations", "latency_ms")
"""Of the exported study: what can be had without a data set."""


def changes(start: HRViTConfig, config: HRViTConfig) -> dict[str, tuple[Any, Any]]:
    """Fields in which the network differs, with both values."""
    return {field: pair for field, pair in diff(start, config).items() if field != "name"}


def named(config: HRViTConfig, start: str) -> HRViTConfig:
    """The config with a name of its own: that of its preset, with its id if it is changed."""
    if config.name not in ("", start):
        return config
    return config.replace(name=start if not changes(preset(start), config) else f"{start}-{config.id}")


def file_name(config: HRViTConfig, ending: str) -> str:
    """A name for a download, without characters that file systems refuse.

    >>> file_name(preset("hrvit_b1").replace(name="a/b: c"), "yaml")
    'a-b-c.yaml'
    """
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', config.name).strip('-.') or config.id}.{ending}"


def python_code(start: str, changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Python that creates the network."""
    return f"from hrvit_lab import create_model\n\nmodel = {_call('create_model', start, changed)}\n"


def timm_code(start: str, changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Python that creates the network by timm."""
    call = _call("timm.create_model", start, changed)
    return f"import timm\n\nimport hrvit_lab  # adds its networks to timm\n\nmodel = {call}\n"


def _call(function: str, start: str, changed: Mapping[str, tuple[Any, Any]]) -> str:
    arguments = [repr(start), *(f"{field}={after!r}" for field, (_, after) in changed.items())]
    line = f"{function}({', '.join(arguments)})"
    if len(line) + len("model = ") <= LINE:
        return line
    return f"{function}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def study_yaml(config: HRViTConfig, against: str, size: tuple[int, int]) -> str:
    """A study file: costs and latency of the network beside those of a preset."""
    changed = {field: after for field, after in _plain(changes(preset(against), config)).items()}
    name = cli.printable(config.name).strip() or config.id
    name = name if name != against else f"{against}-{config.id}"
    variants: list[dict[str, Any]] = [{"name": against}]
    if changed:
        variants.append({"name": name, "set": changed})
    return write_yaml(
        {
            "title": f"{name} and {against}" if changed else against,
            "question": f"What do the changes to {against} cost?" if changed else f"What does {against} cost?",
            "base": {"preset": against},
            "variants": variants,
            **({"compare_to": against} if changed else {}),
            "metrics": list(STUDY_METRICS),
            "resolution": list(size),
        },
        width=100,
    )


def _plain(changed: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """New values as lists, numbers and strings."""
    return {field: _as_lists(after) for field, (_, after) in changed.items()}


def _as_lists(value: Any) -> Any:
    return [_as_lists(entry) for entry in value] if isinstance(value, tuple) else value


def show_value(value: Any) -> str:
    """A field of a config for reading: lists without brackets, stages separated by bars.

    >>> show_value(((1,), (1, 2))), show_value((32, 64)), show_value(0.5)
    ('1 | 1, 2', '32, 64', '0.5')
    """
    if isinstance(value, tuple):
        stages = bool(value) and isinstance(value[0], tuple)
        return (" | " if stages else ", ").join(map(show_value, value))
    return exact(value) if isinstance(value, float) else str(value)
