"""Curves of one run and of several, epoch by epoch."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from src.charts import CYCLE, figure, scale

PANELS = {  # title -> metrics
    "loss": ("train/loss", "val/loss", "test/loss"),
    "accuracy": ("train/acc", "val/acc", "test/acc"),
    "error of the estimates": ("error/w", "error/b"),
    "learning rate": ("lr",),
}
Rows = Sequence[dict[str, float]]  # one dict per epoch: epoch, lr, train/loss, ...


def panels(runs: Sequence[Rows], height: float) -> Figure:
    """A figure with an empty panel for each kind of metric that the runs have."""
    losses = (row[name] for rows in runs for row in rows for name in PANELS["loss"] if name in row)
    scales = {"loss": scale(losses), "accuracy": "linear"}
    names = {name for rows in runs for row in rows for name in row}
    found = [title for title, metrics in PANELS.items() if names.intersection(metrics)]
    panel = figure(3.8 * len(found), height)
    for ax, title in zip(panel.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        ax.set(xlabel="epoch", yscale=scales.get(title, "log"))
        ax.set_title(title, loc="left")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        ax.grid(alpha=0.3)
    return panel


def points(rows: Rows, ax: Axes) -> Iterator[tuple[int, str, tuple[tuple[float, ...], ...]]]:
    """Place, name, (epochs, values) of the metrics of this panel, as far as the run has them."""
    for k, name in enumerate(PANELS[ax.get_title("left")]):
        if found := [(row["epoch"], row[name]) for row in rows if name in row]:
            yield k, name, tuple(zip(*found, strict=True))


def curves(rows: Rows) -> Figure:
    """Loss, accuracy or the errors of the parameters, and the learning rate, against the epoch.

    What one epoch alone has (test/loss) is drawn there.
    """
    panel = panels([rows], 3.4)
    for ax in panel.axes:
        for k, name, (epochs, values) in points(rows, ax):
            style = "D" if len(epochs) < len(rows) else ".-" if len(rows) < 30 else "-"
            label = name.removeprefix("error/").partition("/")[0]  # the stage, or the parameter
            ax.plot(epochs, values, style, label=label, color=CYCLE[k])
        # beside the title: within the axes it covers the lines of a short run
        ax.legend(loc="lower right", bbox_to_anchor=(1.03, 0.98), ncols=3, handlelength=1, frameon=False)
    return panel


def compared(runs: dict[str, Rows]) -> Figure:
    """The same of several runs, a colour for each.

    Solid: what watched the run (validation, or the test set without it), the error of w. Dotted: training, b.
    """
    panel = panels([*runs.values()], 3.6 + 0.22 * len(runs))
    for ax in panel.axes:
        for colour, rows in zip(CYCLE, runs.values(), strict=False):
            for _, name, (epochs, values) in points(rows, ax):
                style = ":" if name in ("train/loss", "train/acc", "error/b") else "-"
                marker = "." if len(epochs) == 1 else None
                ax.plot(epochs, values, style, marker=marker, color=colour, label=name)
    errors = any("error" in ax.get_title("left") for ax in panel.axes)
    solid, dotted = ("; error of w", "; error of b") if errors else ("", "")
    meaning = {"-": f"validation, or test without it{solid}", ":": f"training{dotted}"}
    handles = [Line2D([], [], color=colour, label=name) for colour, name in zip(CYCLE, runs, strict=False)]
    handles += [Line2D([], [], color="black", ls=style, label=text) for style, text in meaning.items()]
    panel.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
    return panel
