"""The Trainer of every run: Lightning's, with the arguments that it takes and refuses."""

import contextlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

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
from pydantic import Field, PositiveInt

from src.errors import UserError
from src.formats import ROWS
from src.signatures import arguments, parameters
from src.training.arguments import (
    LIMITS,
    PRECISIONS,
    REFUSED,
    Duration,
    Limit,
    LimitOrNone,
    Positive,
    Precision,
)
from src.training.devices import CORES, Accelerator, available_accelerator, launched
from src.training.progress import ProgressBar
from src.training.saving import CheckpointIO

MOST_EPOCHS = ROWS  # so that the metrics of all can be read again
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
    max_epochs: Annotated[int, Field(gt=0, le=MOST_EPOCHS)] = 20,
    max_time: Duration | None = None,
    accelerator: Accelerator = "cpu",
    devices: PositiveInt = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    precision: Precision = "32-true",
    limit_train_batches: Limit = 1.0,
    limit_val_batches: LimitOrNone = 1.0,
    limit_test_batches: Limit = 1.0,
    check_val_every_n_epoch: PositiveInt = 1,
    accumulate_grad_batches: PositiveInt = 1,
    gradient_clip_val: Positive | None = None,
    gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    deterministic: bool | Literal["warn"] = False,
    detect_anomaly: bool = False,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    fast_dev_run: bool | PositiveInt = False,
    enable_progress_bar: bool = True,
    threads: Annotated[int, Field(ge=1, le=CORES)] = 1,
    *,
    folder: Path = Path("."),
    callbacks: Sequence[L.Callback] = (),
    loggers: Sequence[Logger] = (),
    **further: Any,
) -> L.Trainer:
    """Lightning's Trainer of the run in `folder`, with its callbacks and loggers.

    conf/trainer/default.yaml says what the arguments mean; `further` ones are Lightning's.
    `trainer_arguments` has replaced fast_dev_run by what it stands for.

    From here on, torch uses `threads` threads on the CPU: one is enough for products of this size,
    gives the same bits whatever the number of cores, and does not wait for others on a busy
    machine. Raises UserError for hardware that is not there, for processes that a launcher has
    started unasked, and for what Lightning refuses.
    """
    accelerator = available_accelerator(accelerator, devices)
    if precision == "16-mixed" and accelerator == "cpu":
        raise UserError("trainer.precision=16-mixed needs a GPU; take trainer.precision=bf16-mixed")
    if precision == "64-true" and accelerator == "mps":
        raise UserError(
            "trainer.precision=64-true: mps has no 64 bit; take trainer.accelerator=cpu"
        )
    torch.set_num_threads(threads)
    silence_lightning()
    cluster = launched(devices)
    bar = [ProgressBar()] if enable_progress_bar else []
    own = {
        "enable_progress_bar": False,  # ours is quicker, and one for all epochs
        "callbacks": [Timer(max_time, interval="epoch", verbose=False), *callbacks, *bar],
        "logger": [*loggers],
        "default_root_dir": folder.absolute(),
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "num_sanity_val_steps": 0,  # the model checks its inputs itself
        "use_distributed_sampler": False,  # src.data.batches divides the examples exactly
        "plugins": [CheckpointIO(), *cluster],
        "profiler": build_profiler(profiler, folder),
    }
    further.setdefault("enable_model_summary", False)
    try:
        return L.Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            check_val_every_n_epoch=check_val_every_n_epoch,
            accumulate_grad_batches=accumulate_grad_batches,
            gradient_clip_val=gradient_clip_val,
            gradient_clip_algorithm=gradient_clip_algorithm,
            deterministic=deterministic,
            detect_anomaly=detect_anomaly,
            **own,
            **further,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UserError(f"trainer: {' '.join(str(error).split())}") from error


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


def trainer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the trainer as `build_trainer` takes them, with the defaults of the others.

    fast_dev_run is an epoch of one minibatch, or so many, of each split. Raises UserError for an
    argument that there is not, that is refused, or whose value does not fit.
    """
    known = defaults()
    for name, value in settings["trainer"].items():
        if name in REFUSED:
            raise UserError(f"trainer.{name}={value} is refused: {REFUSED[name]}")
    objects = ("folder", "callbacks", "loggers", "further")
    given = arguments("trainer", build_trainer, settings["trainer"], objects)
    check_further({name: value for name, value in given.items() if name not in known})
    values = known | given
    precision = str(values["precision"])
    values["precision"] = PRECISIONS.get(precision, precision)
    if values["fast_dev_run"]:
        values["max_epochs"] = 1
        values |= dict.fromkeys(LIMITS, int(values["fast_dev_run"]))
    return values


def defaults() -> dict[str, Any]:
    """The arguments that keep all that a run promises, with their defaults."""
    values = {}
    for name, parameter in parameters(build_trainer).items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            values[name] = parameter.default
    return values


def check_further(further: dict[str, Any]) -> None:
    """Raises UserError for arguments that Lightning does not have, or whose values do not fit."""
    of_lightning = parameters(L.Trainer)
    for name, value in further.items():
        if name not in of_lightning:
            raise UserError(
                f"trainer.{name}={value}: there is no such setting; there are "
                f"{', '.join(defaults())}, and what docs/lightning.md has of lightning.Trainer"
            )
    arguments("trainer", L.Trainer, further)


def untested_arguments(settings: dict[str, Any]) -> list[str]:
    """The accepted settings of the trainer that no test has tried with all that a run promises."""
    names = []
    for name in settings["trainer"]:
        if name not in defaults():
            names.append(f"trainer.{name}")
    return names


def silence_lightning() -> None:
    """Keep Lightning's announcements, tips and idle warnings out of the log."""
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    for message in IGNORED:
        warnings.filterwarnings("ignore", message=message)


class Unprofiled(PassThroughProfiler):
    """One context manager for all that is profiled.

    Lightning's own profiler builds one for each of the 17 things that it does in a step.
    """

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        return NOTHING
