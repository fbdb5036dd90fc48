"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]

Of the test images, or of one's own pictures; decision.costs=FILE adds the answer of least expected cost.
"""

import csv
import logging
from pathlib import Path
from typing import Annotated, Literal

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from omegaconf import DictConfig
from pydantic import BeforeValidator, Field
from torch import Tensor

from src import files, terminal
from src.charts import COLOURS, save
from src.charts.images import BLACK, WRONG, gallery, predictions, square
from src.data.module import SplitDataModule
from src.errors import UserError
from src.maths import functional as F
from src.predict.pictures import decode, find, prepare
from src.runs import Run, restore, write_csv
from src.runs.config import Options, Places, checked
from src.training.figures import outputs

log = logging.getLogger(__name__)

Costs = tuple[Tensor, list[str]]  # (q, a), names of the a answers: the q classes, and others if there are


class Prediction(Options):
    run: str
    checkpoint: Literal["best", "last"]
    inputs: str | None
    invert: Annotated[Literal["auto", "true", "false"], BeforeValidator(lambda value: str(value).lower())]
    first: Annotated[int, Field(ge=1, le=300)]
    decision: dict[Literal["costs"], str | None]
    data: Places


def predict(cfg: DictConfig, folder: Path) -> None:
    """Write predictions into `folder`.

    Raises UserError for what cannot be used; if that is some of the pictures, the others are predicted first.
    """
    options = checked(Prediction, cfg)
    paths = {} if options.inputs is None else find(options.inputs)
    run = Run(options.run)
    data, model = restore(run.recorded(), getattr(run, options.checkpoint), options.data.given())
    if not model.classifies:
        raise UserError(f"run {run.path} is no classifier; predict needs one")
    if paths and data.resize is None:
        raise UserError(f"run {run.path} takes no pictures, as its data have no `resize`; leave inputs out")
    file = options.decision.get("costs")
    costs = read_costs(Path(file), data.classes) if file else None
    seen = read(paths, data.resize, options.invert)
    if seen:
        X, _ = data.on_after_batch_transfer([torch.stack([*seen.values()]), None], 0)
        with torch.inference_mode():
            p = F.softmax(model(X))
        answers = write_predictions({"file": [*seen]}, p, data.classes, costs, folder)
        shown = {name: paths[name] for name in [*seen][: options.first]}
        for i, name in enumerate(shown):
            odds = ", ".join(f"{data.classes[k]} {p[i, k]:.2f}" for k in p[i].topk(3).indices)
            log.info("%s: %s%s", name, odds, f"; answer {answers[i]}" if answers else "")
        save(chart(shown, seen, p, data.classes, answers), folder / "inputs.png")
    elif not paths:
        data.prepare_data()
        data.setup()
        of_test_images(*outputs(model, data), data, costs, options.first, folder)
    if written := sorted(path.name for path in folder.glob("*") if path.suffix != ".log"):
        log.info("written to %s/: %s", terminal.relative(folder), " ".join(written))
    if unread := len(paths) - len(seen):
        raise UserError(f"{unread} of {len(paths)} pictures could not be read; the lines above say why")


def read_costs(path: Path, classes: list[str]) -> Costs:
    """Costs from a CSV file: true,ANSWER,... then one row for each class. Every class must be an answer too."""
    try:
        rows = {row.pop("true", None): row for row in csv.DictReader(files.read(path, 1 << 20).splitlines())}
        if absent := ", ".join(name for name in classes if name not in rows.get(name, {})):
            raise ValueError(f"it has no row or no column for {absent}")
        answers = list(dict.fromkeys([*classes, *rows[classes[0]]]))
        costs = torch.tensor([[float(rows[name][answer]) for answer in answers] for name in classes])
        if not costs.isfinite().all():
            raise ValueError("every cost must be a finite number")
    except (UserError, csv.Error, TypeError, ValueError) as error:
        raise UserError(f"decision.costs {path} is no CSV file of costs: {error}; see conf/costs") from error
    return costs, answers


def read(paths: dict[str, Path], side: int, invert: str) -> dict[str, Tensor]:
    """What the model sees of those pictures that can be read; the log says why the others cannot."""
    seen = {}
    for name, path in paths.items():
        try:
            seen[name] = prepare(decode(path), side, invert)
        except UserError as reason:
            log.error("cannot read %s: %s", name, reason)
    return seen


def write_predictions(
    examples: dict[str, list], p: Tensor, classes: list[str], costs: Costs | None, folder: Path
) -> list[str] | None:
    """Write predictions.csv; return the answers of least expected cost, if there are costs."""
    columns = {**examples, "predicted": [classes[k] for k in p.argmax(dim=1)]}
    if costs:
        columns["answer"] = [costs[1][k] for k in F.expected_cost(p, costs[0]).argmin(dim=1)]
    columns |= zip(classes, p.double().round(decimals=6).T.tolist(), strict=True)
    rows = zip(*columns.values(), strict=True)
    write_csv(folder / "predictions.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    return columns.get("answer")


def of_test_images(
    logits: Tensor, y: Tensor, data: SplitDataModule, costs: Costs | None, first: int, folder: Path
) -> None:
    p, classes = F.softmax(logits), data.classes
    likeliest = p.argmax(dim=1)
    write_predictions({"image": [*range(len(y))], "true": [classes[k] for k in y]}, p, classes, costs, folder)
    for name, picture in predictions(data, y, likeliest, first).items():
        save(picture, folder / f"{name}.png")
    log.info("accuracy %.4f on %d test images", F.accuracy(p, y), len(y))
    if not costs:
        return
    prices, answers = costs
    cheapest = F.expected_cost(p, prices).argmin(dim=1)
    paid, least = prices[y, likeliest], prices[y, cheapest]
    log.info("answering the likeliest class     costs %.4f an image", paid.mean())
    log.info("answering the least expected cost costs %.4f an image", least.mean())
    differ = (cheapest != likeliest).nonzero()[:, 0]
    log.info("the answers differ on %d of %d images", len(differ), len(y))
    shown = differ[(paid - least)[differ].argsort(descending=True, stable=True)][:first]
    captions = [
        [(classes[true], BLACK), (classes[i], WRONG), (answers[j], COLOURS["train"])]
        for true, i, j in zip(y[shown], likeliest[shown], cheapest[shown], strict=True)
    ]
    if captions:
        title = "true class, likeliest class (red), answer of least expected cost (blue)"
        save(gallery(square(data.split_examples("test", shown)[0]), captions, title), folder / "decisions.png")


def chart(
    paths: dict[str, Path], seen: dict[str, Tensor], p: Tensor, classes: list[str], answers: list[str] | None
) -> Figure:
    """Of each path: the picture, what the model has seen of it, its three likeliest classes by p (n, q)."""
    columns = min(3, len(paths))
    rows = -(-len(paths) // columns)
    width, height = 4.6 * columns, 1.9 * rows + 0.3  # inches
    panel = Figure(figsize=(width, height), dpi=100, facecolor="white")
    panel.subplots_adjust(0.2 / width, 0.3 / height, 1 - 0.2 / width, 1 - 0.65 / height, 0.12, 0.45)
    panel.suptitle("your picture, what the model sees, likeliest classes", y=1 - 0.1 / height, fontsize=9)
    glyphs = get_font(findfont(FontProperties(family="monospace"))).get_charmap()
    axes = panel.subplots(rows, 3 * columns, squeeze=False).reshape(-1, 3)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for i, (name, path) in enumerate(paths.items()):
        given, small, odds = axes[i]
        title = "".join(each if ord(each) in glyphs else "\N{WHITE SQUARE}" for each in name)
        title = title if len(title) <= 60 else f"{title[:29]}\N{HORIZONTAL ELLIPSIS}{title[-30:]}"
        given.set_title(title, loc="left", family="monospace", fontsize=8, parse_math=False)
        given.imshow(decode(path))
        given.set_adjustable("datalim")  # the name stands at the same height over each
        small.imshow(seen[name][0].numpy(), cmap="gray", vmin=0, vmax=255)
        likeliest = p[i].topk(3)
        odds.barh(range(3), likeliest.values.numpy(), color=COLOURS["train"], alpha=0.4)
        odds.set(xlim=(0, 1.15), ylim=(2.5, -0.5))
        for rank, (value, k) in enumerate(zip(*likeliest, strict=True)):
            odds.text(0.02, rank, f"{value:.2f} {classes[k]}", fontsize=8, va="center")
        if answers:
            odds.set_xlabel(f"answer: {answers[i]}", fontsize=8, color=COLOURS["test"])
    return panel


@hydra.main(version_base="1.3", config_path="../../conf", config_name="predict")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    predict(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    terminal.run(main)
