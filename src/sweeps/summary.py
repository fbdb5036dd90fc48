"""The answer of a sweep: means over seeds, a table and a picture, and why jobs did not finish."""

import contextlib
import math
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

from matplotlib.figure import Figure

from src.charts import CYCLE, figure, literal, save, scale
from src.cli.console import pasteable
from src.errors import printable
from src.runs import write, write_csv
from src.sweeps.sweep import SELECTED, Row, Sweep
from src.tables import markdown, table

MOST_POINTS = 500  # in a picture
LARGEST = 1e100  # value of an axis to scale; matplotlib computes with the margins around it
SHOWN = ("val/loss", "val/acc", "test/loss", "test/acc")  # in this order, where a run has them


def summarize(path: Path) -> tuple[list[Row], str]:
    """Write summary.csv, summary.md and, for one or two axes, summary.png; the rows, and a text to
    print."""
    sweep = Sweep(path)
    path, picture = sweep.path, sweep.path / "summary.png"
    rows = sweep.rows()
    text, files = answer(rows, sweep.axes, picture), "summary.csv .md"
    command = printable(shlex.join(["python", "-m", "src.train", "-m", *sweep.command]))
    page = [
        f"# {markdown(sweep.path.name)}",
        f"    {command}",
        text,
    ]  # four spaces make code of a line
    if picture.exists():
        page, files = [*page, f"![summary]({picture.name})"], f"{files} .png"
    write_csv(path / "summary.csv", rows)
    write(path / "summary.md", printable("\n\n".join(page) + "\n", keep="\n"))
    return rows, f"{text}\n\nwritten to {pasteable(path)}/: {files}"


class Spread(tuple[float, ...]):
    """(mean, sd of the sample) of several values; of one, (value,)."""

    def __new__(cls, values: list[float]):
        return super().__new__(cls, (fmean(values), stdev(values)) if len(values) > 1 else values)

    def __str__(self) -> str:
        return " ± ".join(f"{each:.4f}" for each in self)


def groups(rows: list[Row], axes: list[str], names: Sequence[str] = SHOWN) -> list[Row]:
    """The finished rows at each place on the axes, seeds aside, in the order of the jobs: place, n,
    Spreads."""
    places: dict[tuple, list[Row]] = {}
    for row in rows:
        place = tuple((key, row[key]) for key in axes if key != "seed")
        places.setdefault(place, []).extend([row] if row["status"] == "finished" else [])
    found = []
    for place, members in places.items():
        values = {name: [row[name] for row in members if name in row] for name in names}
        spreads = {
            name: Spread(each) for name, each in values.items() if len(each) == len(members) > 0
        }
        found += [{**dict(place), "n": len(members), **spreads}] if members else []
    return found


def answer(rows: list[Row], axes: list[str], picture: Path | None = None) -> str:
    """How many jobs ended how, the table of means, and why jobs did not finish, in Markdown.

    The means are drawn as the file `picture`, if a picture can show them: over one or two axes,
    seeds aside.
    """
    states = Counter(row["status"] for row in rows)
    parts = [f"{len(rows)} jobs: {', '.join(f'{n} {state}' for state, n in states.items())}."]
    if means := groups(rows, axes):
        order = f"Best first by {SELECTED}; without a validation split nothing is selected."
        ranked = sorted(means, key=lambda group: group.get(SELECTED, (math.inf,)))
        parts += [f"Mean ± sd over the n finished runs of each setting. {order}", table(ranked)]
    if troubled := [row for row in rows if row["reason"]]:
        lines = [f"{row['overrides']}: {row['status']}, {row['reason']}" for row in troubled]
        numbered = [
            f"- {row['job']}: {markdown(line)}" for row, line in zip(troubled, lines, strict=True)
        ]
        parts += ["Not finished:", "\n".join(numbered)]
    axes, drawn = (
        [key for key in axes if key != "seed"],
        [group for group in means if SELECTED in group],
    )
    if picture and drawn and 1 <= len(axes) <= 2 and len(drawn) <= MOST_POINTS:
        save(chart(drawn, axes), picture)
    return "\n\n".join(parts)


def places(texts: list[str]) -> dict[str, float]:
    """Where the values of an axis stand: numbers in order, to scale if all are above 0; others as
    they come."""
    with contextlib.suppress(ValueError):
        texts = sorted(texts, key=float)
        if all(1 / LARGEST < float(text) < LARGEST for text in texts):
            return {text: float(text) for text in texts}
    return {text: k for k, text in enumerate(dict.fromkeys(texts))}


def chart(means: list[Row], axes: list[str]) -> Figure:
    """Mean and sd of val/loss at the values of the first axis: a line, or one for each value of the
    second."""
    means = [group | {key: str(group[key]) for key in axes} for group in means]
    at = {key: places([group[key] for group in means]) for key in axes}
    lines: dict[str, list[tuple]] = {}
    for group in sorted(means, key=lambda group: [at[key][group[key]] for key in reversed(axes)]):
        (mean, *sd), label = group[SELECTED], "".join(group[key] for key in axes[1:])
        lines.setdefault(label, []).append((at[axes[0]][group[axes[0]]], mean, sum(sd)))
    names, x = zip(*((literal(name), place) for name, place in at[axes[0]].items()), strict=True)
    upright = len("".join(names)) > 40
    ax = figure(4.6 + len(axes), 3.6 + 0.08 * upright * max(map(len, names))).subplots()
    ax.set_prop_cycle(color=CYCLE)
    ax.set_xscale(scale(x))
    ax.set_xticks(x, names, rotation=90 * upright)
    ax.minorticks_off()
    drawn = []
    for points in lines.values():
        drawn.append(ax.errorbar(*zip(*points, strict=True), marker="o", linestyle=":", capsize=3))
    if len(axes) > 1:  # the labels are given here: those of lines are left out if they begin with _
        ax.figure.legend(
            drawn,
            [literal(label) for label in lines],
            loc="outside right upper",
            title=literal(axes[1]),
            frameon=False,
        )
    what = "mean ± sd over the runs" if any(group["n"] > 1 for group in means) else "one run each"
    ax.set(title=f"validation loss, {what}", xlabel=literal(axes[0]), ylabel=SELECTED)
    ax.grid(alpha=0.3)
    return ax.figure


def summarize_members(members: list[Row], picture: Path) -> str:
    """The answer of a grid, whose members count as the jobs of a sweep."""
    from src.models.grid import AXES  # torch

    rows = []
    for number, member in enumerate(members):
        overrides = " ".join([f"model.{key}={member[key]}" for key in AXES])
        row = {"job": number, "overrides": overrides, "status": "finished", "reason": ""}
        rows.append(row | member)
    axes = []
    for key in AXES:
        values = {row[key] for row in rows}
        if len(values) > 1:
            axes.append(key)
    return answer(rows, axes, picture)
