"""A Slurm cluster and a PostgreSQL server on this machine, each in a folder of its own.

python -m tests.tools.cluster_servers    installs what is missing: Debian's packages, as root
"""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = {
    "slurmctld": "slurm-wlm",
    "munged": "munge",
    "sbatch": "slurm-client",
    "psql": "postgresql",
}
LIMIT = 60  # seconds until a server answers
NODES = "0x7f000001", "0x7f000002"  # names that every machine knows as addresses of its own
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
# no cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=0
SchedulerParameters=sched_interval=5,batch_sched_delay=1
KillWait=5
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000
PartitionName=cpu Nodes=ALL Default=YES State=UP
PartitionName=short Nodes=ALL MaxTime=1 State=UP
"""


def install() -> None:
    """Install what is missing. It takes root and Debian, or a system like it."""
    lacking = sorted({package for program, package in PACKAGES.items() if not found(program)})
    if lacking:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in ["apt-get", "-q", "update"], ["apt-get", "-q", "install", "-y", *lacking]:
            subprocess.run(
                command, check=True, env=environment, stdin=subprocess.DEVNULL, timeout=900
            )


def found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def end_with_parent() -> None:
    """Tests that are killed leave no server behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


class Servers:
    """Processes that this object has started and ends; what they say is in the folder."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, {}
        folder.mkdir(parents=True)
        folder.chmod(0o755)

    def start(self, name: str, *command: str | Path, **options) -> None:
        log = (self.folder / f"{name}.out").open("a")
        options |= {
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
            "start_new_session": True,
        }
        self.processes[name] = subprocess.Popen(command, preexec_fn=end_with_parent, **options)
        log.close()

    def end(self, name: str, signum: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        process.send_signal(signum)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)

    def stop(self) -> None:
        for name in reversed([*self.processes]):
            self.end(name)

    def until(self, reached: Callable[[], object], what: str, limit: float = LIMIT) -> None:
        end = time.monotonic() + limit
        while not reached():
            logs = "\n".join(path.read_text()[-2000:] for path in self.folder.glob("*.out"))
            assert time.monotonic() < end, f"not {what} within {limit} s:\n{logs}"
            time.sleep(0.2)


class Slurm(Servers):
    """NODES of two cores each, without accounting, for those who have `env` in their
    environment."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        (folder / "state").mkdir()
        host = socket.gethostname().split(".")[0]
        conf, key = folder / "slurm.conf", folder / "munge.key"
        conf.write_text(
            SLURM_CONF.format(folder=folder, host=host, ports=free_ports(3), nodes=NODES)
        )
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.env = {"SLURM_CONF": str(conf)}
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self.start("munged", found("munged"), "-F", "-f", f"--socket={folder}/munge.socket", *files)
        self.until((folder / "munge.socket").exists, "munged answers")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.until(lambda: self.nodes() == dict.fromkeys(NODES, "idle"), "idle nodes")

    def start_controller(self) -> None:
        self.start("slurmctld", found("slurmctld"), "-D", "-f", self.env["SLURM_CONF"])

    def start_node(self, name: str) -> None:
        self.start(name, found("slurmd"), "-D", "-N", name, "-f", self.env["SLURM_CONF"])

    def call(self, *command: str, check: bool = True) -> str:
        """What a command of Slurm's prints."""
        done = subprocess.run(
            command,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            check=check,
            timeout=60,
        )
        return done.stdout.strip()

    def nodes(self) -> dict[str, str]:
        lines = self.call("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %t", check=False).splitlines()
        return dict(line.split() for line in lines)

    def jobs(self) -> dict[str, str]:
        """Job id -> state, of those that wait or run."""
        return dict(
            line.split() for line in self.call("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        )

    def hasten(self, job: str) -> None:
        """Start a job at once that is requeued; it would wait for two minutes."""
        self.until(lambda: self.jobs().get(job) == "PENDING", f"{job} requeued")
        self.call("scontrol", "update", f"JobId={job}", "StartTime=now")

    def clear(self) -> None:
        """Cancel all jobs, and wait until they have ended."""
        self.call("scancel", "--user=root")
        for node in NODES:
            self.call("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        self.until(lambda: not self.jobs(), "an empty queue")
        self.until(lambda: set(self.nodes().values()) == {"idle"}, "idle nodes")


class Postgres(Servers):
    """A server with a user `lab`, password `secret`; a new database for each call of `database`."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        where = Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
        if not (where / "initdb").exists():  # pg_config tells where, or Debian's place
            where = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self.programs, self.port, self.made = where, free_ports(1)[0], 0
        # PostgreSQL refuses to run as root
        self.user = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self.user:
            shutil.chown(folder, "postgres", pwd.getpwnam("postgres").pw_gid)
        password = folder / "password"
        password.write_text("secret\n")
        password.chmod(0o644)
        initdb = [
            where / "initdb",
            "-D",
            folder / "db",
            "-U",
            "lab",
            "-A",
            "scram-sha-256",
            f"--pwfile={password}",
        ]
        subprocess.run(
            [*initdb, "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=LIMIT,
            **self.user,
        )
        self.begin()

    def begin(self) -> None:
        places = [
            "-D",
            self.folder / "db",
            "-k",
            self.folder,
            "-p",
            str(self.port),
            "-h",
            "127.0.0.1",
        ]
        self.start("postgres", self.programs / "postgres", *places, cwd=self.folder, **self.user)
        self.until(lambda: self.sql("select 1").returncode == 0, "PostgreSQL answers")

    def end_now(self) -> None:
        """Stop the server at once, whoever is connected."""
        self.end("postgres", signal.SIGINT)

    def sql(self, text: str, database: str = "postgres") -> subprocess.CompletedProcess:
        command = ["psql", "-X", "-q", "-t", "-A", "-c", text, self.url(database)]
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)

    def url(self, database: str, password: str = "secret") -> str:
        return f"postgresql://lab:{password}@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """The address of a new, empty database."""
        self.made += 1
        assert self.sql(f"create database d{self.made}").returncode == 0
        return self.url(f"d{self.made}")


if __name__ == "__main__":
    install()
