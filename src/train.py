"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ...

With -m, one run for each combination of the values: python -m src.train -m model.lr=0.03,0.1 seed=0,1,2
"""

import logging
import shlex

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src import terminal
from src.commands import command
from src.runs import Run, main_process, write
from src.sweeps import callback
from src.sweeps.folder import Sweep

log = logging.getLogger(__name__)


@command("train")
def main(cfg: DictConfig) -> float | None:
    from src.training import resume, train  # torch: a wrong command line is answered without it

    run = Run(HydraConfig.get().runtime.output_dir)
    if main_process():
        write(run.config.with_name("hydra.yaml"), OmegaConf.to_yaml(HydraConfig.get()))
    if terminal.in_sweep() and cfg.get("logger") is not None:
        place = Sweep(run.path.parent).place(int(run.path.name))
        cfg.logger.name = place.replace("/", "_")[:60]  # at most 240 bytes, as of a folder
    if terminal.in_sweep() and run.begun():  # a job of a sweep that was interrupted
        resume(run.path, cfg)
    else:
        train(cfg, run.path, overrides=HydraConfig.get().overrides.task)
    log_results(run)
    return run.metrics.get("val/loss")


def log_results(run: Run) -> None:
    if not main_process():
        return
    if (run.path / "grid.csv").exists():
        from src.sweeps.summary import members

        log.info("\n%s", members(run))
    log.info("\n%s\n", run.table())
    record = run.record()
    speed = f"{record['seconds']:.1f} s, {record['examples_per_second']:,.0f} examples/s"
    log.info("epoch %d of %d is the best; %s", record["best_epoch"], record["epochs"], speed)
    log.info("written to %s/", terminal.relative(run.path))
    log.info("look at it: %s", shlex.join(["tensorboard", "--logdir", terminal.relative(run.path.parent)]))


if __name__ == "__main__":
    terminal.run(lambda: callback.summarized(main))
