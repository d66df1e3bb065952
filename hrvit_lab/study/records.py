"""The schema of a trial's record on disk. What does not fit it counts as missing, and is measured again.

Records may come from anybody, from another version, or from a disk that failed: reading one never waits, and yields a
record that fits or the reason why there is none.
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
    """A finite number that is not negative; a bool is none."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_NUMBER:
        raise ValueError("it is no number from 0 to 1e30")
    return value


def _plain(value: Any, depth: int = 0) -> Any:
    """What others may print or write again: JSON of bounded depth, texts and numbers."""
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
        value.encode()  # half a surrogate pair could not be written anywhere: a UnicodeEncodeError is a ValueError
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
    """One trial: what was measured under which conditions, how it ended, and what was found.

    Attributes:
        key: digest of group, version, config_id, seed, device, data and options.
        version: the group's.
        seed, device, data, options: the conditions, as far as the figures depend on them.
        status: "interrupted" if the worker was ended from outside: no outcome, the next run takes the trial again.
        reason: in one line, of every status but "ok".
        values: figures by metric; None where one is not finite.
        started: seconds since 1970.
        seconds: that the trial took, without those in which the machine was suspended.
        cpu_seconds: that the worker computed in them, over all threads.
        beside: other trials of the same run that ran meanwhile, at most.
        attempts: how often it was interrupted.
        curves: rows of a training, one an epoch.
        samples: raw measurements.
        disturbed: metrics whose figures are in doubt, each with the reasons.
        environment: where it ran.
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key != key_of({name: getattr(self, name) for name in IDENTITY}):
            raise ValueError("the key is not that of what was measured")
        if self.group not in GROUPS:
            raise ValueError(f"there is no group {self.group!r}")
        if (self.status == "ok") is bool(self.reason.strip()):
            raise ValueError("a failure has a reason, and nothing else has")
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
    """The record in a file that is named by its key.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: in a few words, what does not fit.
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
    raise ValueError(f"{constant} is no JSON")


def finite(value: Any) -> Any:
    """The same with every NaN and infinity (a diverged training's loss) as None: JSON has no word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
