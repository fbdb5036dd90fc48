"""The suites of the benchmark: what is measured, as tables."""

import logging
import os
from pathlib import Path
from typing import Annotated, Literal

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from src import terminal
from src.benchmark import classes, epoch
from src.runs.options import Options, checked
from src.tables import table
from src.training.record import provenance

log = logging.getLogger(__name__)


class Benchmark(Options, extra="ignore"):  # the settings of our runs stand beside these
    suite: Literal["all", "epoch", "classes"]
    epoch: dict[Literal["rounds", "epochs"], PositiveInt]
    classes: Annotated[list[PositiveInt], Field(min_length=1)]
    num_examples: PositiveInt
    repeats: PositiveInt


def main(cfg: DictConfig) -> None:
    options, folder = checked(Benchmark, cfg), Path(HydraConfig.get().runtime.output_dir)
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), **provenance()["versions"]}
    log.info("%s\n", ", ".join(f"{name} {value}" for name, value in machine.items()))
    if options.suite != "epoch":
        log.info("%s\n", table(classes.measure(options.classes, options.num_examples, options.repeats)))
    if options.suite != "classes":
        log.info("%s\n", table(epoch.rows(epoch.measure(cfg, folder, **options.epoch))))
    log.info("written to %s/: benchmark.log", terminal.relative(folder))
