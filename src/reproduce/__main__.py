"""Every recipe of the notes, run and checked against its yardstick: python -m src.reproduce, or make reproduce

Writes results.md: preset, recipe, our figure, the yardstick, pass or fail. The exit status is 0 only if
everything passes; page=FILE then has the table too, between its two marks.
"""

import hydra
from omegaconf import DictConfig

from src import terminal


@hydra.main(version_base="1.3", config_path="../../conf", config_name="reproduce")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    from src.reproduce import checks  # torch: a wrong command line is answered without it

    checks.main(cfg)


if __name__ == "__main__":
    terminal.run(main)
