"""Curves of one run and of several, epoch by epoch."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from src.charts import COLOURS, CYCLE, figure

STEPS = [1, 2, 2.5, 5, 10]  # between ticks


def curves(rows: Sequence[dict[str, float]], scale: str = "linear") -> Figure:
    """Loss, and accuracy or the errors of the parameters, against the epoch; the learning rate in grey.

    It is drawn while a model trains and so has to be quick: everything has a fixed place, as finding good
    ones takes twice as long as drawing.

    Args:
        rows: one dict per epoch: epoch, lr, train/loss, ... What only some have (test/loss of the epoch that
            was tested) is drawn where it is.
        scale: of the loss axis, "linear" or "log".
    """
    names = sorted(dict.fromkeys(name for row in rows for name in row), key=_stage)
    others = [name for name in ("acc", "error") if any(name in key.split("/") for key in names)]
    width, height, left, right, bottom, top = 4.6 * (1 + len(others)), 3.4, 0.75, 0.2, 0.55, 0.35  # inches
    panel = Figure(figsize=(width, height), dpi=100, facecolor="white")
    panel.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, wspace=0.5)
    axes = panel.subplots(1, 1 + len(others), squeeze=False)[0]
    for ax, name in zip(axes, ["loss", *others], strict=True):
        for key in names:
            if name not in key.split("/"):
                continue
            stage, _, _ = key.partition("/")
            label = stage if name != "error" else f"error of {key.partition('/')[2]}"
            colour = COLOURS.get(stage, COLOURS["train" if key.endswith("w") else "val"])
            points = [(row["epoch"], row[key]) for row in rows if key in row]
            style = {"marker": "." if len(rows) < 30 else None}
            if len(points) < len(rows):
                style = {"marker": "D", "markersize": 5, "linestyle": "none"}
            ax.plot(*zip(*points, strict=True), label=label, color=colour, **style)
        ax.set_title({"acc": "accuracy", "error": "error of the estimates"}.get(name, name), y=1.0)
        ax.set_xlabel("epoch")
        ax.xaxis.set_label_coords(0.5, -0.36 / (height - bottom - top))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(alpha=0.3)
        if name == "error" or (name == "loss" and scale == "log"):
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        else:
            ax.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
            ax.ticklabel_format(axis="y", scilimits=(-3, 4))
        if name != "acc":  # the colours are those of the loss
            ax.legend(edgecolor="none", framealpha=0.8)
    _learning_rate(axes[0], rows)
    return panel


def _stage(name: str) -> int:
    """Key that sorts metrics as the stages follow each other."""
    stages = [*COLOURS, name.partition("/")[0]]
    return stages.index(stages[-1])


def compared(runs: dict[str, Sequence[dict[str, float]]]) -> Figure:
    """Loss, and accuracy or the errors of the parameters, of several runs against the epoch, a colour for each.

    What a run was watched by (validation, or the test set without it) is solid, training dotted; of the errors,
    that of w is solid, that of b dotted.
    """
    names = {name for rows in runs.values() for name in rows[0]}
    lines = {"loss": ("val/loss", "test/loss", "train/loss"), "accuracy": ("val/acc", "test/acc", "train/acc")}
    lines["error of the estimates"] = ("error/w", "error/b")
    lines = {title: [key for key in keys if key in names] for title, keys in lines.items()}
    lines = {title: keys for title, keys in lines.items() if keys}
    panel = figure(4.2 * len(lines), 3.6 + 0.22 * len(runs))
    for ax, (title, keys) in zip(panel.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True):
        for colour, rows in zip(CYCLE, runs.values(), strict=False):
            for key in keys:
                points = [(row["epoch"], row[key]) for row in rows if key in row]
                dotted = key.startswith("train") or key == "error/b"
                style = {"color": colour, "linestyle": ":" if dotted else "-", "label": key}
                ax.plot(*zip(*points, strict=True), **style, marker="." if len(points) == 1 else None)
        ax.set(title=title, xlabel="epoch", yscale="log" if title.startswith("error") else "linear")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.grid(alpha=0.3)
    solid = [Line2D([], [], color=colour, label=name) for colour, name in zip(CYCLE, runs, strict=False)]
    kinds = [("black", "-", "w"), ("black", ":", "b")] if "error/w" in names else []
    kinds = kinds or [("black", "-", "validation, or test without it"), ("black", ":", "training")]
    styles = [Line2D([], [], color=colour, linestyle=style, label=text) for colour, style, text in kinds]
    panel.legend(handles=[*solid, *styles], loc="outside lower left", frameon=False, ncols=2)
    return panel


def _learning_rate(ax: Axes, rows: Sequence[dict[str, float]]) -> None:
    right = ax.twinx()
    right.plot(
        [row["epoch"] for row in rows],
        [row["lr"] for row in rows],
        color=COLOURS["lr"],
        linestyle=":",
        linewidth=1,
    )
    right.set_ylabel("learning rate", color=COLOURS["lr"])
    right.yaxis.set_label_coords(1.17, 0.5)
    right.tick_params(colors=COLOURS["lr"])
    right.set_ylim(bottom=0)
    right.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    right.ticklabel_format(axis="y", scilimits=(-3, 4))
    ax.set_zorder(1)  # the legend above the dots
    ax.patch.set_visible(False)
