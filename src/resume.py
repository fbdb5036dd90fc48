"""Go on with an interrupted run, exact to the bit: python -m src.resume run=DIR [KEY=VALUE ...]"""

import logging
import sys
import time

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from src import cli
from src.runs import Run, provenance
from src.train import assemble, fit, recorded

# What makes a run the experiment it is, and the keys of data that do not.
EXPERIMENT = ("seed", "model", "data")
PLACES = ("root", "num_workers", "system_copies", "mirrors", "debian_package")

log = logging.getLogger(__name__)


def resume(cfg: DictConfig, overrides: list[str]) -> float | None:
    """Finish the run in cfg.run_dir, whose lock the caller holds.

    `cfg` is its recorded config with `overrides` applied. Returns what `src.train.train` does. Raises
    ValueError if the run cannot go on like that; its folder is then as it was.
    """
    run = Run(cfg.run_dir)
    before, earlier = run.recorded(), run.record()
    refuse_another_experiment(before, cfg)
    if earlier.get("status") == "finished" and cfg.trainer.max_epochs <= before.trainer.max_epochs:
        epochs = f"{earlier['epochs']} epochs; nothing is left to do. To train on: trainer.max_epochs=N"
        log.info("run %s is finished, %s", cli.shown(run.path), epochs)
        return earlier.get("val/loss")

    saved = run.last.exists()  # else it was killed before its first checkpoint, and begins anew
    rows, step = [], 0
    if saved:
        run.restore(run.last, cfg)
        checkpoint = run.load(run.last)
        rows, step = checkpoint["callbacks"]["History"]["rows"], checkpoint["global_step"]
    continued = cfg.copy()
    if continued.get("logger") and "purge_step" in continued.logger:
        continued.logger.purge_step = rows[-1]["step"] if rows else 0
        # TensorBoard puts event files in order by the second in their names
        if any(str(int(time.time())) in path.name for path in run.tensorboard.glob("events*")):
            time.sleep(1)
    trainer, model, data = assemble(continued)
    data.prepare_data()

    resumed = [*earlier.get("resumed", []), {"step": step, "overrides": overrides}]
    with recorded(run, {"seed": cfg.seed, **provenance(), "resumed": resumed}) as record:
        run.save_config(cfg, overrides)
        log.info("resumed after %d epochs, %d steps", len(rows), step)
        record |= fit(run, trainer, model, data, resume=saved)
    return record.get("val/loss")


def refuse_another_experiment(before: DictConfig, cfg: DictConfig) -> None:
    """Raises ValueError if the configs differ in more than how long, where and with what output they run."""
    for group in EXPERIMENT:
        old, new = (OmegaConf.to_container(node, resolve=True)[group] for node in (before, cfg))
        if not isinstance(old, dict):
            old, new, group = {group: old}, {group: new}, ""
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name) and not (group == "data" and name in PLACES):
                key = f"{group}.{name}".lstrip(".")
                raise ValueError(
                    f"{key}={new.get(name)} would make this another experiment (it was {old.get(name)}); "
                    "start a new run with src.train"
                )


@hydra.main(version_base="1.3", config_path="../conf", config_name="resume")
def from_recorded(cfg: DictConfig) -> float | None:
    with open_dict(cfg):
        del cfg.run
    overrides = [text for text in HydraConfig.get().overrides.task if not text.startswith("run=")]
    return resume(cfg, overrides)


def main() -> None:
    """Put the recorded config where Hydra finds it, and let Hydra apply the command line to it."""
    folders = [argument for argument in sys.argv[1:] if argument.startswith("run=")]
    if len(folders) != 1:
        raise ValueError("which run? python -m src.resume run=outputs/runs/NAME")
    folder = OverridesParser.create().parse_override(folders[0]).value()
    if not isinstance(folder, str):
        raise ValueError(f"run must be one folder, got {folders[0]}")
    run = Run(folder)
    ConfigStore.instance().store("recorded", run.recorded())
    with run.lock():
        from_recorded()


if __name__ == "__main__":
    cli.run(main)
