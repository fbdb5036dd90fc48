"""An experiment from its config to its run folder: trained, or gone on with, and tested."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, Timer
from omegaconf import DictConfig

from src.data.module import SplitDataModule
from src.errors import UserError
from src.models.regression import Regression
from src.processes import main_process
from src.runs import Run, check_free, check_version, claim
from src.runs.build import WIDTH, build, build_model, check, restore
from src.runs.checkpoint import load_checkpoint
from src.runs.config import identity, plain
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


def check_same_experiment(before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises UserError for a setting that would make another experiment of the run."""
    old, new = identity(before), identity(settings)
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            change = f"{key}={new.get(key)} would make this another experiment"
            raise UserError(f"{change} (it was {old.get(key)}); start a new run with src.train")


def what_ends(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide after which epoch a run ends."""
    endings = {"max_epochs": trainer_arguments(settings)["max_epochs"]}
    for name, callback in settings["callbacks"].items():
        kind, values = check(f"callbacks.{name}", callback)
        if issubclass(kind, EarlyStopping):
            endings[name] = values
    return endings


def resume(
    folder: str | Path, cfg: DictConfig | dict | None = None, overrides: Sequence[str] = ()
) -> Run:
    """Finish the run in `folder`.

    `cfg` is its config with `overrides` applied; without it the run is as it was. Raises UserError,
    with the folder as it was, if the run cannot go on like that.
    """
    run = Run(folder)
    with run.lock():
        earlier = run.results()
        check_run_version(run, earlier)
        before = plain(run.settings())
        settings = plain(before if cfg is None else cfg)
        check_settings(settings)
        check_same_experiment(before, settings)
        goes_on = what_ends(settings) != what_ends(before)
        if is_done(earlier, settings, goes_on):
            say_finished(run, earlier)
            return run
        epochs, steps = check_last(run, settings)
        save = save_when_training(run, settings, overrides)
        trainer, model, data = assemble(settings, run, save, goes_on=goes_on)
        data.prepare_data()

        resumed = [*earlier.get("resumed", []), {"step": steps, "overrides": [*overrides]}]
        with keep_record(run, settings["seed"], resumed=resumed) as record:
            log.info("resumed after %d epochs, %d steps", epochs, steps)
            record |= fit(run, trainer, model, data)
    return run


def check_run_version(run: Run, earlier: dict[str, Any]) -> None:
    """Raises UserError if the run was made by a version whose runs cannot be read."""
    if "versions" in earlier:  # 0.1.0 did not record its own
        check_version(earlier["versions"].get("softmax-lab", "0.1.0"), f"run {run.path}")


def is_done(earlier: dict[str, Any], settings: dict[str, Any], goes_on: bool) -> bool:
    """Whether the run is finished, and its new settings add no epochs."""
    if earlier.get("status") != "finished":
        return False
    max_epochs = trainer_arguments(settings)["max_epochs"]
    return not (goes_on and max_epochs > earlier.get("epochs", 0))


def say_finished(run: Run, earlier: dict[str, Any]) -> None:
    trained = f", {earlier['epochs']} epochs" if "epochs" in earlier else ""
    text = "run %s is finished%s; nothing is left to do. To train on: trainer.max_epochs=N"
    log.info(text, run.path, trained)


def check_last(run: Run, settings: dict[str, Any]) -> tuple[int, int]:
    """The epochs and steps of the run's last checkpoint.

    Raises UserError unless the run can go on from there with the settings.
    """
    if not run.last.exists():
        raise UserError(
            f"run {run.path} never began; start it with the command that was to make it"
        )
    restore(settings, run.last, within=run.path)
    checkpoint = load_checkpoint(run.last, run.path)
    kept = checkpoint["callbacks"].get("History")
    if not isinstance(kept, dict) or not isinstance(kept.get("rows"), list):
        raise UserError(f"{run.last} is no checkpoint of a run: it has no history")
    epochs, max_epochs = len(kept["rows"]), trainer_arguments(settings)["max_epochs"]
    if max_epochs < epochs:
        raise UserError(
            f"trainer.max_epochs={max_epochs}, but run {run.path} has {epochs} epochs already"
        )
    return epochs, checkpoint["global_step"]


def save_when_training(run: Run, settings: dict[str, Any], overrides: Sequence[str]) -> L.Callback:
    """A callback that saves the config with its overrides once they are known to work."""

    def save(trainer: L.Trainer, model: L.LightningModule) -> None:
        if main_process():
            run.save_config(settings, overrides)

    return LambdaCallback(on_train_start=save)
