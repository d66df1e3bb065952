"""Error messages: turns errors of pydantic into one sentence with field, value and remedy."""

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hrvit_lab.config.fields import PER_BRANCH
from hrvit_lab.errors import suggest

REMEDIES = {
    "tuple_type": "give a list: [a, b, …]",
    "list_type": "give a list: [a, b, …]",
    "dict_type": "give a mapping: {{key: value}}",
    "model_type": "give a mapping: {{key: value}}",
    "model_attributes_type": "give a mapping: {{key: value}}",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_from_float": "give a whole number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "finite_number": "give a finite number",
    "string_type": "give a string",
    "string_unicode": "give a string",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "invalid_key": "give a string as the key",
    "literal_error": "use {expected}",
    "greater_than": "give more than {gt:g}",
    "greater_than_equal": "give at least {ge:g}",
    "less_than": "give less than {lt:g}",
    "less_than_equal": "give at most {le:g}",
    "string_too_short": "give a string that is not empty",
    "string_too_long": "give at most {max_length} characters",
    "too_short": "give at least {min_length}",
    "too_long": "give at most {max_length}",
}
"""Remedies by the type of pydantic's errors, whose own messages are written for programmers."""


def remedy(error: ErrorDetails) -> str:
    """The remedy for an error of pydantic; messages of our own validators are kept."""
    if error["type"] in REMEDIES:
        return REMEDIES[error["type"]].format(**error.get("ctx", {}))
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:] if error["loc"] else message


def shortened(value: Any) -> str:
    """A ``repr`` of limited length, since nested values can have a very long one."""
    shortener = reprlib.Repr()
    shortener.maxlevel, shortener.maxtuple, shortener.maxlist, shortener.maxstring = 3, 8, 8, 60
    text = shortener.repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def one_sentence(error: ValidationError, known: Iterable[str]) -> str:
    """The first problem of a pydantic error in one sentence: field, value, remedy. ``known`` are the valid fields."""
    first = error.errors(include_url=False)[0]
    location = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if first["type"] == "extra_forbidden":
        if location in SCALINGS:
            return (
                f"{location!r} is not a field of a config: it changes several fields; use hrvit_lab.config."
                f"{SCALINGS[location]}(config, {shortened(first['input'])}), an axis of a study, or "
                f"hrvit-lab cost --set {location}=…"
            )
        return f"unknown field {location!r}; {suggest(location, known)}"
    if not location:
        return remedy(first)
    if location in PER_BRANCH and first["type"] == "tuple_type":
        return f"{location} = {shortened(first['input'])}: give one value for all branches, or a list with one for each"
    if location.startswith("depths") and first["type"] == "tuple_type":
        return (
            f"{location} = {shortened(first['input'])}: give a list of stages, each a list with the number of blocks "
            "of each branch: [[1], [1, 2], …]"
        )
    return f"{location} = {shortened(first['input'])}: {remedy(first)}"


def first_problem(error: ValidationError, schema: type[BaseModel]) -> str:
    """The same for nested sections: ``unknown key 'train.epoch'; did you mean 'epochs'?``.

    An unknown key is reported before a missing one, because it may be that key misspelled.
    """
    problems = error.errors(include_url=False)
    first = problems[0]
    if first["type"] == "missing":
        first = next((it for it in problems if it["type"] == "extra_forbidden"), first)
    location = first["loc"]
    key = ".".join(map(str, location))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {suggest(str(location[-1]), fields_at(schema, location[:-1]))}"
    if first["type"] == "missing":
        return f"{key!r} is missing; add it"
    if not key or first["type"] == "value_error":
        return f"{key + ': ' if key else ''}{remedy(first)}"
    value = repr(first["input"])
    shown = value if len(value) <= 60 else value[:57] + "…"
    return f"{key} = {shown}: {remedy(first)}"


def fields_at(schema: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """The keys of the section at that location: a field's own, or those of the entries of its list or mapping."""
    section = schema
    for part in location:
        field = section.model_fields.get(part) if isinstance(part, str) else None
        section = section if field is None else _model_within(field.annotation) or section
    return list(section.model_fields)


def _model_within(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation: ``Entry`` for ``Entry``, ``list[Entry]`` or ``list[Entry] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for model in map(_model_within, get_args(annotation)) if model is not None), None)


SCALINGS = {
    "branches": "with_branches",
    "depth_scale": "scale_depths",
    "width_scale": "scale_widths",
}
"""Axes of a study that are not fields of a config, with the function that applies each."""
