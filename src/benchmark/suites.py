"""The suites of the benchmark, as tables.

One measures epochs of ours beside plain loops, the other losses of very many classes.

Contestants take turns: whatever else the machine does meets all of them. A ratio is taken within a
turn.
"""

import itertools
import json
import logging
import os
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import DictConfig
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as torch_F
from torch.profiler import ProfilerActivity, profile

from src.benchmark import loops
from src.cli.console import pasteable
from src.cli.options import Options, checked
from src.maths import functional as F
from src.runs.build import build
from src.runs.config import OPTIONAL, Bounds, plain
from src.tables import table
from src.training.experiment import check_settings, train
from src.training.history import provenance

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler is chatty
LOSSES = {
    "torch": torch_F.cross_entropy,
    "stable": F.cross_entropy,
    "textbook": F.textbook_cross_entropy,
}
FORMS = [*LOSSES, "closed_form"]
Ratio = Literal["scratch / bare", "closed_form / bare", "textbook / scratch", "concise / scratch"]
log = logging.getLogger(__name__)


class Benchmark(Options, extra="ignore"):  # the settings of our runs stand beside these
    suite: Literal["all", "epoch", "classes"]
    epoch: dict[Literal["rounds", "epochs"], PositiveInt]
    targets: dict[Ratio, Bounds]
    classes: Annotated[list[PositiveInt], Field(min_length=1)]
    num_examples: PositiveInt
    repeats: PositiveInt


def epoch_seconds(
    cfg: DictConfig, folder: Path, rounds: int, epochs: int
) -> dict[str, list[float]]:
    """Seconds of an epoch, by contestant.

    Each round gives the median of `epochs`, after one to warm up.
    """
    root, count, threads = str(cfg.data.root), 1 + epochs, torch.get_num_threads()
    # for the bare loop; ours are at trainer=gpu
    device = "cuda" if cfg.trainer.accelerator == "gpu" else "cpu"
    train_size, val_size = cfg.data.train_size or 60_000 - cfg.data.val_size, cfg.data.val_size
    contestants = {
        "textbook": partial(loops.textbook, root, train_size, val_size, count),
        "bare": partial(loops.bare, root, train_size, count, device),
    }
    trainer = {**cfg.trainer, "max_epochs": count, "enable_progress_bar": False}
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        for name, model in cfg.models.items():
            settings = settings_of_ours(cfg, model, trainer)
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


def settings_of_ours(cfg: DictConfig, model: dict, trainer: dict) -> dict:
    """The settings of a run with this model and trainer.

    Raises UserError for those that do not fit.
    """
    settings = plain(
        {name: cfg[name] for name in ("seed", "data", *OPTIONAL)}
        | {"model": model, "trainer": trainer}
    )
    check_settings(settings)
    return settings


def ours(settings: dict, folder: str | Path, ended: Callable) -> None:
    """A run as src.train makes it, in a new folder within `folder`."""
    # an epoch ends where the next one starts, or with the training: its checkpoints are written by
    # then
    clock = LambdaCallback(on_train_epoch_start=ended, on_train_end=ended)
    train(settings, tempfile.mkdtemp(dir=folder), clock)


def epoch_rows(seconds: dict[str, list[float]], targets: dict[str, list[float]]) -> Iterator[dict]:
    """A row for each contestant, then one for each ratio of two of them that has a target."""
    times = {name: np.array(values) for name, values in seconds.items()}
    figures = {f"{name}, s": values for name, values in times.items()}
    for of, base in (ratio.split(" / ") for ratio in targets):
        if {of, base} <= times.keys():
            figures[f"{of} / {base}"] = times[of] / times[base]
    for name, values in figures.items():
        row = {
            "figure": name,
            "median": np.median(values),
            "lowest": values.min(),
            "highest": values.max(),
        }
        if name in targets:
            low, high = targets[name]
            row |= {"target": f"{low:g} to {high:g}", "met": low <= row["median"] <= high}
        yield row


def loss_grad(form: str, logits: Tensor, y: Tensor) -> Tensor:
    """Gradient of the mean loss with respect to the logits, after the loss itself."""
    if form != "closed_form":
        return torch.autograd.grad(LOSSES[form](logits, y), logits)[0]
    with torch.no_grad():
        F.cross_entropy(logits, y)
        return F.cross_entropy_grad(logits, y)


def loss_rows(classes: list[int], num_examples: int, repeats: int) -> Iterator[dict]:
    """A row for each number of classes and form: time and memory of loss and gradient."""
    for q in classes:
        logits, y = (
            torch.randn(num_examples, q, requires_grad=True),
            torch.randint(q, (num_examples,)),
        )
        calls = [partial(loss_grad, form, logits, y) for form in FORMS]
        turns = [[timeit.timeit(call, number=1) for call in calls] for _ in range(2 + repeats)]
        seconds = np.array(turns[2:])  # (repeats, forms), after two to warm up
        for k, form in enumerate(FORMS):
            peak = peak_bytes(calls[k])
            yield {
                "classes": q,
                "loss and gradient": form,
                "milliseconds": 1e3 * np.median(seconds[:, k]),
                "times torch's": np.median(seconds[:, k] / seconds[:, 0]),
                "peak megabytes": peak / 1e6,
                "times the logits": peak / logits.nbytes,
            }


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory that the call holds at any moment, beyond what there was.

    Tensors on the CPU are counted.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    with tempfile.TemporaryDirectory() as folder:
        profiled.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    events = sorted(
        (event for event in events if event["name"] == "[memory]"), key=lambda event: event["ts"]
    )
    return max(itertools.accumulate(event["args"]["Bytes"] for event in events))


def main(cfg: DictConfig) -> None:
    options, folder = checked(Benchmark, cfg), Path(HydraConfig.get().runtime.output_dir)
    machine = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **provenance()["versions"],
    }
    log.info("%s\n", ", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.suite != "epoch":
        log.info("%s\n", table(loss_rows(options.classes, options.num_examples, options.repeats)))
    if options.suite != "classes":
        log.info(
            "%s\n", table(epoch_rows(epoch_seconds(cfg, folder, **options.epoch), options.targets))
        )
    log.info("written to %s/: benchmark.log", pasteable(folder))
