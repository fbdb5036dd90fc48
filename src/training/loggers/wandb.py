"""Weights & Biases: one run there for a run here, however often it is gone on with."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger

from src.training.loggers.destination import Destination, Origin


class Wandb(Destination):
    """A run has the same id whenever it goes on; what has been sent is known here alone."""

    remote = True
    decided = ("id", "version", "resume", "experiment")
    logger: WandbLogger

    @classmethod
    def arguments(cls, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
        os.environ.setdefault("WANDB_SILENT", "true")
        given: dict[str, Any] = {"id": origin.identity}
        if not settings.get("name"):
            given["name"] = origin.job or origin.run.path.name
        if origin.run.in_sweep() and not settings.get("group"):
            given["group"] = origin.run.path.absolute().parent.name
        Path(settings.get("save_dir") or ".").mkdir(parents=True, exist_ok=True)
        return given

    def open(self) -> int:
        self.logger._wandb_init.pop("anonymous")  # W&B warns of it, whatever its value
        self.logger.log_hyperparams(self.origin.settings)
        return 0

    def log_picture(self, path: Path, pixels: np.ndarray, epoch: int) -> None:
        self.logger.log_image(f"tested/{path.stem}", [str(path)], step=None)

    def address(self) -> str:
        if self.logger._offline:
            return f"{self.logger.save_dir}/wandb, offline"
        return self.logger.experiment.url or "W&B"

    def close(self) -> None:
        self.logger.experiment.finish()
