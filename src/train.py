"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ..."""

import hydra
from omegaconf import DictConfig

from src import cli
from src.experiment import train


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    return train(cfg)


if __name__ == "__main__":
    cli.run(main)
