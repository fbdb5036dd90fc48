"""Curves of one run and of several, epoch by epoch."""

from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from src.charts import COLOURS, CYCLE, figure

PANELS = {
    "loss": ("train/loss", "val/loss", "test/loss"),
    "accuracy": ("train/acc", "val/acc", "test/acc"),
    "error of the estimates": ("error/w", "error/b"),
}


def panels(names: Iterable[str], height: float, scale: str = "linear") -> tuple[Figure, dict[Axes, list[str]]]:
    """A figure with an empty panel for each kind of metric that `names` has, and the metrics of each panel."""
    found = {title: [name for name in known if name in names] for title, known in PANELS.items()}
    found = {title: metrics for title, metrics in found.items() if metrics}
    panel = figure(4.6 * len(found), height)
    axes = panel.subplots(1, len(found), squeeze=False)[0]
    for ax, title in zip(axes, found, strict=True):
        scales = {"loss": scale, "accuracy": "linear"}
        ax.set(title=title, xlabel="epoch", yscale=scales.get(title, "log"))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(alpha=0.3)
    return panel, dict(zip(axes, found.values(), strict=True))


def curves(rows: Sequence[dict[str, float]], scale: str = "linear") -> Figure:
    """Loss, and accuracy or the errors of the parameters, against the epoch; the learning rate in grey.

    Args:
        rows: one dict per epoch: epoch, lr, train/loss, ... What only some have (test/loss of the epoch that
            was tested) is drawn where it is.
        scale: of the loss axis, "linear" or "log".
    """
    panel, metrics = panels({name for row in rows for name in row}, 3.4, scale)
    for ax, names in metrics.items():
        for name in names:
            stage, _, parameter = name.partition("/")
            label, colour = stage, COLOURS.get(stage)
            if stage == "error":
                label, colour = parameter, COLOURS["train" if parameter == "w" else "val"]
            points = [(row["epoch"], row[name]) for row in rows if name in row]
            style = "D" if len(points) < len(rows) else ".-" if len(rows) < 30 else "-"
            ax.plot(*zip(*points, strict=True), style, label=label, color=colour)
        ax.legend(edgecolor="none")
    ax = next(iter(metrics))
    rate = ax.twinx()
    rate.plot(
        [row["epoch"] for row in rows], [row["lr"] for row in rows], ":", color=COLOURS["lr"], linewidth=1
    )
    rate.set_ylabel("learning rate", color=COLOURS["lr"])
    rate.tick_params(colors=COLOURS["lr"])
    rate.set_ylim(bottom=0)
    ax.set_zorder(1)  # the legend above the dots
    ax.patch.set_visible(False)
    return panel


def compared(runs: dict[str, Sequence[dict[str, float]]]) -> Figure:
    """Loss, and accuracy or the errors of the parameters, of several runs against the epoch, a colour for each.

    What a run was watched by (validation, or the test set without it) is solid, training dotted; of the errors,
    that of w is solid, that of b dotted.
    """
    panel, metrics = panels({name for rows in runs.values() for name in rows[0]}, 3.6 + 0.22 * len(runs))
    for ax, names in metrics.items():
        for colour, rows in zip(CYCLE, runs.values(), strict=False):
            for name in names:
                points = [(row["epoch"], row[name]) for row in rows if name in row]
                style = {"linestyle": ":" if name.startswith("train") or name == "error/b" else "-"}
                style["marker"] = "." if len(points) == 1 else None
                ax.plot(*zip(*points, strict=True), **style, color=colour, label=name)
    handles = [Line2D([], [], color=colour, label=name) for colour, name in zip(CYCLE, runs, strict=False)]
    errors = ["error/w", "error/b"] in metrics.values()
    meaning = ("w", "b") if errors else ("validation, or test without it", "training")
    for style, label in zip("-:", meaning, strict=True):
        handles.append(Line2D([], [], color="black", linestyle=style, label=label))
    panel.legend(handles=handles, loc="outside lower left", frameon=False, ncols=2)
    return panel
