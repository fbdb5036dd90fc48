"""The metrics, settings and results that TensorBoard shows of a run.

Figures adds the pictures of the tested model.
"""

import contextlib
import re
import time
from pathlib import Path
from typing import Annotated

import lightning as L
import numpy as np
from pydantic import Field
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.errors import UserError
from src.runs import Run, identity
from src.runs.run import EARLY
from src.training.history import history, logged, measures, run_of
from src.training.late import Late

LAYOUT = {
    "training beside validation": {name: ["Multiline", [f"^{name}/"]] for name in ("loss", "acc")}
}


class TensorBoard(Late):
    """Writes the row of each epoch and, at the end, what HPARAMS sorts by.

    Those are the settings, and the results as tested/NAME.
    Fit and test share one event file, in the folder `name` of the run, which TensorBoard shows: of
    two made within a second it may drop one as out of date, as it orders them by their numbers as
    text, 10 before 9. Its step is the epoch, so that runs of any batch size can be compared. It
    opens the groups of names that come first in the alphabet: train/loss is loss/train there. Of
    several processes, the main one has this callback.
    """

    def __init__(self, name: Annotated[str, Field(pattern=r"^[^./][^/]*$|^$")] = ""):
        if name in EARLY or name.endswith((".csv", ".json", ".log")):
            raise UserError(
                f"logger.name={name} is the name of something else in a run folder; choose another"
            )
        self.name = name
        self.writer: SummaryWriter | None = None

    def on_fit_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        run, rows = run_of(trainer), history(trainer).rows
        order_events(run)
        self.writer = SummaryWriter(run.path / self.name, purge_step=len(rows))
        self.writer.add_custom_scalars(LAYOUT)
        if rows:  # The run is resumed, and the last row on file has just been purged.
            self.on_train_epoch_end(trainer, model)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        metrics = dict(history(trainer).rows[-1])
        epoch = metrics.pop("epoch")
        for name, value in metrics.items():
            self.writer.add_scalar(re.sub("^(train|val|test)/(.*)", r"\2/\1", name), value, epoch)
        self.writer.flush()

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        epochs = history(trainer)
        epoch = epochs.rows[-1]["epoch"]
        for name, value in (measures(epochs.tested) | logged(trainer)).items():
            self.writer.add_scalar(f"tested/{name.replace('/', '_')}", value, epoch)
        settings = identity(run_of(trainer).settings())
        settings["trainer.max_epochs"] = trainer.max_epochs
        settings.pop("data.seed", None)  # it is the seed of the run
        plain = {}
        for key, value in settings.items():
            plain[key] = str(value) if isinstance(value, list) else value
        # The first of the three summaries is a list of hyperparameters and metrics. Without it
        # TensorBoard finds those of all runs; with it, one run's list would pass for that of all.
        _, *session = hparams(plain, {})
        for summary in session:
            self.writer.file_writer.add_summary(summary, epoch)

    def add_picture(self, name: str, pixels: np.ndarray, epoch: int) -> None:
        """Show a picture of (height, width, 3) pixels."""
        self.writer.add_image(name, pixels, epoch, dataformats="HWC")

    def teardown(self, trainer: L.Trainer, model: L.LightningModule, stage: str) -> None:
        if stage == "test":
            self.writer.close()

    def on_exception(
        self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException
    ) -> None:
        if self.writer:
            # On a full disk the first error is the one to report.
            with contextlib.suppress(OSError):
                self.writer.close()


def order_events(run: Run) -> None:
    """Make sure that the next event file of the run has the latest name.

    TensorBoard reads them in the order of their names. The name has the second in which the file
    was made. If the clock has been put back since, the files that are there get earlier names.
    """
    now = int(time.time())
    files = sorted(run.events(), key=lambda path: path.name)
    if files and second(files[-1]) > now:
        for number, path in enumerate(files):
            earlier = f"{now - len(files) + number:010d}"
            path.rename(path.with_name(path.name.replace(f"{second(path):010d}", earlier, 1)))
    while any(second(path) >= int(time.time()) for path in run.events()):
        time.sleep(0.05)


def second(path: Path) -> int:
    """The second in the name of the event file, events.out.tfevents.SECOND.HOST.PROCESS.NUMBER."""
    text = path.name.split(".")[3]
    return int(text) if text.isdigit() else 0
