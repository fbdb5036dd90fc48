"""The Trainer of every run: Lightning's, with the arguments that all promises are tested with."""

import contextlib
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import lightning as L
import rich
import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
)
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.profilers import PassThroughProfiler
from pydantic import Field, PositiveInt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from src.errors import UserError
from src.formats import ROWS
from src.processes import main_process
from src.training.saving import CheckpointIO

Accelerator = Literal["cpu", "gpu", "auto"]  # auto: gpu if there is one
CORES = os.cpu_count() or 1
MOST_EPOCHS = ROWS  # so that the metrics of all can be read again
NOTHING = contextlib.nullcontext()
IGNORED = [  # warnings of Lightning's
    ".*LeafSpec.*",  # its own use of a torch name that is on its way out
    ".*sync_dist=True.*",  # the model logs means that are over all processes already
    ".*callbacks used to create the checkpoint need to be provided.*",  # a stopper may be left out
    ".*The `srun` command is available on your system.*",  # as on every login node of a cluster
]


def build_trainer(
    max_epochs: Annotated[int, Field(gt=0, le=MOST_EPOCHS)] = 20,
    accelerator: Accelerator = "cpu",
    devices: PositiveInt = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    enable_progress_bar: bool = True,
    threads: Annotated[int, Field(ge=1, le=CORES)] = 1,
    *,
    folder: Path = Path("."),
    callbacks: Sequence[L.Callback] = (),
) -> L.Trainer:
    """Lightning's Trainer of the run in `folder`, with its callbacks.

    From here on, torch uses `threads` threads on the CPU: one is enough for products of this size,
    gives the same bits whatever the number of cores, and does not wait for others on a busy
    machine. Raises UserError for hardware that is not there, and for processes that a launcher has
    started unasked.
    """
    accelerator = available_accelerator(accelerator, devices)
    torch.set_num_threads(threads)
    silence_lightning()
    cluster = launched(devices)
    bar = [ProgressBar()] if enable_progress_bar else []
    return L.Trainer(
        max_epochs=max_epochs,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        enable_progress_bar=False,  # ours is quicker, and one for all epochs
        callbacks=[*callbacks, *bar],
        logger=False,  # src.training.tensorboard writes for TensorBoard
        default_root_dir=folder.absolute(),
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,  # the model checks its inputs itself
        use_distributed_sampler=False,  # src.data.batches divides the examples exactly
        plugins=[CheckpointIO(), *cluster],
        # without it an epoch takes 1.04 to 1.17 times as long (five medians)
        profiler=Unprofiled(),
    )


def available_accelerator(accelerator: Accelerator, devices: int) -> Literal["cpu", "gpu"]:
    """The kind of device to train on.

    Raises UserError if there are fewer of them than `devices`.
    """
    available = {"cpu": CORES, "gpu": torch.cuda.device_count()}
    if accelerator == "auto":
        accelerator = "gpu" if available["gpu"] else "cpu"
    if devices > available[accelerator]:
        asked = f"trainer.accelerator={accelerator} trainer.devices={devices} cannot be had here"
        advice = "try trainer.accelerator=cpu trainer.devices=1"
        raise UserError(f"{asked}, where there are {available[accelerator]}; {advice}")
    return accelerator


def silence_lightning() -> None:
    """Keep Lightning's announcements, tips and idle warnings out of the log."""
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    for message in IGNORED:
        warnings.filterwarnings("ignore", message=message)


def launched(devices: int) -> list[ClusterEnvironment]:
    """The environment of the processes that srun has started.

    Lightning misses it in an interactive allocation, and takes a batch script for a task of srun's.
    Raises UserError unless the run has the processes that it asks for, or Lightning is to start
    them.
    """
    names = (
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "SLURM_NTASKS",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_STEP_NUM_NODES",
    )
    numbers, unfit = {}, False
    for name in names:
        if name in os.environ:
            text = numbers[name] = os.environ[name]
            unfit = unfit or not (text.isascii() and text.isdigit())
    torchrun = "RANK" in numbers
    tasks, processes = 1, devices
    if not unfit:
        tasks = 1 if torchrun else int(numbers.get("SLURM_STEP_NUM_TASKS", 1))
        if torchrun:
            processes = int(numbers.get("WORLD_SIZE", 1))
        elif tasks > 1 or SLURMEnvironment.detect():
            processes = tasks if numbers.get("SLURM_STEP_NUM_NODES", "1") == "1" else 0
    if unfit or processes != devices or (devices == 1 and not main_process()):
        raise UserError(
            f"trainer.devices={devices} asks for as many processes, but the environment says "
            f"{numbers}; start them with srun --nodes=1 --ntasks-per-node=DEVICES or torchrun, or "
            "unset what another program left"
        )
    if tasks > 1:
        return [SLURMEnvironment()]
    return [] if torchrun else [LightningEnvironment()]


class ProgressBar(L.Callback):
    """A bar over the whole fit, below the log lines of a terminal.

    It shows the epoch, the minibatches and the time left.
    """

    def __init__(self):
        columns = (
            "{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            "left",
        )
        visible = rich.get_console().is_terminal and main_process()
        self.bar = Progress(*columns, transient=True, disable=not visible)
        self.task = self.bar.add_task("")

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        self.bar.start()
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        total = trainer.max_epochs * trainer.num_training_batches
        self.bar.update(self.task, completed=trainer.global_step, total=total, description=epoch)

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.bar.stop()

    def on_exception(
        self, trainer: L.Trainer, model: L.LightningModule, exception: BaseException
    ) -> None:
        self.bar.stop()


class Unprofiled(PassThroughProfiler):
    """One context manager for all that is profiled.

    Lightning's own profiler builds one for each of the 17 things that it does in a step.
    """

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        return NOTHING
