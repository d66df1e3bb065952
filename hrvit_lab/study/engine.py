"""Where the trials of a study or a search run: on this machine, on its GPUs, or as jobs of a cluster."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvit_lab import cli
from hrvit_lab.environment import environment
from hrvit_lab.errors import ConfigError, suggest
from hrvit_lab.study import runner
from hrvit_lab.study.cluster.commands import check_slurm
from hrvit_lab.study.cluster.node import on_node
from hrvit_lab.study.cluster.options import SlurmOptions
from hrvit_lab.study.executors import EXECUTORS
from hrvit_lab.study.executors.host import choose_jobs
from hrvit_lab.study.requirements import check_devices, check_gpus, check_requirements, depends_on_hardware, trains
from hrvit_lab.study.space import Variant
from hrvit_lab.study.spec import Spec
from hrvit_lab.study.store import Store
from hrvit_lab.study.trials import Trial
from hrvit_lab.study.worker import Probe
from hrvit_lab.train.data.image_folders import files_digest


@dataclass(frozen=True)
class Engine:
    """An executor with its options; chosen by `choose_engine`.

    Attributes:
        conditions: the environment of the trials.
        jobs: number of trials at the same time.
        fewer_jobs: a sentence if that is less than requested, else empty.
        executor: a key of `EXECUTORS`.
        devices: GPUs of this machine that share the trials; empty: the study's device.
        slurm: options of jobs, for the executor ``slurm``.
    """

    conditions: Mapping[str, Any]
    jobs: int = 1
    fewer_jobs: str = ""
    executor: str = "local"
    devices: tuple[str, ...] = ()
    slurm: SlurmOptions | None = None

    def run(
        self,
        trials: Iterable[Trial],
        store: Store,
        probes: Mapping[str, Probe],
        watcher: runner.Watcher,
        *,
        timeout_s: float,
        retry_failed: bool = False,
        again: Collection[str] = (),
    ) -> None:
        """Run every trial without an outcome, see `runner.run`."""
        runner.run(
            trials, store, probes, watcher, jobs=self.jobs, timeout_s=timeout_s, environment=self.conditions,
            retry_failed=retry_failed, again=again, executor=self.executor, devices=self.devices, slurm=self.slurm,
        )  # fmt: skip


def choose_engine(
    spec: Spec,
    variants: Iterable[Variant],
    out: Path,
    jobs: int | None = None,
    *,
    executor: str | None = None,
    devices: Sequence[str] = (),
    slurm: SlurmOptions | None = None,
    ask: bool = True,
) -> Engine:
    """Check whether the trials of a study can run, and where. Writes nothing, except that a job may ask a node of a
    cluster for its hardware.

    Args:
        variants: the networks.
        out: folder of all results.
        jobs: number of trials at the same time; None: as many as fit; 0: in this process, without workers.
        executor: a key of `EXECUTORS`; None: ``slurm`` if there are options of jobs, ``inline`` if ``jobs`` is 0, else
            ``local``.
        devices: GPUs of this machine that share the trials.
        slurm: options of jobs, for the executor ``slurm`` only.
        ask: whether such a job may be submitted.
    Raises:
        ConfigError: if they cannot run there.
    """
    if jobs is not None and jobs < 0:
        raise ConfigError(f"jobs = {jobs} is out of range; use 0 or more")
    executor = _name(executor, jobs, slurm)
    if executor == "slurm":
        slurm = slurm or SlurmOptions()
    most, fewer = (1, "") if executor == "inline" else choose_jobs(jobs, spec.device, spec.processes)
    if devices:
        most = len(devices)
    check_requirements(spec, variants, here=slurm is None)
    check_devices(spec, devices)
    data_files = files_digest(spec.data_root) if trains(spec) else ""
    if slurm is None:
        conditions: Mapping[str, Any] = environment(devices[0] if devices else spec.device)
    else:
        check_slurm()
        check_gpus(spec, slurm.gpus)
        most = slurm.array_parallelism
        conditions, slurm = _on_cluster(spec, out, slurm, ask)
    return Engine({**conditions, "data_files": data_files}, most, fewer, executor, tuple(devices), slurm)


def _name(executor: str | None, jobs: int | None, slurm: SlurmOptions | None) -> str:
    """The executor's name, if the other arguments are for it."""
    name = executor or ("slurm" if slurm is not None else "inline" if jobs == 0 else "local")
    if name not in EXECUTORS:
        raise ConfigError(f"unknown executor {name!r:.40}; {suggest(name, EXECUTORS)}")
    if slurm is not None and name != "slurm":
        raise ConfigError(f"options of Slurm are for the executor 'slurm', not for {name!r}; remove one of them")
    if jobs == 0 and name != "inline":
        raise ConfigError(f"jobs = 0 is for the executor 'inline', not for {name!r}; remove one of them")
    return name


def _on_cluster(spec: Spec, out: Path, slurm: SlurmOptions, ask: bool) -> tuple[Mapping[str, Any], SlurmOptions]:
    """The environment of the nodes, if the values of trials depend on it, and the options of jobs."""
    alone = depends_on_hardware(spec)
    if spec.device == "cpu" and not alone:
        return environment("cpu"), slurm
    return on_node(Store(out).folder, slurm, spec.device, cli.complain, alone=alone, ask=ask)
