"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ...

With -m, one run for each combination of the values: python -m src.train -m model.lr=0.03,0.1
seed=0,1,2
"""

import sys

if not __package__:  # python src/train.py, as in other projects: Python does not find `src` then
    command = " ".join(["python -m src.train", *sys.argv[1:]])
    sys.exit(f"error: start it as a module, in the folder of the project: {command}")

import logging
import shutil
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from src import signals
from src.cli import exit
from src.cli.command import command
from src.cli.console import command_line, in_sweep, override, pasteable, relative
from src.processes import main_process
from src.runs import ALL_EPOCHS, Run, check_free, write
from src.sweeps.sweep import Sweep

log = logging.getLogger(__name__)


@command("train")
def main(cfg: DictConfig) -> float | None:
    with signals.held():
        from src.training import resume, train  # torch: a wrong command line is answered without it

    run = Run(HydraConfig.get().runtime.output_dir)
    job = Sweep(run.path.parent).name(int(run.path.name)) if in_sweep() else ""
    if in_sweep() and run.begun():  # a job of a sweep that was interrupted
        resume(run.path, cfg, own=True)
    else:
        if main_process():
            check_free(run.path, "hydra.run.dir")
            write(run.config.with_name("hydra.yaml"), OmegaConf.to_yaml(HydraConfig.get()))
        train(cfg, run.path, overrides=HydraConfig.get().overrides.task, job=job)
    log_results(run)
    return run.metrics.get("val/loss")


def log_results(run: Run) -> None:
    if not main_process():
        return
    with signals.held():
        from src.training.history import last_members  # torch
        from src.training.loggers.sender import unsent

    if members := last_members(run):
        from src.sweeps.summary import summarize_members  # matplotlib

        log.info("\n%s", summarize_members(members, run.figures / "grid.png"))
    log.info("\n%s\n", run.table())
    record = run.results()
    speed = f"{record['seconds']:.1f} s, {record['examples_per_second']:,.0f} examples/s"
    log.info("epoch %d of %d is the best; %s", record["best_epoch"], record["epochs"], speed)
    ended = record.get("ended", ALL_EPOCHS)
    log.info("ended by %s", ended)
    if ended.startswith("early stopping"):
        log.info("to train on without it: %s", how_to_train_on(run))
    log.info("written to %s/", pasteable(run.path))
    if names := unsent(run, run.settings()):
        command = command_line("src.resume", override("run", run.path))
        log.info("to send what %s lacks: %s", ", ".join(names), command)
    if run.events():
        log.info("look at it: %s", how_to_look(run.path.parent))


def how_to_train_on(run: Run) -> str:
    """The command with which a run goes on that was ended early."""
    stoppers = [
        f"~callbacks.{name}"
        for name, callback in run.settings()["callbacks"].items()
        if callback["_target_"].endswith("EarlyStopping")
    ]
    return command_line("src.resume", override("run", run.path), *stoppers)


def how_to_look(folder: Path) -> str:
    """The command that shows the runs in the folder."""
    if shutil.which("tensorboard") == str(Path(sys.executable).with_name("tensorboard")):
        return f"tensorboard --logdir {pasteable(folder)}"
    return command_line("tensorboard.main", "--logdir", relative(folder))


if __name__ == "__main__":
    exit.run(main)
