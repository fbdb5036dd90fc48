"""A run that was stopped or killed, gone on with."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback
from omegaconf import DictConfig

from src.errors import UserError
from src.processes import main_process
from src.runs import Run, check_version
from src.runs.build import check, restore
from src.runs.checkpoint import load_checkpoint
from src.runs.config import identity, plain
from src.training.arguments import trainer_arguments
from src.training.experiment import assemble, check_settings, fit, untested
from src.training.foreign import Foreign, named_in, targets
from src.training.history import keep_record
from src.training.loggers.sender import send_missing, unsent

log = logging.getLogger(__name__)


def check_same_experiment(before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises UserError for a setting that would make another experiment of the run."""
    old, new = identity(before), identity(settings)
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            change = f"{key}={new.get(key)} would make this another experiment"
            raise UserError(f"{change} (it was {old.get(key)}); start a new run with src.train")


def what_ends(settings: dict[str, Any], foreign: Foreign) -> dict[str, Any]:
    """The settings that decide after which epoch a run ends.

    A callback that may not be built decides nothing: the run goes on without it, or not at all.
    """
    chosen = trainer_arguments(settings)
    endings = {"max_epochs": chosen["max_epochs"], "max_time": chosen["max_time"]}
    for name, callback in settings["callbacks"].items():
        try:
            kind, values = check(f"callbacks.{name}", callback, foreign=targets(settings, foreign))
        except UserError:
            continue
        if issubclass(kind, EarlyStopping):
            endings[name] = values
    return endings


def resume(
    folder: str | Path,
    cfg: DictConfig | dict | None = None,
    overrides: Sequence[str] = (),
    own: bool = False,
) -> Run:
    """Finish the run in `folder`.

    `cfg` is its config with `overrides` applied; without it the run is as it was. A class outside
    of this project and Lightning is built only if the overrides name it, or if the config is one's
    `own`, not the folder's. Raises UserError, with the folder as it was, if the run cannot go on.
    """
    foreign = None if own else named_in(overrides)
    run = Run(folder)
    with run.lock():
        earlier = run.results()
        check_run_version(run, earlier)
        before = plain(run.settings())
        settings = plain(before if cfg is None else cfg)
        check_settings(settings, foreign)
        check_same_experiment(before, settings)
        goes_on = what_ends(settings, foreign) != what_ends(before, foreign)
        if is_done(earlier, settings, goes_on):
            if unsent(run, settings):
                send_missing(run, settings, foreign)
            else:
                say_finished(run, earlier)
            return run
        epochs, steps = check_last(run, settings)
        save = save_when_training(run, settings, overrides)
        going_on = {"goes_on": goes_on, "epochs": epochs, "foreign": foreign}
        trainer, model, data = assemble(settings, run, save, **going_on)
        data.prepare_data()

        resumed = [*earlier.get("resumed", []), {"step": steps, "overrides": [*overrides]}]
        known = {"resumed": resumed, **untested(settings, foreign)}
        with keep_record(run, settings["seed"], **known) as record:
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
