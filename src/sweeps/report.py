"""What a sweep says while it runs: a line for each job that ends, why a job was lost, and how to go
on."""

import contextlib
import time

from src.cli.console import command_line, relative, say
from src.errors import UserError
from src.runs import Run
from src.sweeps.answer import SELECTED
from src.sweeps.sweep import Sweep


class Report:
    """The progress of a sweep. `before` are the numbers of the jobs that had finished when it was
    gone on with."""

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        self.before = {row["job"] for row in sweep.rows() if row["status"] == "finished"}
        self.started = time.monotonic()

    def job_ended(self, number: int) -> None:
        """Print how the job ended, the best so far, and how long the others will take."""
        rows = self.sweep.rows()
        row = rows[number]
        ended = {
            each["job"] for each in rows if each["status"] in ("finished", "failed", "diverged")
        }
        seconds_each = (time.monotonic() - self.started) / max(len(ended - self.before), 1)
        outcome = f"{row['status']} {row['reason']}"
        if SELECTED in row:
            outcome = f"{SELECTED} {row[SELECTED]:.4f}"
        parts = [
            f"{len(ended)}/{len(rows)}",
            self.sweep.name(number) or row["overrides"],
            outcome.strip(),
        ]
        if scored := [each for each in rows if SELECTED in each]:
            best = min(scored, key=lambda each: each[SELECTED])
            parts.append(f"best {best[SELECTED]:.4f} (job {best['job']})")
        parts.append(f"{seconds_each * (len(rows) - len(ended)):.0f} s left")
        say("  ".join(parts))

    def lost(self, number: int, how: str, log: str = "", remedy: str = "") -> None:
        """Record how a job ended that could not do so itself, or could not know why; `log` may say
        more."""
        row = self.sweep.row(number)
        if row["status"] not in ("interrupted", "not started"):
            return
        if log and row["status"] == "not started":
            how += f", see {self.sweep.path}/{log}"
        run = Run(row["folder"])
        reason = f"{how}; {self.go_on()}{remedy}"
        with contextlib.suppress(UserError), run.lock():  # else it runs on after all
            run.save_results(run.results() | {"status": "interrupted", "reason": reason})

    def go_on(self) -> str:
        return f"to go on: {command_line('src.sweeps', 'resume', relative(self.sweep.path))}"
