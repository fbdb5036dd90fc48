"""The folder of a sweep, which may be anybody's: read as plain text."""

import contextlib
import math
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from src.cli.options import Options
from src.errors import UserError, printable
from src.files import expanded, refuse_links
from src.formats import read_yaml
from src.runs import Run
from src.runs.record import MOST_METRICS
from src.sweeps.answer import Row, answer, groups

MOST_JOBS, MOST_AXES = 10_000, 50
RECORDS = 1 << 24  # bytes of the records, or the tables, of all jobs; a record has about 1,300
# A row has these columns and metrics besides the axes; an axis must not be called like one.
COLUMNS = ("job", "n", "best_epoch", "epochs", "seconds", "status", "reason", "overrides", "folder")
STAGES = ("train/", "val/", "test/", "error/", "norm/")


class Plan(Options):
    """The content of sweep.yaml: with the configs, all that is needed to finish a sweep later."""

    command: list[str]
    # The overrides of each job, in the order of the jobs.
    jobs: Annotated[list[list[Annotated[str, Field(pattern="=")]]], Field(max_length=MOST_JOBS)]
    config: str = "train"  # name of the primary config
    version: str = "0.1.0"  # this project's; it has recorded its own since 0.2.0


class Sweep:
    """A sweep: its command, its jobs (each key -> value) and its axes (keys that differ).

    Raises UserError if the folder is that of no sweep.
    """

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
        self.jobs: list[dict[str, str]] = []
        for job in self.plan.jobs:
            self.jobs.append(dict(printable(text).split("=", 1) for text in job))
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

    def name(self, number: int) -> str:
        """The job's values on the axes, with the last words of their keys: lr=0.3 seed=1."""
        job = self.jobs[number]
        parts = []
        for key in self.axes:
            if key in job:
                parts.append(f"{key.rpartition('.')[2]}={job[key]}")
        return " ".join(parts)

    def run(self, number: int) -> Run:
        return Run(self.path / str(number), within=self.path)

    def check_sizes(self, name: str) -> None:
        """Raises UserError if the files of that name, one of each job, are too large together."""
        size = 0
        for number in range(len(self.jobs)):
            with contextlib.suppress(OSError):
                size += (self.path / str(number) / name).lstat().st_size
        if size > RECORDS:
            raise UserError(
                f"{self.path}/*/{name} are too large: {size:,} bytes, more than {RECORDS:,}"
            )

    def rows(self) -> list[Row]:
        """A row for each job, in their order: values on the axes, final metrics, status, folder.

        Raises UserError if the records are too large, or have too many metrics.
        """
        self.check_sizes("metrics.json")
        rows = list(map(self.row, range(len(self.jobs))))
        columns = set().union(*rows)
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
        for key in self.axes:
            row[key] = job.get(key, "")
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

    def _repr_markdown_(self) -> str:
        """The answer, for a notebook."""
        rows = self.rows()
        return answer(rows, groups(rows, self.axes))


def axes(jobs: list[dict[str, str]]) -> list[str]:
    """The keys in which the jobs differ, in their order."""
    values: dict[str, set[str]] = {}
    count: Counter[str] = Counter()
    for job in jobs:
        for key, value in job.items():
            values.setdefault(key, set()).add(value)
            count[key] += 1
    return [key for key in values if len(values[key]) > 1 or count[key] < len(jobs)]
