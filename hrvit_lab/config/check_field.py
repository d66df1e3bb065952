"""The check of one field's value by itself, as an axis of a study has it."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from hrvit_lab.config.fields import PER_BRANCH
from hrvit_lab.config.schema import HRViTConfig
from hrvit_lab.config.text import one_sentence
from hrvit_lab.errors import ConfigError


def check_field(field: str, value: Any) -> None:
    """Refuse a value that no network can have in that field, whatever its other fields are.

    Raises:
        ConfigError: naming the field, the value and the remedy.
    """
    scalar = field in PER_BRANCH and isinstance(value, str | int | float)
    try:
        _alone(field)(**{field: (value,) if scalar else value})
    except ValidationError as error:
        raise ConfigError(one_sentence(error, HRViTConfig.model_fields)) from None


@cache
def _alone(field: str) -> type[BaseModel]:
    """A model with that one field."""

    info = HRViTConfig.model_fields[field]
    return create_model(field, **{field: (info.annotation, info)})  # type: ignore[call-overload]
