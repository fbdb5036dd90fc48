"""The recipes of the notes: their runs, and whether the results keep their bounds."""

import logging
import math
import multiprocessing
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from src import terminal
from src.errors import Stopped, UserError
from src.runs import Run, write
from src.runs.options import Options, checked
from src.runs.settings import CONF
from src.tables import table
from src.training.experiment import train

log = logging.getLogger(__name__)
Record = dict[str, Any]  # of a run, with its seed; of one that failed, the reason and the seed alone


class Check(Options):
    recipe: str
    yardstick: str
    bounds: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]
    seeds: PositiveInt = 1
    overrides: list[str] = Field([])


class Reproduction(Options):
    presets: Annotated[list[str], Field(min_length=1)] | None
    overrides: list[str]
    workers: PositiveInt | None
    checks: dict[str, Check]


def run_preset(preset: str, seed: int, overrides: Sequence[str], folder: Path) -> Record:
    """Train in this process. The record has the losses of the last epoch too. Raises UserError if it fails."""
    arguments = [f"experiment={preset}", f"seed={seed}", "trainer.enable_progress_bar=false", *overrides]
    try:
        if Stopped.received:  # in an earlier run: this process is to end
            raise Stopped(Stopped.received)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", overrides=arguments)
        train(cfg, folder)
    except BaseException as error:  # as text: not every exception can be sent to another process
        raise UserError(" ".join(terminal.explain(error).split())) from None
    record, last = Run(folder).record(), Run(folder).rows()[-1]
    if "val/loss" in last:
        record |= {"gap": last["val/loss"] - last["train/loss"], "last val/loss": last["val/loss"]}
    return record


def row(preset: str, check: Check, records: Sequence[Record]) -> dict[str, Any]:
    """A row of the page: the mean of each bounded metric over the seeds, its spread, and the verdict."""
    finished = [record for record in records if "reason" not in record]
    figures = [f"seed {record['seed']} failed: {record['reason']}" for record in records if "reason" in record]
    passed = not figures
    for name, (low, high) in check.bounds.items() if finished else ():
        values = [record.get(name, math.nan) for record in finished]
        passed &= low <= statistics.fmean(values) <= high
        spread = f" ({min(values):.4f} to {max(values):.4f}, {len(values)} seeds)" if len(values) > 1 else ""
        figures.append(f"{name} {statistics.fmean(values):.4f}{spread}")
    shortened = f"; here {', '.join(check.overrides)}" if check.overrides else ""
    return {
        "preset": preset,
        "recipe": check.recipe + shortened,
        "ours": "; ".join(figures),
        "yardstick": check.yardstick,
        "seconds": round(sum(record["seconds"] for record in finished)),
        "verdict": "pass" if passed else "FAIL",
    }


def reproduce(checks: dict[str, Check], overrides: Sequence[str], workers: int, folder: Path) -> None:
    """Run all checks, `workers` runs side by side, and write the table. Raises UserError unless all pass."""
    records: dict[str, list[Record]] = {preset: [] for preset in checks}
    spawn = multiprocessing.get_context("spawn")
    pool, futures = ProcessPoolExecutor(workers, spawn, logging.disable, (logging.CRITICAL,)), {}
    try:
        for preset, check in checks.items():
            for seed in range(check.seeds):
                arguments = [*check.overrides, *overrides], folder / preset / f"seed{seed}"
                futures[pool.submit(run_preset, preset, seed, *arguments)] = preset, seed
        for done, future in enumerate(as_completed(futures), start=1):
            preset, seed = futures[future]
            error = future.exception()  # of the run, or of the pool if a process was killed
            records[preset].append({"seed": seed, "reason": str(error)} if error else future.result())
            ours = row(preset, checks[preset], records[preset][-1:])["ours"]
            log.info("%d/%d  %s seed %d  %s", done, len(futures), preset, seed, ours)
    except BaseException:  # as a signal; the runs end as well
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    rows = [row(preset, check, records[preset]) for preset, check in checks.items()]
    write(folder / "results.md", table(rows) + "\n")
    log.info("\n%s\n\n%s", table(rows), terminal.relative(folder / "results.md"))
    if failed := [row["preset"] for row in rows if row["verdict"] != "pass"]:
        raise UserError(f"failed, or outside the bounds: {', '.join(failed)}")


def main(cfg: DictConfig) -> None:
    options = checked(Reproduction, cfg)
    presets = options.presets or options.checks
    if unknown := [preset for preset in presets if preset not in options.checks]:
        raise UserError(f"presets: no check for {', '.join(unknown)}; choose from {', '.join(options.checks)}")
    checks = {preset: options.checks[preset] for preset in presets}
    folder = Path(HydraConfig.get().runtime.output_dir)
    reproduce(checks, options.overrides, options.workers or os.cpu_count() or 1, folder)
