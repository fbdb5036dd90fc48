"""The answer of a sweep in words: the means over seeds as a table, and why jobs did not finish."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from src.tables import markdown, table

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
SHOWN = ("val/loss", "val/acc", "test/loss", "test/acc")  # in this order, where a run has them
Row = dict[str, Any]


class Spread(tuple[float, ...]):
    """(mean, sd of the sample) of several values, or (value,) of one."""

    def __new__(cls, values: list[float]):
        if len(values) > 1:
            values = [fmean(values), stdev(values)]
        return super().__new__(cls, values)

    def __str__(self) -> str:
        return " ± ".join(f"{number:.4f}" for number in self)


def groups(rows: list[Row], axes: list[str], names: Sequence[str] = SHOWN) -> list[Row]:
    """A row for each setting that has finished runs, seeds aside, in the order of the jobs.

    It has the setting, the number n of its finished runs, and a Spread under each of the `names`
    that all of them have.
    """
    keys = without_seed(axes)
    finished: dict[tuple, list[Row]] = {}
    for row in rows:
        setting = tuple(row[key] for key in keys)
        # A setting keeps its place in the order even if its first job has failed.
        runs = finished.setdefault(setting, [])
        if row["status"] == "finished":
            runs.append(row)
    means = []
    for setting, runs in finished.items():
        if not runs:
            continue
        group: Row = dict(zip(keys, setting, strict=True))
        group["n"] = len(runs)
        for name in names:
            values = [run[name] for run in runs if name in run]
            if len(values) == len(runs):
                group[name] = Spread(values)
        means.append(group)
    return means


def without_seed(axes: list[str]) -> list[str]:
    return [key for key in axes if key != "seed"]


def answer(rows: list[Row], means: list[Row]) -> str:
    """How many jobs ended how, the table of means, and why jobs did not finish, in Markdown."""
    counts = Counter(row["status"] for row in rows)
    states = ", ".join(f"{n} {state}" for state, n in counts.items())
    parts = [f"{len(rows)} jobs: {states}."]
    if means:
        ranked = sorted(means, key=lambda group: group.get(SELECTED, (math.inf,)))
        order = f"Best first by {SELECTED}; without a validation split nothing is selected."
        parts.append(f"Mean ± sd over the n finished runs of each setting. {order}")
        parts.append(table(ranked))
    reasons = []
    for row in rows:
        if row["reason"]:
            reason = markdown(f"{row['overrides']}: {row['status']}, {row['reason']}")
            reasons.append(f"- {row['job']}: {reason}")
    if reasons:
        parts.append("Not finished:")
        parts.append("\n".join(reasons))
    return "\n\n".join(parts)
