"""The test metrics of a run once more, and what stands behind them: python -m src.evaluate run=DIR

Writes evaluation.json and figures/evaluation_confusion.png into the run folder: of a classifier, scores of each
class, the confusions and the calibration error.
"""

import hydra
from omegaconf import DictConfig

from src import terminal


@hydra.main(version_base="1.3", config_path="../../conf", config_name="evaluate")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    from src.evaluate.scores import evaluate  # torch: a wrong command line is answered without it

    evaluate(cfg)


if __name__ == "__main__":
    terminal.run(main)
