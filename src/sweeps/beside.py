"""Jobs of a sweep side by side on this machine: each in a process of its own, which ends with the command."""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait

from hydra.core.utils import run_job
from hydra.plugins.launcher import Launcher
from joblib import effective_n_jobs

from src.sweeps.callback import PATIENCE, ReportSweep


def launch(launcher: Launcher, jobs: dict[int, Sequence[str]]) -> None:
    """Run a batch of jobs, number -> overrides, but for those that have finished."""
    report, running, context = ReportSweep.running, {}, multiprocessing.get_context("fork")
    limit = effective_n_jobs(launcher.joblib["n_jobs"])
    todo = [job for job in jobs.items() if job[0] not in report.before]
    if sys.platform == "linux" and todo:  # once, for all; elsewhere torch does not survive a fork
        importlib.import_module("src.training.figures")
    try:
        while todo or running:
            while todo and len(running) < limit:
                process = context.Process(target=child, args=(launcher, *todo[0]))
                process.start()
                running[process.sentinel] = todo.pop(0)[0], process
            for sentinel in wait(running):
                number, process = running.pop(sentinel)
                process.join()
                if code := process.exitcode:
                    fate = signal.Signals(-code).name if code < 0 else f"status {code}"
                    report.lost(number, f"process {process.pid} {fate}")
                report.job_ended(number)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(PATIENCE)
            process.kill()


def child(launcher: Launcher, number: int, overrides: Sequence[str]) -> None:
    """The job, in its own process."""
    for signum in (signal.SIGINT, signal.SIGHUP):  # of the terminal: the command answers them with SIGTERM
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()
    ReportSweep.running.sweep = None  # the command prints the line of the job
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, list(overrides))
    config.hydra.job.id = config.hydra.job.num = number
    task, context = launcher.task_function, launcher.hydra_context
    _ = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context).return_value  # raises its error


def follow() -> None:
    """End this process with the one that has started it, however that ends."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
