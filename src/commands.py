"""The commands that Hydra configures: their entry, their folder, their errors."""

import functools
import logging
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from src import terminal
from src.errors import Stopped, UserError
from src.runs import Run, claim, main_process
from src.runs.settings import CONF
from src.terminal import explain, in_sweep, quoted, relative

Task = Callable[[DictConfig], Any]
log = logging.getLogger(__name__)


class ClaimFolder(Callback):
    """Hydra callback: makes the run folder before anything is written, so that no two runs share one."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        if not main_process():
            return
        key = "hydra.run.dir"
        named = any(text.startswith(f"{key}=") for text in config.hydra.overrides.hydra)
        folder = terminal.call_or_exit(lambda: claim(Path(config.hydra.run.dir), key if named else None))
        OmegaConf.update(config, key, str(folder), force_add=True)


def command(name: str) -> Callable[[Task], Callable[[], None]]:
    """Decorator: makes of a task the command that conf/NAME.yaml configures."""
    configured = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
    return lambda task: configured(reporting(task))


def reporting(task: Task) -> Task:
    """The task as a job that logs why it fails; that ends a single command, while a sweep goes on."""

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        settings = HydraConfig.get()
        if in_sweep() and (settings.job.name != "train" or "report_sweep" not in settings.callbacks):
            raise UserError("only src.train, with its callback report_sweep, runs a sweep; leave out -m")
        try:
            value = task(cfg)
        except (Exception, Stopped, KeyboardInterrupt) as error:
            if not Stopped.received:
                user = isinstance(error, terminal.USER_ERRORS) and not in_sweep() and not terminal.tracebacks
                alone = OmegaConf.select(cfg, "trainer.devices") in (None, 1)
                if main_process() or alone or not user:  # of processes that meet the same error, one says it
                    log.error("error: %s", explain(error), exc_info=None if user else error)
                return None if in_sweep() else sys.exit(1)
        if Stopped.received:  # whatever the task has made of it
            stopped = Stopped(Stopped.received)
            if main_process() and settings.job.name == "train":
                run = Run(settings.runtime.output_dir)
                command = ["python", "-m", "src.resume", f"run={quoted(relative(run.path))}"]
                what = f"to go on: {shlex.join(command)}" if run.begun() else "nothing saved yet"
                log.warning("interrupted by %s; %s", stopped, what)
            raise stopped
        return value

    return job


def run(name: str, work: str) -> None:
    """Be the command of conf/NAME.yaml; `work` is imported, and torch with it, once its line is understood."""
    terminal.run(command(name)(lambda cfg: get_method(work)(cfg)))
