"""Classes and probabilities from a finished run: python -m src.predict run=DIR [decision.costs=FILE]

Writes predictions.csv and pictures of the first and of the misclassified images. The answer is the most
probable class or, with a file of costs, the one whose expected cost is least.
"""

import csv
import logging
import math
from pathlib import Path
from typing import NamedTuple

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

from src import cli, plots
from src import functional as F
from src.runs import Run, write_csv

log = logging.getLogger(__name__)


def read_costs(path: Path, classes: list[str]) -> tuple[Tensor, list[str]]:
    """(costs (q, a), names of the a answers) from a CSV file: true,ANSWER,... then one row for each class.

    Answers need not be classes: a column "ask" with a constant cost is a way to decline.

    Raises ValueError if a class has no row, or a cost is no finite number.
    """
    with open(path, newline="") as file:
        rows = {row.pop("true", None): row for row in csv.DictReader(file)}
    if absent := [name for name in classes if name not in rows]:
        raise ValueError(
            f"decision.costs {path} has no row for {', '.join(absent)}; see conf/costs for the form"
        )
    answers = list(rows[classes[0]])
    try:
        costs = torch.tensor([[float(rows[name][answer]) for answer in answers] for name in classes])
    except (TypeError, ValueError) as error:
        raise ValueError(f"decision.costs {path}: a cost is not a number ({error})") from error
    if not answers or not all(map(math.isfinite, costs.flatten().tolist())):
        raise ValueError(f"decision.costs {path}: every cost must be a finite number")
    return costs, answers


class Predicted(NamedTuple):
    """Images with what a model says of them."""

    X: Tensor  # (n, 1, s, s)
    y: Tensor  # (n,), true labels
    p: Tensor  # (n, q), probabilities
    classes: list[str]

    @property
    def likeliest(self) -> Tensor:
        return self.p.argmax(dim=1)


def predict(cfg: DictConfig) -> None:
    """Raises ValueError if cfg.run is no run of a classifier, or the costs cannot be read."""
    if cfg.first < 1:
        raise ValueError(f"first must be >= 1, got {cfg.first}; try first=18")
    if cfg.checkpoint not in ("best", "last"):
        raise ValueError(f"checkpoint must be best or last, got {cfg.checkpoint}")
    run, folder = Run(cfg.run), Path(cfg.run_dir)
    data, model = run.restore(run.best if cfg.checkpoint == "best" else run.last)
    if data.classes is None:
        raise ValueError(f"run {run.path} is no classifier; predict needs one")
    costs = read_costs(Path(cfg.decision.costs), data.classes) if cfg.decision.costs else None
    data.prepare_data()
    data.setup()
    X, y = data.whole("test")
    with torch.inference_mode():
        predicted = Predicted(X, y, F.softmax(model(X)), data.classes)
    report(predicted, cfg.first, folder)
    if costs:
        decide(predicted, *costs, cfg.first, folder)
    log.info(
        "written to %s/: %s",
        cli.shown(folder),
        "predictions.csv " + " ".join(sorted(path.name for path in folder.glob("*.png"))),
    )


def report(predicted: Predicted, first: int, folder: Path) -> None:
    """Write the table and the pictures, say the accuracy."""
    X, y, p, classes = predicted
    y_hat = predicted.likeliest
    write_csv(
        folder / "predictions.csv",
        [
            {
                "image": i,
                "true": classes[true],
                "predicted": classes[guess],
                **{name: f"{value:.6f}" for name, value in zip(classes, row, strict=True)},
            }
            for i, (true, guess, row) in enumerate(zip(y.tolist(), y_hat.tolist(), p.tolist(), strict=True))
        ],
    )
    for name, picture in plots.first_and_misclassified(X[:, 0], y, y_hat, classes, first).items():
        plots.save(picture, folder / f"{name}.png")
    log.info("accuracy %.4f on %d test images", F.accuracy(p, y), len(y))


def decide(predicted: Predicted, costs: Tensor, answers: list[str], first: int, folder: Path) -> None:
    """Say what the answers of least expected cost save, and show where they differ from the likeliest class."""
    X, y, p, classes = predicted
    if not set(classes) <= set(answers):
        raise ValueError("decision.costs: every class must be a possible answer (a column) too")
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
    colours = "black", plots.COLOURS["wrong"], plots.COLOURS["train"]
    captions = [
        list(zip((classes[y[k]], answers[likeliest[k]], answers[cheapest[k]]), colours, strict=True))
        for k in differ.tolist()
    ]
    title = "true class, likeliest class (red), answer of least expected cost (blue)"
    plots.save(plots.captioned(X[differ, 0], captions, title), folder / "decisions.png")


@hydra.main(version_base="1.3", config_path="../conf", config_name="predict")
def main(cfg: DictConfig) -> None:
    predict(cfg)


if __name__ == "__main__":
    cli.run(main)
