"""Slurm's commands for tests: scripts that keep jobs in a folder, and run them here, one after another.

``FAKE_SLURM`` is the folder. Files in it change what happens: ``down`` (no command works), ``accounting`` (``sacct``
works), ``hold`` (no job starts).
"""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scontrol", "scancel")
FOLDER = Path(os.environ.get("FAKE_SLURM", "."))
ACTIVE = ("PENDING", "RUNNING")
LONGEST_S = 300.0
"""After this nothing is started any more, so that nothing is left if a test is killed."""


def install(folder: Path) -> Path:
    """Write the commands into a folder for ``PATH``."""
    commands = folder / "bin"
    commands.mkdir()
    for name in COMMANDS:
        path = commands / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).resolve()} {name} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return commands


def jobs() -> dict[str, dict[str, str]]:
    return {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.job")}


def write(job: str, **fields: str) -> None:
    path = FOLDER / f"{job}.job"
    before = json.loads(path.read_text()) if path.exists() else {}
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(before | fields))
    draft.replace(path)


def sbatch(script: str) -> None:
    lines = [line.removeprefix("#SBATCH --") for line in Path(script).read_text().splitlines() if "#SBATCH" in line]
    options = dict(line.strip().partition("=")[::2] for line in lines)
    if "nowhere" in options.get("partition", ""):
        sys.exit("sbatch: error: invalid partition specified: nowhere\n"
                 "sbatch: error: Batch job submission failed: Invalid partition name specified")  # fmt: skip
    if "laptop" in options.get("partition", ""):
        sys.exit("sbatch: fatal: Could not establish a configuration source")
    number = str(100 + len({job.partition("_")[0] for job in jobs()}))
    array = options.get("array", "").strip("'")
    last = int(array.partition("%")[0].partition("-")[2]) if array else None
    ids = [number] if last is None else [f"{number}_{index}" for index in range(last + 1)]
    for job in ids:
        write(job, state="PENDING", name=options["job-name"], pid="", script=script, sbatch=json.dumps(options))
    command = [sys.executable, "-I", "-S", __file__, "run", *ids]
    nowhere = subprocess.DEVNULL  # who reads this command's output waits until all its writers have ended
    subprocess.Popen(command, start_new_session=True, stdin=nowhere, stdout=nowhere, stderr=nowhere)
    print(f"Submitted batch job {number}")


def run(*ids: str) -> None:
    until = time.monotonic() + LONGEST_S
    for job in ids:
        while (FOLDER / "hold").exists() and time.monotonic() < until and jobs()[job]["state"] == "PENDING":
            time.sleep(0.1)
        if not FOLDER.exists() or time.monotonic() > until or jobs()[job]["state"] != "PENDING":
            continue
        number, _, index = job.partition("_")
        variables = {"SLURM_JOB_ID": number, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}
        if index:
            variables |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
        process = subprocess.Popen(["bash", jobs()[job]["script"]], env=os.environ | variables, start_new_session=True)
        write(job, state="RUNNING", pid=str(process.pid))
        code = process.wait()
        if jobs()[job]["state"] == "RUNNING":
            write(job, state="FAILED" if code else "COMPLETED")


def srun(*arguments: str) -> None:
    given = list(arguments)
    while given[0].startswith("--"):
        option = given.pop(0)
        if option in ("--output", "--error"):
            path = given.pop(0)
            for sign, variable in (("%A", "SLURM_ARRAY_JOB_ID"), ("%a", "SLURM_ARRAY_TASK_ID"),
                                   ("%j", "SLURM_JOB_ID"), ("%t", "SLURM_PROCID")):  # fmt: skip
                path = path.replace(sign, os.environ.get(variable, ""))
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1 if option == "--output" else 2)
    os.execvp(given[0], given)


def squeue(*arguments: str) -> None:
    name = next((each.partition("=")[2] for each in arguments if each.startswith("--name=")), None)
    for job, fields in jobs().items():
        if fields["state"] in ACTIVE and name in (None, fields["name"]):
            print(f"{job}|{fields['state']}|node1|None" if name is None else job.partition("_")[0])


def sacct(*arguments: str) -> None:
    if not (FOLDER / "accounting").exists():
        sys.exit("Slurm accounting storage is disabled")
    name = next((each.partition("=")[2] for each in arguments if each.startswith("--name=")), None)
    for job, fields in jobs().items():
        if name in (None, fields["name"]):
            print(job if name else f"{job}|{fields['state']} by 0|node1")


def scontrol(*arguments: str) -> None:
    fields = jobs().get(arguments[-1])
    if fields is None:
        sys.exit("slurm_load_jobs error: Invalid job id specified")
    print(f"JobId={arguments[-1]} JobState={fields['state']} Reason=None NodeList=node1")


def scancel(*ids: str) -> None:
    for job in ids:
        fields = jobs()[job]
        if fields["state"] in ACTIVE:
            write(job, state="CANCELLED")
            if fields["pid"]:
                os.killpg(int(fields["pid"]), signal.SIGTERM)


if __name__ == "__main__":
    if (FOLDER / "down").exists() and sys.argv[1] not in ("run", "srun"):
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    globals()[sys.argv[1]](*sys.argv[2:])
