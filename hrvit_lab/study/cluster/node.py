"""Ask a node of the cluster for its environment, before trials are planned whose values depend on the hardware.

The login node is another machine: it may have no GPU, and its processor may be another one.
"""

import dataclasses
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrvit_lab.environment import environment, torch_version
from hrvit_lab.errors import ConfigError
from hrvit_lab.files import MIB, read_bounded, write_atomically
from hrvit_lab.source import source_digest
from hrvit_lab.study.claims import host_name
from hrvit_lab.study.cluster.commands import Busy, Cluster, Slurm
from hrvit_lab.study.cluster.ledger import Ledger
from hrvit_lab.study.cluster.options import SlurmOptions

POLL_S = 1.0
LOOK_S = 10.0
MAX_BYTES = 1 * MIB


@dataclass(frozen=True)
class NodeRequest:
    """The device to describe, and the file to write."""

    device: str
    path: str


def describe_node(request: NodeRequest) -> None:
    """Write the environment of this node, and its name; runs in a job."""
    if request.device != "cpu":
        import torch

        if request.device.startswith("cuda") and not torch.cuda.is_available():
            raise SystemExit(f"{host_name()} has no GPU for {request.device}; ask for one with --gres gpu:1")
    found = {"node": os.environ.get("SLURMD_NODENAME", host_name()), "environment": environment(request.device)}
    write_atomically(Path(request.path), json.dumps(found))


def node_file(ledger: Ledger, options: SlurmOptions, device: str, *, alone: bool) -> Path:
    """Where the answer for these options is kept."""
    asked = [sorted(options.more.items()), device, alone, torch_version(), source_digest()]
    return ledger.root / "nodes" / f"{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]}.json"


def known_node(ledger: Ledger, options: SlurmOptions, device: str, *, alone: bool) -> Mapping[str, Any] | None:
    """The answer of an earlier run: ``node`` and ``environment``; None if there is none."""
    try:
        found = json.loads(read_bounded(node_file(ledger, options, device, alone=alone), MAX_BYTES))
        found["environment"]["versions"]["torch"], found["environment"]["hardware"], found["node"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(found)


def forget_nodes(ledger: Ledger) -> None:
    """Ask again in the next run."""
    for path in (ledger.root / "nodes").glob("*.json"):
        path.unlink(missing_ok=True)


def ask_node(
    ledger: Ledger,
    options: SlurmOptions,
    device: str,
    cluster: Cluster,
    say: Callable[[str], None],
    *,
    alone: bool,
) -> Mapping[str, Any]:
    """The environment of a node that Slurm gives for these options, from an earlier run or by a job.

    Args:
        alone: whether to have the node alone, as trials do that measure latency.
        say: is told that a job is waited for.
    Raises:
        ConfigError: if the job is refused or fails.
    """
    if (known := known_node(ledger, options, device, alone=alone)) is not None:
        return known
    path = node_file(ledger, options, device, alone=alone)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    folder = ledger.folder(name)
    folder.mkdir()
    [job] = cluster.submit(name, folder, [NodeRequest(device, str(path.absolute()))], alone=alone)
    say(f"Slurm job {job} asks a node for its hardware; the study goes on when it has run.")
    done, looked = False, time.monotonic()
    try:
        while not done:
            time.sleep(POLL_S)
            if known_node(ledger, options, device, alone=alone) is None and time.monotonic() - looked > LOOK_S:
                states, looked = cluster.states([job]), time.monotonic()
                if states is not None and states[job].over and not path.exists():
                    log = folder / f"{job}_0_log.err"
                    raise ConfigError(
                        f"the job that asks a node for its hardware ended as {states[job].name}; see {log}"
                    )
            done = path.exists()
    finally:
        if not done:
            cluster.cancel([job])
    found = known_node(ledger, options, device, alone=alone)
    if found is None:
        raise ConfigError(f"{path} can't be read; remove it, and run the study again")
    return found


def on_node(
    trials: Path, options: SlurmOptions, device: str, say: Callable[[str], None], *, alone: bool, ask: bool
) -> tuple[dict[str, Any], SlurmOptions]:
    """The environment in which trials will run, and the options with the node for those that run alone.

    Args:
        trials: folder of the store.
        ask: whether to submit a job if the node's environment is not known yet; otherwise this machine's is returned.
    Raises:
        ConfigError: if the job is refused or fails.
    """
    ledger = Ledger(trials)
    found = known_node(ledger, options, device, alone=alone)
    if found is None:
        if not ask:
            return environment("cpu"), options
        ledger.create()
        try:
            found = ask_node(ledger, options, device, Slurm(options, describe_node), say, alone=alone)
        except Busy as error:
            raise ConfigError(f"Slurm does not answer ({error}); try again later") from None
    return dict(found["environment"]), dataclasses.replace(options, node=str(found["node"]) if alone else "")
