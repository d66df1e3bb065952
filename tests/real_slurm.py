"""A real Slurm on this host, for tests: controller, node and, if wanted, accounting, with all files in one folder.

It needs Debian's packages slurmctld, slurmd, slurm-client and munge, for accounting also slurmdbd and mariadb-server.
It must run as root. Only one can run at a time, because munge has one socket.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

NEEDED = ("slurmctld", "slurmd", "sbatch", "munged")
NEEDED_FOR_ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr")
WAIT_S = 60.0


def missing() -> str:
    """What this host lacks; empty if nothing."""
    if os.geteuid() != 0:
        return "root"
    path = f"{os.environ['PATH']}:/usr/sbin"
    absent = [name for name in (*NEEDED, *NEEDED_FOR_ACCOUNTING) if shutil.which(name, path=path) is None]
    return ", ".join(absent)


class RealSlurm:
    """The daemons of one cluster, and the variables by which commands find it."""

    def __init__(self, folder: Path, *, accounting: bool) -> None:
        self.folder = folder
        self.accounting = accounting
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}
        self.ports = [_free_port() for _ in range(4)]

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the daemons: some run as users who can't use the tests' own temporary folder."""
        return {name: value for name, value in (os.environ | self.variables).items() if name != "TMPDIR"}

    def start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        control, node, database, accounting = self.ports
        storage = (
            f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost\n"
            f"AccountingStoragePort={accounting}"
            if self.accounting
            else "AccountingStorageType=accounting_storage/none"
        )
        memory = psutil.virtual_memory().total // 2**20 - 1000
        (self.folder / "slurm.conf").write_text(f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
SchedulerParameters=sched_interval=2
KillWait=5
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
{storage}
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()} RealMemory={memory}
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
        self._start_munge()
        if self.accounting:
            self._start_accounting(database, accounting)
        self.start_controller()
        self._daemon("slurmd", "slurmd", "-D", "-f", self.variables["SLURM_CONF"])
        self._until("a node is idle", lambda: "idle" in self.output("sinfo", "--noheader", "--format=%t"))

    def start_controller(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-D", "-f", self.variables["SLURM_CONF"])
        self._until("the controller answers", lambda: self.output("scontrol", "ping").count("UP") > 0)

    def stop(self, name: str) -> None:
        process = self.daemons.pop(name)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            self.output("scancel", "--user", "root")
            time.sleep(1)
        for name in reversed(list(self.daemons)):
            self.stop(name)

    def output(self, *command: str) -> str:
        """What a command of Slurm prints; empty if it fails."""
        done = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def _start_munge(self) -> None:
        shutil.chown(_made(Path("/run/munge")), "munge", "munge")
        key = Path("/etc/munge/munge.key")
        if not key.exists():
            key.write_bytes(os.urandom(1024))
            shutil.chown(key, "munge", "munge")
            key.chmod(0o600)
        for folder in ("/var/log/munge", "/var/lib/munge"):
            shutil.chown(_made(Path(folder)), "munge", "munge")
        if not _munge_works():
            log = open(self.folder / "munged.out", "wb")  # noqa: SIM115  # the daemon writes to it
            self.daemons["munged"] = subprocess.Popen(
                ["/usr/sbin/munged", "--force", "--foreground"], user="munge", group="munge", stdout=log, stderr=log
            )
            log.close()
            self._until("munge works", _munge_works)

    def _start_accounting(self, database: int, accounting: int) -> None:
        data = _made(self.folder / "mariadb")
        shutil.chown(data, "mysql", "mysql")
        for folder in (self.folder, *self.folder.parents):
            if folder.stat().st_uid == os.geteuid() and str(folder).startswith("/tmp/"):
                folder.chmod(folder.stat().st_mode | 0o011)
        with open(self.folder / "install.out", "wb") as log:
            install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=mysql",
                       "--auth-root-authentication-method=normal", "--skip-test-db"]  # fmt: skip
            subprocess.run(install, env=self.environment, stdout=log, stderr=log, check=True, timeout=120)
        sock = data / "s"
        self._daemon(
            "mariadbd", "mariadbd", "--no-defaults", f"--datadir={data}", "--user=mysql", f"--port={database}",
            "--bind-address=127.0.0.1", f"--socket={sock}", f"--pid-file={data}/pid",
        )  # fmt: skip
        self._until("the database answers", sock.exists)
        sql = "CREATE USER 'slurm'@'%' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'%';"
        client = ["mariadb", "--no-defaults", f"--socket={sock}", "-uroot", "-e", sql]
        self._until("a user is made", lambda: subprocess.run(client, capture_output=True, check=False).returncode == 0)
        conf = self.folder / "slurmdbd.conf"
        conf.write_text(f"""\
AuthType=auth/munge
DbdHost=localhost
DbdPort={accounting}
SlurmUser=root
LogFile={self.folder}/slurmdbd.log
PidFile={self.folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
""")
        conf.chmod(0o600)
        self._daemon("slurmdbd", "slurmdbd", "-D")
        self._until("accounting answers", lambda: _listens(accounting))

    def _daemon(self, name: str, program: str, *arguments: str) -> None:
        path = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")
        assert path is not None
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                [path, *arguments], env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def _until(self, what: str, holds: Callable[[], object]) -> None:
        until = time.monotonic() + WAIT_S
        while not holds():
            for name, process in self.daemons.items():
                assert process.poll() is None, f"{name} ended: {(self.folder / f'{name}.out').read_text()[-2000:]}"
            assert time.monotonic() < until, f"not in {WAIT_S} s: {what}"
            time.sleep(0.2)


@contextlib.contextmanager
def real_slurm(folder: Path, *, accounting: bool) -> Iterator[RealSlurm]:
    """A cluster that runs in this block."""
    slurm = RealSlurm(folder, accounting=accounting)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop_all()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _munge_works() -> bool:
    done = subprocess.run("munge -n | unmunge", shell=True, capture_output=True, text=True, check=False)
    return "Success" in done.stdout


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
