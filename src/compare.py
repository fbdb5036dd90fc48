"""Runs side by side: python -m src.compare RUN RUN ...

Writes outputs/comparisons/<date>_<time>/: comparison.csv (what differs in settings and results),
curves.png, and of classifiers of the same classes weights.png. Reads nothing but the run folders.
"""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.cli import exit
from src.cli.console import pasteable, relative, say
from src.cli.options import Parser
from src.errors import UserError, printable
from src.runs import Run, claim, identity, write_csv
from src.tables import table

if TYPE_CHECKING:
    from torch import Tensor

# The names of the runs in the table and the pictures, where each has a colour of its own.
LETTERS = "ABCDEFGH"
RESULTS = ("val/loss", "val/acc", "test/loss", "test/acc", "error/w", "error/b")
RESULTS += ("best_epoch", "epochs", "seconds", "status")
LONGEST = 33  # characters that the settings of a run have in a legend; else its folder names it


def find(paths: list[Path]) -> list[Run]:
    """The runs at the paths, each once. Raises UserError if they cannot be compared.

    Files are passed over: a sweep has some beside its runs, which NAME/* names too.
    """
    folders = [path for path in paths if not path.is_file()]
    runs = [*{path.resolve(): Run(path) for path in folders}.values()]
    for run in runs:
        run.settings()  # refuses what is no run
        if not (run.metrics_csv.exists() and run.best.exists()):
            raise UserError(f"{run.path} has no epoch to compare yet")
    if not 2 <= len(runs) <= len(LETTERS):
        raise UserError(f"name 2 to {len(LETTERS)} runs; found {len(runs)}")
    return runs


def compare(runs: list[Run], folder: Path) -> str:
    """Write the comparison of the runs, as `find` finds them, into `folder`; returns the table."""
    # matplotlib and torch, which --help needs not
    from src.charts import literal, save
    from src.charts.curves import compared, shown
    from src.charts.images import weights

    classes, matrices = read_weights(runs)
    choices = [choice(run.settings()) for run in runs]
    keys = differing(choices)
    shared = [key for key in keys if all(key in chosen for chosen in choices)]
    rows, curves = [], {}
    for letter, run, chosen in zip(LETTERS, runs, choices, strict=False):
        epochs = run.epochs()
        if not shown(epochs):
            raise UserError(f"{run.path} has no epoch to compare yet")
        rows.append({"run": letter, **row(run, chosen, keys)})
        title = legend(chosen, shared) or run.path.name
        curves[literal(f"{letter}: {printable(title)}")] = epochs

    write_csv(folder / "comparison.csv", rows)
    save(compared(curves), folder / "curves.png")
    same_classes = all(names == classes[0] for names in classes)
    if classes[0] and same_classes and all(W is not None for W in matrices):
        by_title = dict(zip(curves, matrices, strict=True))
        save(weights(by_title, classes[0]), folder / "weights.png")
    return table(rows)


def read_weights(runs: list[Run]) -> tuple[list[list[str] | None], list["Tensor | None"]]:
    """The classes and the weights W of each run; None where it has none that can be drawn."""
    from src.runs.build import restore

    classes, matrices = [], []
    # one after the other, so that no more than one model is in memory
    for run in runs:
        data, model = restore(run.settings(), run.best, within=run.path)
        classes.append(data.classes)
        parameters = model.weights()
        drawable = parameters and parameters[0].isfinite().all()
        matrices.append(parameters[0] if drawable else None)
    return classes, matrices


def choice(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of a run's settings; `model` is its class, such as scratch.Regression."""
    values = identity(settings)
    path = values.pop("model._target_").split(".")
    return {"model": ".".join(path[-2:]), **values}


def differing(choices: list[dict[str, Any]]) -> list[str]:
    """The keys whose values are not the same for all runs."""
    first = choices[0]
    keys = []
    for key in dict.fromkeys(key for chosen in choices for key in chosen):
        if any(chosen.get(key) != first.get(key) for chosen in choices):
            keys.append(key)
    return keys


def row(run: Run, chosen: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """The settings that differ, the results that there are, and the folder."""
    results = run.results()
    values = {key: chosen[key] for key in keys if key in chosen}
    values |= {name: results[name] for name in RESULTS if name in results}
    return values | {"folder": printable(relative(run.path))}


def legend(chosen: dict[str, Any], shared: list[str]) -> str:
    """The values of the keys that all runs have, as in "scratch, lr 0.1"; "" if it is too long."""
    parts = []
    for key in shared:
        if key == "model":
            parts.append(chosen[key].partition(".")[0])
        else:
            parts.append(f"{key.rpartition('.')[2]} {chosen[key]}")
    text = ", ".join(parts)
    return text if len(text) <= LONGEST else ""


def main() -> None:
    parser = Parser(
        "python -m src.compare", "Runs side by side: settings, results, curves, weights."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    runs = find(parser.parse_args().runs)  # before there is a folder
    folder = claim(Path(f"outputs/comparisons/{datetime.now():%Y-%m-%d_%H-%M-%S}"))
    say(compare(runs, folder))
    written = " ".join(sorted(path.name for path in folder.iterdir()))
    say(f"written to {pasteable(folder)}/: {written}")


if __name__ == "__main__":
    exit.run(main)
