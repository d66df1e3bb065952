"""What is asked of Slurm for the jobs of a study."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hrvit_lab.errors import ConfigError

MAX_MINUTES = 366 * 24 * 60
MAX_PARALLELISM = 100_000

_TIME = re.compile(r"(?:(?P<days>\d{1,3})-)?(?P<first>\d{1,6})(?::(?P<second>\d{1,2}))?(?::(?P<third>\d{1,2}))?")
_KEY = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_TEXT = re.compile(r"[!-~]([ -~]{0,200}[!-~])?")
_MEM = re.compile(r"[0-9]{1,9}[KMGT]?")

OWN_OPTIONS = {
    "partition": "--partition", "gres": "--gres", "time": "--time", "mem": "--mem", "account": "--account",
    "array": "--array-parallelism",
}  # fmt: skip
"""Options of sbatch, with the options of the command that set them."""

RESERVED = (
    "chdir", "comment", "error", "exclusive", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output",
    "parsable", "signal", "test-only", "wait", "wrap",
)  # fmt: skip
"""Options of sbatch that the executor needs for itself."""


@dataclass(frozen=True)
class SlurmOptions:
    """Options of all jobs of a study.

    Attributes:
        minutes: time limit of a job.
        array_parallelism: number of jobs of one array that run at the same time.
        more: options of sbatch, without ``--``.
        node: name of the node for trials that run alone, so that all of a study are measured on one; empty: any.
    """

    minutes: int = 60
    array_parallelism: int = 100
    more: Mapping[str, str] = field(default_factory=dict)
    node: str = ""

    @property
    def cores(self) -> int:
        """CPU cores of a job."""
        return _whole(self.more.get("cpus-per-task", "1"))

    @property
    def gpus(self) -> int:
        """GPUs of a job: those of ``gres=gpu:2`` or ``gpu:a100:2``, or of ``gpus=2``."""
        for part in self.more.get("gres", "").split(","):
            name, _, rest = part.partition(":")
            if name == "gpu":
                return _whole(rest.rpartition(":")[2])
        for option in ("gpus", "gpus-per-node", "gpus-per-task"):
            if option in self.more:
                return _whole(self.more[option].rpartition(":")[2])
        return 0


def _whole(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,6}", text) else 1


def slurm_options(
    *,
    partition: str | None = None,
    gres: str | None = None,
    time: str | None = None,
    array_parallelism: int | None = None,
    mem: str | None = None,
    account: str | None = None,
    slurm: Iterable[str] = (),
) -> SlurmOptions:
    """Check the options of a command line.

    Args:
        time: as Slurm writes it: minutes, ``H:MM:SS``, ``D-HH``, ``D-HH:MM:SS``.
        mem: such as ``4G``.
        slurm: further options of sbatch, each ``KEY=VALUE``.
    Raises:
        ConfigError: if an option is invalid.
    """
    more: dict[str, str] = {}
    for key, value in (("partition", partition), ("gres", gres), ("mem", mem), ("account", account)):
        if value is not None:
            more[key] = _text(f"--{key}", value)
    if mem is not None and not _MEM.fullmatch(mem):
        raise ConfigError(f"--mem {mem!r:.40} is not an amount of memory; write 4G or 500M")
    for text in slurm:
        key, sign, value = text.partition("=")
        if not sign or not _KEY.fullmatch(key):
            raise ConfigError(f"--slurm {text!r:.60} is not KEY=VALUE; write --slurm constraint=a100, say")
        if key in OWN_OPTIONS:
            raise ConfigError(f"--slurm {key}: use {OWN_OPTIONS[key]} instead")
        if key in RESERVED:
            raise ConfigError(f"--slurm {key} can't be set, because the executor sets it; remove it")
        if key in more:
            raise ConfigError(f"--slurm {key} is given twice; give it once")
        more[key] = _text(f"--slurm {key}", value)
    parallelism = 100 if array_parallelism is None else array_parallelism
    if not 1 <= parallelism <= MAX_PARALLELISM:
        raise ConfigError(f"--array-parallelism {parallelism} is out of range; give 1 to {MAX_PARALLELISM}")
    return SlurmOptions(60 if time is None else parse_time(time), parallelism, more)


def _text(option: str, value: str) -> str:
    if not _TEXT.fullmatch(value):
        raise ConfigError(
            f"{option} {value!r:.40} is not a value of Slurm; give printable ASCII, at most 200 characters"
        )
    return value


def parse_time(text: str) -> int:
    """A time limit in minutes, rounded up.

    >>> parse_time("90"), parse_time("1:30:00"), parse_time("2-0"), parse_time("0:30")
    (90, 90, 2880, 1)

    Raises:
        ConfigError: if it is not a time of Slurm, or not from one minute to a year.
    """
    match = _TIME.fullmatch(text)
    minutes = 0.0
    if match is not None:
        first, second, third = (int(match[name] or 0) for name in ("first", "second", "third"))
        if match["days"] is not None:
            minutes = int(match["days"]) * 1440 + first * 60 + second + third / 60
        elif match["third"] is not None:
            minutes = first * 60 + second + third / 60
        else:
            minutes = first + second / 60
    if not 0 < minutes <= MAX_MINUTES:
        raise ConfigError(f"--time {text!r:.40} is not a time limit; write minutes, H:MM:SS or D-HH:MM:SS")
    return math.ceil(minutes)
