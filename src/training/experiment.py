"""An experiment from its config to its run folder: trained, or gone on with, and tested."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, Timer
from omegaconf import DictConfig

from src.data.module import SplitDataModule
from src.errors import UserError
from src.models.regression import Regression
from src.processes import main_process
from src.runs import Run, check_free, claim
from src.runs.build import WIDTH, build, build_model, check
from src.runs.config import plain
from src.signatures import arguments, parameters
from src.training.history import History, history, keep_record, logged, measures, only
from src.training.saving import Last
from src.training.stopping import Ending
from src.training.trainer import build_trainer

log = logging.getLogger(__name__)


def train(
    cfg: DictConfig,
    folder: str | Path | None = None,
    *callbacks: L.Callback,
    overrides: Sequence[str] = (),
) -> Run:
    """Train as `cfg` says, with further callbacks if given, and return the run.

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
            left = run.best, run.config.with_name("overrides.yaml"), *run.events(), *run.parts()
            for path in left:
                path.unlink(missing_ok=True)
            run.save_config(settings, overrides)
        with keep_record(run, settings["seed"]) as record:
            record |= fit(run, *assemble(settings, run, *callbacks))
    return run


def check_settings(settings: dict[str, Any]) -> None:
    """Raises UserError unless everything that a run needs can be built from the settings.

    Builds nothing.
    """
    check("data", settings["data"])
    check("model", settings["model"], WIDTH)
    for name, callback in settings["callbacks"].items():
        check(f"callbacks.{name}", callback)
    if settings["logger"]:
        check("logger", settings["logger"])
    trainer_arguments(settings)


def trainer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the trainer, those that are left out with their defaults."""
    values = {}
    for name, parameter in parameters(build_trainer).items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            values[name] = parameter.default
    given = arguments("trainer", build_trainer, settings["trainer"], ("folder", "callbacks"))
    return values | given


def assemble(
    settings: dict[str, Any], run: Run, *further: L.Callback, goes_on: bool = False
) -> tuple[L.Trainer, Regression, SplitDataModule]:
    """Everything that `fit` needs, built and checked.

    Nothing is written or trained.
    """
    check_settings(settings)
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
    configured = {}
    for name, callback_settings in settings["callbacks"].items():
        configured[name] = build(f"callbacks.{name}", callback_settings)
    check_callbacks(configured, model, data)
    last = configured.pop("last", None) or Last()
    writers = [History()]  # first: the other callbacks draw, write or save the history
    if settings["logger"]:
        logger = build("logger", settings["logger"])
        if main_process():
            writers.append(logger)
    callbacks = [Timer(), *writers, *configured.values(), Ending(goes_on), last, *further]
    trainer = build_trainer(**trainer_arguments(settings), folder=run.path, callbacks=callbacks)
    return trainer, model, data


def check_callbacks(
    callbacks: dict[str, L.Callback], model: Regression, data: SplitDataModule
) -> None:
    """Raises UserError for callbacks that a run cannot have.

    A callback must not wait for a metric that is not measured, and no two may have the same state.
    """
    measured = measured_metrics(model, data)
    keys = {}
    for own in (History(), Timer()):
        keys[own.state_key] = f"the {type(own).__name__} of every run"
    for name, callback in callbacks.items():
        if isinstance(callback, EarlyStopping) and callback.monitor not in measured:
            waits = f"callbacks.{name}.monitor={callback.monitor}"
            other = f"this run measures {', '.join(measured)}"
            raise UserError(
                f"{waits}, but {other}; early stopping needs a validation split (data.val_size)"
            )
        if type(callback).state_dict is L.Callback.state_dict:  # it has no state
            continue
        other = keys.setdefault(callback.state_key, f"callbacks.{name}")
        if other != f"callbacks.{name}":
            raise UserError(
                f"callbacks.{name} is the same as {other}: a checkpoint can hold the state of one"
            )


def measured_metrics(model: Regression, data: SplitDataModule) -> list[str]:
    """The metrics that may end a run: those that are not measured on the test set."""
    metrics = []
    for stage in sorted({"train", data.validates_on} - {"test"}):
        metrics.append(f"{stage}/loss")
        if model.classifies:
            metrics.append(f"{stage}/acc")
    return metrics


def fit(run: Run, trainer: L.Trainer, model: Regression, data: SplitDataModule) -> dict[str, Any]:
    """Fit, from the last checkpoint on if there is one, then test the best.

    Returns the results for the record.
    """
    trainer.fit(model, data, ckpt_path=run.last if run.last.exists() else None)
    ended = only(trainer, Ending).how
    seconds = only(trainer, Timer).time_elapsed("train")  # includes those before a resume
    trainer.test(model, data, ckpt_path=run.best, verbose=False)
    row = history(trainer).tested
    trained_on = len(data.splits["train"][1]) * trainer.current_epoch
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
