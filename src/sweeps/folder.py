"""The folder of a sweep, which may be anybody's: read as plain text, and summarized."""

import math
import shlex
import sys
from collections import Counter
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
                record = run.record()
            except UserError as error:
                record = {"status": "damaged", "reason": str(error)}
            numbers = {
                printable(name): value
                for name, value in record.items()
                if isinstance(value, float | int) and abs(value) <= sys.float_info.max
            }
            status = printable(str(record.get("status", "not started")))
            row = {"job": number} | {key: job.get(key, "") for key in self.axes}
            row |= {name: value for name, value in numbers.items() if "/" in name}
            row |= {name: numbers.get(name) for name in ("best_epoch", "epochs", "seconds")}
            row["status"] = "interrupted" if status == "running" and not run.in_use() else status
            row["reason"] = printable(" ".join(str(record.get("reason", "")).split()))
            row["overrides"] = " ".join(f"{key}={value}" for key, value in job.items())
            rows.append(row | {"folder": str(run.path)})
        return rows


def summarize(path: Path) -> tuple[list[Row], str]:
    """Write summary.csv, summary.md and, for one or two axes, summary.png; the rows, and a text to print."""
    sweep = Sweep(path)
    rows = sweep.rows()
    axes = [key for key in sweep.axes if key != "seed"]
    means = groups(rows, axes)
    metric = SELECTED if any(SELECTED in group for group in means) else "test/loss"
    drawn = [group for group in means if metric in group] if 1 <= len(axes) <= 2 else []
    text, files = described(rows, means), "summary.csv .md"
    page = [f"# {path.name}", f"`{shlex.join(['python', '-m', 'src.train', '-m', *sweep.command])}`", text]
    if drawn:
        save(chart(drawn, axes, metric), path / "summary.png")
        page, files = [*page, "![summary](summary.png)"], f"{files} .png"
    write_csv(path / "summary.csv", rows)
    write(path / "summary.md", printable("\n\n".join(page) + "\n", keep="\n"))
    return rows, f"{text}\n\nwritten to {terminal.relative(path)}/: {files}"


def groups(rows: list[Row], axes: list[str]) -> list[Row]:
    """The finished rows at each place on the axes, in the order of the jobs: place, n, mean_sd of metrics."""
    places: dict[tuple, list[Row]] = {}
    for row in rows:
        members = places.setdefault(tuple(row[key] for key in axes), [])
        if row["status"] == "finished":
            members.append(row)
    return [
        dict(zip(axes, place, strict=True))
        | {"n": len(members)}
        | {
            name: mean_sd([row[name] for row in members])
            for name in SHOWN
            if all(name in row for row in members)
        }
        for place, members in places.items()
        if members
    ]


def mean_sd(values: list[float]) -> tuple[float, ...]:
    """The mean and the sd of the sample; of a single value, itself alone."""
    return (fmean(values), stdev(values)) if len(values) > 1 else tuple(values)


def described(rows: list[Row], means: list[Row]) -> str:
    """How many jobs ended how, the table of means, and why jobs did not finish, in Markdown."""
    states = Counter(row["status"] for row in rows)
    parts = [f"{len(rows)} jobs: {', '.join(f'{n} {state}' for state, n in states.items())}."]
    if means:
        order = f"Best first by {SELECTED}; without a validation split nothing is selected."
        ranked = sorted(means, key=lambda group: group.get(SELECTED, (math.inf,))[0])
        cells = (
            {key: " ± ".join(f"{x:.4f}" for x in cell) if key in SHOWN else cell for key, cell in group.items()}
            for group in ranked
        )
        parts += [f"Mean ± sd over the n finished runs of each setting. {order}", terminal.table(cells)]
    if troubled := [row for row in rows if row["reason"]]:
        lines = (f"- {row['job']}: `{row['overrides']}`: {row['status']}, {row['reason']}" for row in troubled)
        parts += ["Not finished:", "\n".join(lines)]
    return "\n\n".join(parts)


def chart(means: list[Row], axes: list[str], metric: str) -> Figure:
    """Mean and sd of a metric at the values of the first axis: a line, or one for each value of the second."""
    names = list(dict.fromkeys(group[axes[0]] for group in means))
    lines: dict[str, list[tuple]] = {}
    for group in means:
        (mean, *sd), label = group[metric], " ".join(f"{key}={group[key]}" for key in axes[1:])
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
    ax.set(title=title, xlabel=axes[0], ylabel=metric)
    ax.grid(alpha=0.3)
    return ax.figure
