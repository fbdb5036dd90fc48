"""The commands that Hydra configures: their entry, their folder, how they tell of errors."""

import functools
import logging
import re
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

from src import signals
from src.cli import exit
from src.cli.arguments import as_hydra_takes_them
from src.cli.console import command_line, in_sweep, override
from src.cli.explain import USER_ERRORS, explain
from src.errors import UserError
from src.files import expanded
from src.processes import main_process
from src.runs import Run, claim
from src.runs.config import CONF

SWEEPERS = ("product",)  # the plugins of Hydra that keep what a sweep promises
Task = Callable[[DictConfig], Any]
log = logging.getLogger(__name__)


class ClaimFolder(Callback):
    """Hydra callback: makes the folder of the command before anything is written in it.

    No two commands share a folder. A command that works on a folder that is there (`new` is false)
    has none made.
    """

    ready: ClassVar["ClaimFolder | None"] = None  # once the folder of the command may be used
    needed: ClassVar[tuple[str, bool]]  # name of the command, and whether it makes a new folder

    def __init__(self, new: bool = True):
        self.new = new

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        exit.call_or_exit(lambda: self.start(config))

    def start(self, config: DictConfig) -> None:
        check_hydra(config)
        check_claim(self)
        key, folder = "hydra.run.dir", expanded(config.hydra.run.dir)
        if self.new and main_process():
            named = any(text.startswith(f"{key}=") for text in config.hydra.overrides.hydra)
            folder = claim(folder, key if named else None)
        OmegaConf.update(config, key, str(folder), force_add=True)
        ClaimFolder.ready = self


def check_claim(callback: ClaimFolder | None) -> None:
    """Raises UserError if Hydra's settings do not have the callback that the command needs."""
    name, new = ClaimFolder.needed
    if callback is None or callback.new != new:
        right = f"hydra={'default' if new else 'existing'}, claim_folder in it"
        raise UserError(f"src.{name} needs {right}; leave out what changes that")


def check_hydra(config: DictConfig) -> None:
    """Refuse settings of Hydra that would lead files out of the folder of the command.

    Raises UserError.
    """
    job = config.hydra.job
    if job.chdir:
        raise UserError(
            "hydra.job.chdir=true cannot be set: relative paths are those of your folder; "
            "leave it out"
        )
    if config.hydra.output_subdir is not None:
        raise UserError(
            "hydra.output_subdir cannot be set: a run keeps its settings in .hydra; leave it out"
        )
    if not re.fullmatch(r"[^\W_][\w.-]*", str(job.name)):
        raise UserError(f"hydra.job.name={job.name} is no name of a log file; leave it out")


def command(name: str, new: bool = True) -> Callable[[Task], Callable[[], None]]:
    """Decorator that makes the command of conf/NAME.yaml from a task.

    It has a `new` folder, or works in one that is there.
    """
    configured = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)

    def decorate(task: Task) -> Callable[[], None]:
        run_configured = configured(reporting(task, name))

        @functools.wraps(task)
        def main() -> None:
            ClaimFolder.needed = name, new
            sys.argv[1:] = as_hydra_takes_them(sys.argv[1:])
            run_configured()

        return main

    return decorate


def reporting(task: Task, name: str) -> Task:
    """The task as a job that logs why it fails.

    A failure ends a single command, while a sweep goes on.
    """

    @functools.wraps(task)
    def job(cfg: DictConfig) -> Any:
        try:
            check_callbacks(name)
        except UserError as error:  # nothing is written anywhere, not even a line in a log
            exit.end_with(str(error))
        try:
            value = task(cfg)
        except (Exception, signals.Stopped, KeyboardInterrupt) as error:
            if not signals.received():
                log_error(error, cfg)
                if not in_sweep():
                    sys.exit(1)
                return fail_job(Run(HydraConfig.get().runtime.output_dir), error)
        if signals.received():  # whatever the task has made of it
            if main_process() and name in ("train", "resume"):
                log.warning(
                    "interrupted by %s; %s", signals.Stopped(signals.received()), how_to_go_on()
                )
            signals.raise_received()
        return value

    return job


def check_callbacks(name: str) -> None:
    """Raises UserError if Hydra's settings lack the callbacks that make the folder."""
    if not in_sweep():
        check_claim(ClaimFolder.ready)
    elif name != "train" or HydraConfig.get().runtime.choices["hydra/sweeper"] not in SWEEPERS:
        raise UserError(
            f"only src.train, with hydra/sweeper={SWEEPERS[0]}, runs a sweep; leave out -m"
        )


def log_error(error: BaseException, cfg: DictConfig) -> None:
    """Log one line; of a bug, or in the log of a job, the traceback too."""
    mistake = isinstance(error, USER_ERRORS) and not in_sweep() and not exit.tracebacks
    alone = OmegaConf.select(cfg, "trainer.devices") in (None, 1)
    # several processes may meet the same error; one says it
    if main_process() or alone or not mistake:
        log.error("error: %s", explain(error), exc_info=None if mistake else error)


def fail_job(run: Run, error: BaseException) -> None:
    """Record why a job of a sweep failed before it had a record."""
    if run.results().get("status") in (None, "running"):
        run.save_results(run.results() | {"status": "failed", "reason": explain(error)})


def how_to_go_on() -> str:
    run = Run(HydraConfig.get().runtime.output_dir)
    if not run.begun():
        return "nothing saved yet"
    return f"to go on: {command_line('src.resume', override('run', run.path))}"


def run(name: str, work: str, new: bool = True) -> None:
    """Be the command of conf/NAME.yaml.

    `work` is imported, and torch with it, once the command line is understood.
    """

    def task(cfg: DictConfig) -> Any:
        with signals.held():
            function = get_method(work)
        return function(cfg)

    exit.run(command(name, new)(task))
