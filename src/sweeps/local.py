"""Jobs of a sweep on this machine.

They run one after the other, or side by side, each in a process of its own.
"""

import importlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from typing import Any

from hydra.core.utils import configure_log, run_job
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from src import signals
from src.cli.command import fail_job
from src.runs import Run

PATIENCE = 30  # seconds that jobs have to save and end when their sweep is stopped
Jobs = dict[int, Sequence[str]]  # number -> overrides


def run(launcher: Launcher, number: int, overrides: Sequence[str], job_id: str | int) -> None:
    """Compose the job and run it in this process.

    An error that stops it before it has a record becomes the reason in its record.
    """
    context = launcher.hydra_context
    try:
        config = context.config_loader.load_sweep_config(launcher.config, list(overrides))
        with open_dict(config.hydra.job) as job:
            job.num, job.id = number, job_id
        _ = run_job(
            launcher.task_function, config, "hydra.sweep.dir", "hydra.sweep.subdir", context
        ).return_value
    except Exception as error:
        fail_job(Run(launcher.report.sweep.path / str(number)), error)
    configure_log(launcher.config.hydra.hydra_logging, launcher.config.hydra.verbose)


def launch(launcher: Launcher, jobs: Jobs) -> None:
    """Run a batch of jobs one after the other, but for those that have finished."""
    for number, overrides in jobs.items():
        if number not in launcher.report.before:
            run(launcher, number, overrides, number)
            launcher.report.job_ended(number)


def launch_side_by_side(launcher: Launcher, jobs: Jobs, most: int) -> None:
    """Run a batch of jobs, at most so many at once, but for those that have finished.

    They end with this process.
    """
    report = launcher.report
    context = multiprocessing.get_context("fork")
    todo = [number for number in jobs if number not in report.before]
    running: dict[Any, tuple[int, ForkProcess]] = {}  # sentinel -> job and its process
    # Imported here, torch is there for all jobs. Elsewhere it does not survive a fork.
    if sys.platform == "linux" and todo:
        with signals.held():
            importlib.import_module("src.training.figures")
    try:
        while todo or running:
            while todo and len(running) < most:
                number = todo.pop(0)
                process = context.Process(target=child, args=(launcher, number, jobs[number]))
                process.start()
                running[process.sentinel] = number, process
            for sentinel in wait(running):
                number, process = running.pop(sentinel)
                process.join()
                if process.exitcode:
                    report.lost(number, f"process {process.pid} {ending(process.exitcode)}")
                report.job_ended(number)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(PATIENCE)
            process.kill()


def ending(code: int) -> str:
    """The ending of a process with this exit code: the name of a signal, or its status."""
    if code < 0:
        return signal.Signals(-code).name
    return f"status {code}"


def child(launcher: Launcher, number: int, overrides: Sequence[str]) -> None:
    """The job, in its own process."""
    # The terminal sends these to all of its processes; the command answers them with SIGTERM.
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=follow, daemon=True).start()
    run(launcher, number, overrides, number)


def follow() -> None:
    """End this process with the one that has started it, however that ends."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGKILL)
