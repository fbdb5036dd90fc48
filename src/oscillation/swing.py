"""How much the loss of a run moves, and how much of that is noise."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from matplotlib.figure import Figure

from src import terminal
from src.charts import CYCLE, figure, save
from src.errors import UserError
from src.runs import Run, write_csv
from src.runs.config import restore
from src.sweeps.folder import Row, Sweep
from src.sweeps.summary import groups
from src.tables import table

LAST = 6  # epochs, between which there are five changes
MEASURED = ("within an epoch", "at rest", "between epochs", "last val/acc")


def mean_change(values: torch.Tensor | list[float]) -> float:
    return torch.as_tensor(values).diff().abs().mean().item() if len(values) > 1 else 0.0


class Swing(L.Callback):
    """train/swing: mean |change| of the loss from one minibatch of an epoch to the next."""

    def __init__(self):
        self.sums = [(0.0, 0.0)]  # of the losses and the examples of the epoch, after each minibatch

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        sums = model.means.sums["train"]
        if sums["loss"].ndim:
            raise UserError("model=grid has a loss of each member for a minibatch; leave out callbacks.swing")
        self.sums.append((float(sums["loss"]), float(sums["n"])))

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        losses, examples = torch.tensor(self.sums, dtype=torch.float64).diff(dim=0).T
        self.log("train/swing", mean_change(losses / examples), logger=False)
        self.sums = [(0.0, 0.0)]

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums = state["sums"]


def at_rest(run: Run, root: str | None = None) -> float:
    """mean_change of the losses of the last epoch's minibatches, all with the final weights."""
    data, model = restore(run.recorded(), run.last, root)
    data.prepare_data()
    data.setup()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(run.record()["epochs"] - 1)
    with torch.inference_mode():
        batches = (data.on_after_batch_transfer(batch, 0) for batch in loader)
        return mean_change([model.loss(model(X), y).item() for X, y in batches])


def measure(sweep: Sweep, root: str | None = None) -> list[Row]:
    """The rows of the finished runs, with MEASURED. Raises UserError if there are none, or one lacks it."""
    rows = [row for row in sweep.rows() if row["status"] == "finished"]
    for row in rows:
        run = Run(row["folder"])
        epochs = run.rows()[-LAST:]
        if len(epochs) < LAST or not epochs[-1].keys() >= {"train/swing", "val/acc"}:
            raise UserError(f"{run.path} lacks train/swing, val/acc or {LAST} epochs; run sweep=lr_gamma")
        between = mean_change([epoch["train/loss"] for epoch in epochs])
        found = epochs[-1]["train/swing"], at_rest(run, root), between, epochs[-1]["val/acc"]
        row |= zip(MEASURED, found, strict=True)
    if not rows:
        raise UserError(f"{sweep.path} has no finished run")
    return rows


def chart(means: list[Row]) -> Figure:
    """How much the loss moves at each setting, and how good the model is."""
    panel = figure(10, 4.2)
    left, right = panel.subplots(1, 2)
    ticks = [" ".join(f"{key.rpartition('.')[2]}={row[key]}" for key in row if "." in key) for row in means]
    for name, ax, colour, marker in zip(MEASURED, (left, left, left, right), CYCLE, "oxoo", strict=False):
        ax.plot(ticks, [row[name][0] for row in means], marker, label=name, color=colour)
    left.set(title="how much the training loss moves", yscale="log", ylabel="mean |change| of the loss")
    right.set(title="accuracy after the last epoch", ylabel="val/acc")
    for ax in (left, right):
        ax.tick_params(axis="x", rotation=90)
        ax.grid(alpha=0.3)
    panel.legend(loc="outside upper left", ncols=4, frameon=False)
    return panel


def answer(path: Path, root: str | None = None) -> None:
    """Print the table of the sweep; write oscillation.csv, a row for each run, and oscillation.png."""
    sweep = Sweep(path)
    rows = measure(sweep, root)
    means = groups(rows, sweep.axes, MEASURED)
    terminal.say(table(means))
    write_csv(sweep.path / "oscillation.csv", rows)
    save(chart(means), sweep.path / "oscillation.png")
    terminal.say(f"written to {terminal.relative(sweep.path)}/: oscillation.csv oscillation.png")
