"""TensorBoard: names, layout, order of the files, and the table of hyperparameters."""

import contextlib
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from src.errors import UserError
from src.runs import Run
from src.runs.run import EARLY
from src.training.loggers.destination import Destination, Origin

LAYOUT = {
    "training beside validation": {name: ["Multiline", [f"^{name}/"]] for name in ("loss", "acc")}
}


class TensorBoard(Destination):
    """Writes the row of each epoch and, at the end, what HPARAMS sorts by.

    Those are the settings, and the results as tested/NAME.
    Fit and test share one event file, in the folder `name` of the run, which TensorBoard shows: of
    two made within a second it may drop one as out of date, as it orders them by their numbers as
    text, 10 before 9. Its step is the epoch, so that runs of any batch size can be compared. It
    opens the groups of names that come first in the alphabet: train/loss is loss/train there.

    What callbacks of Lightning's log within epochs has another step, and so another file, in the
    folder steps/.
    """

    decided = ("save_dir", "version", "sub_dir", "default_hp_metric", "purge_step")
    logger: TensorBoardLogger
    steps: SummaryWriter | None = None

    @classmethod
    def arguments(cls, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
        name = origin.job.replace("/", "_")[:60]  # at most 240 bytes
        if settings.get("name"):
            name = settings["name"]
        unfit = not isinstance(name, str) or "/" in name or name.startswith(".")
        if unfit or name in EARLY or name.endswith((".csv", ".json", ".log")):
            raise UserError(
                f"logger.tensorboard.name={name} must be a folder of its own in the run folder, "
                "and not the name of something else there; choose another"
            )
        purge = {"purge_step": origin.epochs}
        place = {"save_dir": str(origin.run.path), "name": name, "version": ""}
        return {**place, **purge, "default_hp_metric": False}

    @property
    def writer(self) -> SummaryWriter:
        return self.logger.experiment

    def open(self) -> int:
        order_events(self.origin.run)
        self.writer.add_custom_scalars(LAYOUT)
        # If the run goes on, the last row on file has just been purged.
        return max(0, self.origin.epochs - 1)

    def log_row(self, row: dict[str, float]) -> None:
        metrics = dict(row)
        epoch = metrics.pop("epoch")
        for name, value in metrics.items():
            self.writer.add_scalar(re.sub("^(train|val|test)/(.*)", r"\2/\1", name), value, epoch)
        self.writer.flush()

    def log_results(self, results: dict[str, float], epoch: int) -> None:
        for name, value in results.items():
            self.writer.add_scalar(f"tested/{name.replace('/', '_')}", value, epoch)
        plain = {}
        for key, value in self.origin.settings.items():
            plain[key] = str(value) if isinstance(value, list) else value
        # The first of the three summaries is a list of hyperparameters and metrics. Without it
        # TensorBoard finds those of all runs; with it, one run's list would pass for that of all.
        _, *session = hparams(plain, {})
        for summary in session:
            self.writer.file_writer.add_summary(summary, epoch)

    def log_picture(self, path: Path, pixels: np.ndarray, epoch: int) -> None:
        self.writer.add_image(f"tested/{path.stem}", pixels, epoch, dataformats="HWC")

    def log_steps(self, metrics: dict[str, float], step: int | None) -> None:
        if self.steps is None:
            folder = self.origin.run.path / "steps"
            self.steps = SummaryWriter(str(folder), purge_step=step)
        for name, value in metrics.items():
            self.steps.add_scalar(name, value, step)

    def close(self, finished: bool) -> None:
        # On a full disk the first error is the one to report.
        with contextlib.suppress(OSError):
            self.writer.close()
            if self.steps is not None:
                self.steps.close()


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
