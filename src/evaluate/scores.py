"""Test metrics, scores of each class, confusions and the calibration error of a trained model."""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import torchmetrics.functional as tm
from omegaconf import DictConfig
from torch import Tensor

from src.cli.console import pasteable
from src.cli.options import Options, checked
from src.maths import functional as F
from src.runs import Run, write
from src.runs.build import load_weights, rebuild
from src.tables import table
from src.training.devices import Accelerator
from src.training.testing import measure

log = logging.getLogger(__name__)


class Evaluation(Options):
    run: str
    checkpoint: str
    trainer: dict[Literal["accelerator"], Accelerator | None]
    data: dict[Literal["root"], str | None]


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """What evaluation.json holds. Raises UserError if the run or its checkpoint cannot be used."""
    options = checked(Evaluation, cfg)
    run = Run(options.run)
    settings, record = run.settings(), run.results()
    checkpoint, within = Path(options.checkpoint), None
    if options.checkpoint in ("best", "last"):
        checkpoint, within = getattr(run, options.checkpoint), run.path
    data, model = rebuild(settings, options.data.get("root"))
    epoch = load_weights(model, checkpoint, within)
    # one device, also if several have trained it, and nothing else that the run says of its trainer
    accelerator = options.trainer.get("accelerator")
    metrics, outputs, targets = measure(model, data, settings, accelerator)

    result = {"checkpoint": str(checkpoint), "epoch": epoch, **metrics}
    if model.classifies:
        result |= classification(outputs, targets, data.classes)
    write(run.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    log.info(
        "\n%s\n",
        table([{name: value for name, value in result.items() if isinstance(value, float)}]),
    )
    if model.classifies:
        log.info(
            "%s\n", table({"class": name, **scores} for name, scores in result["classes"].items())
        )
    before = {name: record.get(name) for name in metrics}
    if checkpoint == run.best and metrics == before:
        log.info("the same test metrics as in metrics.json, to the last digit")
    elif checkpoint == run.best:
        differ = ", ".join(f"{name} {value}" for name, value in before.items())
        log.warning(
            "not the test metrics in metrics.json (%s): made elsewhere, or not ended?", differ
        )
    log.info("written to %s/: evaluation.json", pasteable(run.path))
    return result


def classification(logits: Tensor, y: Tensor, classes: list[str]) -> dict[str, Any]:
    """Scores of each class and confusions, of logits (n, q) for labels y (n,)."""
    p, kind = F.softmax(logits), {"task": "multiclass", "num_classes": len(classes)}
    scores = {"precision": tm.precision, "recall": tm.recall, "f1": tm.f1_score}
    values = {name: score(p, y, average="none", **kind).tolist() for name, score in scores.items()}
    return {
        # bins as in Guo et al. 2017, On Calibration of Modern Neural Networks
        "calibration_error": tm.calibration_error(p, y, n_bins=15, **kind).item(),
        "classes": {
            name: {score: values[score][k] for score in scores} for k, name in enumerate(classes)
        },
        "confusion": tm.confusion_matrix(p, y, **kind).tolist(),
    }
