"""A sweep from its first job to its summary."""

from pathlib import Path

from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from src import signals
from src.cli.console import say
from src.errors import UserError
from src.sweeps.report import Report, ended


def run(launcher: Launcher, report: Report, batch_size: int | None) -> None:
    """Launch the planned jobs, in batches, and summarize the sweep however that ends.

    Raises UserError if a job did not finish.
    """
    sweep = report.sweep
    OmegaConf.save(launcher.config, Path(sweep.path, "multirun.yaml"))
    jobs = sweep.plan.jobs
    size = batch_size or len(jobs)
    try:
        for first in range(0, len(jobs), size):
            launcher.launch(jobs[first : first + size], first)
    finally:
        with signals.held():
            from src.sweeps.summary import summarize  # matplotlib

        rows, text = summarize(sweep.path)
        say(text)
    finished = ended(rows, "finished")
    if len(finished) < len(rows):
        raise UserError(f"{len(rows) - len(finished)} of {len(rows)} jobs did not finish")
