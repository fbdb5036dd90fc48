"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ...

With -m, one run for each combination of the values: python -m src.train -m model.lr=0.03,0.1 seed=0,1,2
"""

import hydra
from omegaconf import DictConfig

from src import cli, sweeps
from src.config import sweeping
from src.experiment import resume, train
from src.runs import Run


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    run = Run(cfg.run_dir)
    if sweeping() and run.metrics_json.exists():  # a job of a sweep that was interrupted
        with run.lock():
            return resume(cfg, [])
    return train(cfg)


if __name__ == "__main__":
    with sweeps.reported():
        cli.run(main)
