"""The summary of a sweep, written into its folder: a table, a page and a picture."""

import contextlib
import shlex
from pathlib import Path

from matplotlib.figure import Figure

from src.charts import CYCLE, figure, literal, save, scale
from src.cli.console import pasteable
from src.errors import printable
from src.runs import write, write_csv
from src.sweeps.answer import SELECTED, Row, answer, groups, without_seed
from src.sweeps.sweep import Sweep
from src.tables import markdown

MOST_POINTS = 500  # in a picture
LARGEST = 1e100  # value of an axis to scale; matplotlib computes with the margins around it
Positions = dict[str, float]  # value of an axis -> its position there


def summarize(path: Path) -> tuple[list[Row], str]:
    """Write summary.csv, summary.md and, for one or two axes, summary.png.

    Returns the rows, and a text to print.
    """
    sweep = Sweep(path)
    rows = sweep.rows()
    means = groups(rows, sweep.axes)
    text = answer(rows, means)
    picture = sweep.path / "summary.png"
    drawn = draw(means, sweep.axes, picture)

    command = printable(shlex.join(["python", "-m", "src.train", "-m", *sweep.command]))
    # Four spaces make code of a line.
    page = [f"# {markdown(sweep.path.name)}", f"    {command}", text]
    files = "summary.csv .md"
    if drawn:
        page.append(f"![summary]({picture.name})")
        files += " .png"
    write_csv(sweep.path / "summary.csv", rows)
    write(sweep.path / "summary.md", printable("\n\n".join(page) + "\n", keep="\n"))
    return rows, f"{text}\n\nwritten to {pasteable(sweep.path)}/: {files}"


def summarize_members(members: list[Row], picture: Path) -> str:
    """The answer of a grid, whose members count as the jobs of a sweep; draws it as the file."""
    from src.models.grid import AXES  # torch

    rows = []
    for number, member in enumerate(members):
        overrides = " ".join(f"model.{key}={member[key]}" for key in AXES)
        row = {"job": number, "overrides": overrides, "status": "finished", "reason": ""}
        rows.append(row | member)
    axes = []
    for key in AXES:
        values = {row[key] for row in rows}
        if len(values) > 1:
            axes.append(key)
    means = groups(rows, axes)
    draw(means, axes, picture)
    return answer(rows, means)


# --- the picture ----------------------------------------------------------------------------------


def draw(means: list[Row], axes: list[str], path: Path) -> bool:
    """Draw the means as the file `path`, if they have one or two axes, seeds aside.

    Returns whether they have.
    """
    axes = without_seed(axes)
    means = [group for group in means if SELECTED in group]
    drawable = 1 <= len(axes) <= 2 and 1 <= len(means) <= MOST_POINTS
    if drawable:
        save(chart(means, axes), path)
    return drawable


def chart(means: list[Row], axes: list[str]) -> Figure:
    """Mean and sd of val/loss over the first axis: a line, or one for each value of the second."""
    positions = {}
    for key in axes:
        positions[key] = positions_of([str(group[key]) for group in means])
    first = positions[axes[0]]
    names = [literal(value) for value in first]
    upright = len("".join(names)) > 40  # side by side they would overlap
    height = 3.6 + 0.08 * upright * max(map(len, names))
    ax = figure(4.6 + len(axes), height).subplots()
    ax.set_prop_cycle(color=CYCLE)
    ax.set_xscale(scale(first.values()))
    ax.set_xticks([*first.values()], names, rotation=90 * upright)
    ax.minorticks_off()
    lines, labels = [], []
    for label, points in points_of_lines(means, axes, positions).items():
        x, mean, sd = zip(*points, strict=True)
        lines.append(ax.errorbar(x, mean, sd, marker="o", linestyle=":", capsize=3))
        labels.append(literal(label))
    if len(axes) > 1:
        # The legend is given its labels: it leaves out a line whose own label begins with _.
        title = literal(axes[1])
        ax.figure.legend(lines, labels, loc="outside right upper", title=title, frameon=False)
    averaged = any(group["n"] > 1 for group in means)
    runs = "mean ± sd over the runs" if averaged else "one run each"
    ax.set(title=f"validation loss, {runs}", xlabel=literal(axes[0]), ylabel=SELECTED)
    ax.grid(alpha=0.3)
    return ax.figure


def positions_of(values: list[str]) -> Positions:
    """The positions of the values of an axis.

    Numbers stand in their order, to scale if all are above 0; other values one step apart, in the
    order in which they come.
    """
    with contextlib.suppress(ValueError):
        values = sorted(values, key=float)
        if all(1 / LARGEST < float(value) < LARGEST for value in values):
            return dict(zip(values, map(float, values), strict=True))
    positions: Positions = {}
    for value in values:
        positions.setdefault(value, len(positions))
    return positions


def points_of_lines(
    means: list[Row], axes: list[str], positions: dict[str, Positions]
) -> dict[str, list[tuple[float, float, float]]]:
    """The points (position, mean, sd) of each line: value of the second axis -> points, in order.

    With one axis there is one line, whose value is empty.
    """

    def order(group: Row) -> list[float]:
        return [positions[key][str(group[key])] for key in reversed(axes)]

    lines: dict[str, list[tuple[float, float, float]]] = {}
    for group in sorted(means, key=order):
        value = str(group[axes[1]]) if len(axes) > 1 else ""
        mean, *sd = group[SELECTED]
        point = (positions[axes[0]][str(group[axes[0]])], mean, sum(sd))
        lines.setdefault(value, []).append(point)
    return lines
