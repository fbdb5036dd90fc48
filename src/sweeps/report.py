"""The lines that a sweep prints: how each job ended, why one was lost, and how to go on."""

import contextlib
import math
import time

from src.cli.console import command_line, relative, say
from src.errors import UserError
from src.runs import Run
from src.sweeps.answer import SELECTED, Row
from src.sweeps.sweep import Sweep


class Report:
    """The progress of a sweep.

    `before` are the numbers of the jobs that had finished before this process began.
    """

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.before = ended(sweep.rows(), "finished")
        self.started = time.monotonic()

    def job_ended(self, number: int) -> None:
        """Print how the job ended, the best so far, and how long the others will take."""
        rows = self.sweep.rows()
        done = ended(rows, "finished", "failed", "diverged")
        row = rows[number]
        name = self.sweep.name(number) or row["overrides"]
        outcome = f"{row['status']} {row['reason']}".strip()
        if SELECTED in row:
            outcome = f"{SELECTED} {row[SELECTED]:.4f}"
        parts = [f"{len(done)}/{len(rows)}", name, outcome]
        best = min(rows, key=lambda row: row.get(SELECTED, math.inf))
        if SELECTED in best:
            parts.append(f"best {best[SELECTED]:.4f} (job {best['job']})")
        seconds_each = (time.monotonic() - self.started) / max(len(done - self.before), 1)
        parts.append(f"{seconds_each * (len(rows) - len(done)):.0f} s left")
        say("  ".join(parts))

    def lost(self, number: int, how: str, log: str = "", remedy: str = "") -> None:
        """Record how a job ended that could not do so itself, or could not know why.

        `log` is a file of the sweep that may say more, `remedy` a setting with which to go on.
        """
        row = self.sweep.row(number)
        if row["status"] not in ("interrupted", "not started"):
            return
        if log and row["status"] == "not started":
            how += f", see {self.sweep.path}/{log}"
        run = Run(row["folder"])
        reason = f"{how}; {self.go_on()}{remedy}"
        # If the lock cannot be had, the job runs on after all.
        with contextlib.suppress(UserError), run.lock():
            run.save_results(run.results() | {"status": "interrupted", "reason": reason})

    def go_on(self) -> str:
        return f"to go on: {command_line('src.sweeps', 'resume', relative(self.sweep.path))}"


def ended(rows: list[Row], *states: str) -> set[int]:
    """The numbers of the jobs that ended in one of the states."""
    return {row["job"] for row in rows if row["status"] in states}
