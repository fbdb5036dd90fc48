"""Seconds of an epoch of ours beside those of the plain loops, and the ratios that they must keep.

Contestants take turns: whatever else the machine does meets all of them. A ratio is taken within a round.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig

from src.benchmark import loops
from src.runs import Run
from src.runs.config import build
from src.training.experiment import assemble, plain
from src.training.tensorboard import writers

TARGETS = {  # bounds on the median; on two CPU cores, with the default callbacks and logger
    "scratch / bare": (0, 2.2),  # 1.1 is arithmetic, 0.2 validation and files, 0.7 Lightning's own loop
    "closed_form / bare": (0, 2.0),
    "textbook / scratch": (9, np.inf),
    "concise / scratch": (0.9, 1.1),
}


def measure(cfg: DictConfig, folder: Path, rounds: int, epochs: int) -> dict[str, list[float]]:
    """Seconds by contestant: in each round the median of `epochs`, after one to warm up.

    Ours and the textbook loop validate, the bare loop only trains.
    """
    root, count, threads = str(cfg.data.root), 1 + epochs, torch.get_num_threads()
    device = "cuda" if cfg.trainer.accelerator == "gpu" else "cpu"  # of the bare loop; ours are at trainer=gpu
    train_size, val_size = cfg.data.train_size or 60_000 - cfg.data.val_size, cfg.data.val_size
    contestants = {
        "textbook": partial(loops.textbook, root, train_size, val_size, count),
        "bare": partial(loops.bare, root, train_size, count, device),
    }
    trainer = {**cfg.trainer, "max_epochs": count, "enable_progress_bar": False}
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        for name, model in cfg.models.items():
            settings = plain({**cfg, "model": model, "trainer": trainer})
            contestants[name] = partial(ours, settings, runs)
        build("data", settings["data"]).prepare_data()
        seconds, times = {name: [] for name in contestants}, []
        for _ in range(rounds):
            for name, contestant in contestants.items():
                torch.set_num_threads(threads)  # ours takes as many as its config says
                times.clear()
                contestant(ended=lambda *_: times.append(time.perf_counter()))
                seconds[name].append(np.median(np.diff(times)[-epochs:]))
    return seconds


def ours(settings: dict, folder: str | Path, ended: Callable) -> None:
    """A run as src.train makes it, in a new folder within `folder`."""
    # an epoch ends where the next one starts, or with the training: its checkpoints are written by then
    clock = LambdaCallback(on_train_epoch_start=ended, on_train_end=ended)
    trainer, model, data = assemble(settings, Run(tempfile.mkdtemp(dir=folder)), clock)
    trainer.fit(model, data)
    for writer in writers(trainer):
        writer.close()


def rows(seconds: dict[str, list[float]], targets: dict[str, tuple[float, float]] = TARGETS) -> Iterator[dict]:
    """A row for each contestant, then one for each ratio of two, which has a target."""
    times = {name: np.array(values) for name, values in seconds.items()}
    figures = {f"{name}, s": values for name, values in times.items()}
    for ratio in targets:
        of, base = ratio.split(" / ")
        figures[ratio] = times[of] / times[base]
    for name, values in figures.items():
        row = {"figure": name, "median": np.median(values), "lowest": values.min(), "highest": values.max()}
        if name in targets:
            low, high = targets[name]
            row |= {"target": f"{low:g} to {high:g}", "met": low <= row["median"] <= high}
        yield row
