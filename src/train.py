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
    if main_process():
        log.info("%s", summary(run))
    return run.metrics.get("val/loss")


def summary(run: Run) -> str:
    """The end of a run: its results, and where they are."""
    grid = []
    if (run.path / "grid.csv").exists():
        from src.sweeps.summary import members

        grid = ["", members(run)]
    record = run.record()
    speed = f"{record['seconds']:.1f} s, {record['examples_per_second']:,.0f} examples/s"
    epochs = f"epoch {record['best_epoch']:.0f} of {record['epochs']} is the best; {speed}"
    look = shlex.join(["tensorboard", "--logdir", terminal.relative(run.path.parent)])
    ends = [epochs, f"written to {terminal.relative(run.path)}/", f"look at it: {look}"]
    return "\n".join([*grid, "", run.table(), "", *ends])


if __name__ == "__main__":
    terminal.run(lambda: callback.summarized(main))
