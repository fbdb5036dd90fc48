"""The folder of a sweep, which may be anybody's: read as plain text."""

import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from src.errors import UserError, printable
from src.files import read_yaml, refuse_links
from src.runs import Run
from src.runs.settings import Options

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
Row = dict[str, Any]


class Plan(Options):
    """Of a sweep: what is needed to finish it later, besides its configs. The jobs stand in their order."""

    command: list[str]
    jobs: list[list[Annotated[str, Field(pattern="=")]]]


class Sweep:
    """A sweep: its command, its jobs (key -> value), its axes (keys that differ). UserError if it is none."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        file = path / "sweep.yaml"
        refuse_links((file, *path.glob("[0-9]*"), *path.glob("[0-9]*/**/*")), "sweep folder")
        if not file.exists():
            raise UserError(f"{path} is no sweep folder (it has no sweep.yaml); try outputs/sweeps/NAME")
        try:
            plan = Plan.model_validate(read_yaml(file, interpolations=True))
        except ValidationError as error:
            raise UserError(f"{file} is damaged: {error.errors()[0]['msg']}") from error
        self.command = plan.command
        self.jobs = [dict(printable(text).split("=", 1) for text in job) for job in plan.jobs]
        keys = dict.fromkeys(key for job in self.jobs for key in job)
        self.axes = [key for key in keys if len({job.get(key) for job in self.jobs}) > 1]

    def place(self, number: int) -> str:
        """Where the job stands on the axes, in the last words of their keys: lr=0.3 seed=1."""
        job = self.jobs[number]
        return " ".join(f"{key.rpartition('.')[2]}={job[key]}" for key in self.axes if key in job)

    def rows(self) -> list[Row]:
        """One per job, in their order: its place on the axes, final metrics, status, time, folder."""
        rows = []
        for number, job in enumerate(self.jobs):
            run = Run(self.path / str(number))
            try:
                record = {"status": "not started"} | run.record()
            except UserError as error:
                record = {"status": "damaged", "reason": str(error)}
            row = {"job": number} | {key: job.get(key, "") for key in self.axes}
            metrics = {printable(name): value for name, value in record.items() if "/" in name}
            # without nan, inf and a stranger's integer of 400 digits
            row |= {name: value for name, value in metrics.items() if abs(value) <= sys.float_info.max}
            for name in ("best_epoch", "epochs", "seconds", "status", "reason"):
                row[name] = printable(" ".join(str(record.get(name, "")).split()))
            if row["status"] == "running" and not run.in_use():
                row["status"] = "interrupted"
            row["overrides"] = " ".join(f"{key}={value}" for key, value in job.items())
            rows.append(row | {"folder": str(run.path)})
        return rows

    def _repr_markdown_(self) -> str:  # what a notebook shows
        from src.sweeps.summary import answer  # matplotlib

        return answer(self.rows(), self.axes)
