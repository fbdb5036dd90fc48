"""An experiment from its config to its run folder: trained, or gone on with, and tested."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

from src.data.module import SplitDataModule
from src.errors import UserError
from src.models.regression import Regression
from src.processes import main_process
from src.runs import Run, check_free, claim
from src.runs.build import WIDTH, build, build_model, check
from src.runs.config import plain
from src.training.arguments import trainer_arguments, untested_arguments
from src.training.callbacks import (
    build_callbacks,
    check_callbacks,
    check_kinds,
    untested_callbacks,
)
from src.training.foreign import Foreign
from src.training.history import History, history, keep_record, logged, measures, only
from src.training.loggers.callback import Forwarding, Loggers
from src.training.loggers.destinations import check_loggers, untested_loggers
from src.training.loggers.sender import Sender
from src.training.loggers.state import name_job, state_file
from src.training.saving import Last
from src.training.stopping import Ending
from src.training.trainer import build_trainer

log = logging.getLogger(__name__)


def train(
    cfg: DictConfig,
    folder: str | Path | None = None,
    *callbacks: L.Callback,
    overrides: Sequence[str] = (),
    job: str = "",
) -> Run:
    """Train as `cfg` says, with further callbacks if given, and return the run.

    `job` is its name in a sweep, for the loggers.
    The run has the metrics, the model and the data. Its folder must be new, empty, or that of a run
    that never began; None makes one that is named by the time. It records the `overrides` that made
    `cfg`. Raises UserError, of which Diverged is one.
    """
    settings = plain(cfg)
    if folder is None:
        folder = claim(Path(f"outputs/runs/{datetime.now():%Y-%m-%d_%H-%M-%S}"))
    run = Run(folder)
    if main_process() and run.path.exists():
        check_free(run.path, "folder")
    with run.lock():
        if main_process():
            check_free(run.path, "folder")  # another process may have had it meanwhile
            # A run that never began may have left these.
            left = [run.best, run.config.with_name("overrides.yaml"), state_file(run)]
            for path in (*left, *run.events(), *run.parts()):
                path.unlink(missing_ok=True)
            run.save_config(settings, overrides)
            name_job(run, job)
        with keep_record(run, settings["seed"]) as record:
            parts = assemble(settings, run, *callbacks)
            record |= untested(settings) | fit(run, *parts)
    return run


def check_settings(settings: dict[str, Any], foreign: Foreign = None) -> None:
    """Raises UserError unless everything that a run needs can be built from the settings.

    Builds nothing.
    """
    check("data", settings["data"])
    check("model", settings["model"], WIDTH)
    check_kinds(settings, foreign)
    check_loggers(settings, foreign)
    trainer_arguments(settings)


def untested(settings: dict[str, Any], foreign: Foreign = None) -> dict[str, list[str]]:
    """What the record says of settings that no test has tried with all that a run promises.

    It is said in one line too.
    """
    names = untested_arguments(settings) + untested_callbacks(settings, foreign)
    names += untested_loggers(settings, foreign)
    if not names:
        return {}
    log.info("accepted, but not tested with all that a run promises: %s", ", ".join(names))
    return {"untested": names}


def assemble(
    settings: dict[str, Any],
    run: Run,
    *further: L.Callback,
    goes_on: bool = False,
    epochs: int = 0,
    foreign: Foreign = None,
) -> tuple[L.Trainer, Regression, SplitDataModule]:
    """Everything that `fit` needs, built and checked, for a run that has trained for `epochs`.

    Nothing is trained, and nothing written into the run folder.
    """
    check_settings(settings, foreign)
    devices = settings["trainer"].get("devices", 1)
    if devices != 1 and run.in_sweep():
        raise UserError(
            f"trainer.devices={devices} in a sweep: its jobs train on one device each; start each "
            "run by itself, e.g. for lr in 0.1 0.3; do python -m src.train trainer=ddp "
            "model.lr=$lr; done"
        )
    L.seed_everything(settings["seed"], workers=True, verbose=False)
    data = build("data", settings["data"])
    model = build_model(settings, data)
    configured = build_callbacks(settings, run, foreign)
    chosen = trainer_arguments(settings)
    check_optimization(chosen, model, settings["model"])
    measured = measured_metrics(model, data, chosen)
    check_callbacks(configured, measured)
    last = configured.pop("last", None) or Last()
    writers = [History()]  # first: the other callbacks draw, write or save the history
    loggers = {name: Forwarding(name, run) for name in settings["logger"]}
    if loggers and main_process():
        writers.append(Loggers(Sender(run, settings, epochs, foreign), loggers))
    parts = {
        "callbacks": [*writers, *configured.values(), Ending(goes_on), last, *further],
        "loggers": [*loggers.values()],
    }
    trainer = build_trainer(chosen, run.path, **parts)
    return trainer, model, data


def check_optimization(
    trainer: dict[str, Any], model: Regression, settings: dict[str, Any]
) -> None:
    """Raises UserError for arguments of the trainer that the model does not take."""
    without = {"accumulate_grad_batches": 1, "gradient_clip_val": None}
    for name, off in without.items():
        if trainer[name] != off and not model.automatic_optimization:
            raise UserError(
                f"trainer.{name}={trainer[name]}: this model takes its steps itself; "
                "take model=concise or model=linear_concise, which leave them to Lightning"
            )
    if trainer["precision"] == "16-mixed" and not model.automatic_optimization:
        raise UserError(
            "trainer.precision=16-mixed scales the loss, and this model takes its steps itself; "
            "take trainer.precision=bf16-mixed, or model=concise"
        )
    schedule = (settings.get("scheduler") or {}).get("name")
    if schedule == "ReduceLROnPlateau" and trainer["check_val_every_n_epoch"] > 1:
        raise UserError(
            f"trainer.check_val_every_n_epoch={trainer['check_val_every_n_epoch']}: "
            "ReduceLROnPlateau looks at val/loss after every epoch; leave it out"
        )
    if model.has_members and trainer["limit_val_batches"] == 0:
        raise UserError("trainer.limit_val_batches=0: model=grid selects by val/loss; leave it out")
    if model.has_members and trainer["check_val_every_n_epoch"] > 1:
        raise UserError(
            f"trainer.check_val_every_n_epoch={trainer['check_val_every_n_epoch']}: model=grid "
            "selects by val/loss after every epoch; leave it out"
        )


def measured_metrics(
    model: Regression, data: SplitDataModule, trainer: dict[str, Any]
) -> list[str]:
    """The metrics that may end a run: those that are not measured on the test set."""
    metrics = []
    stages = {"train", data.validates_on} - {"test"}
    if trainer["limit_val_batches"] == 0:
        stages = {"train"}
    for stage in sorted(stages):
        metrics.append(f"{stage}/loss")
        if model.classifies:
            metrics.append(f"{stage}/acc")
    return metrics


def fit(run: Run, trainer: L.Trainer, model: Regression, data: SplitDataModule) -> dict[str, Any]:
    """Fit, from the last checkpoint on if there is one, then test the best.

    Returns the results for the record.
    """
    try:
        trainer.fit(model, data, ckpt_path=run.last if run.last.exists() else None)
    except MisconfigurationException as error:  # an argument or a callback that is not ours
        raise UserError(f"lightning: {' '.join(str(error).split())}") from error
    ended = only(trainer, Ending).how
    seconds = only(trainer, Timer).time_elapsed("train")  # includes those before a resume
    trainer.test(model, data, ckpt_path=run.best, verbose=False)
    row = history(trainer).tested
    trained_on = examples_of_an_epoch(trainer, data) * trainer.current_epoch
    return {
        **measures(row),
        **logged(trainer),
        "ended": ended,
        "best_epoch": row["epoch"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 3),
        "examples_per_second": round(trained_on / seconds, 1),
        "device": str(trainer.strategy.root_device),
        "threads": torch.get_num_threads(),
        "data_sha256": data.checksums,
    }


def examples_of_an_epoch(trainer: L.Trainer, data: SplitDataModule) -> int:
    """The examples that all processes together train on in an epoch."""
    of_all = len(data.splits["train"][1])
    in_minibatches = trainer.num_training_batches * data.batch_size * trainer.world_size
    return min(of_all - of_all % trainer.world_size, in_minibatches)
