"""Curves of one run and of several, epoch by epoch."""

from collections.abc import Iterator, Sequence
from itertools import chain, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from src.charts import CYCLE, figure, logarithmic, scale

PANELS = {  # title -> metrics
    "loss": ("train/loss", "val/loss", "test/loss"),
    "accuracy": ("train/acc", "val/acc", "test/acc"),
    "error of the estimates": ("error/w", "error/b"),
    "learning rate": ("lr",),
}
Rows = Sequence[dict[str, float]]  # one dict per epoch: epoch, lr, train/loss, ...
# number of the run, position in its panel, name, epochs, values
Line = tuple[int, int, str, Sequence[float], Sequence[float]]


def shown(rows: Rows) -> bool:
    """Whether the rows have a metric that a panel shows."""
    names = {*chain.from_iterable(PANELS.values())}
    return any(not names.isdisjoint(row) for row in rows)


def panels(runs: Sequence[Rows], height: float) -> Iterator[tuple[Axes, list[Line]]]:
    """The panels of a new figure, and the lines of each.

    There is one for each kind of metric that the runs have.
    """
    found: dict[str, list[Line]] = {}
    for title, metrics in PANELS.items():
        for (run, rows), (k, name) in product(enumerate(runs), enumerate(metrics)):
            if points := [(row["epoch"], row[name]) for row in rows if name in row]:
                found.setdefault(title, []).append((run, k, name, *zip(*points, strict=True)))
    panel = figure(3.8 * len(found), height)
    for ax, (title, lines) in zip(
        panel.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        drawn = [*chain.from_iterable(values for *_, values in lines)]
        scales = {"loss": scale(drawn), "accuracy": "linear"}
        ax.set(xlabel="epoch", yscale=scales.get(title, logarithmic(drawn)))
        ax.set_title(title, loc="left")
        ax.locator_params(axis="x", nbins=5, integer=True, min_n_ticks=1)
        ax.grid(alpha=0.3)
        yield ax, lines


def curves(rows: Rows) -> Figure:
    """Loss, accuracy or the errors of the parameters, and the learning rate, against the epoch."""
    for ax, lines in panels([rows], 3.4):
        for _, k, name, epochs, values in lines:
            # a diamond for what one epoch alone has, the test of the best
            style = "D" if len(epochs) < len(rows) else ".-" if len(rows) < 30 else "-"
            label = name.removeprefix("error/").partition("/")[0]  # the stage, or the parameter
            ax.plot(epochs, values, style, label=label, color=CYCLE[k])
        # beside the title: within the axes it covers the lines of a short run
        ax.legend(
            loc="lower right", bbox_to_anchor=(1.03, 0.98), ncols=3, handlelength=1, frameon=False
        )
    return ax.figure


def compared(runs: dict[str, Rows]) -> Figure:
    """Curves of several runs, a colour for each.

    The legend says what is solid and what is dotted.
    """
    for ax, lines in panels([*runs.values()], 3.6 + 0.22 * len(runs)):
        for run, _, name, epochs, values in lines:
            style = ":" if name in ("train/loss", "train/acc", "error/b") else "-"
            marker = "." if len(epochs) == 1 else None
            ax.plot(epochs, values, style, marker=marker, color=CYCLE[run], label=name)
    errors = any("error" in each.get_title("left") for each in ax.figure.axes)
    solid, dotted = ("; error of w", "; error of b") if errors else ("", "")
    meaning = {"-": f"validation, or test without it{solid}", ":": f"training{dotted}"}
    handles = [
        Line2D([], [], color=colour, label=name) for colour, name in zip(CYCLE, runs, strict=False)
    ]
    handles += [
        Line2D([], [], color="black", ls=style, label=text) for style, text in meaning.items()
    ]
    ax.figure.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
    return ax.figure
