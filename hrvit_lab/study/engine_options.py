"""Options of the command line for the device and the executor, shared by ``study`` and ``search``."""

import argparse
from collections.abc import Sequence

from hrvit_lab import cli
from hrvit_lab.errors import ConfigError
from hrvit_lab.study.cluster.options import SlurmOptions, slurm_options

SLURM_OPTIONS = ("partition", "gres", "time", "array_parallelism", "mem", "account", "slurm")
"""Options that are only for the executor ``slurm``."""


def add_device(parser: cli.Parser, what: str, default: str) -> None:
    """Add ``--device``.

    Args:
        what: the device is for.
        default: said in the help.
    """
    parser.add_argument(
        "--device", type=cli.listed(cli.device), metavar="D",
        help=f"device for {what}: cpu, cuda, cuda:N (default: {default}); several GPUs share the trials: cuda:0,cuda:1",
    )  # fmt: skip


def add_executor(parser: cli.Parser) -> None:
    """Add ``--executor`` and the options of jobs."""
    parser.add_argument(
        "--executor", type=_executor, default="local", metavar="NAME",
        help="local: processes of this machine; slurm: jobs of a cluster, submitted from its login node; inline: one "
        "trial after another in this process, without a time limit (default: local)",
    )  # fmt: skip
    slurm = parser.add_argument_group("jobs of Slurm")
    slurm.add_argument("--partition", metavar="NAME", help="partition of the jobs (default: the cluster's)")
    slurm.add_argument("--gres", metavar="GRES", help="generic resources of a job, such as gpu:1 (default: none)")
    slurm.add_argument("--time", metavar="LIMIT", help="time limit of a job: minutes, H:MM:SS, D-HH (default: 60)")
    slurm.add_argument(
        "--array-parallelism", type=cli.whole(1, 100_000), metavar="N", help="jobs at the same time (default: 100)"
    )
    slurm.add_argument("--mem", metavar="SIZE", help="memory of a job, such as 8G (default: the cluster's)")
    slurm.add_argument("--account", metavar="NAME", help="account of the jobs (default: the user's)")
    slurm.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE",
        help="any other option of sbatch, such as constraint=a100; can be repeated (default: none)",
    )  # fmt: skip


def _executor(text: str) -> str:
    from hrvit_lab.study.executors import EXECUTORS  # here, so that --help is fast

    return cli.one_of(EXECUTORS, "executor")(text)


def device_of(options: argparse.Namespace) -> str | None:
    """The device of the trials, ``cuda`` for several GPUs; None if none is given.

    Raises:
        ConfigError: if several devices are not GPUs with numbers.
    """
    devices: Sequence[str] = options.device or ()
    if len(devices) < 2:
        return devices[0] if devices else None
    for device in devices:
        if not device.startswith("cuda:"):
            raise ConfigError(f"--device {','.join(devices)}: several devices must be GPUs with numbers: cuda:0,cuda:1")
    return "cuda"


def devices_of(options: argparse.Namespace) -> Sequence[str]:
    """The GPUs that share the trials; empty if there is one device."""
    return options.device if options.device and len(options.device) > 1 else ()


def slurm_of(options: argparse.Namespace) -> SlurmOptions | None:
    """The options of jobs; None if the executor is not ``slurm``.

    Raises:
        ConfigError: if an option is invalid, or belongs to another executor.
    """
    given = {name: getattr(options, name) for name in SLURM_OPTIONS}
    if options.executor != "local":
        if options.jobs is not None:
            raise ConfigError("--jobs is for --executor local; use --array-parallelism with slurm")
        if devices_of(options):
            raise ConfigError("several devices are for --executor local; use --device cuda --gres gpu:1 with slurm")
    if options.executor == "slurm":
        return slurm_options(**given)
    for name, value in given.items():
        if value:
            raise ConfigError(f"--{name.replace('_', '-')} needs --executor slurm; add it, or remove the option")
    if options.jobs is not None and devices_of(options):
        raise ConfigError("--jobs can't be combined with several devices, which have one worker each; remove it")
    return None
