"""The Trainer of every run: Lightning's, with the arguments that it takes and refuses."""

import contextlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)

from src.errors import UserError
from src.training.devices import available_accelerator, launched
from src.training.progress import ProgressBar
from src.training.saving import CheckpointIO

# Arguments of a run that are not Lightning's, or that Lightning gets as an object.
OF_OURS = ("max_time", "fast_dev_run", "threads")
NOTHING = contextlib.nullcontext()
IGNORED = [  # warnings of Lightning's
    ".*LeafSpec.*",  # its own use of a torch name that is on its way out
    ".*sync_dist=True.*",  # the model logs means that are over all processes already
    ".*callbacks used to create the checkpoint need to be provided.*",  # a stopper may be left out
    ".*number of training batches .* is smaller than the logging interval.*",  # rows are epochs
    ".*Experiment logs directory .* exists and is not empty.*",  # a resumed run writes them anew
    ".*Checkpoint directory .* exists and is not empty.*",  # a resumed run has further ones
    ".*PyTorch Profiler default schedule will be overridden.*",  # a run may be short
    ".*Profiler clears events at the end of each cycle.*",  # as its schedule wants
    ".*The `srun` command is available on your system.*",  # as on every login node of a cluster
]


def build_trainer(
    values: dict[str, Any],
    folder: Path = Path("."),
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Logger] = (),
) -> L.Trainer:
    """Lightning's Trainer of the run in `folder`, with its callbacks and loggers.

    `values` are those of `trainer_arguments`.

    From here on, torch uses `threads` threads on the CPU: one is enough for products of this size,
    gives the same bits whatever the number of cores, and does not wait for others on a busy
    machine. Raises UserError for hardware that is not there, for processes that a launcher has
    started unasked, and for what Lightning refuses.
    """
    of_lightning = {name: value for name, value in values.items() if name not in OF_OURS}
    accelerator = available_accelerator(values["accelerator"], values["devices"])
    check_precision(values["precision"], accelerator)
    torch.set_num_threads(values["threads"])
    silence_lightning()
    bar = [ProgressBar()] if values["enable_progress_bar"] else []
    timer = EpochTimer(values["max_time"], interval="epoch", verbose=False)
    own = {
        "accelerator": accelerator,
        "callbacks": [timer, *callbacks, *bar],
        "logger": [*loggers],
        "profiler": build_profiler(values["profiler"], folder),
        "plugins": [CheckpointIO(), *launched(values["devices"])],
        "default_root_dir": folder.absolute(),
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": False,  # ours is quicker, and one for all epochs
        "num_sanity_val_steps": 0,  # the model checks its inputs itself
        "use_distributed_sampler": False,  # src.data.batches divides the examples exactly
    }
    try:
        return L.Trainer(**{"enable_model_summary": False, **of_lightning, **own})
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


def check_precision(precision: str, accelerator: str) -> None:
    """Raises UserError for a precision that the kind of device does not have."""
    if precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU; take trainer.precision=bf16-mixed")
    if precision == "64-true" and accelerator == "mps":
        raise UserError("trainer.precision=64-true: mps has no 64 bit; take trainer=cpu")


def build_profiler(name: str | None, folder: Path) -> Profiler:
    """The profiler of that name; its report lies in the folder."""
    profilers = {
        "simple": SimpleProfiler,
        "advanced": AdvancedProfiler,
        "pytorch": PyTorchProfiler,
    }
    if name is None:
        # without it an epoch takes 1.04 to 1.17 times as long (five medians)
        return Unprofiled()
    # The profiler of torch says on the terminal what it cannot find, and that it begins.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return profilers[name](dirpath=folder.absolute(), filename=f"{name}_profile")


def silence_lightning() -> None:
    """Keep Lightning's announcements, tips and idle warnings out of the log."""
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    for message in IGNORED:
        warnings.filterwarnings("ignore", message=message)


class EpochTimer(Timer):
    """Lightning's Timer, for a run that ends with an epoch however much time is over.

    Lightning would not even begin if the time was over when the run was stopped, and leave it
    within an epoch.
    """

    @property
    def state_key(self) -> str:
        return "Timer"

    def on_fit_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        """The time is looked at after the epoch."""


class Unprofiled(PassThroughProfiler):
    """One context manager for all that is profiled.

    Lightning's own profiler builds one for each of the 17 things that it does in a step.
    """

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        return NOTHING
