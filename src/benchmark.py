"""Measurements, as medians and ratios: python -m src.benchmark [suite=classes]"""

import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional as torch_F
from torch.profiler import ProfilerActivity, profile

from src import cli, plots
from src import functional as F
from src.runs import write

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler is chatty
log = logging.getLogger(__name__)


def by_autograd(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The gradient of a loss with respect to the logits, by a forward and a backward pass."""

    def gradient(logits: Tensor, y: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(loss(logits, y), logits)
        return grad

    return gradient


def closed_form(logits: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        F.cross_entropy(logits, y)
        return F.cross_entropy_grad(logits, y)


# Loss and gradient of a minibatch; the first is what the others are compared with.
CONTESTANTS = {
    "torch": by_autograd(torch_F.cross_entropy),
    "stable": by_autograd(F.cross_entropy),
    "textbook": by_autograd(F.textbook_cross_entropy),
    "closed_form": closed_form,
}


def classes(counts: list[int], num_examples: int, repeats: int) -> list[dict[str, float | str]]:
    """Time and memory of loss and gradient for each number of classes and contestant, measured in turn."""
    rows = []
    for q in counts:
        random = torch.Generator().manual_seed(0)
        logits = torch.randn(num_examples, q, generator=random).requires_grad_()
        y = torch.randint(q, (num_examples,), generator=random)
        seconds = {name: [] for name in CONTESTANTS}
        for repeat in range(-2, repeats):  # two rounds to warm up
            for name, gradient in CONTESTANTS.items():
                started = time.perf_counter()
                gradient(logits, y)
                if repeat >= 0:
                    seconds[name].append(time.perf_counter() - started)
        for name, gradient in CONTESTANTS.items():
            ratios = [ours / theirs for ours, theirs in zip(seconds[name], seconds["torch"], strict=True)]
            rows.append(
                {
                    "classes": q,
                    "form": name,
                    "milliseconds": 1e3 * statistics.median(seconds[name]),
                    "time_ratio": statistics.median(ratios),
                    "megabytes": peak_bytes(lambda: gradient(logits, y)) / 1e6,  # noqa: B023  (called at once)
                    "logits_megabytes": 4 * q * num_examples / 1e6,
                }
            )
    return rows


def peak_bytes(function: Callable[[], object]) -> int:
    """The most memory (of tensors on the CPU) that the call holds at any moment beyond what there was."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        function()
    held = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def table(rows: list[dict[str, float | str]]) -> str:
    lines = [
        "classes  loss and gradient  median time  / torch's  peak memory  / the logits'",
        *(
            f"{row['classes']:7,}  {row['form']:17}{row['milliseconds']:10.3f} ms{row['time_ratio']:11.2f}"
            f"{row['megabytes']:10.3f} MB{row['megabytes'] / row['logits_megabytes']:15.1f}"
            for row in rows
        ),
    ]
    return "\n".join(lines)


@hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")
def main(cfg: DictConfig) -> None:
    if cfg.suite != "classes":
        raise ValueError(f"there is no suite {cfg.suite}; try suite=classes")
    if cfg.repeats < 1:
        raise ValueError(f"repeats must be >= 1, got {cfg.repeats}; try repeats=9")
    folder = Path(cfg.run_dir)
    rows = classes(list(cfg.classes), cfg.num_examples, cfg.repeats)
    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    write(folder / "classes.json", json.dumps({**machine, "rows": rows}, indent=2) + "\n")
    plots.save(plots.classes(rows), folder / "classes.png")
    log.info("%s\n\n%d examples, %d threads", table(rows), cfg.num_examples, torch.get_num_threads())
    log.info("%s", cli.shown(folder))


if __name__ == "__main__":
    cli.run(main)
