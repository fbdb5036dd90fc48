"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ...

With -m, one run for each combination of the values: python -m src.train -m model.lr=0.03,0.1 seed=0,1,2
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src import terminal
from src.runs import Run, main_process, write
from src.sweeps import callback
from src.training.experiment import resume, train


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
@terminal.reporting
def main(cfg: DictConfig) -> float | None:
    run = Run(HydraConfig.get().runtime.output_dir)
    if main_process():
        write(run.config.with_name("hydra.yaml"), OmegaConf.to_yaml(HydraConfig.get()))
    if terminal.in_sweep() and run.begun():  # a job of a sweep that was interrupted
        with run.lock():
            return resume(cfg, run.path, [])
    return train(cfg, run.path)


if __name__ == "__main__":
    callback.run(main)
