"""The record of a run.

metrics.csv has a row for each epoch; metrics.json says how the run ended and on what it ran.
"""

import contextlib
import functools
import logging
import platform
import signal
import subprocess
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
import torchvision

import src
from src import signals
from src.errors import UserError
from src.processes import main_process
from src.runs import Run, write_csv
from src.runs.build import WIDTH, check
from src.runs.checkpoint import load_checkpoint
from src.training.late import Late

MEASURES = ("train", "val", "test", "error")  # stages of a metric
GIT_SECONDS = 5  # that git may take to answer
T = TypeVar("T", bound=L.Callback)
log = logging.getLogger(__name__)


class History(Late):
    """One row of metrics per epoch, with the norms of W and b.

    The rows are in every checkpoint, in metrics.csv and in the log.
    Saves checkpoints/best.ckpt: the epoch with the lowest validation loss. Of a run without
    validation it is the last epoch, and where some epochs have none it is one that has it. A
    resumed run goes on from the rows of its checkpoint. Of the callbacks that are Late, `assemble`
    puts the history first, so that last.ckpt has no rows that are not in the file and in
    TensorBoard.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.earlier: dict[str, torch.Tensor] = {}  # metrics at the end of the epoch before
        self.tested: dict[str, float] = {}  # the row whose checkpoint is tested

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if self.rows and trainer.is_global_zero:  # resumed: the file may be ahead of the checkpoint
            write_csv(run_of(trainer).metrics_csv, self.rows)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # Lightning keeps the metrics of a validation until the next one. What is the very tensor of
        # the epoch before was not measured in this one.
        metrics = {}
        for name, value in trainer.callback_metrics.items():
            if value is not self.earlier.get(name):
                metrics[name] = value.item()
        self.earlier = dict(trainer.callback_metrics)
        weights = model.weights()
        if weights:  # the model is X W + b
            W, b = weights
            metrics["norm/W"], metrics["norm/b"] = W.norm().item(), b.norm().item()
        metrics = dict(sorted(metrics.items()))
        first, epoch = measures(metrics, "lr"), trainer.current_epoch + 1
        row = {"epoch": epoch, "step": trainer.global_step, **first, **metrics}
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(run_of(trainer).metrics_csv, self.rows)
            text = "  ".join(f"{name} {value:.4f}" for name, value in first.items())
            log.info("epoch %d/%d  %s", epoch, trainer.max_epochs, text)
        validated = [row for row in self.rows if "val/loss" in row]
        if not validated or row is min(validated, key=itemgetter("val/loss")):
            trainer.save_checkpoint(run_of(trainer).best)

    def on_fit_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if trainer.is_global_zero and model.has_members:
            write_csv(run_of(trainer).path / "grid.csv", model.members())

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def on_load_checkpoint(
        self, trainer: L.Trainer, model: L.LightningModule, checkpoint: dict
    ) -> None:
        rows = checkpoint["callbacks"][self.state_key]["rows"]
        if trainer.testing:
            self.tested = rows[-1]
        else:
            self.rows = rows


def run_of(trainer: L.Trainer) -> Run:
    """The run that the trainer trains."""
    return Run(trainer.default_root_dir)


def only(trainer: L.Trainer, kind: type[T]) -> T:
    """The trainer's callback of that kind."""
    for callback in trainer.callbacks:
        if isinstance(callback, kind):
            return callback
    raise LookupError(f"the trainer has no {kind.__name__}")


def history(trainer: L.Trainer) -> History:
    return only(trainer, History)


def last_members(run: Run) -> list[dict[str, Any]]:
    """The members of the run's model after its last epoch, none if it is no grid."""
    kind, _ = check("model", run.settings()["model"], WIDTH)
    return load_checkpoint(run.last)["members"] if kind.has_members else []


def logged(trainer: L.Trainer) -> dict[str, float]:
    """The metrics of the epoch, or of the test, that has ended."""
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def measures(row: dict[str, float], *also: str) -> dict[str, float]:
    """The metrics of the row, not what a callback adds."""
    measured = {}
    for name, value in row.items():
        stage, _, _ = name.partition("/")
        if stage in MEASURES or stage in also:
            measured[name] = value
    return measured


@contextlib.contextmanager
def keep_record(run: Run, seed: int, **known: Any) -> Iterator[dict[str, Any]]:
    """Keep the run's metrics.json true, however the block ends.

    The block adds its results to the record.
    """
    if not main_process():
        yield {}
        return
    record = {"seed": seed, **provenance(), **known, "status": "running"}
    run.save_results(record)
    try:
        yield record
    except BaseException as error:
        cause = signals.Stopped(signals.received()) if signals.received() else error
        interrupted = isinstance(cause, SystemExit | KeyboardInterrupt)
        record["status"] = "interrupted" if interrupted else getattr(cause, "status", "failed")
        record["reason"] = str(cause) or type(cause).__name__
        if interrupted:
            record["ended"] = f"signal {record['reason']}"
        with contextlib.suppress(UserError):  # on a full disk the first error is the one to report
            run.save_results(record)
        if signals.received() == signal.SIGINT and not signals.in_command():
            signals.forget()  # the notebook goes on
            how = f"to go on: resume({str(run.path)!r})" if run.begun() else "nothing saved yet"
            raise KeyboardInterrupt(how) from None
        raise
    record["status"] = "finished"
    run.save_results(record)


@functools.cache  # the jobs of a sweep run the code that this process has loaded
def provenance() -> dict[str, Any]:
    """The versions and the git commit, on which a result depends besides its config.

    null is unknown.
    """
    ask = functools.partial(
        subprocess.check_output,
        cwd=Path(__file__).parent,
        stderr=subprocess.DEVNULL,
        timeout=GIT_SECONDS,
    )
    git = ["git", "--no-optional-locks"]  # which a kill would leave, and git refuse to work with it
    try:
        commit, changes = ask([*git, "rev-parse", "HEAD"]), ask([*git, "status", "--porcelain"])
        known = {"git_commit": commit.decode().strip(), "git_dirty": changes != b""}
    except (OSError, subprocess.SubprocessError):
        # There is no git, this is a copy without history, or git hangs.
        known = {"git_commit": None, "git_dirty": None}
    versions = {"softmax-lab": src.__version__, "python": platform.python_version()}
    for package in (torch, torchvision, L):
        versions[package.__name__] = package.__version__
    return {"versions": versions, **known}
