"""The folder of a sweep, which may be anybody's: read as plain text, and summarized."""

import math
import shlex
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from src import terminal
from src.charts import CYCLE, figure, save
from src.errors import UserError, printable
from src.runs import Run, read_yaml, write, write_csv

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
SHOWN = ("val/loss", "val/acc", "test/loss", "test/acc")  # in this order, where a run has them
Row = dict[str, Any]


class Sweep:
    """A sweep: its command, its jobs (key -> value), its axes (keys that differ). UserError if it is none."""

    def __init__(self, path: Path):
        self.path, plan = path, path / "sweep.yaml"
        refuse_link(plan)
        if not plan.exists():
            raise UserError(f"{path} is no sweep folder (it has no sweep.yaml); try outputs/sweeps/NAME")
        content = read_yaml(plan, interpolations=True)
        try:
            self.command = texts(content["command"])
            self.jobs = [dict(printable(text).split("=", 1) for text in texts(job)) for job in content["jobs"]]
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{plan} is damaged: {error}") from error
        keys = dict.fromkeys(key for job in self.jobs for key in job)
        self.axes = [key for key in keys if len({job.get(key) for job in self.jobs}) > 1]

    def rows(self) -> list[Row]:
        """One per job, in their order: its place on the axes, final metrics, status, time, folder."""
        rows = []
        for number, job in enumerate(self.jobs):
            run = Run(self.path / str(number))
            for path in (run.path, run.config.parent, run.config.with_name("lock"), run.metrics_json):
                refuse_link(path)
            try:
                record = run.record()
            except UserError as error:
                record = {"status": "damaged", "reason": str(error)}
            numbers = {printable(name): value for name, value in record.items() if is_finite(value)}
            status = printable(str(record.get("status", "not started")))
            row = {"job": number} | {key: job.get(key, "") for key in self.axes}
            row |= {name: value for name, value in numbers.items() if "/" in name}
            row |= {name: numbers.get(name) for name in ("best_epoch", "epochs", "seconds")}
            row["status"] = "interrupted" if status == "running" and not run.in_use() else status
            row["reason"] = printable(" ".join(str(record.get("reason", "")).split()))
            row["overrides"] = " ".join(f"{key}={value}" for key, value in job.items())
            rows.append(row | {"folder": str(run.path)})
        return rows


def refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UserError(f"{path} is a link; a sweep folder must hold files and folders alone")


def texts(node: Any) -> list[str]:
    if not isinstance(node, list) or not all(isinstance(text, str) for text in node):
        raise ValueError("command, and each of jobs, must be a list of texts")
    return node


def is_finite(value: Any) -> bool:
    return isinstance(value, float | int) and abs(value) <= sys.float_info.max


def summarize(path: Path) -> tuple[list[Row], str]:
    """Write summary.csv, summary.md and, for one or two axes, summary.png; the rows, and a text to print."""
    sweep = Sweep(path)
    rows = sweep.rows()
    axes = [key for key in sweep.axes if key != "seed"]
    means = groups(rows, axes)
    metric = SELECTED if any(SELECTED in group for group in means) else "test/loss"
    drawn = [group for group in means if metric in group] if 1 <= len(axes) <= 2 else []
    text = described(rows, means, axes)
    command = shlex.join(["python", "-m", "src.train", "-m", *sweep.command])
    page = [f"# {path.name}", f"`{command}`", text, *["![summary](summary.png)"] * bool(drawn)]
    write_csv(path / "summary.csv", rows)
    write(path / "summary.md", printable("\n\n".join(page) + "\n", keep="\n"))
    if drawn:
        save(chart(drawn, axes, metric), path / "summary.png")
    return rows, f"{text}\n\nwritten to {terminal.relative(path)}/: summary.csv .md{' .png' * bool(drawn)}"


def groups(rows: list[Row], axes: list[str]) -> list[Row]:
    """The finished rows, averaged at each place on the axes: place, n, (mean, sd) of what all of them measured.

    Best first; those without a validation split come last. sd is that of the sample, None for a single run.
    """
    places: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["status"] == "finished":
            places.setdefault(tuple(row[key] for key in axes), []).append(row)
    found = []
    for place, members in places.items():
        group = dict(zip(axes, place, strict=True)) | {"n": len(members)}
        for name in members[0]:
            values = [row.get(name) for row in members]
            if "/" in name and all(map(is_finite, values)):
                group[name] = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
        found.append(group)
    return sorted(found, key=lambda group: group.get(SELECTED, (math.inf,))[0])


def described(rows: list[Row], means: list[Row], axes: list[str]) -> str:
    """How many jobs ended how, the table of means, and why jobs did not finish, in Markdown."""
    states = Counter(row["status"] for row in rows)
    parts = [f"{len(rows)} jobs: {', '.join(f'{n} {state}' for state, n in states.items())}."]
    if means:
        ranked = sum(SELECTED in group for group in means)
        order = f"best first, by {SELECTED}" if ranked else "no validation split: nothing is selected"
        if 0 < ranked < len(means):
            order += "; the last ones have no validation split and are not ranked"
        cells = [{key: as_text(group[key]) for key in [*axes, "n", *SHOWN] if key in group} for group in means]
        parts += [f"Mean ± sd over the n finished runs of each setting; {order}.", terminal.table(cells)]
    troubled = [row for row in rows if row["reason"]]
    reasons = [f"- {row['job']}: `{row['overrides']}`: {row['status']}, {row['reason']}" for row in troubled]
    return "\n\n".join([*parts, *["Not finished:", "\n".join(reasons)] * bool(reasons)])


def as_text(value: Any) -> str:
    mean_sd = value if isinstance(value, tuple) else ()
    return " ± ".join(f"{each:.4f}" for each in mean_sd if each is not None) or str(value)


def chart(means: list[Row], axes: list[str], metric: str) -> Figure:
    """Mean and sd of a metric at the values of the first axis: a line, or one for each value of the second."""
    names = sorted({group[axes[0]] for group in means}, key=by_size)
    lines: dict[str, list[tuple]] = {}
    for group in sorted(means, key=lambda group: [by_size(group[key]) for key in reversed(axes)]):
        (mean, sd), label = group[metric], " ".join(f"{key}={group[key]}" for key in axes[1:])
        lines.setdefault(label, []).append((names.index(group[axes[0]]), mean, sd or 0.0))
    panel = figure(5.6, 3.6)
    ax = panel.subplots()
    ax.set_prop_cycle(color=CYCLE)
    ax.set_xticks(range(len(names)), names)
    for label, points in lines.items():
        ax.errorbar(*zip(*points, strict=True), label=label, marker="o", linestyle=":", capsize=3)
    if len(axes) > 1:
        ax.legend()
    several = any(group["n"] > 1 for group in means)
    ax.set_title("mean and standard deviation over the runs" if several else "one run each")
    ax.set(xlabel=axes[0], ylabel=metric)
    ax.grid(alpha=0.3)
    return panel


def by_size(value: str) -> tuple[float, str]:
    """Key that sorts numbers by size, and whatever is none after them."""
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value
