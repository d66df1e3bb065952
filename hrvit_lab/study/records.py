"""The schema of a trial's record on disk. An invalid record is treated as missing, and its trial is run again.

Records are untrusted: they may come from another user, another version or a failing disk. Reading one never blocks, and
gives a valid record or the reason why it is invalid.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hrvit_lab.cli.display import printable
from hrvit_lab.files import read_bounded
from hrvit_lab.metrics import METRICS
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.trials import IDENTITY, key_of

MAX_BYTES = 16 * 2**20
MAX_EPOCHS = 10_000
MAX_DEPTH = 20
MAX_TEXT = 20_000
MAX_NUMBER = 1e30

INTERRUPTED = "interrupted"


def _figure(value: Any) -> Any:
    """Validate a finite number that is not negative and not a bool."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_NUMBER:
        raise ValueError("it is not a number from 0 to 1e30")
    return value


def _plain(value: Any, depth: int = 0) -> Any:
    """Validate JSON of bounded depth, with bounded strings and numbers, so that it can be printed and written again."""
    if isinstance(value, Mapping):
        for name in value:
            _plain(name)
        value = list(value.values())
    if isinstance(value, list):
        if depth == MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        for item in value:
            _plain(item, depth + 1)
    elif isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(f"a text has more than {MAX_TEXT} characters")
        value.encode()  # a lone surrogate can't be encoded: UnicodeEncodeError is a ValueError
    elif isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
        raise ValueError("a number is not finite, or more than 1e30")
    return value


def _object(value: Mapping[str, Any]) -> Mapping[str, Any]:
    _plain(value)
    return value


Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Figure = Annotated[Any, AfterValidator(_figure)]
Object = Annotated[dict[str, Any], AfterValidator(_object)]
Count = Annotated[int, Field(ge=0, le=2**32)]


class Record(BaseModel):
    """One trial: its conditions, its outcome and the measured values.

    Attributes:
        key: digest of group, version, config_id, seed, device, data and options.
        version: the group's.
        seed, device, data, options: the conditions on which the values depend.
        status: "interrupted" if the worker was killed from outside. That is not an outcome; the next run repeats the
            trial.
        reason: one line, for every status except "ok".
        values: by metric; None if not finite.
        started: seconds since 1970.
        seconds: duration of the trial, without the time in which the machine was suspended.
        cpu_seconds: CPU time of the worker during the trial, over all threads.
        beside: maximum number of other trials of the same run that ran at the same time.
        attempts: number of interruptions.
        curves: rows of a training, one per epoch.
        samples: raw measurements.
        disturbed: unreliable metrics, each with the reasons.
        environment: versions and machine.
        host: name of the host on which it was measured; not part of results that are published, see `places`.
        on_device: the device there: of several equal GPUs, which one.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    group: Name
    version: Annotated[int, Field(ge=1)]
    config_id: Name
    config: Object
    seed: Count | None
    device: Name | None
    data: Object | None
    options: Object
    status: Literal["ok", "failed", "timeout", "out_of_memory", "interrupted"]
    reason: Annotated[str, Field(max_length=1000)]
    values: Annotated[dict[Name, Figure | None], Field(max_length=100)]
    started: Figure
    seconds: Figure
    cpu_seconds: Figure = 0.0
    beside: Count = 0
    attempts: Count = 0
    curves: Annotated[list[dict[Name, Figure | None]], Field(max_length=MAX_EPOCHS)] = []
    samples: Object = {}
    disturbed: Annotated[dict[Name, list[Text]], Field(max_length=100)] = {}
    traceback: Text = ""
    environment: Object = {}
    host: Annotated[str, Field(max_length=200)] = ""
    on_device: Annotated[str, Field(max_length=200)] = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key != key_of({name: getattr(self, name) for name in IDENTITY}):
            raise ValueError("the key does not match the fields it is computed from")
        if self.group not in GROUPS:
            raise ValueError(f"group {self.group!r} is unknown")
        if (self.status == "ok") is bool(self.reason.strip()):
            raise ValueError("a failed trial needs a reason, and a finished one must not have one")
        absent = [metric.key for metric in GROUPS[self.group].metrics if metric.key not in self.values]
        if self.status == "ok" and absent:
            raise ValueError(f"{absent[0]} is missing")
        for key, value in self.values.items():
            if key in METRICS and METRICS[key].unit == "%" and value is not None and value > 100:
                raise ValueError(f"{key} is more than 100 %")
        for row in self.curves:
            if type(row.get("epoch")) is not int:
                raise ValueError("a row of the curves has no epoch")
        return self


def read_record(path: Path) -> dict[str, Any]:
    """Read the record from a file that is named after its key.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the record is invalid; gives a short reason.
    """
    try:
        raw = json.loads(read_bounded(path, MAX_BYTES), parse_constant=_refuse)
        record = Record.model_validate(raw)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = printable(".".join(map(str, first["loc"])))[:100]
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {what}" if where else what) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if record.key != path.stem:
        raise ValueError("it is the record of another trial")
    return raw


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def finite(value: Any) -> Any:
    """Replace every NaN and infinity (such as the loss of a diverged training) by None, since JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
