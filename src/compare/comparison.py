"""What differs in the settings and results of several runs, with their curves and weights."""

import math
from pathlib import Path
from typing import Any

from src import terminal
from src.charts import CYCLE, plain, save
from src.charts.curves import compared
from src.charts.images import weights
from src.errors import UserError, printable
from src.runs import Run, write_csv
from src.runs.config import restore
from src.runs.folder import INCIDENTAL
from src.tables import table

MOST = len(CYCLE)  # runs with a colour of their own
METRICS = ("val/loss", "val/acc", "test/loss", "test/acc", "error/w", "error/b")
RESULTS = (*METRICS, "best_epoch", "epochs", "seconds", "status")


def find(paths: list[Path]) -> list[Run]:
    """The runs that are meant, each once. Raises UserError if they cannot be compared."""
    runs: dict[Path, Run] = {}
    for path in paths:
        jobs = [Run(config.parents[1]) for config in path.glob("*/.hydra/config.yaml")]
        finished = [run for run in jobs if run.record().get("status") == "finished"]
        best = sorted(finished, key=lambda run: run.record().get("val/loss", math.inf))[:MOST]
        chosen = best if jobs and not Run(path).config.exists() else [Run(path)]
        runs |= {run.path.resolve(): run for run in chosen}
    kinds = {run.recorded()["data"]["_target_"].rpartition(".")[2]: path for path, run in runs.items()}
    for path, run in runs.items():
        if not (run.metrics_csv.exists() and run.best.exists()):
            raise UserError(f"{path} has no epoch to compare yet")
    if not 2 <= len(runs) <= MOST:
        raise UserError(f"name 2 to {MOST} runs, or a sweep with 2 finished jobs or more; found {len(runs)}")
    if len(kinds) > 1:
        about = ", ".join(f"{path} is about {kind}" for kind, path in kinds.items())
        raise UserError(f"{about}: they have no measure in common")
    return [*runs.values()]


def settings(run: Run) -> dict[str, Any]:
    """What makes the run the experiment that it is: dotted key -> value; `model` is its class."""
    cfg = run.recorded()
    found = {"seed": cfg["seed"], "model": ".".join(cfg["model"].pop("_target_").split(".")[-2:])}
    for group in ("model", "data", "trainer"):
        found |= {f"{group}.{key}": value for key, value in cfg[group].items() if key not in INCIDENTAL}
    return found


def legend(letter: str, run: Run, differing: dict[str, Any]) -> str:
    """The run's letter and what it differs in or, if that is nothing or long, its folder."""
    values = {key.rpartition(".")[2]: value for key, value in differing.items()}
    text = ", ".join(
        value.partition(".")[0] if key == "model" else f"{key} {value}" for key, value in values.items()
    )
    return plain(f"{letter}: {printable(text if 0 < len(text) <= 33 else run.path.name)}")


def compare(runs: list[Run], folder: Path) -> str:
    """Write the comparison of the runs, as `find` finds them, into `folder`; returns the table."""
    (data, *_), models = zip(*(restore(run.recorded(), run.best) for run in runs), strict=True)
    chosen, records = [settings(run) for run in runs], [run.record() for run in runs]
    keys = dict.fromkeys(key for each in chosen for key in each)
    keys = [key for key in keys if any(each.get(key) != chosen[0].get(key) for each in chosen)]
    results = [name for name in RESULTS if any(name in record for record in records)]
    rows, names = [], []
    for letter, run, each, record in zip("ABCDEFGH", runs, chosen, records, strict=False):
        values = {key: each.get(key) for key in keys} | {name: record.get(name) for name in results}
        rows.append({"run": letter, **values, "folder": printable(terminal.relative(run.path.absolute()))})
        # the forms of a model have settings of their own
        shared = {key: each[key] for key in keys if all(key in other for other in chosen)}
        names.append(legend(letter, run, shared))

    pictures = {"curves": compared({name: run.rows() for name, run in zip(names, runs, strict=True)})}
    if models[0].classifies and all(model.weights() for model in models):
        W = {name: model.weights()[0] for name, model in zip(names, models, strict=True)}
        pictures["weights"] = weights(W, data.classes)
    for name, picture in pictures.items():
        save(picture, folder / f"{name}.png")
    write_csv(folder / "comparison.csv", rows)
    return table(rows)
