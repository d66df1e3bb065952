"""Slurm's commands: submit an array of jobs (by submitit), ask for their states, cancel them.

Whether a job is active is asked of ``squeue``, since it is the controller's own knowledge. How a job ended is asked of
``sacct``, which needs accounting, else of ``scontrol``, which forgets a job after some minutes.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from hrvit_lab.errors import ConfigError
from hrvit_lab.study.cluster.options import SlurmOptions

TIMEOUT_S = 60.0
MAX_ASKED = 500
"""Ids in one command."""

NAME = "hrvit-lab-"
"""Start of the name of a job; the submission's name follows."""

ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
)  # fmt: skip
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD")
GONE = "GONE"
"""State of a job that Slurm does not know any more."""

BUSY = ("Unable to contact slurm controller", "Socket timed out", "Resource temporarily unavailable",
        "Connection refused", "Slurm temporarily unable", "slurm_load", "timed out")  # fmt: skip
"""Words in errors of a controller that is being restarted or has too much to do."""


UNCONFIGURED = "Could not establish a configuration source"
"""Words of Slurm's commands on a machine without ``slurm.conf``."""


class State(NamedTuple):
    """The state of a job.

    Attributes:
        name: Slurm's word for it, such as ``RUNNING``, or ``GONE``.
        where: its node; empty if it has none.
        why: Slurm's reason for waiting.
    """

    name: str
    where: str = ""
    why: str = ""

    @property
    def over(self) -> bool:
        """Whether the job will not run any more."""
        return self.name in ENDED or self.name == GONE

    @property
    def queued(self) -> bool:
        """Whether the job has not started."""
        return self.name in QUEUED


class Busy(RuntimeError):
    """Slurm does not answer now. Whether a job was submitted is not known."""


class Cluster(Protocol):
    """What a coordinator needs of a cluster."""

    def submit(self, name: str, folder: Path, calls: Sequence[Any], *, alone: bool) -> list[str]:
        """Submit one job for each call of ``run_job``, as an array; its ids.

        Args:
            alone: whether each job has a node of its own.
        Raises:
            Busy: if Slurm does not answer.
            ConfigError: if it refuses the jobs.
        """

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        """The states of jobs; None if Slurm does not answer."""

    def find(self, name: str, number: int) -> list[str] | None:
        """The ids of a submission's jobs, empty if there are none; None if Slurm does not answer."""

    def cancel(self, ids: Iterable[str]) -> None:
        """Cancel jobs."""


def check_slurm() -> None:
    """Check that this machine can submit jobs.

    Raises:
        ConfigError: with what is missing.
    """
    if sys.platform != "linux":
        raise ConfigError("--executor slurm needs a cluster's login node, which runs Linux; use --executor local here")
    for command in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
        if shutil.which(command) is None:
            raise ConfigError(
                f"--executor slurm needs Slurm's command {command}, which is not installed here; run this on a login "
                "node of the cluster, or use --executor local"
            )
    try:
        load_submitit()
    except ImportError:
        raise ConfigError("--executor slurm needs submitit; install it: pip install 'hrvit-lab[slurm]'") from None


def load_submitit() -> ModuleType:
    """Import submitit without its settings for logs of the whole process, which close the handlers of other packages,
    and with some of them the standard streams."""
    variable = "SUBMITIT_LOG_LEVEL"
    before = os.environ.get(variable)
    os.environ[variable] = "NOCONFIG"
    try:
        return import_module("submitit")
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


class Slurm:
    """A `Cluster`: the Slurm of this machine."""

    def __init__(self, options: SlurmOptions, call: Callable[[Any], object]) -> None:
        """
        Args:
            call: runs in the job with one of the calls.
        """
        self.options = options
        self.call = call

    def submit(self, name: str, folder: Path, calls: Sequence[Any], *, alone: bool) -> list[str]:
        submitit = load_submitit()
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        minutes = self.options.minutes
        more: dict[str, Any] = dict(self.options.more)
        if alone:
            more["exclusive"] = True
            if self.options.node:
                more.setdefault("nodelist", self.options.node)
        executor = submitit.SlurmExecutor(folder.absolute(), max_num_timeout=0)
        executor.update_parameters(
            job_name=NAME + name,
            time=minutes,
            signal_delay_s=min(60, 15 * minutes),
            array_parallelism=self.options.array_parallelism,
            additional_parameters=more,
        )
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit also prints the error that it raises
                jobs = executor.map_array(self.call, list(calls))
        except (FailedJobError, FailedSubmissionError) as error:
            text = str(error)
            if any(words in text for words in BUSY):
                raise Busy(_last_line(text)) from None
            if UNCONFIGURED in text:
                raise ConfigError(
                    "Slurm has no configuration on this machine; run this on a login node of the cluster"
                ) from None
            raise ConfigError(
                f"Slurm refuses the jobs: {_last_line(text)}; check --partition, --gres, --time, --mem, --account and "
                "--slurm"
            ) from None
        return [job.job_id for job in jobs]

    def states(self, ids: Iterable[str]) -> dict[str, State] | None:
        return ask_states(ids)

    def find(self, name: str, number: int) -> list[str] | None:
        return find_jobs(name, number)

    def cancel(self, ids: Iterable[str]) -> None:
        cancel_jobs(ids)


def ask_states(ids: Iterable[str]) -> dict[str, State] | None:
    """The states of jobs; None if Slurm does not answer."""
    wanted = list(dict.fromkeys(ids))
    if not wanted:
        return {}
    active = _squeue()
    if active is None:
        return None
    found = {job: active[job] for job in wanted if job in active}
    for some in _parts([job for job in wanted if job not in found], MAX_ASKED):
        found |= {job: state for job, state in _sacct(some).items() if job in some and state.over}
    for job in wanted:
        if job not in found:
            state = _scontrol(job)
            if state is None:
                return None
            found[job] = state
    return found


def find_jobs(name: str, number: int) -> list[str] | None:
    """The ids of the jobs of a submission, empty if there are none; None if Slurm does not answer."""
    lines = _run("squeue", "--noheader", "--me", f"--name={NAME}{name}", "--format=%F")
    ids = {line.strip() for line in lines or ()}
    if lines is not None and not ids:
        ids = {
            line.partition("_")[0].partition(".")[0]
            for line in _run("sacct", "-n", "-P", "-X", f"--name={NAME}{name}", "-o", "JobID") or ()
        }
    if lines is None or len(ids) > 1:
        return None
    if not ids:
        return []
    [job] = ids
    return [job] if number == 1 else [f"{job}_{index}" for index in range(number)]


def cancel_jobs(ids: Iterable[str]) -> None:
    """Cancel jobs."""
    for some in _parts(list(ids), MAX_ASKED):
        _run("scancel", *some)


def _squeue() -> dict[str, State] | None:
    """The active jobs of this user."""
    lines = _run("squeue", "--noheader", "--array", "--me", "--format=%i|%T|%N|%r")
    if lines is None:
        return None
    found = {}
    for line in lines:
        job, name, where, why = [*line.strip().split("|", 3), "", "", ""][:4]
        found[job] = State(name, where, "" if why == "None" else why)
    return {job: state for job, state in found.items() if not state.over}


def _sacct(ids: Sequence[str]) -> dict[str, State]:
    """The last states of jobs in the accounting; empty without accounting."""
    lines = _run("sacct", "-n", "-P", "-X", "-j", ",".join(ids), "-o", "JobID,State,NodeList")
    fields = [line.split("|") for line in lines or ()]
    return {each[0]: State((each[1].split() or [GONE])[0], each[2]) for each in fields if len(each) == 3}


def _scontrol(job: str) -> State | None:
    """The state of a job that ended some minutes ago; None if Slurm does not answer."""
    done = _command("scontrol", "show", "job", "-o", job)
    if done.returncode != 0:
        return State(GONE) if "Invalid job id" in done.stderr else None
    words = dict(word.partition("=")[::2] for word in done.stdout.split())
    return State(words.get("JobState", GONE), words.get("NodeList", "").replace("(null)", ""))


def _run(*command: str) -> list[str] | None:
    """The lines that a command prints; None if it fails."""
    done = _command(*command)
    return done.stdout.splitlines() if done.returncode == 0 else None


def _command(*command: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, env=environment, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _parts(items: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    return (items[start : start + most] for start in range(0, len(items), most))


def _last_line(text: str) -> str:
    """The last line of an error of sbatch, without its prefixes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else "no reason given"
    return line.rpartition("error: ")[2].removeprefix("Batch job submission failed: ")[:300]
