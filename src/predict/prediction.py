"""Predictions of a run, for test images or for pictures of the user's.

With the costs of mistakes, also the answer of least expected cost.
"""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

import torch
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig
from pydantic import BeforeValidator, Field
from torch import Tensor

from src import files
from src.charts import COLOURS, save, short, visible
from src.charts.images import BLACK, WRONG, gallery, square
from src.cli.console import pasteable
from src.cli.options import Options, checked
from src.data.module import SplitDataModule
from src.errors import UserError
from src.maths import functional as F
from src.models.regression import Regression
from src.predict.inputs import find, passed_over
from src.predict.pictures import decode
from src.predict.preparation import pair, prepare
from src.runs import Run, write_csv
from src.runs.build import restore
from src.training.testing import Tested, measure

log = logging.getLogger(__name__)


class Prediction(Options):
    run: str
    checkpoint: Literal["best", "last"]
    inputs: Annotated[str, Field(min_length=1)] | None
    invert: Annotated[
        Literal["auto", "true", "false"], BeforeValidator(lambda value: str(value).lower())
    ]
    first: Annotated[int, Field(ge=1, le=300)]
    decision: dict[Literal["costs"], str | None]
    data: dict[Literal["root"], str | None]


def predict(cfg: DictConfig, folder: Path) -> None:
    """Write predictions into `folder`. Raises UserError for what cannot be read, after all else."""
    options = checked(Prediction, cfg)
    paths = {} if options.inputs is None else find(options.inputs)
    run = Run(options.run)
    checkpoint = getattr(run, options.checkpoint)
    settings = run.settings()
    data, model = restore(settings, checkpoint, options.data.get("root"), within=run.path)
    if not model.classifies or data.classes is None:
        raise UserError(f"run {run.path} is no classifier; predict needs one")
    if paths and data.resize is None:
        raise UserError(
            f"run {run.path} takes no pictures, as its data have no `resize`; leave inputs out"
        )
    file = options.decision.get("costs")
    costs = read_costs(Path(file), data.classes) if file else None
    if not paths:
        of_split = measure(model, data, settings, "cpu")
        rows, figures = predict_test_images(of_split, data, costs, options.first)
        write_predictions(folder, rows, figures)
        return

    if line := passed_over(options.inputs):
        log.warning(line)
    seen = prepare_all(paths, data.resize, options.invert)
    unread = len(paths) - len(seen)
    failed = f"{unread} of {len(paths)} pictures could not be read; the lines above say why"
    if not seen:
        raise UserError(failed)
    rows = predict_pictures(model, data, seen, costs)
    shown = rows[: options.first]
    pairs = [pair(decode(paths[row["file"]]), seen[row["file"]]) for row in shown]
    write_predictions(folder, rows, {"inputs": chart(shown, torch.stack(pairs), data.classes)})
    if unread:
        raise UserError(failed)


def prepare_all(paths: dict[str, Path], side: int, invert: str) -> dict[str, Tensor]:
    """Name -> the picture as the model sees it, of those that can be read.

    The log says why the others cannot.
    """
    seen = {}
    for name, path in paths.items():
        try:
            seen[name] = prepare(decode(path), side, invert)
        except UserError as reason:
            log.error("cannot read %s: %s", name, reason)
    return seen


def predict_pictures(
    model: Regression, data: SplitDataModule, seen: dict[str, Tensor], costs: Tensor | None
) -> list[dict[str, Any]]:
    """The rows of predictions.csv for pictures of the user's."""
    X = data.inputs(torch.stack([*seen.values()]), model.dtype)
    with torch.inference_mode():
        p = F.softmax(model(X))
    return tabulate({"file": [*seen]}, p, data.classes, costs)


def predict_test_images(
    tested: Tested, data: SplitDataModule, costs: Tensor | None, most: int
) -> tuple[list[dict[str, Any]], dict[str, Figure]]:
    """The rows of predictions.csv for the test images; with costs a figure of `most` decisions."""
    metrics, logits, y = tested
    log.info("accuracy %.4f on %d test images", metrics["test/acc"], len(y))
    examples = {"image": range(len(y)), "true": [data.classes[label] for label in y]}
    rows = tabulate(examples, F.softmax(logits), data.classes, costs)
    figures = {} if costs is None else decisions(rows, costs, data, most)
    return rows, figures


def write_predictions(folder: Path, rows: list[dict[str, Any]], figures: dict[str, Figure]) -> None:
    """Write predictions.csv and the figures, and say so."""
    write_csv(folder / "predictions.csv", rows)
    for name, drawn in figures.items():
        save(drawn, folder / f"{name}.png")
    written = sorted(path.name for path in folder.glob("*") if path.suffix != ".log")
    log.info("written to %s/: %s", pasteable(folder), " ".join(written))


def tabulate(
    examples: dict[str, Sequence], p: Tensor, classes: list[str], costs: Tensor | None
) -> list[dict[str, Any]]:
    """The rows of predictions.csv for probabilities p (n, q).

    A row has its part of `examples`, the likeliest class, with costs the answer of least cost, and
    the probability of each class.
    """
    columns = dict(examples)
    columns["predicted"] = [classes[label] for label in p.argmax(dim=1)]
    if costs is not None:
        columns["answer"] = [classes[label] for label in F.expected_cost(p, costs).argmin(dim=1)]
    columns |= zip(classes, p.double().round(decimals=6).T.tolist(), strict=True)
    rows = []
    for values in zip(*columns.values(), strict=True):
        rows.append(dict(zip(columns, values, strict=True)))
    return rows


def read_costs(path: Path, classes: list[str]) -> Tensor:
    """Costs (q, q) of each answer (column) for each true class (row).

    The CSV file begins with true,CLASS,... Raises UserError if it has not all classes, or others.
    """
    try:
        costs = _parse_costs(files.read(path, 1 << 20), classes)
    except (UserError, csv.Error, TypeError, ValueError) as error:
        raise UserError(
            f"decision.costs {path} is no CSV file of costs: {error}; see conf/costs"
        ) from error
    return costs


def _parse_costs(text: str, classes: list[str]) -> Tensor:
    rows: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(text.splitlines()):
        rows[row.pop("true", None)] = row
    if absent := ", ".join(name for name in classes if name not in rows.get(name, {})):
        raise ValueError(f"it has no row or no column for {absent}")
    names = {**rows, **rows[classes[0]]}
    if others := ", ".join(str(name) for name in names if name not in classes):
        raise ValueError(f"it names {others}, which is no class")
    costs = []
    for name in classes:
        costs.append([float(rows[name][answer]) for answer in classes])
    matrix = torch.tensor(costs)
    if not matrix.isfinite().all():
        raise ValueError("every cost must be a finite number")
    return matrix


def chart(rows: list[dict[str, Any]], pairs: Tensor, classes: list[str]) -> Figure:
    """Each row's `pair` above its file, its three likeliest classes and its answer."""
    captions = []
    for row in rows:
        likeliest = sorted(classes, key=row.get, reverse=True)[:3]
        odds = [f"{name} {row[name]:.2f}" for name in likeliest]
        answer = [f"answer {row['answer']}"] if "answer" in row else []
        log.info("%s: %s", row["file"], "; ".join([", ".join(odds), *answer]))
        lines = [(short(visible(row["file"]), 30), COLOURS["train"])]
        lines += [(text, BLACK) for text in odds]
        lines += [(text, COLOURS["test"]) for text in answer]
        captions.append(lines)
    return gallery(pairs, captions, "your picture, what the model sees, likeliest classes")


def decisions(
    rows: list[dict[str, Any]], costs: Tensor, data: SplitDataModule, most: int
) -> dict[str, Figure]:
    """A figure of the first `most` test images whose two answers differ, if there are any.

    The log says what each way to answer costs.
    """
    labels = {name: label for label, name in enumerate(data.classes)}
    rules = {"predicted": "the likeliest class    ", "answer": "the least expected cost"}
    for column, rule in rules.items():
        paid = [costs[labels[row["true"]], labels[row[column]]].item() for row in rows]
        log.info("answering %s costs %.4f an image", rule, fmean(paid))
    differ = [i for i, row in enumerate(rows) if row["answer"] != row["predicted"]]
    log.info("the answers differ on %d of %d images", len(differ), len(rows))
    if not differ:
        return {}
    X, _ = data.split_examples("test", torch.tensor(differ[:most]))
    colours = {"true": BLACK, "predicted": WRONG, "answer": COLOURS["train"]}
    captions = []
    for i in differ[:most]:
        captions.append([(rows[i][name], colour) for name, colour in colours.items()])
    title = "true class, likeliest (red), answer of least expected cost (blue)"
    return {"decisions": gallery(1 - square(X), captions, title)}


def main(cfg: DictConfig) -> None:
    predict(cfg, Path(HydraConfig.get().runtime.output_dir))
