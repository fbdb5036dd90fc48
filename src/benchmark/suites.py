"""The suites of the benchmark: what is measured, as a table and as JSON."""

import json
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
from src.runs import write
from src.runs.options import Options, checked
from src.tables import table
from src.training.experiment import provenance

log = logging.getLogger(__name__)


class Benchmark(Options, extra="ignore"):  # the settings of our runs stand beside these
    suite: Literal["all", "epoch", "classes"]
    epoch: dict[Literal["rounds", "epochs"], PositiveInt]
    classes: Annotated[list[PositiveInt], Field(min_length=1)]
    num_examples: PositiveInt
    repeats: PositiveInt


def main(cfg: DictConfig) -> None:
    options = checked(Benchmark, cfg)
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), **provenance()["versions"]}
    log.info("%s\n", ", ".join(f"{name} {value}" for name, value in machine.items()))
    folder = Path(HydraConfig.get().runtime.output_dir)
    for suite in ["classes", "epoch"] if options.suite == "all" else [options.suite]:
        if suite == "epoch":
            rows = epoch.table(epoch.measure(cfg, folder, **options.epoch))
        else:
            rows = list(classes.measure(options.classes, options.num_examples, options.repeats))
        content = {**machine, "options": options.model_dump(), "rows": rows}
        write(folder / f"{suite}.json", json.dumps(content, indent=2) + "\n")
        log.info("%s\n", table(rows))
    log.info("%s", terminal.relative(folder))
