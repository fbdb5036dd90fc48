"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]

They are those of the test images, or of one's own pictures. The answer is the most probable class or, with a
file of costs (decision.costs=FILE), the one whose expected cost is least.
"""

import csv
import json
import logging
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from omegaconf import DictConfig
from pydantic import BeforeValidator, Field
from torch import Tensor

from src import files, images, terminal
from src.charts import COLOURS, save
from src.charts.images import BLACK, WRONG, first_and_misclassified, gallery, predictions, square
from src.data.module import SplitDataModule
from src.errors import UserError
from src.maths import functional as F
from src.runs import Run, restore, write, write_csv
from src.runs.config import Options, Places, checked
from src.training.figures import outputs

log = logging.getLogger(__name__)

COSTS_BYTES = 1 << 20


class Decision(Options):
    costs: str | None


class Prediction(Options):
    """The options of the command; conf/predict.yaml says what they mean."""

    run: str
    checkpoint: Literal["best", "last"]
    inputs: str | None
    invert: Annotated[Literal["auto", "true", "false"], BeforeValidator(lambda value: str(value).lower())]
    first: Annotated[int, Field(ge=1, le=300)]
    decision: Decision
    data: Places


Costs = tuple[Tensor, list[str]]  # (q, a), names of the a answers


def read_costs(path: Path, classes: list[str]) -> Costs:
    """(costs (q, a), names of the a answers) from a CSV file: true,ANSWER,... then one row for each class.

    Answers need not be classes: a column "ask" with a constant cost is a way to decline.

    Raises UserError if a class has no row, or a cost is no finite number.
    """
    try:
        lines = files.read(path, COSTS_BYTES).splitlines()
        rows = {row.pop("true", None): row for row in csv.DictReader(lines)}
    except (UserError, csv.Error) as error:
        raise UserError(f"decision.costs {path} is no CSV file in UTF-8: {error}") from error
    if absent := [name for name in classes if name not in rows]:
        raise UserError(
            f"decision.costs {path} has no row for {', '.join(absent)}; see conf/costs for the form"
        )
    answers = list(rows[classes[0]])
    try:
        costs = torch.tensor([[float(rows[name][answer]) for answer in answers] for name in classes])
    except (TypeError, ValueError) as error:
        raise UserError(f"decision.costs {path}: a cost is not a number ({error})") from error
    if not answers or not all(map(math.isfinite, costs.flatten().tolist())):
        raise UserError(f"decision.costs {path}: every cost must be a finite number")
    return costs, answers


class Predicted(NamedTuple):
    """What a model says of images."""

    p: Tensor  # (n, q), probabilities
    classes: list[str]
    answers: list[str] | None  # (n,), of least expected cost, if costs are given

    @property
    def likeliest(self) -> Tensor:
        return self.p.argmax(dim=1)


def predict(cfg: DictConfig, folder: Path) -> None:
    """Write predictions into `folder`.

    Raises UserError if cfg.run is no run of a classifier, or the costs or some pictures cannot be read. In the
    last case the other pictures are predicted first.
    """
    options = checked(Prediction, cfg)
    paths = None if options.inputs is None else images.find(options.inputs)
    run = Run(options.run)
    checkpoint = run.best if options.checkpoint == "best" else run.last
    data, model = restore(run.recorded(), checkpoint, options.data.given())
    if not model.classifies:
        raise UserError(f"run {run.path} is no classifier; predict needs one")
    costs = read_costs(Path(options.decision.costs), data.classes) if options.decision.costs else None
    refused = 0
    if paths is None:
        data.prepare_data()
        data.setup()
        logits, y = outputs(model, data)
        predicted = judged(logits, data.classes, costs)
        report(data, predicted, y, options.first, folder)
        if costs:
            decide(data, predicted, y, costs, options.first, folder)
    else:
        if data.resize is None:
            raise UserError(
                f"the data of run {run.path} cannot be had from files of pictures; leave inputs out, or give "
                f"{type(data).__name__} `resize`, the side in pixels of the grey images that it takes"
            )
        pictures = read(paths, data.resize, options.invert, options.first)
        refused = len(paths) - len(pictures)
        if pictures:
            X, _ = data.on_after_batch_transfer([torch.stack([picture.seen for picture in pictures]), None], 0)
            with torch.inference_mode():
                predicted = judged(model(X), data.classes, costs)
            show(predicted, pictures, options.first, folder)
    written = " ".join(sorted(path.name for path in [*folder.glob("predictions.*"), *folder.glob("*.png")]))
    if written:
        log.info("written to %s/: %s", terminal.relative(folder), written)
    if refused:
        raise UserError(f"{refused} of {len(paths)} pictures could not be read; the lines above say why")


def judged(logits: Tensor, classes: list[str], costs: Costs | None) -> Predicted:
    """The probabilities that logits (n, q) mean, and the answers that they suggest."""
    p = F.softmax(logits)
    if costs is None:
        return Predicted(p, classes, None)
    matrix, names = costs
    return Predicted(p, classes, [names[k] for k in F.expected_cost(p, matrix).argmin(dim=1)])


def write_tables(predicted: Predicted, heads: list[dict[str, Any]], folder: Path) -> None:
    """predictions.csv and .jsonl: head, class, answer if there are costs, and probabilities of each image."""
    p, classes, answers = predicted
    rows, lines = [], []
    for i, (head, guess, values) in enumerate(
        zip(heads, predicted.likeliest.tolist(), p.tolist(), strict=True)
    ):
        row = {**head, "predicted": classes[guess], **({"answer": answers[i]} if answers else {})}
        odds = dict(zip(classes, (round(value, 6) for value in values), strict=True))
        rows.append({**row, **{name: f"{value:.6f}" for name, value in odds.items()}})
        lines.append(json.dumps({**row, "probabilities": odds}) + "\n")
    write_csv(folder / "predictions.csv", rows)
    write(folder / "predictions.jsonl", "".join(lines))


def read(paths: dict[str, Path], side: int, invert: str, first: int) -> list[images.Picture]:
    """Those of the pictures that can be read; the log says why the others cannot."""
    pictures = []
    for name, path in paths.items():
        try:
            picture = images.load(name, path, side, invert)
        except images.Unreadable as reason:
            log.error("cannot read %s: %s", name, reason)
            continue
        # only the first are drawn as they were given: thousands of photos would fill the memory
        pictures.append(picture if len(pictures) < first else picture._replace(given=None))
    return pictures


def show(predicted: Predicted, pictures: list[images.Picture], first: int, folder: Path) -> None:
    """Write the tables and the picture of the user's pictures; say what the first ones are."""
    write_tables(predicted, [{"file": picture.name} for picture in pictures], folder)
    p, classes, answers = predicted
    for i, picture in enumerate(pictures[:first]):
        odds = ", ".join(f"{classes[k]} {p[i, k]:.2f}" for k in p[i].topk(3).indices)
        log.info("%s: %s%s", picture.name, odds, f"; answer {answers[i]}" if answers else "")
    drawing = chart(pictures[:first], p[:first], classes, answers)
    save(drawing, folder / "inputs.png")


def report(data: SplitDataModule, predicted: Predicted, y: Tensor, first: int, folder: Path) -> None:
    """Write the tables and the pictures of the test images; say the accuracy."""
    p, classes, _ = predicted
    y_hat = predicted.likeliest
    write_tables(predicted, [{"image": i, "true": classes[true]} for i, true in enumerate(y.tolist())], folder)
    for name, which in first_and_misclassified(y, y_hat, first).items():
        title = f"{name} test images"
        X, _ = data.whole("test", which)
        drawing = predictions(X, y[which], y_hat[which], classes, title)
        save(drawing, folder / f"{name}.png")
    log.info("accuracy %.4f on %d test images", F.accuracy(p, y), len(y))


def decide(
    data: SplitDataModule, predicted: Predicted, y: Tensor, priced: Costs, first: int, folder: Path
) -> None:
    """Say what the answers of least expected cost save, and show where they differ from the likeliest class."""
    p, classes, _ = predicted
    costs, answers = priced
    if not set(classes) <= set(answers):
        raise UserError("decision.costs: every class must be a possible answer (a column) too")
    likeliest = torch.tensor([answers.index(name) for name in classes])[predicted.likeliest]
    cheapest = F.expected_cost(p, costs).argmin(dim=1)
    for rule, answer in {"likeliest class": likeliest, "least expected cost": cheapest}.items():
        log.info("answering the %-20s costs %.4f an image", rule, costs[y, answer].mean())
    saved = costs[y, likeliest] - costs[y, cheapest]
    differ = (cheapest != likeliest).nonzero()[:, 0]
    log.info("the answers differ on %d of %d images", len(differ), len(y))
    if len(differ) == 0:
        return
    differ = differ[saved[differ].argsort(descending=True, stable=True)][:first]
    i = differ[0].item()
    odds = ", ".join(f"P({classes[k]}) = {p[i, k]:.2f}" for k in p[i].topk(3).indices)
    said = classes[y[i]], odds, answers[likeliest[i]], answers[cheapest[i]]
    log.info("image %d, in truth %s: %s; the likeliest class is %s, the cheapest answer %s", i, *said)
    colours = BLACK, WRONG, COLOURS["train"]
    captions = [
        list(zip((classes[y[k]], answers[likeliest[k]], answers[cheapest[k]]), colours, strict=True))
        for k in differ.tolist()
    ]
    title = "true class, likeliest class (red), answer of least expected cost (blue)"
    X, _ = data.whole("test", differ)
    save(gallery(square(X), captions, 6, title), folder / "decisions.png")


def chart(
    pictures: Sequence[images.Picture], p: Tensor, classes: Sequence[str], answers: Sequence[str] | None = None
) -> Figure:
    """Of each picture: as it was given, what the model sees, and the three likeliest classes.

    Args:
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


@hydra.main(version_base="1.3", config_path="../conf", config_name="predict")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    predict(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    terminal.run(main)
