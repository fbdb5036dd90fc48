"""Jobs of a sweep on Slurm, through submitit: how they are submitted, waited for and cancelled."""

import contextlib
import io
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from typing import Any

import submitit
import yaml
from hydra.core.singleton import Singleton
from submitit.core.utils import UncompletedJobError

from src.cli.console import say
from src.errors import UserError
from src.formats import read_yaml
from src.runs import write
from src.sweeps.local import PATIENCE
from src.sweeps.report import Report

POLL = 2  # seconds between questions
# A job in one of these states runs no more; one that Slurm requeues has another. Slurm does not
# know a job any more that is GONE.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED"}
ENDED |= {"BOOT_FAIL", "DEADLINE", "REVOKED", "GONE"}
ORDINARY = {"None", "Resources", "Priority", "JobArrayTaskLimit", "BeginTime"}  # reasons to wait
REMEDIES = {
    "TIMEOUT": " hydra.launcher.timeout_min=MINUTES",
    "OUT_OF_MEMORY": " hydra.launcher.mem_gb=GB",
}


def launch(launcher: Any, jobs: dict[int, Sequence[str]]) -> None:
    """Run those of the jobs, number -> overrides, that have not finished.

    Raises UserError if Slurm refuses them.
    """
    report = launcher.report
    # The number of each job that was submitted, as text, with its id, ARRAY_INDEX.
    file = report.sweep.path / ".jobs.yaml"
    submitted: dict[str, str] = {}
    if file.exists():
        submitted = read_yaml(file)
    ids = left_of(submitted, jobs)
    for number, job in ids.items():
        say(f"job {number} is Slurm job {job} still; it is waited for")
    todo = {}
    for number, overrides in jobs.items():
        if number not in report.before and number not in ids:
            todo[number] = overrides
    if todo:
        new = submit(launcher, todo, report)
        ids |= new
        for number, job in new.items():
            submitted[str(number)] = job
        write(file, yaml.safe_dump(submitted))
        many = f"{len(new)} of {len(jobs)} jobs submitted"
        say(f"{many} as Slurm job {names(new)}; Ctrl-C cancels them")
    try:
        wait(ids, report)
    except BaseException:
        subprocess.run(["scancel", *names(ids).split(",")], capture_output=True)
        say(f"cancelled Slurm job {names(ids)}; {report.go_on()}")
        wait(ids, report, PATIENCE)
        raise


def left_of(submitted: dict[str, str], jobs: Collection[int]) -> dict[int, str]:
    """The ids of those of the jobs that an earlier process submitted and that have not ended."""
    ids = {}
    for text, job in submitted.items():
        if int(text) in jobs:
            ids[int(text)] = job
    for number, (state, _) in states(ids).items():
        if state in ENDED:
            del ids[number]
    return ids


def submit(launcher: Any, jobs: dict[int, Sequence[str]], report: Report) -> dict[int, str]:
    """Submit the jobs as an array: number -> id. Raises UserError if they are refused."""
    if not shutil.which("sbatch"):
        raise UserError(
            f"there is no sbatch here; on a login node of the cluster, {report.go_on()}"
        )
    # Slurm sends no signal before the end of the time, when SIGTERM saves and ends a run.
    options = launcher.params | {"signal_delay_s": 0}
    executor = submitit.AutoExecutor(options.pop("submitit_folder"), "slurm")
    del options["max_num_timeout"]
    parameters = {}
    for key, value in options.items():
        parameters[f"slurm_{key}"] = value
    executor.update_parameters(**parameters)
    # Ctrl-C is ignored for a moment: else jobs might run on whose ids nobody knows.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        singletons = [Singleton.get_state()] * len(jobs)
        with contextlib.redirect_stderr(io.StringIO()):
            array = executor.map_array(launcher, jobs, jobs.values(), singletons)
        ids = {}
        for number, job in zip(jobs, array, strict=True):
            ids[number] = job.job_id
        return ids
    except UncompletedJobError as error:  # sbatch has refused
        reason = str(error).splitlines()[0].removeprefix("sbatch: error: ")
        advice = f"{report.go_on()} hydra.launcher.KEY=VALUE, as of hydra.launcher.partition"
        raise UserError(f"Slurm refuses the jobs: {reason}; {advice}") from error
    finally:
        signal.signal(signal.SIGINT, handler)


def wait(ids: dict[int, str], report: Report, limit: float = math.inf) -> None:
    """Report each job when it ends, and take it from `ids`.

    Returns with the last, or after `limit` seconds.
    """
    end = time.monotonic() + limit
    said: set[str] = set()  # reasons why jobs wait
    while ids and time.monotonic() < end:
        for number, (state, reason) in states(ids).items():
            job = ids[number]
            if state in ENDED:
                if state != "COMPLETED":
                    remedy = REMEDIES.get(state, "")
                    report.lost(number, f"Slurm job {job} {state}", ".submitit", remedy)
                report.job_ended(number)
                del ids[number]
            elif state in ("PENDING", "UNKNOWN") and reason not in ORDINARY | said:
                say(f"Slurm job {job} waits: {reason}")
                said.add(reason)
        time.sleep(POLL if ids else 0)


def states(ids: dict[int, str]) -> dict[int, tuple[str, str]]:
    """The state of each job and its reason.

    squeue has them until minutes after the end of a job; sacct would need accounts.
    """
    if not ids:
        return {}
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
    command.append(f"--jobs={names(ids)}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "Invalid job id" not in done.stderr:
        return dict.fromkeys(ids, ("UNKNOWN", "squeue does not answer"))
    known = {}
    for line in done.stdout.splitlines():
        job, state, reason = line.split("|")
        known[job] = (state, reason)
    return {number: known.get(job, ("GONE", "")) for number, job in ids.items()}


def names(ids: dict[int, str]) -> str:
    """The names of the arrays that the jobs are in; a sweep that went on has several arrays."""
    arrays = [job.partition("_")[0] for job in ids.values()]
    return ",".join(dict.fromkeys(arrays))
