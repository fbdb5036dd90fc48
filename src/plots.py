"""Charts: data in, matplotlib Figure out. When to draw them is for src.training.figures and the commands.

Colours are Okabe and Ito's, told apart by the colour-blind; each line is labelled. Images are in sheets.py.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator
from PIL import Image
from torch import Tensor

from src.runs import replace
from src.sheets import Sheet

COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73", "lr": "#888888", "wrong": "#D55E00"}
# Okabe and Ito's eight, yellow replaced by grey: on white it is hardly seen
CYCLE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#888888"]
STEPS = [1, 2, 2.5, 5, 10]  # between ticks


def figure(width: float, height: float) -> Figure:
    """An empty figure, width x height inches, that clips no label."""
    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


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


def class_scores(scores: dict[str, Tensor], classes: Sequence[str]) -> Figure:
    """Scores in [0, 1], name -> (q,), as groups of bars, the class of the lowest last score first."""
    order = next(reversed(scores.values())).argsort().tolist()
    panel = figure(7.6, 3.8)
    ax = panel.subplots()
    width = 0.8 / len(scores)
    for k, (name, values) in enumerate(scores.items()):
        places = np.arange(len(classes)) + width * (k - (len(scores) - 1) / 2)
        ax.bar(places, values[order].numpy(), width, label=name, color=list(COLOURS.values())[k])
    ax.set_xticks(range(len(classes)), [classes[k] for k in order], rotation=30, ha="right")
    ax.set(ylim=(0, 1), title="test images, by class")
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, ncols=len(scores), loc="upper left", bbox_to_anchor=(0, -0.25))
    return panel


def calibration(confidence: Tensor, correct: Tensor, bins: int) -> Figure:
    """Accuracy against confidence in equal bins of [0, 1]; on the diagonal, 70 % sure means right in 70 %.

    Args:
        confidence: probability of the predicted class, (n,).
        correct: whether it is the true one, (n,).
    """
    confidence, correct = confidence.numpy(), correct.double().numpy()
    counts, edges = np.histogram(confidence, bins, range=(0, 1))
    used = counts > 0
    mean, share = (
        np.histogram(confidence, edges, weights=each)[0][used] / counts[used] for each in (confidence, correct)
    )
    panel = figure(4.8, 4.8)
    upper, lower = panel.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=COLOURS["lr"], linestyle=":", label="calibrated")
    upper.plot(mean, share, marker="o", color=COLOURS["train"], label="model")
    upper.set(ylabel="accuracy", ylim=(0, 1), title="how sure, and how often right")
    upper.legend(frameon=False)
    lower.bar(edges[:-1], counts, 1 / bins, align="edge", color=COLOURS["train"], edgecolor="white")
    lower.set(xlabel="probability of the predicted class", ylabel="test images", xlim=(0, 1))
    for ax in (upper, lower):
        ax.grid(alpha=0.3)
    return panel


def residuals(y_hat: Tensor, y: Tensor) -> Figure:
    """How far predictions y_hat (n, q) are from the targets y (n, q): against the prediction, and how often."""
    y_hat, rest = y_hat.flatten().numpy(), (y - y_hat).flatten().numpy()
    panel = figure(8, 3.4)
    left, right = panel.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    left.plot(y_hat, rest, ".", color=COLOURS["train"], markersize=3, alpha=0.5)
    left.axhline(0, color=COLOURS["lr"], linewidth=1)
    left.set(xlabel="prediction", ylabel="target - prediction", title="test examples")
    right.hist(rest, bins=30, orientation="horizontal", color=COLOURS["train"])
    right.set(xlabel="examples")
    for ax in (left, right):
        ax.grid(alpha=0.3)
    return panel


def fit(X: Tensor, y: Tensor, W: Tensor, b: Tensor, truth: tuple[Tensor, Tensor], most: int = 4) -> Figure:
    """Linear regression, one panel per feature j (the first `most`): y less what the other features explain,
    against x_j, with the fitted line and the true one.

    Args:
        X, y: examples, (n, d) and (n, 1).
        W, b, truth: fitted and true parameters, each (d, 1) and (1,).
    """
    shown = min(len(W), most)
    panel = figure(4.2 * shown, 3.6)
    axes = panel.subplots(1, shown, squeeze=False)[0]
    for j, ax in enumerate(axes):
        rest = y - X @ W + X[:, [j]] * W[j]  # (n, 1), the part left to feature j, and b
        ax.plot(
            X[:, j].numpy(),
            rest[:, 0].numpy(),
            ".",
            color=COLOURS["lr"],
            markersize=2,
            alpha=0.5,
            label="examples",
        )
        ends = np.array([X[:, j].min(), X[:, j].max()])
        slope, true_slope = W[j].item(), truth[0][j].item()
        ax.plot(ends, ends * true_slope + truth[1].item(), color=COLOURS["val"], linewidth=4, label="true")
        ax.plot(ends, ends * slope + b.item(), color=COLOURS["train"], label="fitted")
        ax.set(xlabel=f"x{j}", title=f"w{j} = {slope:.4f} (true {true_slope:g})")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("y without the other features")
    axes[0].legend(frameon=False)
    return panel


def sweep(means: Sequence[dict[str, Any]], axes: Sequence[str], metric: str) -> Figure:
    """What a metric was at each setting of a sweep: a line for one axis, a heat map for two.

    Args:
        means: `src.sweeps.groups`: for each setting its place on the axes, and (mean, sd) of each metric.
    """
    values = {key: sorted({row[key] for row in means}, key=_by_size) for key in axes}
    places = [[values[key].index(row[key]) for key in axes] for row in means]
    mean = np.array([row[metric][0] for row in means])
    if len(axes) == 2:
        return _sweep_map(axes, values, places, mean, metric)
    sd = np.array([row[metric][1] or 0.0 for row in means])
    panel = _sweep_line(axes[0], values[axes[0]], [place for (place,) in places], mean, sd, metric)
    several = any(row["n"] > 1 for row in means)
    panel.axes[0].set_title("mean and standard deviation over the runs" if several else "one run each")
    return panel


def _by_size(value: str) -> tuple[float, str]:
    """Key that sorts numbers by size, and whatever is none after them."""
    try:
        return float(value), ""
    except ValueError:
        return np.inf, value


def _sweep_line(key: str, values: list[str], places: list[int], mean, sd, metric: str) -> Figure:
    order = np.argsort(places)
    panel = figure(5.6, 3.6)
    ax = panel.subplots()
    x = [_by_size(value)[0] for value in values]
    numeric = np.isfinite(x).all()
    x = np.array(x) if numeric else np.arange(len(values))
    style = {"color": COLOURS["val"], "marker": "o", "capsize": 3}
    ax.errorbar(x[np.sort(places)], mean[order], yerr=sd[order], linestyle="-" if numeric else "none", **style)
    if numeric and x.min() > 0 and x.max() / x.min() >= 10:
        ax.set_xscale("log")
    if not numeric or len(values) < 9:
        ax.set_xticks(x, values)
        ax.minorticks_off()
    ax.set(xlabel=key, ylabel=metric)
    ax.grid(alpha=0.3)
    return panel


def _sweep_map(axes: Sequence[str], values: dict[str, list[str]], places, mean, metric: str) -> Figure:
    (down, across) = axes
    grid = np.full((len(values[down]), len(values[across])), np.nan)
    for (i, j), value in zip(places, mean, strict=True):
        grid[i, j] = value
    panel = figure(2.2 + 0.9 * grid.shape[1], 1.6 + 0.55 * grid.shape[0])
    ax = panel.subplots()
    shown = ax.imshow(grid, cmap="cividis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            ax.text(j, i, f"{value:.4f}", ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(range(len(values[across])), values[across])
    ax.set_yticks(range(len(values[down])), values[down])
    ax.set(xlabel=across, ylabel=down, title=metric)
    panel.colorbar(shown, ax=ax)
    return panel


def search_history(trials: Sequence[Any]) -> Figure:
    """The value of each trial of a search, the last one of a pruned trial, and the lowest so far.

    Args:
        trials: `optuna.trial.FrozenTrial`s.
    """
    finished = [(each.number, each.value) for each in trials if each.state.name == "COMPLETE"]
    pruned = [(each.number, each.value) for each in trials if each.state.name == "PRUNED" and each.value]
    numbers, found = zip(*finished, strict=True)
    panel = figure(6.4, 3.4)
    ax = panel.subplots()
    ax.plot(numbers, found, ".", color=COLOURS["lr"], markersize=8, label="finished")
    if pruned:
        ax.plot(*zip(*pruned, strict=True), "x", color=COLOURS["wrong"], markersize=4, label="pruned")
    ax.step(numbers, np.minimum.accumulate(found), where="post", color=COLOURS["train"], label="best so far")
    ax.set(xlabel="trial", ylabel="val/loss", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3, which="both")
    ax.legend(frameon=False)
    return panel


def importance(shares: dict[str, float]) -> Figure:
    """How much of the differences between trials each parameter explains: shares that sum to 1."""
    panel = figure(6.4, 1 + 0.4 * len(shares))
    ax = panel.subplots()
    names = sorted(shares, key=shares.get)
    bars = ax.barh(names, [shares[name] for name in names], color=COLOURS["train"])
    ax.bar_label(bars, [f"{shares[name]:.2f}" for name in names], padding=3)
    ax.set(xlabel="importance", xlim=(0, 1.12 * max(shares.values())))
    ax.spines[["top", "right"]].set_visible(False)
    return panel


def oscillation(rows: Sequence[dict[str, float]]) -> Figure:
    """Changes of the loss for each learning rate and decay, and the accuracy; see `src.oscillation.measure`."""
    panel = figure(10, 3.6)
    left, right = panel.subplots(1, 2, width_ratios=[3, 2])
    places = np.arange(len(rows))
    labels = [f"{row['lr']:g} x {row['gamma']:g}^t" for row in rows]
    kinds = {"within an epoch": "train", "at rest": "val", "between epochs": "wrong"}
    for k, (kind, colour) in enumerate(kinds.items()):
        heights = [row[kind] for row in rows]
        left.bar(places + 0.27 * (k - 1), heights, 0.27, color=COLOURS[colour], label=kind)
    left.set(yscale="log", ylabel="mean |change| of the loss", title="how much the loss moves")
    left.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    right.plot(places, [row["val/acc"] for row in rows], "o-", color=COLOURS["test"])
    right.set(ylabel="val/acc", title="and how good the model is")
    for ax in (left, right):
        ax.set_xticks(places, labels, rotation=40, ha="right")
        ax.grid(axis="y", alpha=0.3)
    return panel


def stability(rows: Sequence[Any]) -> Figure:
    """Share of the examples with inf or nan, probability 0, or a lost gradient, by logits and numerics.

    Args:
        rows: `src.stability.Outcome`s.
    """
    names = list(dict.fromkeys(row.logits for row in rows))
    panels = {"not_finite": "inf or nan", "underflow": "P(true class) = 0", "no_gradient": "gradient lost"}
    panel = figure(10.5, 3.2)
    axes = panel.subplots(1, len(panels), sharey=True)
    for ax, (field, title) in zip(axes, panels.items(), strict=True):
        for k, (kind, colour) in enumerate({"textbook": COLOURS["wrong"], "stable": COLOURS["train"]}.items()):
            shares = [getattr(row, field) for row in rows if row.numerics == kind]
            places = np.arange(len(names)) + 0.4 * (k - 0.5)
            ax.bar(places, shares, 0.38, color=colour, label=kind)
            for place, share in zip(places, shares, strict=True):
                ax.text(place, share + 0.02, f"{share:.0%}", ha="center", fontsize=8, color=colour)
        ax.set_xticks(range(len(names)), names)
        ax.set(title=title, xlabel="logits ~ N(0, 1)", ylim=(0, 1.15))
    axes[0].set_ylabel("share of the examples")
    axes[0].legend(frameon=False, loc="upper left")
    return panel


def classes(rows: Sequence[dict[str, Any]]) -> Figure:
    """Time and peak memory against the number of classes, one line per form; see `src.benchmark.classes`."""
    panel = figure(9.2, 3.4)
    units = {"milliseconds": "median time, ms", "megabytes": "peak memory, MB"}
    colours = {"torch": "black", "stable": "#0072B2", "textbook": "#D55E00", "closed_form": "#009E73"}
    for ax, (field, label) in zip(panel.subplots(1, 2), units.items(), strict=True):
        for form, colour in colours.items():
            points = [(row["classes"], row[field]) for row in rows if row["form"] == form]
            ax.loglog(*zip(*points, strict=True), marker="o", color=colour, label=form)
        ax.set(xlabel="classes", title=label)
        ax.grid(alpha=0.3)
    panel.axes[0].legend(frameon=False)
    return panel


def speed(measured: dict[str, Any]) -> Figure:
    """What contestants took: a panel for each unit, bars to the median, lines from the lowest to the highest.

    Args:
        measured: name -> `src.speed.Series`.
    """
    units = list(dict.fromkeys(series.unit for series in measured.values()))
    panel = figure(5.6 * len(units), 1.2 + 0.3 * len(measured))
    for ax, unit in zip(panel.subplots(1, len(units), squeeze=False)[0], units, strict=True):
        chosen = {name: series.values for name, series in measured.items() if series.unit == unit}
        medians = [float(np.median(values)) for values in chosen.values()]
        ends = [(min(values), max(values)) for values in chosen.values()]
        ax.barh(list(chosen), medians, color=COLOURS["train"], alpha=0.6)
        ax.hlines(list(chosen), *zip(*ends, strict=True), color="black")
        for place, (median, (_, highest)) in enumerate(zip(medians, ends, strict=True)):
            text = f"{median:.0f}" if median >= 100 else f"{median:.3g}"
            ax.text(highest, place, f" {text}", va="center", fontsize=9)
        ax.set(xlabel=f"{unit}, median and range", xlim=(0, 1.2 * max(high for _, high in ends)))
        ax.invert_yaxis()
    return panel


def pictures(
    pictures: Sequence[Any], p: Tensor, classes: Sequence[str], answers: Sequence[str] | None = None
) -> Figure:
    """Of each picture: as it was given, what the model sees, and the three likeliest classes.

    Args:
        pictures: `src.images.Picture`s.
        p: probabilities (n, q).
        answers: of least expected cost, one for each picture.
    """
    side, gap, top = 1.3, 0.15, 0.3  # inches, as are all coordinates
    places = [k * (side + gap) for k in range(3)]  # of what stands side by side for one picture
    columns = min(3, len(pictures))
    cell = places[-1] + side + 3 * gap, side + 0.6
    width = columns * cell[0] + gap
    explanation = textwrap.wrap(
        "Trimmed: only the object is kept, its longest edge brought to 28 pixels, in the middle of its ground, "
        "which is black if it is the darker of the two. Inverted: the model knows light objects on black.",
        width=int(width / 0.064),
    )
    height = top + -(-len(pictures) // columns) * cell[1] + 0.15 * len(explanation) + 0.2
    panel = Figure(figsize=(width, height), dpi=100, facecolor="white")
    ax = panel.add_axes((0, 0, 1, 1))
    small = {"fontsize": 8, "va": "top"}
    for i, picture in enumerate(pictures):
        left, upper = 2 * gap + i % columns * cell[0], height - top - i // columns * cell[1]
        given, seen, odds = (left + place for place in places)
        if i < columns:
            captions = "your picture", "what the model sees", "likeliest classes"
            for x, caption in zip((given, seen, odds), captions, strict=True):
                ax.text(x, height - 0.12, caption, color=COLOURS["train"], **small)
        ax.text(left, upper - 0.1, shortened(picture.name, 60), family="monospace", parse_math=False, **small)
        upper -= 0.3
        lower = upper - side
        w, h = (edge * side / max(picture.given.size) for edge in picture.given.size)
        x, y = given + (side - w) / 2, lower + (side - h) / 2
        ax.imshow(picture.given, extent=(x, x + w, y, y + h))
        ax.imshow(
            picture.seen[0].numpy(), extent=(seen, seen + side, lower, upper), cmap="gray", vmin=0, vmax=255
        )
        for x in (given, seen):
            ax.add_patch(Rectangle((x, lower), side, side, fill=False, color=COLOURS["lr"], linewidth=0.5))
        ax.text(seen, lower - 0.05, picture.steps, color=COLOURS["lr"], **{**small, "fontsize": 7})
        for rank, k in enumerate(p[i].topk(3).indices):
            y = upper - 0.4 * rank
            ax.text(odds, y, classes[k], **small)
            ax.text(odds + side, y, f"{p[i, k]:.2f}", ha="right", **small)
            for length, colour in (1, "#EEEEEE"), (p[i, k].item(), COLOURS["lr" if rank else "train"]):
                ax.add_patch(Rectangle((odds, y - 0.28), length * side, 0.1, color=colour, linewidth=0))
        if answers:
            ax.text(odds, lower + 0.1, f"answer: {answers[i]}", color=COLOURS["test"], **small)
    ax.text(2 * gap, 0.1, "\n".join(explanation), color=COLOURS["lr"], **{**small, "va": "bottom"})
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return panel


def shortened(name: str, most: int) -> str:
    """The name in at most `most` characters of the monospaced font, which writes what it lacks as a box."""
    known = get_font(findfont(FontProperties(family="monospace"))).get_charmap()
    name = "".join(character if ord(character) in known else "\N{WHITE SQUARE}" for character in name)
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def png(picture: Figure | Sheet) -> bytes:
    """The picture as the content of a PNG file."""
    if isinstance(picture, Sheet):
        pixels = picture.draw()
    else:
        canvas = FigureCanvasAgg(picture)
        canvas.draw()  # once; Figure.savefig draws everything twice
        pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", compress_level=1)
    return content.getvalue()


def save(picture: Figure | Sheet | bytes, path: Path) -> None:
    """Write the picture, or its PNG, in one step: whoever looks meanwhile sees the old picture or the new."""
    replace(path, picture if isinstance(picture, bytes) else png(picture))
