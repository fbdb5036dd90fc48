"""Checkpoints: the state to resume from, when it is saved, and how all of them are written."""

import io
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from pydantic import PositiveInt

from src import signals
from src.errors import UserError
from src.runs import write
from src.runs.checkpoint import LARGEST, load_checkpoint
from src.training.history import run_of
from src.training.late import Late

AGREE = 10  # minibatches between the moments at which several processes ask each other for a signal


class Last(Late):
    """checkpoints/last.ckpt, to resume from: saved after every epoch.

    SIGTERM, SIGHUP and Ctrl-C save it too and end the run, with status 143, 129 or 130, as soon as
    the minibatch or the validation under way is done: an exception in the middle of an update would
    leave half of it in the weights. A second Ctrl-C ends the run at once, without saving. Other
    errors save nothing, for the same reason. conf/callbacks/default.yaml says what the argument
    means.
    """

    def __init__(self, every_n_train_steps: PositiveInt | None = None):
        self.every_n_train_steps = every_n_train_steps
        self.received = 0  # signal to stop, if any

    def on_train_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # This replaces Lightning's handlers, which it sets before this hook and takes away after
        # the fit.
        if threading.current_thread() is threading.main_thread():
            signals.handle(self.on_signal)

    def on_signal(self, signum: int, *_) -> None:
        if self.received == signum == signal.SIGINT:
            signals.stop(signum)
        self.received = signum

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        if batch_idx + 1 == trainer.num_training_batches:
            return  # the end of the epoch is near, and saves
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients that wait for their step are in no checkpoint
        asks = trainer.world_size == 1 or trainer.global_step % AGREE == 0
        signum = self.agreed(trainer) if asks else 0
        if signum or (
            self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0
        ):
            self.save(trainer, signum)

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.save(trainer, self.agreed(trainer))

    def agreed(self, trainer: L.Trainer) -> int:
        """The signal that any process of the run has received, else 0."""
        if trainer.world_size == 1:
            return self.received
        received = torch.tensor(float(self.received), device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op="max"))

    def save(self, trainer: L.Trainer, signum: int) -> None:
        """Save, then end the run if there is a signal to."""
        trainer.save_checkpoint(run_of(trainer).last)
        if signum:
            signals.stop(signum)


class CheckpointIO(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints here: checked, and in one step.

    The first checkpoint of a run is read again: a callback may have a state that cannot be loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.proven = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str, storage_options: Any = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        if content.tell() > LARGEST:
            raise UserError(
                f"the checkpoint of this model has {content.tell():,} bytes, more than {LARGEST:,}"
            )
        write(Path(path), content.getbuffer())
        if not self.proven:
            load_checkpoint(Path(path))
            self.proven = True

    def load_checkpoint(
        self, path: str, map_location: Any = None, weights_only: bool | None = None
    ) -> dict:
        return load_checkpoint(Path(path))
