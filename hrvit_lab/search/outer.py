"""The outer loop: networks are proposed by Optuna, and trained by the study's engine, batch by batch.

The state is written when a batch is proposed, and when it is finished. A training is a trial of the study's store, so a
network that was trained with the same settings, by a search or a study, is not trained again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hrvit_lab.config import ConfigError
from hrvit_lab.files import MIB, read_bounded, write_atomically, write_csv
from hrvit_lab.search.archive import Archive
from hrvit_lab.search.front import study_of
from hrvit_lab.search.genome import Genome
from hrvit_lab.search.halving import STOPPED, Curve, limits, store_of, train_until
from hrvit_lab.search.hold import Hold
from hrvit_lab.search.propose import Proposal, Told, propose
from hrvit_lab.search.run import Search
from hrvit_lab.search.state import Evaluator
from hrvit_lab.search.trainings import Trainings
from hrvit_lab.study.engine import Engine, choose_engine
from hrvit_lab.study.files import study_in_memory
from hrvit_lab.study.folder import write_inputs
from hrvit_lab.study.groups import PROBES
from hrvit_lab.study.reporting import plan_under
from hrvit_lab.study.requirements import check_requirements
from hrvit_lab.study.results import STUDY_FILE, Results
from hrvit_lab.study.space import expand
from hrvit_lab.study.trials import Trial, in_order

MAX_STATE_BYTES = 64 * MIB
VERSION = 1

Watch = Callable[[Sequence[Trial], int], Any]
"""Makes the display of trials that run, from them and the number of networks with an outcome: a context."""


class Outcome(NamedTuple):
    """A network that was proposed.

    Attributes:
        values: objectives by key; None if it could not be trained.
        stopped: epoch after which the training was stopped (of several seeds the first); None if it was not.
        reason: why there are no values.
    """

    genome: Genome
    attributes: dict[str, int]
    values: dict[str, float] | None
    stopped: int | None
    reason: str


@dataclass
class Outer:
    """The state: outcomes in the order of proposal, and the batch that is being trained."""

    outcomes: list[Outcome] = field(default_factory=list)
    proposed: list[Proposal] = field(default_factory=list)


def run_trainings(search: Search, hold: Hold, engine: Engine, watch: Watch, retry_failed: bool = False) -> Outer:
    """Propose and train until the search has its number of networks, or the space has no more.

    Args:
        hold: on the search, from `hrvit_lab.search.run.begun`.
        engine: of the trainings, from `engine_of`.
        retry_failed: train networks again whose training failed before this call.
    Raises:
        ConfigError: if a network can't be trained there, or another process has taken over this search.
        WorkerUnable: if no worker or job can start.
        KeyboardInterrupt: on Ctrl-C; finished trainings are kept.
    """
    return _Loop(search, hold, engine, watch, retry_failed).run()


def engine_of(search: Search, jobs: int | None = None, **options: Any) -> Engine:
    """Where the trainings of a search run. Checks that its base and each part can be trained there, and that the folder
    has no state of another search.

    Args:
        jobs, options: as in `choose_engine`, which says what it writes.
    Raises:
        ConfigError: if data, device, head, metric, state or an option do not fit.
    """
    spec = study_of(search, search.space.examples())
    read_outer(search)
    return choose_engine(spec, expand(spec).variants, search.folder.parent, jobs, **options)


class _Loop:
    def __init__(self, search: Search, hold: Hold, engine: Engine, watch: Watch, retry_failed: bool) -> None:
        assert search.spec.trainings is not None
        self.search, self.hold, self.engine, self.watch = search, hold, engine, watch
        self.trainings: Trainings = search.spec.trainings
        self.store = store_of(search.folder)
        self.evaluator = Evaluator(search.space, search.own_folder)
        self.state = read_outer(search) or Outer()
        self.retry_failed = retry_failed
        self.retried: set[str] = set()

    def run(self) -> Outer:
        self.store.create()
        if self.retry_failed:
            self._retry()
        while len(self.state.outcomes) < self.trainings.networks:
            if not self.state.proposed:
                missing = self.trainings.networks - len(self.state.outcomes)
                self.state.proposed = self._propose(min(self.trainings.batch, missing))
                if not self.state.proposed:
                    break  # the space has no more networks
                self._write()
            first = len(self.state.outcomes) + 1
            self.state.outcomes += self._train(dict(enumerate(self.state.proposed, first)))
            self.state.proposed = []
            self._write()
        return self.state

    def _retry(self) -> None:
        """Train the networks again that failed. The others, and the networks that were proposed, stay as they are."""
        failed = {
            number: Proposal(outcome.genome, outcome.attributes)
            for number, outcome in enumerate(self.state.outcomes, 1)
            if outcome.values is None
        }
        if failed:
            for number, outcome in zip(failed, self._train(failed), strict=True):
                self.state.outcomes[number - 1] = outcome
            self._write()

    def _write(self) -> None:
        self.hold.check()
        write_outer(self.search, self.state)

    def _propose(self, number: int) -> list[Proposal]:
        told = [
            Told(
                Proposal(outcome.genome, outcome.attributes),
                None if outcome.values is None else signed(self.search, outcome.values),
            )
            for outcome in self.state.outcomes
        ]
        t = self.trainings
        return propose(self.search.space, told, number, t.sampler, t.seed, self._is_allowed)

    def _is_allowed(self, genome: Genome) -> bool:
        return bool(self.evaluator([genome]).violation[0] <= 0)

    def _train(self, proposals: Mapping[int, Proposal]) -> list[Outcome]:
        """The outcomes of networks by their number."""
        named = {f"network {number}": proposal.genome for number, proposal in proposals.items()}
        spec = study_of(self.search, named)
        expansion = expand(spec)
        check_requirements(spec, expansion.variants, here=self.engine.slurm is None)
        planned = plan_under(self.engine.conditions, spec, expansion)
        pending = [trial for trial in in_order(planned) if self._is_missing(trial)]
        self.retried |= {trial.key for trial in pending}
        if pending:
            self._show(named)
            with self.watch(pending, len(self.state.outcomes)) as watcher:
                self.engine.run(
                    pending, self.store, self._probes(list(proposals.values())), watcher,
                    timeout_s=spec.trial_timeout_s, retry_failed=self.retry_failed,
                )  # fmt: skip
        dropped = {drop.name: drop.reason for drop in expansion.dropped}
        return [
            self._outcome(proposal, planned.get(name, []), dropped.get(name, ""))
            for name, proposal in zip(named, proposals.values(), strict=True)
        ]

    def _show(self, named: Mapping[str, Genome]) -> None:
        """Write the study of all networks so far into the folder: ``study status`` reads it to show and cancel jobs.

        Args:
            named: networks of the batch, by name.
        """
        earlier = {f"network {number}": outcome.genome for number, outcome in enumerate(self.state.outcomes, 1)}
        spec = study_of(self.search, earlier | dict(named))
        expansion = expand(spec)
        about = {**self.engine.conditions, STUDY_FILE: study_in_memory(spec)}
        configs = {variant.name: variant.config.to_dict() for variant in expansion.variants}
        self.hold.check()
        write_inputs(self.search.folder, Results(self.search.folder, spec, about, configs, dict(expansion.dropped)))

    def _is_missing(self, trial: Trial) -> bool:
        """Whether a trial has no record, or one of a failure that is retried once."""
        record = self.store.load(trial.key)
        again = self.retry_failed and trial.key not in self.retried
        return record is None or (again and record["status"] != "ok")

    def _outcome(self, proposal: Proposal, trials: Sequence[Trial], reason: str) -> Outcome:
        trained = [trial for trial in trials if trial.computed is None]
        records = [record for trial in trained if (record := self.store.load(trial.key)) is not None]
        failed = next((record["reason"] for record in records if record["status"] != "ok"), reason)
        if failed or not records:
            return Outcome(*proposal, None, None, failed or "there is no record of its training")
        known = dict(zip(self.search.spec.untrained, self.evaluator.values(proposal.genome), strict=True))
        values = {}
        for key in self.search.spec.objectives:
            of_seeds = [record["values"][key] for record in records if key in record["values"]]
            if None in of_seeds:  # a record has None for NaN and infinity
                return Outcome(*proposal, None, None, f"its {key} is not finite")
            values[key] = known[key] if key in known else sum(of_seeds) / len(of_seeds)
        stopped = [record["values"][STOPPED] for record in records if STOPPED in record["values"]]
        return Outcome(*proposal, values, int(min(stopped)) if stopped else None, "")

    # -- successive halving ----------------------------------------------------------------------------------------

    def _probes(self, proposals: Sequence[Proposal]) -> Mapping[str, Any]:
        """The probes of the study; with halving, a training is stopped at the limits of its network."""
        halving = self.trainings.halving
        if halving is None:
            return PROBES
        key = self.search.spec.trained[0]
        sign = 1.0 if self.search.spec.objectives[key] == "higher" else -1.0
        column = f"val_{key.removeprefix('val_')}"
        curves = self._curves(column, sign)
        epochs = halving.epochs(self.trainings.train.epochs)
        by_network = {
            self.search.space.config(genome).id: limits(curves, self._costs(genome), epochs, halving.factor)
            for genome, _ in proposals
        }
        return {**PROBES, "accuracy": partial(train_until, limits=by_network, key=column, sign=sign)}

    def _costs(self, genome: Genome) -> list[float]:
        """The objectives that need no training, lower is better."""
        values = dict(zip(self.search.spec.untrained, self.evaluator.values(genome), strict=True))
        better = self.search.spec.objectives
        return [values[key] * (1 if better[key] == "lower" else -1) for key in better if key in values]

    def _curves(self, column: str, sign: float) -> list[Curve]:
        """The curves of all trainings of earlier batches, stopped ones included."""
        named = {f"network {number}": outcome.genome for number, outcome in enumerate(self.state.outcomes, 1)}
        if not named:
            return []
        spec = study_of(self.search, named)
        planned = plan_under(self.engine.conditions, spec, expand(spec))
        found = []
        for name, genome in named.items():
            for trial in planned.get(name, ()):
                record = self.store.load(trial.key) if trial.computed is None else None
                rows = record.get("curves", []) if record is not None and record["status"] == "ok" else []
                scores = {row["epoch"]: sign * row[column] for row in rows if row.get(column) is not None}
                found.append(Curve(self._costs(genome), scores))
        return found


def signed(search: Search, values: Mapping[str, float]) -> list[float]:
    """Objectives, lower is better."""
    return [values[key] * (1 if better == "lower" else -1) for key, better in search.spec.objectives.items()]


def best_of(search: Search, outcomes: Sequence[Outcome]) -> dict[str, Genome]:
    """The networks that were trained to the end and are not dominated, by name, in the order of proposal."""
    archive = Archive(len(search.spec.objectives))
    complete = [outcome for outcome in outcomes if outcome.values is not None and outcome.stopped is None]
    if complete:
        archive.add(
            [outcome.genome for outcome in complete],
            np.array([signed(search, outcome.values) for outcome in complete if outcome.values is not None]),
        )
    return {
        f"network {number}": outcome.genome
        for number, outcome in enumerate(outcomes, 1)
        if outcome.genome in archive.genomes
    }


def write_trainings(search: Search, outcomes: Sequence[Outcome]) -> None:
    """Write ``trainings.csv``: every proposed network with its objectives, and the epoch or the reason of its end."""
    keys = list(search.spec.objectives)
    rows = [
        [f"network {number}", search.space.config(outcome.genome).id,
         *((outcome.values or {}).get(key, "") for key in keys),
         "" if outcome.stopped is None else outcome.stopped, outcome.reason]
        for number, outcome in enumerate(outcomes, 1)
    ]  # fmt: skip
    write_csv(search.own_folder / "trainings.csv", [["variant", "config_id", *keys, STOPPED, "reason"], *rows])


def _file(search: Search) -> Path:
    return search.own_folder / "trainings.json"


def write_outer(search: Search, state: Outer) -> None:
    """Write the state, replacing the file in one step."""
    fields = {
        "version": VERSION,
        "search": search.digest,
        "outcomes": [outcome._asdict() for outcome in state.outcomes],
        "proposed": [proposal._asdict() for proposal in state.proposed],
    }
    write_atomically(_file(search), json.dumps(fields))


def read_outer(search: Search) -> Outer | None:
    """Read the state; None if there is no file.

    Raises:
        ConfigError: if it is damaged, or of another search or version.
    """
    path = _file(search)
    try:
        raw = json.loads(read_bounded(path, MAX_STATE_BYTES))
        if raw["version"] != VERSION or raw["search"] != search.digest:
            raise ConfigError(f"{path} is the state of another search or version; choose another folder with --out")
        return Outer(
            [
                Outcome(
                    *_proposal(search, fields),
                    values=None if fields["values"] is None
                    else {str(key): float(value) for key, value in fields["values"].items()},
                    stopped=None if fields["stopped"] is None else int(fields["stopped"]),
                    reason=str(fields["reason"]),
                )
                for fields in raw["outcomes"]
            ],
            [_proposal(search, fields) for fields in raw["proposed"]],
        )  # fmt: skip
    except FileNotFoundError:
        return None
    except ConfigError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read ({type(error).__name__}); remove it to start this run again") from None


def _proposal(search: Search, fields: Mapping[str, Any]) -> Proposal:
    """A proposal of the file.

    Raises:
        ValueError: if it is not in the search's space.
    """
    genome = tuple(map(int, fields["genome"]))
    lengths = search.space.lengths.tolist()
    if len(genome) != len(lengths) or not all(0 <= gene < length for gene, length in zip(genome, lengths, strict=True)):
        raise ValueError(f"{genome} is not in the space")
    return Proposal(genome, {str(name): int(value) for name, value in fields["attributes"].items()})
