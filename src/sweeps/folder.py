"""The folder of a sweep, which may be anybody's: read as plain text, and summarized."""

import math
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

from matplotlib.figure import Figure
from pydantic import Field, ValidationError

from src import terminal
from src.charts import CYCLE, figure, save
from src.errors import UserError, printable
from src.runs import Run, read_yaml, write, write_csv
from src.runs.config import Options

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
SHOWN = ("val/loss", "val/acc", "test/loss", "test/acc")  # in this order, where a run has them
Row = dict[str, Any]


class Plan(Options):
    """Of a sweep: what is needed to finish it later, besides its configs. The jobs stand in their order."""

    command: list[str]
    jobs: list[list[Annotated[str, Field(pattern="=")]]]


class Sweep:
    """A sweep: its command, its jobs (key -> value), its axes (keys that differ). UserError if it is none."""

    def __init__(self, path: Path):
        self.path, file = path, path / "sweep.yaml"
        for each in (file, *path.glob("[0-9]*"), *path.glob("[0-9]*/**/*")):
            if each.is_symlink():
                raise UserError(f"{each} is a link; a sweep folder must hold files and folders alone")
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


def summarize(path: Path) -> tuple[list[Row], str]:
    """Write summary.csv, summary.md and, for one or two axes, summary.png; the rows, and a text to print."""
    sweep = Sweep(path)
    rows = sweep.rows()
    axes = [key for key in sweep.axes if key != "seed"]
    means = groups(rows, axes)
    drawn = [group for group in means if SELECTED in group] if 1 <= len(axes) <= 2 else []
    text, files = described(rows, means), "summary.csv .md"
    page = [f"# {path.name}", f"`{shlex.join(['python', '-m', 'src.train', '-m', *sweep.command])}`", text]
    if drawn:
        save(chart(drawn, axes), path / "summary.png")
        page, files = [*page, "![summary](summary.png)"], f"{files} .png"
    write_csv(path / "summary.csv", rows)
    write(path / "summary.md", printable("\n\n".join(page) + "\n", keep="\n"))
    return rows, f"{text}\n\nwritten to {terminal.relative(path)}/: {files}"


class Spread(tuple[float, ...]):
    """(mean, sd of the sample) of several values; of one, (value,)."""

    def __new__(cls, values: list[float]):
        return super().__new__(cls, (fmean(values), stdev(values)) if len(values) > 1 else values)

    def __str__(self) -> str:
        return " ± ".join(f"{each:.4f}" for each in self)


def groups(rows: list[Row], axes: list[str], names: Sequence[str] = SHOWN) -> list[Row]:
    """The finished rows at each place on the axes, seeds aside, in the order of the jobs: place, n, Spreads."""
    places: dict[tuple, list[Row]] = {}
    for row in rows:
        place = tuple((key, row[key]) for key in axes if key != "seed")
        places.setdefault(place, []).extend([row] if row["status"] == "finished" else [])
    found = []
    for place, members in places.items():
        values = {name: [row[name] for row in members if name in row] for name in names}
        spreads = {name: Spread(each) for name, each in values.items() if len(each) == len(members) > 0}
        found += [{**dict(place), "n": len(members), **spreads}] if members else []
    return found


def described(rows: list[Row], means: list[Row]) -> str:
    """How many jobs ended how, the table of means, and why jobs did not finish, in Markdown."""
    states = Counter(row["status"] for row in rows)
    parts = [f"{len(rows)} jobs: {', '.join(f'{n} {state}' for state, n in states.items())}."]
    if means:
        order = f"Best first by {SELECTED}; without a validation split nothing is selected."
        ranked = sorted(means, key=lambda group: group.get(SELECTED, (math.inf,)))
        parts += [f"Mean ± sd over the n finished runs of each setting. {order}", terminal.table(ranked)]
    if troubled := [row for row in rows if row["reason"]]:
        lines = (f"- {row['job']}: `{row['overrides']}`: {row['status']}, {row['reason']}" for row in troubled)
        parts += ["Not finished:", "\n".join(lines)]
    return "\n\n".join(parts)


def chart(means: list[Row], axes: list[str]) -> Figure:
    """Mean and sd of val/loss at the values of the first axis: a line, or one for each value of the second."""
    names = list(dict.fromkeys(group[axes[0]] for group in means))
    lines: dict[str, list[tuple]] = {}
    for group in means:
        (mean, *sd), label = group[SELECTED], " ".join(f"{key}={group[key]}" for key in axes[1:])
        lines.setdefault(label, []).append((names.index(group[axes[0]]), mean, sum(sd)))
    ax = figure(5.6, 3.6).subplots()
    ax.set_prop_cycle(color=CYCLE)
    ax.set_xticks(range(len(names)), names)
    for label, points in lines.items():
        ax.errorbar(*zip(*points, strict=True), label=label, marker="o", linestyle=":", capsize=3)
    if len(axes) > 1:
        ax.legend()
    several = any(group["n"] > 1 for group in means)
    title = "mean and standard deviation over the runs" if several else "one run each"
    ax.set(title=title, xlabel=axes[0], ylabel=SELECTED)
    ax.grid(alpha=0.3)
    return ax.figure
