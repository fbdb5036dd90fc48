"""The experiments of the notes: their runs, and whether the results keep their bounds."""

import logging
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from src.cli.console import pasteable
from src.cli.explain import explain
from src.cli.options import Options, checked
from src.errors import UserError
from src.runs import write
from src.runs.config import Bounds
from src.tables import table
from src.training.experiment import train

log = logging.getLogger(__name__)
# The results of a run, with its seed. Of a run that failed, the reason and the seed alone.
Record = dict[str, Any]


class Check(Options):
    settings: str
    yardstick: str
    bounds: dict[str, Bounds]
    seeds: PositiveInt = 1
    overrides: list[str] = Field([])


class Reproduction(Options):
    experiments: Annotated[list[str], Field(min_length=1)] | None
    overrides: list[str]
    checks: dict[str, Check]


def run_experiment(experiment: str, seed: int, overrides: Sequence[str], folder: Path) -> Record:
    """Train. The record has the losses of the last epoch too."""
    arguments = [
        f"experiment={experiment}",
        f"seed={seed}",
        "trainer.enable_progress_bar=false",
        *overrides,
    ]
    try:
        run = train(compose("train", overrides=arguments), folder)
    except Exception as error:
        return {"seed": seed, "reason": " ".join(explain(error).split())}
    record, last = run.results(), run.epochs()[-1]
    if "val/loss" in last:
        record |= {"gap": last["val/loss"] - last["train/loss"], "last val/loss": last["val/loss"]}
    return record


def row(experiment: str, check: Check, records: Sequence[Record]) -> dict[str, Any]:
    """A row of the page, with its verdict.

    It has the mean of each bounded metric over the seeds, and its spread.
    """
    finished = [record for record in records if "reason" not in record]
    figures = [
        f"seed {record['seed']} failed: {record['reason']}"
        for record in records
        if "reason" in record
    ]
    passed = not figures
    for name, (low, high) in check.bounds.items() if finished else ():
        values = [record.get(name, math.nan) for record in finished]
        passed &= low <= statistics.fmean(values) <= high
        spread = (
            f" ({min(values):.4f} to {max(values):.4f}, {len(values)} seeds)"
            if len(values) > 1
            else ""
        )
        figures.append(f"{name} {statistics.fmean(values):.4f}{spread}")
    shortened = f"; here {', '.join(check.overrides)}" if check.overrides else ""
    return {
        "experiment": experiment,
        "settings": check.settings + shortened,
        "ours": "; ".join(figures),
        "yardstick": check.yardstick,
        "seconds": round(sum(record["seconds"] for record in finished)),
        "verdict": "pass" if passed else "FAIL",
    }


def reproduce(checks: dict[str, Check], overrides: Sequence[str], folder: Path) -> None:
    """Run all checks, one run after the other, and write the table.

    Raises UserError unless all pass.
    """
    runs = [
        (experiment, seed) for experiment, check in checks.items() for seed in range(check.seeds)
    ]
    records: dict[str, list[Record]] = {}
    for done, (experiment, seed) in enumerate(runs, start=1):
        check = checks[experiment]
        run_folder = folder / experiment / f"seed{seed}"
        record = run_experiment(experiment, seed, [*check.overrides, *overrides], run_folder)
        records.setdefault(experiment, []).append(record)
        log.info(
            "%d/%d  %s seed %d  %s",
            done,
            len(runs),
            experiment,
            seed,
            row(experiment, check, [record])["ours"],
        )
    rows = [row(experiment, check, records[experiment]) for experiment, check in checks.items()]
    write(folder / "results.md", table(rows) + "\n")
    log.info("\n%s\n\n%s", table(rows), pasteable(folder / "results.md"))
    if failed := [row["experiment"] for row in rows if row["verdict"] != "pass"]:
        raise UserError(f"failed, or outside the bounds: {', '.join(failed)}")


def main(cfg: DictConfig) -> None:
    options = checked(Reproduction, cfg)
    experiments = options.experiments or options.checks
    if unknown := [experiment for experiment in experiments if experiment not in options.checks]:
        there = ", ".join(options.checks)
        raise UserError(f"experiments: no check for {', '.join(unknown)}; choose from {there}")
    checks = {experiment: options.checks[experiment] for experiment in experiments}
    reproduce(checks, options.overrides, Path(HydraConfig.get().runtime.output_dir))
