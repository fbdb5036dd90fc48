"""Jobs of a sweep on Slurm, or in processes of their own, through submitit: submitted, waited for, cancelled.

Every job ends as a row, however it ends. What a job that was killed could not record is recorded here.
"""

import contextlib
import csv
import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import Any

import submitit
import yaml
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from submitit.core.utils import UncompletedJobError

from src import terminal
from src.errors import UserError
from src.files import read_yaml
from src.runs import write
from src.sweeps.callback import PATIENCE, ReportSweep

POLL = 2  # seconds between questions
# States after which a job runs no more; one that Slurm requeues has another. GONE: it is not known any more.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED"}
ENDED |= {"BOOT_FAIL", "DEADLINE", "REVOKED", "GONE"}
ORDINARY = {"None", "Resources", "Priority", "JobArrayTaskLimit", "BeginTime"}  # reasons to wait
REMEDIES = {"TIMEOUT": " hydra.launcher.timeout_min=MINUTES", "OUT_OF_MEMORY": " hydra.launcher.mem_gb=GB"}
States = dict[str, tuple[str, str]]  # id of a job -> its state, and the reason for it


class Slurm:
    name = "Slurm job"  # its id is ARRAY_INDEX

    def states(self, ids: Iterable[str]) -> States:
        """As squeue has them until some minutes after a job's end, whether Slurm keeps accounts or not."""
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
        done = subprocess.run([*command, f"--jobs={','.join(arrays(ids))}"], capture_output=True, text=True)
        if done.returncode and "Invalid job id" not in done.stderr:
            return dict.fromkeys(ids, ("UNKNOWN", "squeue does not answer"))
        known = {job: said for job, *said in csv.reader(done.stdout.splitlines(), delimiter="|")}
        return {job: known.get(job, ("GONE", "")) for job in ids}

    def cancel(self, ids: Iterable[str]) -> None:
        subprocess.run(["scancel", *arrays(ids)], capture_output=True)


class Local:
    name = "process"
    jobs: Sequence[submitit.Job] = ()  # of this command

    def states(self, ids: Iterable[str]) -> States:
        running = {job.job_id for job in self.jobs if not job.done()}
        return {job: ("RUNNING" if job in running else "GONE", "") for job in ids}

    def cancel(self, ids: Iterable[str]) -> None:
        for job in self.jobs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)


def launch(launcher: Any, job_overrides: Sequence[Sequence[str]], first: int) -> list[JobReturn]:
    """Run the jobs of a batch, the first of which has the number `first`, but for those that have finished.

    `launcher` is that of Hydra's plugin; each job calls it. Raises UserError if they cannot be submitted.
    """
    report, queue = ReportSweep.running, Slurm() if launcher.cluster == "slurm" else Local()
    ReportSweep.folder = None  # nothing to sum up yet
    file = report.sweep.path / ".jobs.yaml"  # number of each job that was submitted -> id
    submitted = read_yaml(file) if file.exists() else {}
    numbers = range(first, first + len(job_overrides))
    ids = alive(queue, {number: job for number, job in submitted.items() if number in numbers})
    for number, job in ids.items():
        terminal.say(f"job {number} is {queue.name} {job} still; it is waited for")
    if todo := [number for number in numbers if number not in ids and number not in report.before]:
        queue.jobs = submit(launcher, {number: job_overrides[number - first] for number in todo}, report)
        ids |= {number: job.job_id for number, job in zip(todo, queue.jobs, strict=True)}
        write(file, yaml.safe_dump(submitted | ids))
        names = ", ".join(arrays(ids[number] for number in todo))
        terminal.say(
            f"{len(todo)} of {len(numbers)} jobs submitted as {queue.name} {names}; Ctrl-C cancels them"
        )
    ReportSweep.folder = report.sweep.path
    try:
        wait(queue, ids, report)
    except BaseException:
        queue.cancel(ids.values())
        terminal.say(f"cancelled {queue.name} {', '.join(arrays(ids.values()))}; {report.go_on()}")
        end = time.monotonic() + PATIENCE
        while alive(queue, ids) and time.monotonic() < end:
            time.sleep(POLL)
        raise
    return [JobReturn(status=JobStatus.COMPLETED) for _ in job_overrides]


def submit(launcher: Any, job_overrides: dict[int, Sequence[str]], report: ReportSweep) -> list[submitit.Job]:
    """Submit the jobs, number -> overrides, as an array. Raises UserError if they are refused."""
    if launcher.cluster == "slurm" and not shutil.which("sbatch"):
        raise UserError(f"there is no sbatch here; on a login node of the cluster, {report.go_on()}")
    options = dict(launcher.params)
    options.pop("max_num_timeout", None)
    if launcher.cluster == "slurm":
        options["signal_delay_s"] = 0  # no signal before the end of the time, when SIGTERM saves and ends a run
    executor = submitit.AutoExecutor(options.pop("submitit_folder"), launcher.cluster)
    executor.update_parameters(**{f"{launcher.cluster}_{key}": value for key, value in options.items()})
    singletons = Singleton.get_state()
    calls = [(list(each), "hydra.sweep.dir", number, "", singletons) for number, each in job_overrides.items()]
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as processes inherit it, which `cancel` is to end
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return executor.map_array(launcher, *zip(*calls, strict=True))
    except UncompletedJobError as error:  # of sbatch
        reason = str(error).splitlines()[0].removeprefix("sbatch: error: ")
        advice = f"{report.go_on()} hydra.launcher.KEY=VALUE, as of hydra.launcher.partition"
        raise UserError(f"Slurm refuses the jobs: {reason}; {advice}") from error
    finally:
        signal.signal(signal.SIGINT, heeded)


def wait(queue: Slurm | Local, ids: dict[int, str], report: ReportSweep) -> None:
    """Until the last of the jobs has ended. Each is reported when it has, and why others cannot begin."""
    waiting, said = dict(ids), set()
    while waiting:
        states = queue.states(waiting.values())
        for number, job in list(waiting.items()):
            state, reason = states[job]
            if state in ENDED:
                del waiting[number]
                if state != "COMPLETED":
                    report.lost(number, f"{queue.name} {job} {state}", ".submitit", REMEDIES.get(state, ""))
                report.job_ended(number)
            elif state in ("PENDING", "UNKNOWN") and reason not in ORDINARY | said:
                terminal.say(f"{queue.name} {job} waits: {reason}")
                said.add(reason)
        time.sleep(POLL if waiting else 0)


def alive(queue: Slurm | Local, ids: dict[int, str]) -> dict[int, str]:
    """Those of the jobs that wait or run."""
    states = queue.states(ids.values()) if ids else {}
    return {number: job for number, job in ids.items() if states[job][0] not in ENDED}


def arrays(ids: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(job.partition("_")[0] for job in ids))
