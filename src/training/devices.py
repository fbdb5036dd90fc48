"""The devices that a run trains on, and the processes that somebody has started for them."""

import os
from typing import Literal

import torch
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
)

from src.errors import UserError
from src.processes import main_process

Accelerator = Literal["cpu", "gpu", "mps", "auto"]  # auto: gpu, else mps, else cpu
CORES = os.cpu_count() or 1


def available_accelerator(accelerator: Accelerator, devices: int) -> Literal["cpu", "gpu", "mps"]:
    """The kind of device to train on.

    Raises UserError if there are fewer of them than `devices`.
    """
    available = {
        "gpu": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": CORES,
    }
    if accelerator == "auto":
        accelerator = next(kind for kind, number in available.items() if number)
    if devices > available[accelerator]:
        asked = f"trainer.accelerator={accelerator} trainer.devices={devices} cannot be had here"
        others = [f"trainer={kind}" for kind in available if kind != accelerator]
        advice = f"try trainer.accelerator=cpu trainer.devices=1, or {' or '.join(others)}"
        raise UserError(f"{asked}, where there are {available[accelerator]}; {advice}")
    return accelerator


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
