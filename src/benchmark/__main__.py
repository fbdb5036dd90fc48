"""Measurements, as medians and ratios: python -m src.benchmark [suite=all|epoch|classes]"""

import hydra
from omegaconf import DictConfig

from src import terminal


@hydra.main(version_base="1.3", config_path="../../conf", config_name="benchmark")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    from src.benchmark import suites  # torch: a wrong command line is answered without it

    suites.main(cfg)


if __name__ == "__main__":
    terminal.run(main)
