"""Every recipe of the notes, run and checked against its yardstick: python -m src.reproduce, or make reproduce

Writes results.md (and results.csv): preset, recipe, our figure, the yardstick, pass or fail. The exit status
is 0 only if everything passes.
"""

import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig

from src import terminal
from src.charts import save
from src.charts.curves import compared
from src.errors import UserError
from src.runs import Run, write, write_csv
from src.training.experiment import train

log = logging.getLogger(__name__)
CONF = Path(__file__).parent.parent / "conf"


class Check(NamedTuple):
    """A preset, how to run it, and the bounds that its figures must keep (the yardstick says whence)."""

    preset: str
    recipe: str
    bounds: dict[
        str, tuple[float, float]
    ]  # metric -> lowest and highest value that the mean over seeds may have
    yardstick: str
    seeds: Sequence[int] = (0,)
    shortened: tuple[str, ...] = ()  # overrides that keep the page within its time


FIVE = range(5)
NOTES = {"train/loss": (0, 0.5), "train/acc": (0.7, 1), "test/acc": (0.7, 1)}
CHECKS = [
    Check(
        "scratch_decay",
        "textbook numerics, lr 0.1 x 0.9^epoch, batch 256, 20 epochs",
        {"test/acc": (0.831, 0.837), "test/loss": (0.474, 0.484)},
        "plain loop: accuracy 0.834 (5 seeds, 0.832 to 0.835), loss 0.479",
        FIVE,
    ),
    Check(
        "scratch_constant",
        "the same, lr 0.1 constant, 10 epochs",
        NOTES | {"test/acc": (0.829, 0.835), "test/loss": (0.479, 0.489)},
        "plain loop: accuracy 0.832 (5 seeds, 0.830 to 0.833), loss 0.484; notes: train loss < 0.5",
        FIVE,
    ),
    Check(
        "concise",
        "nn.Linear, fused cross-entropy, SGD lr 0.1, batch 256, 10 epochs",
        NOTES | {"test/acc": (0.829, 0.835), "test/loss": (0.479, 0.489)},
        "plain loop: accuracy 0.832 (5 seeds, 0.830 to 0.833), loss 0.484",
        FIVE,
    ),
    Check(
        "concise_small_batch",
        "the same, batch 32",
        NOTES,
        "notes: train loss < 0.5, accuracies in (0.7, 1]",
    ),
    Check(
        "scratch_long",
        "textbook numerics, lr 0.1 constant, batch 32, 100 epochs",
        NOTES,
        "notes: train loss < 0.5, accuracies in (0.7, 1]",
        shortened=("trainer.max_epochs=40",),
    ),
    Check(
        "scratch_resized",
        "the same with images of 64 x 64, 4,096 inputs, 5 epochs",
        {"test/acc": (0.7, 1)},
        "notes: accuracy in (0.7, 1]",
    ),
    Check(
        "linear_scratch",
        "y = X w + b + noise, 1/2 d^2, lr 0.03, batch 10, 10 epochs",
        {"error/w": (0, 0.01), "error/b": (0, 0.01)},
        "plain loop: w and b within 0.01",
    ),
    Check(
        "linear_concise",
        "nn.Linear, MSELoss, lr 0.03, batch 10, 3 epochs",
        {"error/w": (0, 0.02), "error/b": (0, 0.02)},
        "w and b within 0.02: steps twice as long, twice the jitter",
    ),
    Check(
        "linear_l1",
        "as linear_scratch, absolute loss",
        {"error/w": (0, 0.05), "error/b": (0, 0.05)},
        "w and b within 0.05: steps of constant length jitter",
    ),
    Check(
        "linear_huber",
        "as linear_scratch, Huber loss",
        {"error/w": (0, 0.01), "error/b": (0, 0.01)},
        "w and b within 0.01",
    ),
    Check(
        "overfit",
        "300 training images, batch 50, lr 0.1 constant, 400 epochs",
        {"gap": (0.7, 2), "last val/loss": (0.9, 2)},
        "the gap val/loss - train/loss of the last epoch opens to at least 0.7",
    ),
    Check(
        "overfit_fixed",
        "the same with weight decay 0.01 and early stopping",
        {"gap": (0, 0.7), "last val/loss": (0, 0.87)},
        "the gap stays below 0.7, the validation loss below 0.87",
    ),
    Check(
        "best",
        "lr 0.5 x 0.96^epoch, batch 256, 50 epochs, epoch chosen on the validation split",
        {"test/acc": (0.844, 1)},
        "best published linear model: 0.842 (arXiv 1708.07747, table 3); asked: 0.844",
        FIVE,
    ),
]


def run_preset(preset: str, seed: int, overrides: Sequence[str], folder: str) -> dict[str, Any]:
    """Train in this process, with one thread; the record of the run, with the losses of its last epoch.

    Of a run that raises, the record has nothing but its reason.
    """
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    try:
        return finished(preset, seed, overrides, folder)
    except Exception as error:  # as text: not every exception can be sent to another process
        bug = "" if isinstance(error, terminal.USER_ERRORS) else f"{type(error).__name__}: "
        return {"reason": bug + terminal.printable(" ".join(terminal.explain(error).split()))}


def finished(preset: str, seed: int, overrides: Sequence[str], folder: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        arguments = [f"experiment={preset}", f"seed={seed}"]
        cfg = compose("train", overrides=[*arguments, "trainer.enable_progress_bar=false", *overrides])
    train(cfg, folder)
    run = Run(folder)
    last = run.rows()[-1]
    if "val/loss" not in last:
        return run.record()
    return run.record() | {"gap": last["val/loss"] - last["train/loss"], "last val/loss": last["val/loss"]}


def judge(check: Check, records: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the page: the mean of each bounded metric over the seeds, its spread, and the verdict."""
    failed = [f"seed {record['seed']} failed: {record['reason']}" for record in records if "reason" in record]
    figures, passed = failed, not failed
    records = [record for record in records if "reason" not in record]
    for name, (low, high) in check.bounds.items():
        values = [record[name] for record in records]
        if not values:
            break
        mean = statistics.fmean(values)
        passed &= low <= mean <= high
        spread = f" ({min(values):.4f} to {max(values):.4f}, {len(values)} seeds)" if len(values) > 1 else ""
        figures.append(f"{name} {mean:.4f}{spread}")
    shortened = f"; here {', '.join(check.shortened)}" if check.shortened else ""
    return {
        "preset": check.preset,
        "recipe": check.recipe + shortened,
        "ours": "; ".join(figures),
        "yardstick": check.yardstick,
        "seconds": round(sum(record["seconds"] for record in records)),
        "verdict": "pass" if passed else "FAIL",
    }


def reproduce(
    checks: list[Check], overrides: Sequence[str], workers: int, folder: Path, say: Callable[..., None]
) -> list[dict[str, Any]]:
    """Run all checks, `workers` runs side by side; write the page and return its rows."""
    runs: dict[str, list[dict[str, Any]]] = {check.preset: [] for check in checks}
    # The longest first, so that no worker is left alone with one at the end.
    order = sorted(
        checks, key=lambda check: check.preset not in ("best", "scratch_long", "concise_small_batch")
    )
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {
            pool.submit(
                run_preset,
                check.preset,
                seed,
                [*check.shortened, *overrides],
                str(folder / check.preset / f"seed{seed}"),
            ): (check, seed)
            for check in order
            for seed in check.seeds
        }
        for done, future in enumerate(as_completed(futures), start=1):
            check, seed = futures[future]
            try:
                record = future.result()
            except BrokenExecutor as error:  # a process was killed
                record = {"reason": str(error)}
            runs[check.preset].append(record | {"seed": seed})
            said = record.get("reason") or "  ".join(f"{name} {record[name]:.4f}" for name in check.bounds)
            say("%d/%d  %s seed %d  %s", done, len(futures), check.preset, seed, said)
    rows = [judge(check, runs[check.preset]) for check in checks]
    write(folder / "results.md", terminal.table(rows) + "\n")
    write_csv(folder / "results.csv", rows)
    pair = [folder / name / "seed0" for name in ("overfit", "overfit_fixed")]
    if all(Run(path).metrics_csv.exists() for path in pair):
        curves = {path.parent.name: Run(path).rows() for path in pair}
        save(compared(curves), folder / "overfit.png")
    return rows


@hydra.main(version_base="1.3", config_path="../conf", config_name="reproduce")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    names = [check.preset for check in CHECKS]
    if cfg.presets != "all" and not isinstance(cfg.presets, ListConfig):
        raise UserError(f"presets must be all or a list, got {cfg.presets}; try presets=[{names[0]}]")
    wanted = names if cfg.presets == "all" else list(cfg.presets)
    if unknown := [name for name in wanted if name not in names]:
        raise UserError(f"presets: no check for {', '.join(unknown)}; choose from {', '.join(names)}")
    workers = os.cpu_count() if cfg.workers == "auto" else cfg.workers
    if type(workers) is not int or workers < 1:
        raise UserError(f"workers must be auto or an integer >= 1, got {workers}; try workers=auto")
    folder = Path(HydraConfig.get().runtime.output_dir)
    started = time.monotonic()
    rows = reproduce(
        [check for check in CHECKS if check.preset in wanted], cfg.overrides, workers, folder, log.info
    )
    log.info("\n%s", terminal.table(rows))
    log.info("%s in %.0f s", terminal.relative(folder / "results.md"), time.monotonic() - started)
    if failed := [row["preset"] for row in rows if row["verdict"] != "pass"]:
        raise UserError(f"failed, or outside the bounds: {', '.join(failed)}")


if __name__ == "__main__":
    terminal.run(main)
