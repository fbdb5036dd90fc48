"""Pictures: data in, matplotlib Figure out. When to draw them is for callbacks.py and the entry points.

Colours are Okabe and Ito's, told apart by the colour-blind; each line is labelled. Grids of images are
drawn as one picture: a grid of axes costs ten times as much.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

COLOURS = {"train": "#0072B2", "val": "#E69F00", "test": "#009E73", "lr": "#888888", "wrong": "#D55E00"}
GAP = 2  # pixels between the images of a grid, of 28


def figure(width: float, height: float) -> Figure:
    """An empty figure, width x height inches, that clips no label."""
    return Figure(figsize=(width, height), dpi=100, layout="constrained", facecolor="white")


def curves(rows: Sequence[dict[str, float]], scale: str = "linear") -> Figure:
    """Loss, and accuracy or the errors of the parameters, against the epoch; the learning rate in grey.

    Args:
        rows: one dict per epoch: epoch, lr, train/loss, ...
        scale: of the loss axis, "linear" or "log".
    """
    others = [name for name in ("acc", "error") if any(name in key for key in rows[0])]
    panel = figure(4.6 * (1 + len(others)), 3.4)
    axes = panel.subplots(1, 1 + len(others), squeeze=False)[0]
    epochs = [row["epoch"] for row in rows]
    for ax, name in zip(axes, ["loss", *others], strict=True):
        for key in rows[0]:
            if name not in key.split("/"):
                continue
            stage, _, _ = key.partition("/")
            label = stage if name != "error" else f"error of {key.partition('/')[2]}"
            colour = COLOURS.get(stage, COLOURS["train" if key.endswith("w") else "val"])
            marker = "." if len(rows) < 30 else None
            ax.plot(epochs, [row[key] for row in rows], label=label, color=colour, marker=marker)
        ax.set(xlabel="epoch", title={"acc": "accuracy", "error": "error of the estimates"}.get(name, name))
        ax.set_yscale("log" if name == "error" else scale if name == "loss" else "linear")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
        ax.legend(frameon=False)
    _learning_rate(axes[0], epochs, [row["lr"] for row in rows])
    return panel


def side_by_side(runs: dict[str, Sequence[dict[str, float]]]) -> Figure:
    """Loss and accuracy of several runs against the epoch, one column per run, on common scales."""
    panel = figure(4.4 * len(runs), 5.4)
    axes = panel.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False)
    for column, (title, rows) in zip(axes.T, runs.items(), strict=True):
        for ax, name in zip(column, ("loss", "acc"), strict=True):
            for stage in ("train", "val"):
                ax.plot(
                    [row["epoch"] for row in rows],
                    [row[f"{stage}/{name}"] for row in rows],
                    label=stage,
                    color=COLOURS[stage],
                )
            ax.grid(alpha=0.3)
        column[0].set_title(title)
        column[1].set_xlabel("epoch")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("accuracy")
    axes[0, 0].legend(frameon=False)
    return panel


def _learning_rate(ax: Axes, epochs: list[float], rates: list[float]) -> None:
    right = ax.twinx()
    right.plot(epochs, rates, color=COLOURS["lr"], linestyle=":", linewidth=1)
    right.set_ylabel("learning rate", color=COLOURS["lr"])
    right.tick_params(colors=COLOURS["lr"])
    right.set_ylim(bottom=0)


def image_grid(
    ax: Axes,
    images: Tensor,
    captions: Sequence[Sequence[tuple[str, str]]],
    *,
    columns: int,
    fill: float,
    **style,
):
    """Images (n, s, s) in rows of `columns`, each under its captions, lines of (text, colour); one imshow."""
    side = images.shape[-1]
    line = 0.27 * side
    head = int(line * len(captions[0])) + 2
    height, width = head + side + GAP, side + 2 * GAP
    canvas = np.full((-(-len(images) // columns) * height, columns * width), fill)
    for i, (image, lines) in enumerate(zip(images, captions, strict=True)):
        top, left = i // columns * height + head, i % columns * width + GAP
        canvas[top : top + side, left : left + side] = image.numpy()
        for k, (text, colour) in enumerate(reversed(lines)):
            x, y = left + side / 2, top - 2 - k * line
            ax.text(x, y, text, color=colour, ha="center", va="bottom", fontsize=9)
    ax.set_axis_off()
    return ax.imshow(canvas, **style)


def weight_images(W: Tensor, classes: Sequence[str]) -> Figure:
    """The columns of W (s * s, q) as images: red raises the logit of the class, blue lowers it."""
    side = int(len(W) ** 0.5)
    limit = W.abs().max().item()
    panel = figure(8, 3.8)
    ax = panel.subplots()
    captions = [[(name, "black")] for name in classes]
    style = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    shown = image_grid(ax, W.T.reshape(-1, side, side), captions, columns=5, fill=0.0, **style)
    panel.colorbar(shown, ax=ax, shrink=0.8, label="weight")
    return panel


def predictions(images: Tensor, y: Tensor, y_hat: Tensor, classes: Sequence[str], title: str) -> Figure:
    """Images (n, s, s) in [0, 1] with the true label over the predicted one, which is red where it is wrong."""
    captions = [
        [(classes[true], "black"), (classes[guess], "black" if true == guess else COLOURS["wrong"])]
        for true, guess in zip(y.tolist(), y_hat.tolist(), strict=True)
    ]
    return captioned(images, captions, f"{title}: true label over predicted label")


def first_and_misclassified(
    images: Tensor, y: Tensor, y_hat: Tensor, classes: Sequence[str], most: int
) -> dict[str, Figure]:
    """Two grids of at most `most` of the images (n, s, s): the first ones, and the first misclassified ones.

    There is no grid without images.
    """
    chosen = {"first": torch.arange(most), "misclassified": (y_hat != y).nonzero()[:most, 0]}
    return {
        name: predictions(images[which], y[which], y_hat[which], classes, f"{name} test images")
        for name, which in chosen.items()
        if len(which)
    }


def captioned(images: Tensor, captions: Sequence[Sequence[tuple[str, str]]], title: str) -> Figure:
    """Images (n, s, s) in [0, 1], dark on light, each under its captions, lines of (text, colour)."""
    columns = 9
    panel = figure(1.15 * columns, (1.2 + 0.27 * len(captions[0])) * -(-len(images) // columns) + 0.5)
    ax = panel.subplots()
    image_grid(ax, 1 - images, captions, columns=columns, fill=1.0, cmap="gray", vmin=0, vmax=1)
    ax.set_title(title, fontsize=10)
    return panel


def confusion(matrix: Tensor, classes: Sequence[str]) -> Figure:
    """Counts (q, q), row = true class, column = predicted class; coloured by the share of the true class."""
    share = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    panel = figure(7, 6.4)
    ax = panel.subplots()
    ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(*matrix.shape):
        if matrix[i, j]:
            colour = "white" if share[i, j] > 0.5 else "black"
            ax.text(j, i, f"{int(matrix[i, j])}", ha="center", va="center", color=colour, fontsize=8)
    ax.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="predicted", ylabel="true", title="test images: true class against predicted class")
    return panel


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
    """What a metric was at each setting of a sweep: a line for one axis, a heat map for two, else one line
    per setting across parallel axes.

    Args:
        means: `src.sweeps.groups`: for each setting its place on the axes, and (mean, sd) of each metric.
    """
    values = {key: sorted({row[key] for row in means}, key=_by_size) for key in axes}
    places = [[values[key].index(row[key]) for key in axes] for row in means]
    mean = np.array([row[metric][0] for row in means])
    sd = np.array([row[metric][1] or 0.0 for row in means])
    if len(axes) == 1:
        return _sweep_line(axes[0], values[axes[0]], [place for (place,) in places], mean, sd, metric)
    if len(axes) == 2:
        return _sweep_map(axes, values, places, mean, metric)
    return _sweep_parallel(axes, values, places, mean, metric)


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
    ax.set(xlabel=key, ylabel=metric, title="mean and standard deviation over the runs")
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
    ax.set(xlabel=across, ylabel=down, title=f"mean {metric}")
    panel.colorbar(shown, ax=ax)
    return panel


def _sweep_parallel(axes: Sequence[str], values: dict[str, list[str]], places, mean, metric: str) -> Figure:
    panel = figure(1.9 * (len(axes) + 1), 4)
    ax = panel.subplots()
    colours = ScalarMappable(Normalize(mean.min(), mean.max()), "cividis")
    heights = [np.linspace(0.02, 0.98, len(values[key])) if len(values[key]) > 1 else [0.5] for key in axes]
    for place, value in sorted(zip(places, mean.tolist(), strict=True), key=lambda pair: pair[1]):
        ax.plot([height[k] for height, k in zip(heights, place, strict=True)], color=colours.to_rgba(value))
    for x, (key, height) in enumerate(zip(axes, heights, strict=True)):
        ax.axvline(x, color=COLOURS["lr"], linewidth=1)
        for y, text in zip(height, values[key], strict=True):
            ax.text(x, y, f" {text}", va="center", fontsize=9, bbox={"facecolor": "white", "lw": 0, "pad": 1})
    ax.set_xticks(range(len(axes)), axes)
    ax.set_yticks([])
    ax.set_xlim(-0.2, len(axes) - 0.6)
    ax.spines[:].set_visible(False)
    panel.colorbar(colours, ax=ax, label=f"mean {metric}")
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
            ax.text(highest, place, f" {median:.3g}", va="center", fontsize=9)
        ax.set(xlabel=f"{unit}, median and range", xlim=(0, 1.15 * max(high for _, high in ends)))
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


def save(picture: Figure, path: Path) -> None:
    """Write the figure as PNG in one step: whoever looks meanwhile sees the old picture or the new."""
    canvas = FigureCanvasAgg(picture)
    canvas.draw()  # once; Figure.savefig draws everything twice
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    Image.fromarray(np.asarray(canvas.buffer_rgba())[:, :, :3]).save(part, "PNG", compress_level=1)
    part.replace(path)
