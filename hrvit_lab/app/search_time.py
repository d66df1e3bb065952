"""How long a search takes: what is left of it, times the seconds that a network took in an earlier run of it."""

from collections.abc import Mapping
from pathlib import Path

from hrvit_lab import cli
from hrvit_lab.search.run import Search
from hrvit_lab.search.spec import SearchSpec
from hrvit_lab.search.state import State
from hrvit_lab.study.executors.host import choose_jobs

States = Mapping[tuple[str, int], State]
"""By method and seed."""


def seconds_per_network(states: States) -> float | None:
    """The mean over all finished generations; None before the first one."""
    timed = [state for state in states.values() if state.seconds > 0 and state.evaluations]
    networks = sum(state.evaluations for state in timed)
    return sum(state.seconds for state in timed) / networks if networks else None


def networks_left(search: Search, states: States) -> int:
    """Networks that are still to be evaluated, in all runs."""
    budget, known = search.spec.budget.evaluations, [states.get(run, State()) for run in search.runs]
    return sum(max(0, budget - state.evaluations) for state in known if not state.exhausted)


def seconds_left(search: Search, states: States) -> float | None:
    """An estimate; runs go side by side on the cores of this machine. None before the first generation."""
    each, jobs = seconds_per_network(states), choose_jobs(None, "cpu")[0]
    return None if each is None else each * networks_left(search, states) / min(jobs, len(search.runs))


def how_long(name: str, spec: SearchSpec, evaluations: int | None, folder: Path) -> str:
    """The plan's sentence on the time of a search.

    Args:
        evaluations: networks of each run; None: those of the search.
        folder: of its results, which may have an earlier run.
    """
    if spec.trainings is not None:
        return (
            f"The time is unknown: each of the {spec.trainings.networks:,} networks is trained, and how long that "
            "takes depends on the networks that are proposed."
        )
    if evaluations is not None:
        spec = spec.model_copy(update={"budget": spec.budget.model_copy(update={"evaluations": evaluations})})
    search = Search(name, spec, folder)
    networks = f"{evaluations or spec.budget.evaluations:,} networks in each of {len(search.runs)} runs"
    try:
        states = search.states()
    except (ValueError, OSError):  # of another search, or damaged
        states = {}
    seconds = seconds_left(search, states)
    if seconds is None:
        return (
            f"{networks}. The time is unknown until the first generation has finished: no run of this search here has "
            "measured how long a network takes."
        )
    if not networks_left(search, states):
        return f"{networks}. All of them are evaluated; only the results are written again."
    return f"{networks}. About {cli.rough_duration(seconds)}, estimated from an earlier run of this search."
