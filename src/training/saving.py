"""Checkpoints: which epoch is the best, the state to resume from, and how they are written."""

import io
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from pydantic import PositiveFloat, PositiveInt, validate_call

from src.errors import Stopped
from src.runs import Run, load_checkpoint, replace

AGREE = 10  # minibatches between the moments at which several processes ask each other for a signal
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Best(ModelCheckpoint):
    """checkpoints/best.ckpt: the epoch with the lowest validation loss; without validation split, the last."""

    def __init__(self, run: Run, validates_on: str):
        watched = ("val/loss", "min") if validates_on == "val" else ("epoch", "max")
        monitor, mode = watched
        super().__init__(
            dirpath=run.best.parent, filename="best", monitor=monitor, mode=mode, enable_version_counter=False
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the score alone from the checkpoint: the run may have moved, and a path be anybody's."""
        path, score = f"{self.dirpath}/best.ckpt", state["best_model_score"]
        if score is not None:
            state |= {"best_model_path": path, "kth_best_model_path": path, "best_k_models": {path: score}}
        super().load_state_dict(state | {"dirpath": self.dirpath})


class Last(Checkpoint):
    """checkpoints/last.ckpt, to resume from: saved after every epoch, and within epochs as often as asked.

    SIGTERM, SIGHUP and Ctrl-C save it too and end the run, with status 143, 129 or 130, as soon as the
    minibatch or the validation under way is done: an exception in the middle of an update would leave half of
    it in the weights. A second Ctrl-C ends the run at once, without saving. Other errors save nothing, for the
    same reason. (ModelCheckpoint saves then, and knows no time interval under manual optimization.)

    Args:
        every_n_train_steps: updates between saves within an epoch; None saves at its end only.
        every_n_seconds: likewise, by the clock.
    """

    @validate_call
    def __init__(
        self, every_n_train_steps: PositiveInt | None = None, every_n_seconds: PositiveFloat | None = None
    ):
        self.every_n_train_steps, self.every_n_seconds = every_n_train_steps, every_n_seconds
        self.received = 0  # signal to stop, if any
        self.stopped = False  # whether early stopping had ended the run when it was saved

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.saved = time.monotonic()
        trainer.should_stop = self.stopped  # Lightning forgets it between fits
        # in place of Lightning's handlers, which it sets before this hook and takes away after the fit
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) != signal.SIG_IGN:  # as nohup has it
                    signal.signal(signum, self.on_signal)

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signum == signal.SIGINT:
            raise Stopped(signum)
        self.received = signum

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the end of the epoch is near, and saves
        due = bool(self.every_n_train_steps) and trainer.global_step % self.every_n_train_steps == 0
        wanted = int(due)
        if trainer.world_size == 1 or trainer.global_step % AGREE == 0:
            late = self.every_n_seconds and time.monotonic() - self.saved >= self.every_n_seconds
            wanted = self.agreed(trainer, self.wish(due or bool(late)))
        if wanted:
            self.save(trainer, wanted)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.save(trainer, self.agreed(trainer, self.wish(True)))

    def wish(self, due: bool) -> int:
        """What this process wants: nothing (0), a save (1), or a save and an end by signal N (1 + N)."""
        return 1 + self.received if self.received else int(due)

    def agreed(self, trainer: L.Trainer, wanted: int) -> int:
        """What the processes of the run want together: the most that one of them wishes."""
        if trainer.world_size == 1:
            return wanted
        every = torch.tensor(float(wanted), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(every, reduce_op="max"))

    def save(self, trainer: L.Trainer, wanted: int) -> None:
        self.stopped = trainer.should_stop
        trainer.save_checkpoint(Run(trainer.default_root_dir).last)
        self.saved = time.monotonic()
        if wanted > 1:
            raise Stopped(wanted - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"stopped": self.stopped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.stopped = state["stopped"]


class CheckpointIO(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints here: checked, and in one step."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        replace(Path(path), content.getbuffer())

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict:
        return load_checkpoint(Path(path))
