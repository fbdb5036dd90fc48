"""Why does the loss oscillate in spite of a decaying learning rate? python -m src.oscillation SWEEP

How much the training loss moves in the runs of a sweep (sweep=lr_gamma): between the last epochs,
between the minibatches of the last one (train/swing), and between those under weights held still
(train/rest): noise alone.
"""

import math
from pathlib import Path

from src import signals
from src.cli import exit
from src.cli.console import pasteable, say
from src.cli.options import Parser
from src.errors import UserError
from src.runs import write_csv
from src.sweeps.answer import Row, groups
from src.sweeps.sweep import Sweep
from src.tables import table

LAST = 6  # epochs, between which there are five changes
NEEDED = ("train/loss", "train/swing", "train/rest", "val/acc")  # metrics of each epoch
MEASURED = ("within an epoch", "at rest", "between epochs", "last val/acc")


def measure(sweep: Sweep) -> list[Row]:
    """The rows of the finished runs, with MEASURED.

    Raises UserError if there are none, or if one lacks an epoch or a metric for it.
    """
    with signals.held():
        from src.training.loss_movement import mean_change  # torch: --help needs none

    rows = [row for row in sweep.rows() if row["status"] == "finished"]
    sweep.check_sizes("metrics.csv")
    for row in rows:
        run = sweep.run(row["job"])
        epochs = run.epochs()[-LAST:]
        needed = [epoch.get(name, math.nan) for epoch in epochs for name in NEEDED]
        if len(epochs) < LAST or not all(map(math.isfinite, needed)):
            raise UserError(
                f"{run.path} lacks {', '.join(NEEDED)} or {LAST} epochs; run sweep=lr_gamma"
            )
        last = epochs[-1]
        between = mean_change([epoch["train/loss"] for epoch in epochs])
        values = last["train/swing"], last["train/rest"], between, last["val/acc"]
        row |= zip(MEASURED, values, strict=True)
    if not rows:
        raise UserError(f"{sweep.path} has no finished run")
    return rows


def draw(means: list[Row], path: Path) -> None:
    """Draw how much the loss moves at each setting, and how good the model is."""
    # matplotlib, which --help needs not
    from src.charts import CYCLE, figure, literal, logarithmic, save

    panel = figure(10, 4.2)
    left, right = panel.subplots(1, 2)
    labels = []
    for row in means:
        settings = (f"{key.rpartition('.')[2]}={row[key]}" for key in row if "." in key)
        labels.append(literal(" ".join(settings)))
    panels = zip(MEASURED, (left, left, left, right), CYCLE, "oxoo", strict=False)
    for name, ax, colour, marker in panels:
        ax.plot([row[name][0] for row in means], marker, label=name, color=colour)
    changes = [row[name][0] for row in means for name in MEASURED[:3]]
    left.set(title="how much the training loss moves", ylabel="mean |change| of the loss")
    left.set_yscale(logarithmic(changes))
    right.set(title="accuracy after the last epoch", ylabel="val/acc")
    for ax in (left, right):
        ax.set_xticks(range(len(labels)), labels, rotation=90)
        ax.grid(alpha=0.3)
    panel.legend(loc="outside upper left", ncols=4, frameon=False)
    save(panel, path)


def main() -> None:
    """Print the table of the sweep; write oscillation.csv and oscillation.png.

    The file has a row for each run.
    """
    parser = Parser(
        "python -m src.oscillation", "Why the loss oscillates in spite of a decaying learning rate."
    )
    parser.add_argument("sweep", type=Path, help="folder of a sweep, outputs/sweeps/NAME")
    sweep = Sweep(parser.parse_args().sweep)
    with signals.held():
        from src.sweeps.summary import MOST_POINTS  # matplotlib

    rows = measure(sweep)
    means = groups(rows, sweep.axes, MEASURED)
    write_csv(sweep.path / "oscillation.csv", rows)
    written = "oscillation.csv"
    if len(means) <= MOST_POINTS:
        draw(means, sweep.path / "oscillation.png")
        written += " oscillation.png"
    say(f"{table(means)}\nwritten to {pasteable(sweep.path)}/: {written}")


if __name__ == "__main__":
    exit.run(main)
