"""The test metrics of a run once more, and what stands behind them: python -m src.evaluate run=DIR

Writes evaluation.json and figures/evaluation_*.png into the run folder. Of a classifier: precision, recall
and F1 of each class, the confusion matrix, the most frequent confusions, and the calibration error. Of a
linear regression: root mean squared error, mean absolute error and R^2.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torchmetrics.functional as tm
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from src import terminal
from src.charts import COLOURS, figure, save
from src.charts.images import confusion
from src.maths import functional as F
from src.runs import Run, restore, write
from src.runs.config import Options, Places, call, checked
from src.training.figures import outputs
from src.training.trainer import Accelerator, build_trainer

BINS = 15  # of confidence, as in Guo et al. 2017, On Calibration of Modern Neural Networks
CONFUSIONS = 10  # how many are listed

log = logging.getLogger(__name__)


class Trainer(Options):
    accelerator: Accelerator | None


class Evaluation(Options):
    """The options of the command; conf/evaluate.yaml says what they mean."""

    run: str
    checkpoint: str
    trainer: Trainer
    data: Places


def evaluate(cfg: DictConfig) -> dict[str, Any]:
    """Evaluate the checkpoint cfg.checkpoint of cfg.run and return what evaluation.json holds.

    Raises UserError if run or checkpoint cannot be used.
    """
    options = checked(Evaluation, cfg)
    run = Run(options.run)
    checkpoint = {"best": run.best, "last": run.last}.get(options.checkpoint, Path(options.checkpoint))
    settings = run.recorded()
    data, model = restore(settings, checkpoint, options.data.given())
    # one device, also if several have trained it, and nothing else that the run says of its trainer
    accelerator = options.trainer.accelerator or settings["trainer"].get("accelerator", "cpu")
    trainer = call("trainer", build_trainer, {"accelerator": accelerator, "enable_progress_bar": False})
    trainer.test(model, data, verbose=False)
    metrics = {name: value.item() for name, value in trainer.callback_metrics.items()}

    output, y = outputs(model, data)
    of_kind, pictures = classification(output, y, data.classes) if model.classifies else regression(output, y)
    result = {"checkpoint": str(checkpoint), "epoch": run.load(checkpoint)["epoch"] + 1, **metrics, **of_kind}
    write(run.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    for name, picture in pictures.items():
        save(picture, run.path / "figures" / f"evaluation_{name}.png")
    log.info("%s", table(result))
    if checkpoint == run.best:
        compare(metrics, run.record())
    log.info("written to %s/: evaluation.json figures/evaluation_*.png", terminal.relative(run.path))
    return result


def classification(logits: Tensor, y: Tensor, classes: list[str]) -> tuple[dict[str, Any], dict[str, Figure]]:
    """What there is to say and to show of logits (n, q) for labels y (n,)."""
    p, q = F.softmax(logits), len(classes)
    matrix = tm.confusion_matrix(p, y, task="multiclass", num_classes=q)
    each = {"task": "multiclass", "num_classes": q, "average": "none"}
    scores = {
        "precision": tm.precision(p, y, **each),
        "recall": tm.recall(p, y, **each),
        "f1": tm.f1_score(p, y, **each),
    }
    off_diagonal = matrix - matrix.diag().diag()
    most = off_diagonal.flatten().argsort(descending=True, stable=True)[:CONFUSIONS].tolist()
    pairs = [divmod(index, q) for index in most]
    result = {
        "calibration_error": tm.calibration_error(p, y, "multiclass", n_bins=BINS, num_classes=q).item(),
        "classes": {
            name: {score: values[k].item() for score, values in scores.items()}
            for k, name in enumerate(classes)
        },
        "top_confusions": [
            {"true": classes[i], "predicted": classes[j], "count": matrix[i, j].item()} for i, j in pairs
        ],
        "confusion": matrix.tolist(),
    }
    pictures = {
        "confusion": confusion(matrix, classes),
        "classes": class_scores(scores, classes),
        "calibration": calibration(p.amax(dim=1), p.argmax(dim=1) == y, BINS),
    }
    return result, pictures


def regression(y_hat: Tensor, y: Tensor) -> tuple[dict[str, Any], dict[str, Figure]]:
    """What there is to say and to show of predictions y_hat (n, q) for targets y (n, q)."""
    result = {
        "rmse": tm.mean_squared_error(y_hat, y, squared=False).item(),
        "mae": tm.mean_absolute_error(y_hat, y).item(),
        "r2": tm.r2_score(y_hat, y).item(),
    }
    return result, {"residuals": residuals(y_hat, y)}


def table(result: dict[str, Any]) -> str:
    """The result for the terminal."""
    lines = [f"  {name:18}{value:8.4f}" for name, value in result.items() if isinstance(value, float)]
    if "classes" in result:
        lines += ["", f"  {'':14}{'precision':>10}{'recall':>10}{'f1':>10}"]
        for name, scores in result["classes"].items():
            lines.append(f"  {name:14}" + "".join(f"{value:10.3f}" for value in scores.values()))
        lines += ["", "  most often taken for another:"]
        for confusion in result["top_confusions"][:5]:
            lines.append(f"  {confusion['count']:6}  {confusion['true']} taken for {confusion['predicted']}")
    return "\n".join(["", *lines, ""])


def compare(metrics: dict[str, float], record: dict[str, Any]) -> None:
    """Say whether the metrics are those that were recorded when the run ended."""
    if not metrics.keys() <= record.keys():
        log.info("the run has not ended: metrics.json has no test metrics to compare with")
    elif metrics == {name: record[name] for name in metrics}:
        log.info("the same test metrics as in metrics.json, to the last digit")
    else:
        recorded = ", ".join(f"{name} {record[name]}" for name in metrics)
        log.warning("not the test metrics in metrics.json (%s): made on another machine or device?", recorded)


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


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    evaluate(cfg)


if __name__ == "__main__":
    terminal.run(main)
