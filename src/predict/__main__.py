"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]

Of the test images, or of one's own pictures; decision.costs=FILE adds the answer of least expected cost.
"""

import csv
import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import BeforeValidator, Field
from torch import Tensor

from src import files, terminal
from src.charts import COLOURS, save
from src.charts.images import BLACK, WRONG, first_and_misclassified, gallery, predictions, square
from src.data.module import SplitDataModule
from src.errors import UserError
from src.maths import functional as F
from src.predict.chart import chart
from src.predict.pictures import Picture, decode, find, prepare
from src.runs import Run, restore, write, write_csv
from src.runs.config import Options, Places, checked
from src.training.figures import outputs

log = logging.getLogger(__name__)

Costs = tuple[Tensor, list[str]]  # (q, a), names of the a answers; they need not be classes


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
    checkpoint = run.best if options.checkpoint == "best" else run.last
    data, model = restore(run.recorded(), checkpoint, options.data.given())
    if not model.classifies:
        raise UserError(f"run {run.path} is no classifier; predict needs one")
    if paths and data.resize is None:
        raise UserError(f"run {run.path} takes no pictures, as its data have no `resize`; leave inputs out")
    file = options.decision.get("costs")
    costs = read_costs(Path(file), data.classes) if file else None
    pictures = read(paths, data.resize, options)
    if pictures:
        X, _ = data.on_after_batch_transfer([torch.stack([picture.seen for picture in pictures]), None], 0)
        with torch.inference_mode():
            p = F.softmax(model(X))
        answers = write_tables({"file": [picture.name for picture in pictures]}, p, data.classes, costs, folder)
        for i, picture in enumerate(pictures[: options.first]):
            odds = ", ".join(f"{data.classes[k]} {p[i, k]:.2f}" for k in p[i].topk(3).indices)
            log.info("%s: %s%s", picture.name, odds, f"; answer {answers[i]}" if answers else "")
        save(chart(pictures[: options.first], p, data.classes, answers), folder / "inputs.png")
    elif not paths:
        data.prepare_data()
        data.setup()
        of_test_images(*outputs(model, data), data, costs, options.first, folder)
    if written := sorted(path.name for path in folder.glob("*") if path.suffix != ".log"):
        log.info("written to %s/: %s", terminal.relative(folder), " ".join(written))
    if unread := len(paths) - len(pictures):
        raise UserError(f"{unread} of {len(paths)} pictures could not be read; the lines above say why")


def read_costs(path: Path, classes: list[str]) -> Costs:
    """Costs from a CSV file: true,ANSWER,... then one row for each class."""
    try:
        rows = {row.pop("true", None): row for row in csv.DictReader(files.read(path, 1 << 20).splitlines())}
        if absent := ", ".join(name for name in classes if name not in rows):
            raise ValueError(f"it has no row for {absent}")
        answers = list(rows[classes[0]])
        costs = torch.tensor([[float(rows[name][answer]) for answer in answers] for name in classes])
        if not answers or not costs.isfinite().all():
            raise ValueError("every cost must be a finite number")
    except (UserError, csv.Error, TypeError, ValueError) as error:
        raise UserError(f"decision.costs {path} is no CSV file of costs: {error}; see conf/costs") from error
    return costs, answers


def read(paths: dict[str, Path], side: int, options: Prediction) -> list[Picture]:
    """Those of the pictures that can be read; the log says why the others cannot."""
    pictures = []
    for name, path in paths.items():
        try:
            given = decode(path)
            seen, steps = prepare(given, side, options.invert)
        except UserError as reason:
            log.error("cannot read %s: %s", name, reason)
        else:  # only the first are drawn as they were given: thousands of photos would fill the memory
            pictures.append(Picture(name, given if len(pictures) < options.first else None, seen, steps))
    return pictures


def of_test_images(
    logits: Tensor, y: Tensor, data: SplitDataModule, costs: Costs | None, first: int, folder: Path
) -> None:
    p, classes = F.softmax(logits), data.classes
    write_tables({"image": range(len(y)), "true": [classes[k] for k in y]}, p, classes, costs, folder)
    for name, which in first_and_misclassified(y, p.argmax(dim=1), first).items():
        X, _ = data.split_examples("test", which)
        drawing = predictions(X, y[which], p[which].argmax(dim=1), classes, f"{name} test images")
        save(drawing, folder / f"{name}.png")
    log.info("accuracy %.4f on %d test images", F.accuracy(p, y), len(y))
    if costs:
        decide(p, y, data, costs, first, folder)


def write_tables(
    heads: dict[str, Any], p: Tensor, classes: list[str], costs: Costs | None, folder: Path
) -> list[str] | None:
    """Write predictions.csv and .jsonl; return the answers of least expected cost, if there are costs."""
    heads["predicted"] = [classes[k] for k in p.argmax(dim=1)]
    if costs:
        heads["answer"] = [costs[1][k] for k in F.expected_cost(p, costs[0]).argmin(dim=1)]
    rows, lines = [], []
    for *head, values in zip(*heads.values(), p.tolist(), strict=True):
        row = dict(zip(heads, head, strict=True))
        odds = {name: round(value, 6) for name, value in zip(classes, values, strict=True)}
        rows.append(row | {name: f"{value:.6f}" for name, value in odds.items()})
        lines.append(json.dumps(row | {"probabilities": odds}) + "\n")
    write_csv(folder / "predictions.csv", rows)
    write(folder / "predictions.jsonl", "".join(lines))
    return heads.get("answer")


def decide(p: Tensor, y: Tensor, data: SplitDataModule, costs: Costs, first: int, folder: Path) -> None:
    """Log what answers of least expected cost save; draw where they differ from the likeliest class."""
    prices, answers = costs
    if not set(data.classes) <= set(answers):
        raise UserError("decision.costs: every class must be a possible answer (a column) too")
    likeliest = torch.tensor([answers.index(name) for name in data.classes])[p.argmax(dim=1)]
    cheapest = F.expected_cost(p, prices).argmin(dim=1)
    for rule, answer in {"likeliest class": likeliest, "least expected cost": cheapest}.items():
        log.info("answering the %-20s costs %.4f an image", rule, prices[y, answer].mean())
    differ = (cheapest != likeliest).nonzero()[:, 0]
    log.info("the answers differ on %d of %d images", len(differ), len(y))
    saved = (prices[y, likeliest] - prices[y, cheapest])[differ]
    differ = differ[saved.argsort(descending=True, stable=True)][:first]
    captions = [
        [(data.classes[true], BLACK), (answers[i], WRONG), (answers[j], COLOURS["train"])]
        for true, i, j in zip(y[differ], likeliest[differ], cheapest[differ], strict=True)
    ]
    if captions:
        title = "true class, likeliest class (red), answer of least expected cost (blue)"
        save(
            gallery(square(data.split_examples("test", differ)[0]), captions, 6, title),
            folder / "decisions.png",
        )


@hydra.main(version_base="1.3", config_path="../../conf", config_name="predict")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    predict(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    terminal.run(main)
