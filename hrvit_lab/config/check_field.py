"""Check the value of a single field, as on an axis of a study."""

from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from hrvit_lab.config.fields import PER_BRANCH
from hrvit_lab.config.schema import HRViTConfig
from hrvit_lab.config.text import one_sentence
from hrvit_lab.errors import ConfigError


def check_field(field: str, value: Any) -> None:
    """Check a value of a field without the other fields.

    Raises:
        ConfigError: if the value is invalid for every network, with the field, the value and the remedy.
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
