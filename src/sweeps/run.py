"""A sweep from its first job to its summary."""

from pathlib import Path

from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from src import signals
from src.cli.console import say
from src.errors import UserError
from src.sweeps.report import Report


def run(launcher: Launcher, report: Report, batch_size: int | None) -> None:
    """Launch the planned jobs, in batches; however that ends, summarize the sweep. UserError if a
    job did not finish."""
    sweep, rows = report.sweep, []
    OmegaConf.save(launcher.config, Path(sweep.path, "multirun.yaml"))
    jobs = sweep.plan.jobs
    try:
        for first in range(0, len(jobs), batch_size or len(jobs)):
            launcher.launch(jobs[first : first + (batch_size or len(jobs))], first)
    finally:
        with signals.held():
            from src.sweeps.summary import summarize  # matplotlib

        rows, text = summarize(sweep.path)
        say(text)
    if bad := [row for row in rows if row["status"] != "finished"]:
        raise UserError(f"{len(bad)} of {len(rows)} jobs did not finish")
