"""Predictions of a run, of test images or pictures of one's own, and answers of least expected
cost."""

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
from src.predict.pictures import decode, find, pair, passed_over, prepare
from src.runs import Run, write_csv
from src.runs.build import restore
from src.training.figures import outputs

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
    data, model = restore(run.settings(), checkpoint, options.data.get("root"), within=run.path)
    if not model.classifies or data.classes is None:
        raise UserError(f"run {run.path} is no classifier; predict needs one")
    if paths and data.resize is None:
        raise UserError(
            f"run {run.path} takes no pictures, as its data have no `resize`; leave inputs out"
        )
    file = options.decision.get("costs")
    costs = read_costs(Path(file), data.classes) if file else None
    if paths and (line := passed_over(options.inputs)):
        log.warning(line)
    # what the model sees of each picture that can be read; the log says why the others cannot
    seen = {}
    for name, path in paths.items():
        try:
            seen[name] = prepare(decode(path), data.resize, options.invert)
        except UserError as reason:
            log.error("cannot read %s: %s", name, reason)
    failed = (
        f"{len(paths) - len(seen)} of {len(paths)} pictures could not be read; "
        "the lines above say why"
    )
    if paths and not seen:
        raise UserError(failed)
    if seen:
        X = data.scale(torch.stack([*seen.values()]))
        with torch.inference_mode():
            rows = tabulate({"file": [*seen]}, F.softmax(model(X)), data.classes, costs)
        shown = rows[: options.first]
        pairs = [pair(decode(paths[row["file"]]), seen[row["file"]]) for row in shown]
        picture = {"inputs": chart(shown, torch.stack(pairs), data.classes)}
    else:
        data.prepare_data()
        data.setup("test")
        logits, y = outputs(model, data)
        log.info("accuracy %.4f on %d test images", F.accuracy(logits, y), len(y))
        examples = {"image": range(len(y)), "true": [data.classes[k] for k in y]}
        rows = tabulate(examples, F.softmax(logits), data.classes, costs)
        picture = {} if costs is None else decisions(rows, costs, data, options.first)
    write_csv(folder / "predictions.csv", rows)
    for name, drawn in picture.items():
        save(drawn, folder / f"{name}.png")
    written = sorted(path.name for path in folder.glob("*") if path.suffix != ".log")
    log.info("written to %s/: %s", pasteable(folder), " ".join(written))
    if len(seen) < len(paths):
        raise UserError(failed)


def tabulate(
    examples: dict[str, Sequence], p: Tensor, classes: list[str], costs: Tensor | None
) -> list[dict]:
    """The rows of predictions.csv: `examples`, the likeliest class, the answer of least cost, and p
    (n, q)."""
    columns = examples | {"predicted": [classes[k] for k in p.argmax(dim=1)]}
    if costs is not None:
        columns["answer"] = [classes[k] for k in F.expected_cost(p, costs).argmin(dim=1)]
    columns |= zip(classes, p.double().round(decimals=6).T.tolist(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def read_costs(path: Path, classes: list[str]) -> Tensor:
    """Costs (q, q) of each answer (column) for each true class (row), from a CSV file:
    true,CLASS,..."""
    try:
        rows = {
            row.pop("true", None): row
            for row in csv.DictReader(files.read(path, 1 << 20).splitlines())
        }
        if absent := ", ".join(name for name in classes if name not in rows.get(name, {})):
            raise ValueError(f"it has no row or no column for {absent}")
        if others := ", ".join(
            str(name) for name in {**rows, **rows[classes[0]]} if name not in classes
        ):
            raise ValueError(f"it names {others}, which is no class")
        costs = torch.tensor(
            [[float(rows[name][answer]) for answer in classes] for name in classes]
        )
        if not costs.isfinite().all():
            raise ValueError("every cost must be a finite number")
    except (UserError, csv.Error, TypeError, ValueError) as error:
        raise UserError(
            f"decision.costs {path} is no CSV file of costs: {error}; see conf/costs"
        ) from error
    return costs


def chart(rows: list[dict[str, Any]], pairs: Tensor, classes: list[str]) -> Figure:
    """Of each row of predictions.csv: its file, its three likeliest classes, its answer, and its
    `pair`."""
    captions = []
    for row in rows:
        likeliest = sorted(classes, key=row.get, reverse=True)[:3]
        odds = [f"{name} {row[name]:.2f}" for name in likeliest]
        answer = [f"answer {row['answer']}"] if "answer" in row else []
        log.info("%s: %s", row["file"], "; ".join([", ".join(odds), *answer]))
        lines = [
            (short(visible(row["file"]), 30), COLOURS["train"]),
            *((text, BLACK) for text in odds),
        ]
        captions.append(lines + [(text, COLOURS["test"]) for text in answer])
    return gallery(pairs, captions, "your picture, what the model sees, likeliest classes")


def decisions(
    rows: list[dict[str, Any]], costs: Tensor, data: SplitDataModule, most: int
) -> dict[str, Figure]:
    """The first test images, if any, whose two answers differ; the log says what each way to answer
    costs."""
    place = {name: k for k, name in enumerate(data.classes)}
    for column, rule in (
        ("predicted", "the likeliest class    "),
        ("answer", "the least expected cost"),
    ):
        paid = [costs[place[row["true"]], place[row[column]]].item() for row in rows]
        log.info("answering %s costs %.4f an image", rule, fmean(paid))
    differ = [i for i, row in enumerate(rows) if row["answer"] != row["predicted"]]
    log.info("the answers differ on %d of %d images", len(differ), len(rows))
    if not differ:
        return {}
    X, _ = data.split_examples("test", torch.tensor(differ[:most]))
    colours = {"true": BLACK, "predicted": WRONG, "answer": COLOURS["train"]}
    captions = [
        [(rows[i][name], colour) for name, colour in colours.items()] for i in differ[:most]
    ]
    title = "true class, likeliest (red), answer of least expected cost (blue)"
    return {"decisions": gallery(1 - square(X), captions, title)}


def main(cfg: DictConfig) -> None:
    predict(cfg, Path(HydraConfig.get().runtime.output_dir))
