"""Weights & Biases: one run there for a run here, however often it is gone on with."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger

from src.training.loggers.destination import Destination, Origin
from src.training.loggers.wandb_files import history_of


class Wandb(Destination):
    """A run has the same id whenever it goes on.

    Offline, its files say which rows it has: W&B writes a row a moment after it has taken it, and a
    kill may come between. Online, the run folder says which rows have been given to W&B, which
    sends them from a process of its own.
    """

    remote = True
    advice = "wandb login, or take logger.wandb.offline=true"
    decided = ("id", "version", "resume", "experiment", "settings")
    logger: WandbLogger

    @classmethod
    def arguments(cls, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
        import wandb

        # It would copy all that the terminal shows, and link to its own logs.
        quiet = wandb.Settings(silent=True, console="off", symlink=False)
        given: dict[str, Any] = {"id": origin.identity, "settings": quiet}
        if not settings.get("name"):
            given["name"] = origin.job or origin.run.path.name
        if origin.run.in_sweep() and not settings.get("group"):
            given["group"] = origin.run.path.absolute().parent.name
        Path(settings.get("save_dir") or ".").mkdir(parents=True, exist_ok=True)
        return given

    def open(self) -> int | None:
        known = None
        if self.logger._offline:
            files = Path(self.logger.save_dir, "wandb")
            known = 0
            for row in history_of(files, self.origin.identity):
                if "train/loss" in row:
                    known = max(known, row["trainer/global_step"])
                if "tested/test_loss" in row:
                    self.tested_epoch = row["trainer/global_step"]
        self.logger._wandb_init.pop("anonymous", None)  # W&B warns of it, whatever its value
        self.logger.log_hyperparams(self.origin.settings)
        return known

    def log_picture(self, path: Path, pixels: np.ndarray, epoch: int) -> None:
        self.logger.log_image(f"tested/{path.stem}", [str(path)], step=None)

    def address(self) -> str:
        if self.logger._offline:
            return f"{self.logger.save_dir}/wandb, offline"
        return self.logger.experiment.url or "W&B"

    def close(self, finished: bool) -> None:
        self.logger.experiment.finish(exit_code=0 if finished else 1)
