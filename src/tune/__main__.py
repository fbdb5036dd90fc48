"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]

Every trial is a run folder below the study's. The validation loss decides; the test set decides nothing.
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src import terminal


@hydra.main(version_base="1.3", config_path="../../conf", config_name="tune")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    from src.tune.search import tune  # torch: a wrong command line is answered without it

    tune(cfg, HydraConfig.get().overrides.task)


if __name__ == "__main__":
    terminal.run(main)
