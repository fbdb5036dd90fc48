"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]

Of the test images, or of one's own pictures; decision.costs=FILE adds the answer of least expected cost.
"""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from src import terminal


@hydra.main(version_base="1.3", config_path="../../conf", config_name="predict")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    from src.predict.prediction import predict  # torch: a wrong command line is answered without it

    predict(cfg, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    terminal.run(main)
