"""Jobs of a sweep on Slurm, through submitit: submitted, waited for, cancelled; each ends as a
row."""

import contextlib
import io
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import submitit
import yaml
from hydra.core.singleton import Singleton
from submitit.core.utils import UncompletedJobError

from src.cli.console import say
from src.errors import UserError
from src.files import read_yaml
from src.runs import write
from src.sweeps.local import PATIENCE
from src.sweeps.report import Report

POLL = 2  # seconds between questions
# States after which a job runs no more; one that Slurm requeues has another. GONE: it is not known
# any more.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED"}
ENDED |= {"BOOT_FAIL", "DEADLINE", "REVOKED", "GONE"}
ORDINARY = {"None", "Resources", "Priority", "JobArrayTaskLimit", "BeginTime"}  # reasons to wait
REMEDIES = {
    "TIMEOUT": " hydra.launcher.timeout_min=MINUTES",
    "OUT_OF_MEMORY": " hydra.launcher.mem_gb=GB",
}


def launch(launcher: Any, jobs: dict[int, Sequence[str]]) -> None:
    """Run those of the jobs, number -> overrides, that have not finished. UserError if Slurm
    refuses them."""
    report = launcher.report
    file = (
        report.sweep.path / ".jobs.yaml"
    )  # number of each job that was submitted -> its id, ARRAY_INDEX
    recorded = read_yaml(file) if file.exists() else {}
    submitted = {int(number): job for number, job in recorded.items()}
    ids = {number: job for number, job in submitted.items() if number in jobs}
    ids = {number: ids[number] for number, (state, _) in states(ids).items() if state not in ENDED}
    for number, job in ids.items():
        say(f"job {number} is Slurm job {job} still; it is waited for")
    done = report.before | ids.keys()
    if todo := {number: overrides for number, overrides in jobs.items() if number not in done}:
        ids |= (new := submit(launcher, todo, report))
        write(file, yaml.safe_dump({str(number): job for number, job in (submitted | ids).items()}))
        say(
            f"{len(new)} of {len(jobs)} jobs submitted as Slurm job {names(new)}; "
            "Ctrl-C cancels them"
        )
    try:
        wait(ids, report)
    except BaseException:
        subprocess.run(["scancel", *names(ids).split(",")], capture_output=True)
        say(f"cancelled Slurm job {names(ids)}; {report.go_on()}")
        wait(ids, report, PATIENCE)
        raise


def submit(launcher: Any, jobs: dict[int, Sequence[str]], report: Report) -> dict[int, str]:
    """Submit the jobs as an array: number -> id. Raises UserError if they are refused."""
    if not shutil.which("sbatch"):
        raise UserError(
            f"there is no sbatch here; on a login node of the cluster, {report.go_on()}"
        )
    # no signal before the end of the time, when SIGTERM saves and ends a run
    options = launcher.params | {"signal_delay_s": 0}
    executor = submitit.AutoExecutor(options.pop("submitit_folder"), "slurm")
    del options["max_num_timeout"]
    executor.update_parameters(**{f"slurm_{key}": value for key, value in options.items()})
    heeded = signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # else jobs might run on whose ids nobody knows
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            array = executor.map_array(
                launcher, jobs, jobs.values(), [Singleton.get_state()] * len(jobs)
            )
        return {number: job.job_id for number, job in zip(jobs, array, strict=True)}
    except UncompletedJobError as error:  # of sbatch
        reason = str(error).splitlines()[0].removeprefix("sbatch: error: ")
        advice = f"{report.go_on()} hydra.launcher.KEY=VALUE, as of hydra.launcher.partition"
        raise UserError(f"Slurm refuses the jobs: {reason}; {advice}") from error
    finally:
        signal.signal(signal.SIGINT, heeded)


def wait(ids: dict[int, str], report: Report, limit: float = math.inf) -> None:
    """Report each job when it ends, and take it from `ids`; return with the last, or after `limit`
    seconds."""
    end, said = time.monotonic() + limit, set()
    while ids and time.monotonic() < end:
        for number, (state, reason) in states(ids).items():
            job = ids[number]
            if state in ENDED:
                if state != "COMPLETED":
                    report.lost(
                        number, f"Slurm job {job} {state}", ".submitit", REMEDIES.get(state, "")
                    )
                report.job_ended(number)
                del ids[number]
            elif state in ("PENDING", "UNKNOWN") and reason not in ORDINARY | said:
                say(f"Slurm job {job} waits: {reason}")
                said.add(reason)
        time.sleep(POLL if ids else 0)


def states(ids: dict[int, str]) -> dict[int, tuple[str, str]]:
    """State of each job and its reason. squeue has them until minutes after its end; sacct needs
    accounts."""
    if not ids:
        return {}
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        "--format=%i|%T|%r",
        f"--jobs={names(ids)}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "Invalid job id" not in done.stderr:
        return dict.fromkeys(ids, ("UNKNOWN", "squeue does not answer"))
    lines = (line.split("|") for line in done.stdout.splitlines())
    known = {job: (state, reason) for job, state, reason in lines}
    return {number: known.get(job, ("GONE", "")) for number, job in ids.items()}


def names(ids: dict[int, str]) -> str:
    """What Slurm calls the jobs together: an array has one name, and a sweep that went on several
    arrays."""
    return ",".join(dict.fromkeys(job.partition("_")[0] for job in ids.values()))
