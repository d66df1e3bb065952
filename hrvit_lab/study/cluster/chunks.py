"""How trials are divided into jobs, and what the jobs of a study will take."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.groups import GROUPS
from hrvit_lab.study.trials import Trial

ROUNDS = 4
"""Jobs per place in which one can run: then the last ones end at about the same time, and the start of a job costs
little."""

MAX_ARRAY = 1000
"""Jobs of one array. Slurm's own default limit is 1001."""

FILLED = 0.5
"""Share of a job's time limit that its trials are expected to take at most."""

START_S = 20.0
"""Seconds that a job takes to start and to load the packages, for estimates."""

Arrays = list[list[tuple[Trial, ...]]]


def arrays(trials: Sequence[Trial], options: SlurmOptions, seconds: float | None) -> Arrays:
    """Divide trials that run in the same way into jobs of equal numbers, and the jobs into arrays.

    Args:
        seconds: expected duration of a trial; None if it is not known.
    """
    if not trials:
        return []
    jobs = min(len(trials), ROUNDS * options.array_parallelism)
    size = math.ceil(len(trials) / jobs)
    if seconds:
        size = min(size, max(1, int(FILLED * 60 * options.minutes / seconds)))
    chunks = [tuple(trials[start : start + size]) for start in range(0, len(trials), size)]
    return [chunks[start : start + MAX_ARRAY] for start in range(0, len(chunks), MAX_ARRAY)]


def by_kind(trials: Iterable[Trial]) -> list[tuple[bool, list[Trial]]]:
    """The trials that run beside others, and those that need a node of their own: (alone, trials)."""
    listed = list(trials)
    kinds = [(alone, [each for each in listed if GROUPS[each.group].alone is alone]) for alone in (False, True)]
    return [(alone, kind) for alone, kind in kinds if kind]


def typical_seconds(trials: Sequence[Trial], records: Iterable[Mapping[str, Any]]) -> float | None:
    """The mean duration of finished trials of the same groups; None if there are none."""
    groups = {trial.group for trial in trials}
    known = [each["seconds"] for each in records if each["status"] == "ok" and each["group"] in groups]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Estimate:
    """What the missing trials of a study take.

    Attributes:
        jobs: their number.
        arrays: in how many arrays.
        largest: number of trials of the largest job.
        core_hours, gpu_hours: of all jobs.
        seconds: from the start of the first job to the end of the last, with ``array_parallelism`` jobs at a time.
        known: whether durations of finished trials are known; otherwise every job takes its whole time limit.
    """

    jobs: int
    arrays: int
    largest: int
    core_hours: float
    gpu_hours: float
    seconds: float
    known: bool


def estimate(trials: Sequence[Trial], options: SlurmOptions, records: Sequence[Mapping[str, Any]]) -> Estimate:
    """Estimate the jobs of trials from the records of finished ones."""
    jobs = number = largest = 0
    busy = end = 0.0
    known = True
    for _, kind in by_kind(trials):
        seconds = typical_seconds(kind, records)
        known = known and seconds is not None
        for array in arrays(kind, options, seconds):
            each = [60.0 * options.minutes if seconds is None else START_S + seconds * len(chunk) for chunk in array]
            number += 1
            jobs += len(each)
            largest = max(largest, *map(len, array))
            busy += sum(each)
            end += max(each) * math.ceil(len(each) / options.array_parallelism)
    hours = busy / 3600
    return Estimate(jobs, number, largest, hours * options.cores, hours * options.gpus, end, known)


def describe_estimate(found: Estimate, options: SlurmOptions) -> str:
    """Sentences on the jobs, their hours and their end."""
    jobs = f"{found.jobs} job{'s' * (found.jobs != 1)} of at most {found.largest} trial{'s' * (found.largest != 1)}"
    arrays = f"{found.arrays} array{'s' * (found.arrays != 1)}"
    most = "About" if found.known else "At most"
    end = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + found.seconds))
    why = "estimated from finished trials" if found.known else f"the time limit of {options.minutes} min for each job"
    return (
        f"{jobs} in {arrays}, {options.array_parallelism} at a time in each. {most} {found.core_hours:.1f} core-hours "
        f"and {found.gpu_hours:.1f} GPU-hours, {why}; if the jobs started now, they would end by {end}."
    )
