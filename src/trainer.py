"""The Trainer of every run: Lightning's, with this project's fixed choices and checked arguments."""

import contextlib
import logging
import warnings
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from pydantic import PositiveInt, validate_call

from src.config import sweeping
from src.errors import UserError
from src.runs import CheckpointIO

# Called for every minibatch, of every callback.
BATCH_HOOKS = [
    *("on_train_batch_start", "on_train_batch_end", "on_before_backward", "on_after_backward"),
    *("on_before_optimizer_step", "on_before_zero_grad"),
    *("on_validation_batch_start", "on_validation_batch_end", "on_test_batch_start", "on_test_batch_end"),
]


@validate_call
def build_trainer(
    max_epochs: PositiveInt = 20,
    accelerator: Literal["cpu", "gpu", "mps", "auto"] = "cpu",
    devices: PositiveInt = 1,
    enable_progress_bar: bool = True,
    threads: PositiveInt = 1,
    **options: Any,
) -> L.Trainer:
    """Lightning's Trainer; `options` are further arguments of its constructor.

    From here on, torch uses `threads` threads on the CPU: one is enough for products of this size, gives the
    same bits whatever the number of cores, and does not wait for others on a busy machine.

    Raises UserError for a value out of range, several devices in a sweep, or hardware that is not there.
    """
    if devices > 1 and sweeping():
        raise UserError(
            f"trainer.devices={devices} in a sweep: its jobs share a process, such a run starts several; "
            "start each job as a command, e.g. for lr in 0.1 0.3; do python -m src.train trainer=ddp "
            "model.lr=$lr; done"
        )
    torch.set_num_threads(threads)
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)  # no announcements and tips
    # Lightning's own use of a torch name that is on its way out; nothing of ours is behind it.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # Workers would only slow down a data set that is in memory.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # The model logs means that are over all processes already.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # A resumed run goes on in its own folder.
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    for callback in options.get("callbacks", ()):
        switch_off_idle_hooks(callback)
    try:
        return L.Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=False,
            log_every_n_steps=0,  # everything is logged once per epoch
            num_sanity_val_steps=0,  # the model checks its inputs itself
            use_distributed_sampler=False,  # src.data.batches divides the examples exactly
            plugins=[CheckpointIO()],
            **{"profiler": Unprofiled(), **options},
        )
    except MisconfigurationException as error:
        asked = f"trainer.accelerator={accelerator} trainer.devices={devices}"
        raise UserError(f"{asked} cannot be had here ({error}); try trainer.accelerator=cpu") from error


class Unprofiled(PassThroughProfiler):
    """No profiler. Lightning's builds a context manager for each of the 17 things it does in a step."""

    NOTHING = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        return self.NOTHING


def switch_off_idle_hooks(callback: L.Callback) -> None:
    """Spare Lightning the calls of batch hooks that the callback does not override.

    It calls each hook of each callback within a profiler context, empty or not, unless it is not callable.
    With five callbacks that took half of the time of a small training step.
    """
    for hook in BATCH_HOOKS:
        if getattr(type(callback), hook) is getattr(L.Callback, hook):
            setattr(callback, hook, None)
