"""Runs side by side: python -m src.compare RUN RUN ...

Writes outputs/comparisons/<date>_<time>/: comparison.csv (what differs in settings and results),
curves.png, and of classifiers of the same classes weights.png. Reads nothing but the run folders.
"""

from datetime import datetime
from pathlib import Path

from src.cli import exit
from src.cli.console import pasteable, relative, say
from src.cli.options import Parser
from src.errors import UserError, printable
from src.runs import Run, claim, identity, write_csv
from src.tables import table

LETTERS = "ABCDEFGH"  # of the runs, each with a colour of its own
RESULTS = ("val/loss", "val/acc", "test/loss", "test/acc", "error/w", "error/b")
RESULTS += ("best_epoch", "epochs", "seconds", "status")


def find(paths: list[Path]) -> list[Run]:
    """The runs that are meant, each once. Raises UserError if they cannot be compared."""
    folders = [path for path in paths if not path.is_file()]  # of NAME/*, what a sweep sums up
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
    from src.charts import literal, save  # matplotlib and torch: --help needs none
    from src.charts.curves import compared, shown
    from src.charts.images import weights
    from src.runs.build import restore

    settings = [run.settings() for run in runs]
    classes, W = [], []
    for each, run in zip(settings, runs, strict=True):  # no more than one model is in memory
        data, model = restore(each, run.best, within=run.path)
        classes.append(data.classes)
        found = model.weights()
        W.append(found[0] if found and found[0].isfinite().all() else None)
    experiments = map(identity, settings)  # dotted key -> value; `model` becomes its class
    chosen = [
        {"model": ".".join(each.pop("model._target_").split(".")[-2:]), **each}
        for each in experiments
    ]
    keys = dict.fromkeys(key for each in chosen for key in each)
    keys = [key for key in keys if any(each.get(key) != chosen[0].get(key) for each in chosen)]
    shared = [
        key for key in keys if all(key in each for each in chosen)
    ]  # by all forms of the model
    rows, curves = [], {}
    for letter, run, each in zip(LETTERS, runs, chosen, strict=False):
        differing = {key: each[key] for key in keys if key in each}
        record = run.results()
        results = {name: record[name] for name in RESULTS if name in record}
        path = printable(relative(run.path))
        rows.append({"run": letter, **differing, **results, "folder": path})
        text = ", ".join(
            each[key].partition(".")[0]
            if key == "model"
            else f"{key.rpartition('.')[2]} {each[key]}"
            for key in shared
        )
        name = text if 0 < len(text) <= 33 else run.path.name
        epochs = run.epochs()
        if not shown(epochs):
            raise UserError(f"{run.path} has no epoch to compare yet")
        curves[literal(f"{letter}: {printable(name)}")] = epochs

    write_csv(folder / "comparison.csv", rows)
    save(compared(curves), folder / "curves.png")
    if (
        classes[0]
        and all(each == classes[0] for each in classes)
        and all(each is not None for each in W)
    ):
        save(weights(dict(zip(curves, W, strict=True)), classes[0]), folder / "weights.png")
    return table(rows)


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
