"""Go on with an interrupted run, exact to the bit: python -m src.resume run=DIR [KEY=VALUE ...]

A run folder decides what is built from this project's classes. Resume your own runs; of others',
src.evaluate, src.predict and src.compare read only.
"""

import sys

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from src import signals
from src.cli import exit
from src.cli.command import command
from src.errors import UserError
from src.runs import Run
from src.train import log_results


@command("resume", new=False)
def from_recorded(cfg: DictConfig) -> None:
    with signals.held():
        from src.training import resume  # torch: a wrong command line is answered without it

    settings = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "run"])
    overrides = [text for text in HydraConfig.get().overrides.task if not text.startswith("run=")]
    log_results(resume(cfg.run, settings, overrides))


def main() -> None:
    """Put the recorded config where Hydra finds it, and let Hydra apply the command line to it."""
    if {"--help", "-h", "--hydra-help"} & set(sys.argv):
        ConfigStore.instance().store("recorded", {})
        return from_recorded()
    if {"--multirun", "-m"} & set(sys.argv):
        raise UserError(
            "src.resume goes on with one run; of a sweep, python -m src.sweeps resume DIR"
        )
    folders = [argument for argument in sys.argv[1:] if argument.startswith("run=")]
    if len(folders) != 1:
        raise UserError("which run? python -m src.resume run=outputs/runs/NAME")
    folder = OverridesParser.create().parse_overrides(folders)[0].value()
    if not isinstance(folder, str) or not folder:
        raise UserError(f"run must be one folder, got {folders[0]}")
    run = Run(folder)
    ConfigStore.instance().store("recorded", run.settings())
    with run.lock():
        from_recorded()


if __name__ == "__main__":
    exit.run(main)
