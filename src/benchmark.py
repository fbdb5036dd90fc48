"""Measurements, as medians and ratios: python -m src.benchmark [suite=all|epoch|command|sweep|classes]

epoch, command and sweep hold ours against two plain loops (see src.speed); classes compares forms of the
softmax and its gradient as the number of classes grows.
"""

import functools
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional as torch_F
from torch.profiler import ProfilerActivity, profile

from src import speed, terminal
from src.charts import COLOURS, figure, save
from src.errors import UserError
from src.maths import functional as F
from src.runs import write
from src.runs.config import build_data

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


def class_table(rows: list[dict[str, float | str]]) -> str:
    lines = [
        "classes  loss and gradient  median time  / torch's  peak memory  / the logits'",
        *(
            f"{row['classes']:7,}  {row['form']:17}{row['milliseconds']:10.3f} ms{row['time_ratio']:11.2f}"
            f"{row['megabytes']:10.3f} MB{row['megabytes'] / row['logits_megabytes']:15.1f}"
            for row in rows
        ),
    ]
    return "\n".join(lines)


def table(measured: speed.Measured, verdicts: list[dict]) -> str:
    """Median, lowest and highest over the rounds: of what was measured, then of what is held to a target."""
    lines = [f"{'':36}{'median':>10}{'lowest':>10}{'highest':>10}"]
    for name, (unit, values) in measured.items():
        figures = statistics.median(values), min(values), max(values)
        lines.append(f"{name + ', ' + unit:36}" + "".join(f"{figure:10.4g}" for figure in figures))
    lines.append("")
    for row in verdicts:
        name = f"{row['figure']}, {row['unit']}".removesuffix(", ")
        figures = "".join(f"{row[figure]:10.4g}" for figure in ("median", "lowest", "highest"))
        lines.append(f"{name:36}{figures}  {row['target']}: {'met' if row['met'] else 'NOT MET'}")
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    """What the figures depend on besides the code."""
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": L.__version__,
    }


def check(cfg: DictConfig) -> None:
    """Raises UserError for a suite that is not there, or a number below 1."""
    if cfg.suite != "all" and cfg.suite not in SUITES:
        raise UserError(f"there is no suite {cfg.suite}; try suite=all or one of {', '.join(SUITES)}")
    counts = {"repeats": cfg.repeats, "num_examples": cfg.num_examples, "threads": cfg.threads}
    counts |= {f"{suite}.{key}": cfg[suite][key] for suite in speed.TARGETS for key in cfg[suite]}
    for key, count in counts.items():
        if count is not None and not (isinstance(count, int) and count >= 1):
            raise UserError(f"{key} must be a whole number >= 1, got {count}; try {key}=3")


def measure_classes(cfg: DictConfig, folder: Path) -> None:
    rows = classes(list(cfg.classes), cfg.num_examples, cfg.repeats)
    write(folder / "classes.json", json.dumps({**machine(), "rows": rows}, indent=2) + "\n")
    save(class_chart(rows), folder / "classes.png")
    log.info("%s\n\n%d examples, %d threads\n", class_table(rows), cfg.num_examples, torch.get_num_threads())


def measure_speed(suite: str, measure: Callable[..., speed.Measured], cfg: DictConfig, folder: Path) -> None:
    root = Path(cfg.data.root).absolute()
    with tempfile.TemporaryDirectory(dir=folder, prefix="runs") as runs:
        measured = measure(root, Path(runs).absolute(), **cfg[suite])
    verdicts = [target.judge(measured) for target in speed.TARGETS[suite]]
    content = {
        **machine(),
        **cfg[suite],
        "measured": {name: series._asdict() for name, series in measured.items()},
        "targets": verdicts,
    }
    write(folder / f"{suite}.json", json.dumps(content, indent=2) + "\n")
    save(speed_chart(measured), folder / f"{suite}.png")
    log.info("%s: %s\n", suite, ", ".join(f"{key}={value}" for key, value in cfg[suite].items()))
    log.info("%s\n", table(measured, verdicts))


SUITES = {
    "epoch": functools.partial(measure_speed, "epoch", speed.epoch),
    "command": functools.partial(measure_speed, "command", speed.commands),
    "sweep": functools.partial(measure_speed, "sweep", speed.sweep),
    "classes": measure_classes,
}


def class_chart(rows: Sequence[dict[str, Any]]) -> Figure:
    """Time and peak memory against the number of classes, one line per form; see `classes`."""
    panel = figure(9.2, 3.4)
    units = {"milliseconds": "median time, ms", "megabytes": "peak memory, MB"}
    colours = {"torch": "black", "stable": "#0072B2", "textbook": "#D55E00", "closed_form": "#009E73"}
    for ax, (field, label) in zip(panel.subplots(1, 2), units.items(), strict=True):
        for form, colour in colours.items():
            points = [(row["classes"], row[field]) for row in rows if row["form"] == form]
            ax.loglog(*zip(*points, strict=True), marker="o", color=colour, label=form)
        ax.set(xlabel="classes", title=label)
        ax.grid(alpha=0.3)
    panel.axes[0].legend(frameon=False)
    return panel


def speed_chart(measured: speed.Measured) -> Figure:
    """What contestants took: a panel for each unit, bars to the median, lines from lowest to highest."""
    units = list(dict.fromkeys(series.unit for series in measured.values()))
    panel = figure(5.6 * len(units), 1.2 + 0.3 * len(measured))
    for ax, unit in zip(panel.subplots(1, len(units), squeeze=False)[0], units, strict=True):
        chosen = {name: series.values for name, series in measured.items() if series.unit == unit}
        medians = [float(np.median(values)) for values in chosen.values()]
        ends = [(min(values), max(values)) for values in chosen.values()]
        ax.barh(list(chosen), medians, color=COLOURS["train"], alpha=0.6)
        ax.hlines(list(chosen), *zip(*ends, strict=True), color="black")
        for place, (median, (_, highest)) in enumerate(zip(medians, ends, strict=True)):
            text = f"{median:.0f}" if median >= 100 else f"{median:.3g}"
            ax.text(highest, place, f" {text}", va="center", fontsize=9)
        ax.set(xlabel=f"{unit}, median and range", xlim=(0, 1.2 * max(high for _, high in ends)))
        ax.invert_yaxis()
    return panel


@hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    check(cfg)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    suites = list(SUITES) if cfg.suite == "all" else [cfg.suite]
    if set(suites) & set(speed.TARGETS):
        build_data({"data": OmegaConf.to_container(cfg.data, resolve=True)}).prepare_data()
    folder = Path(HydraConfig.get().runtime.output_dir)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in machine().items()))
    if "epoch" in suites and not torch.cuda.is_available():
        log.info("there is no GPU here: the epochs are measured on the CPU alone")
    log.info("")
    for suite in suites:
        SUITES[suite](cfg, folder)
    log.info("%s", terminal.relative(folder))


if __name__ == "__main__":
    terminal.run(main)
