"""Why does the loss oscillate in spite of a decaying learning rate? python -m src.oscillation SWEEP

Answers it for the runs of a sweep (sweep=lr_gamma) with three numbers for each learning rate and decay, all in
units of the loss:

- between epochs: mean |change| of the training loss over the last five epochs;
- within an epoch: mean |change| from minibatch to minibatch of the last epoch, as it was trained (train/swing);
- at rest: the same over the same minibatches with the weights held still. What remains without any step is
  the noise of the minibatches.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from matplotlib.figure import Figure

from src import terminal
from src.charts import COLOURS, figure, save
from src.errors import UserError
from src.runs import Run, restore, write_csv
from src.sweeps.folder import Sweep

LAST = 5  # epochs


class Swing(L.Callback):
    """train/swing: mean |change| of the loss from one minibatch of an epoch to the next."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        self.last: float | None = None
        self.seen, self.changes, self.total = (0.0, 0.0), 0, 0.0

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        loss_sum, n = model.so_far("train")
        loss = (loss_sum - self.seen[0]) / (n - self.seen[1])
        if self.last is not None:
            self.changes, self.total = self.changes + 1, self.total + abs(loss - self.last)
        self.last, self.seen = loss, (loss_sum, n)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.log("train/swing", self.total / max(self.changes, 1), logger=False)
        self.restart()

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("last", "seen", "changes", "total")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def at_rest(run: Run, places: dict[str, Any] | None = None) -> float:
    """Mean |change| of the loss over the minibatches of the run's last epoch, its last weights held still.

    For `places` see `src.runs.restore`.
    """
    data, model = restore(run.recorded(), run.last, places)
    data.prepare_data()
    data.setup()
    loader = data.train_dataloader()
    loader.sampler.set_epoch(run.record()["epochs"] - 1)
    losses = []
    with torch.inference_mode():
        for batch in loader:
            X, y = data.on_after_batch_transfer(batch, 0)
            losses.append(model.loss(model(X), y))
    return torch.stack(losses).diff().abs().mean().item()


def measure(sweep: Sweep, places: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """One row for each learning rate and decay: the three numbers and val/acc, means over the seeds.

    Raises UserError if the sweep has no runs that tell.
    """
    places: dict[tuple[float, float], list[dict[str, float]]] = {}
    for row in sweep.rows():
        if row["status"] != "finished":
            continue
        run = Run(row["folder"])
        epochs = run.rows()
        if len(epochs) <= LAST or "train/swing" not in epochs[-1]:
            raise UserError(f"{run.path} has no train/swing, or at most {LAST} epochs; run sweep=lr_gamma")
        losses = torch.tensor([epoch["train/loss"] for epoch in epochs[-LAST - 1 :]])
        model = run.recorded()["model"]
        places.setdefault((model["lr"], model["gamma"]), []).append(
            {
                "between epochs": losses.diff().abs().mean().item(),
                "within an epoch": epochs[-1]["train/swing"],
                "at rest": at_rest(run, places),
                "val/acc": epochs[-1]["val/acc"],
            }
        )
    if not places:
        raise UserError(f"{sweep.path} has no finished run")
    return [
        {"lr": lr, "gamma": gamma, "n": len(each)}
        | {name: statistics.fmean(one[name] for one in each) for name in each[0]}
        for (lr, gamma), each in sorted(places.items())
    ]


def chart(rows: Sequence[dict[str, float]]) -> Figure:
    """Changes of the loss for each learning rate and decay, and the accuracy; see `measure`."""
    panel = figure(10, 3.6)
    left, right = panel.subplots(1, 2, width_ratios=[3, 2])
    places = np.arange(len(rows))
    labels = [f"{row['lr']:g} x {row['gamma']:g}^t" for row in rows]
    kinds = {"within an epoch": "train", "at rest": "val", "between epochs": "wrong"}
    for k, (kind, colour) in enumerate(kinds.items()):
        heights = [row[kind] for row in rows]
        left.bar(places + 0.27 * (k - 1), heights, 0.27, color=COLOURS[colour], label=kind)
    left.set(yscale="log", ylabel="mean |change| of the loss", title="how much the loss moves")
    left.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.08))
    right.plot(places, [row["val/acc"] for row in rows], "o-", color=COLOURS["test"])
    right.set(ylabel="val/acc", title="and how good the model is")
    for ax in (left, right):
        ax.set_xticks(places, labels, rotation=40, ha="right")
        ax.grid(axis="y", alpha=0.3)
    return panel


def main() -> None:
    parser = argparse.ArgumentParser("python -m src.oscillation", description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep, outputs/sweeps/NAME")
    parser.add_argument("--data-root", help="folder of the data; without it, that of conf/data")
    arguments = parser.parse_args()
    sweep = Sweep(arguments.sweep)
    rows = measure(sweep, {"root": arguments.data_root} if arguments.data_root else None)
    names = list(rows[0])
    print("  ".join(f"{name:>15}" for name in names))
    for row in rows:
        print("  ".join(f"{row[name]:15.5g}" for name in names))
    write_csv(sweep.path / "oscillation.csv", rows)
    save(chart(rows), sweep.path / "oscillation.png")
    print(f"written to {terminal.relative(sweep.path)}/: oscillation.csv oscillation.png")


if __name__ == "__main__":
    terminal.run(main)
