"""The folder of a sweep, which may be anybody's: read as plain text."""

import contextlib
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from src.cli.options import Options
from src.errors import UserError, printable
from src.files import expanded, read_yaml, refuse_links
from src.runs import Run
from src.runs.run import MOST_METRICS

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
MOST_JOBS, MOST_AXES = 10_000, 50
RECORDS = 1 << 24  # bytes of the records, or the tables, of all jobs; a record has about 1,300
# What a row has besides the axes; an axis must not be called like it.
COLUMNS = ("job", "n", "best_epoch", "epochs", "seconds", "status", "reason", "overrides", "folder")
STAGES = ("train/", "val/", "test/", "error/", "norm/")
Row = dict[str, Any]


class Plan(Options):
    """What is needed to finish a sweep later, besides its configs. The jobs stand in their
    order."""

    command: list[str]
    jobs: Annotated[list[list[Annotated[str, Field(pattern="=")]]], Field(max_length=MOST_JOBS)]
    config: str = "train"  # name of the primary config
    version: str = "0.1.0"  # of this project, which has recorded its own since 0.2.0


class Sweep:
    """A sweep: its command, its jobs (key -> value), its axes (keys that differ). UserError if it
    is none."""

    def __init__(self, path: str | Path):
        self.path = path = expanded(path)
        file = path / "sweep.yaml"
        if not file.exists():
            raise UserError(
                f"{path} is no sweep folder (it has no sweep.yaml); try outputs/sweeps/NAME"
            )
        refuse_links(path, "sweep folder")
        try:
            self.plan = Plan.model_validate(read_yaml(file, within=path, interpolations=True))
        except ValidationError as error:
            raise UserError(f"{file} is damaged: {error.errors()[0]['msg']}") from error
        self.command = self.plan.command
        self.jobs = [dict(printable(text).split("=", 1) for text in job) for job in self.plan.jobs]
        self.axes = axes(self.jobs)
        if len(self.axes) > MOST_AXES:
            raise UserError(
                f"{file} is damaged: its jobs differ in {len(self.axes)} keys, at most {MOST_AXES}"
            )
        for name in self.axes:
            if name in COLUMNS or name.startswith(STAGES):
                raise UserError(f"{file} is damaged: {name} is a result, not a setting")

    @property
    def configs(self) -> Path:
        """The configs as they were when the sweep began."""
        return self.path / ".conf"

    def place(self, number: int) -> str:
        """Where the job stands on the axes, in the last words of their keys: lr=0.3 seed=1."""
        job = self.jobs[number]
        return " ".join(f"{key.rpartition('.')[2]}={job[key]}" for key in self.axes if key in job)

    def run(self, number: int) -> Run:
        return Run(self.path / str(number), within=self.path)

    def check_sizes(self, name: str) -> None:
        """Raises UserError if the files of that name, one of each job, are too large to read them
        all."""
        size = 0
        for number in range(len(self.jobs)):
            with contextlib.suppress(OSError):
                size += (self.path / str(number) / name).lstat().st_size
        if size > RECORDS:
            raise UserError(
                f"{self.path}/*/{name} are too large: {size:,} bytes, more than {RECORDS:,}"
            )

    def rows(self) -> list[Row]:
        """One per job, in their order: its place on the axes, final metrics, status, time,
        folder."""
        self.check_sizes("metrics.json")
        rows = [self.row(number) for number in range(len(self.jobs))]
        columns = {name for row in rows for name in row}
        if len(columns) > MOST_METRICS + MOST_AXES + len(COLUMNS):
            raise UserError(f"{self.path} has runs with more than {MOST_METRICS} kinds of metrics")
        return rows

    def row(self, number: int) -> Row:
        job, run = self.jobs[number], self.run(number)
        try:
            record = {"status": "not started"} | run.results()
        except UserError as error:
            record = {"status": "damaged", "reason": str(error)}
        row: Row = {"job": number}
        row |= {key: job.get(key, "") for key in self.axes}
        for name, value in record.items():
            if "/" in name and math.isfinite(value):
                row[printable(name)] = value
        for name in ("best_epoch", "epochs", "seconds", "status", "reason"):
            row[name] = printable(" ".join(str(record.get(name, "")).split()))
        if row["status"] == "running" and not run.in_use():
            row["status"] = "interrupted"
        row["overrides"] = " ".join(f"{key}={value}" for key, value in job.items())
        row["folder"] = str(run.path)
        return row

    def _repr_markdown_(self) -> str:  # what a notebook shows
        from src.sweeps.summary import answer  # matplotlib

        return answer(self.rows(), self.axes)


def axes(jobs: list[dict[str, str]]) -> list[str]:
    """The keys in which the jobs differ, in their order."""
    values: dict[str, set[str]] = {}
    count: Counter[str] = Counter()
    for job in jobs:
        for key, value in job.items():
            values.setdefault(key, set()).add(value)
            count[key] += 1
    return [key for key in values if len(values[key]) > 1 or count[key] < len(jobs)]
