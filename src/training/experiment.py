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

from src.errors import UserError
from src.processes import main_process
from src.runs import Run, check_free, check_version, claim
from src.runs.build import WIDTH, build, build_model, check, restore
from src.runs.checkpoint import load_checkpoint
from src.runs.config import identity, plain
from src.signatures import arguments, parameters
from src.training.history import History, history, keep_record, logged, measures
from src.training.saving import Last
from src.training.stopping import Ending
from src.training.trainer import build_trainer

DEFAULTS = {
    name: each.default
    for name, each in parameters(build_trainer).items()
    if each.kind is not each.KEYWORD_ONLY
}
log = logging.getLogger(__name__)


def train(
    cfg: DictConfig,
    folder: str | Path | None = None,
    *callbacks: L.Callback,
    overrides: Sequence[str] = (),
) -> Run:
    """Train as `cfg` says, with further callbacks if given. The run has the metrics, the model and
    the data.

    Its folder must be new, empty, or that of a run that never began; None makes one that is named
    by the time. It records the `overrides` that made `cfg`. Raises UserError, of which Diverged is
    one.
    """
    settings = plain(cfg)
    run = Run(
        claim(Path(f"outputs/runs/{datetime.now():%Y-%m-%d_%H-%M-%S}"))
        if folder is None
        else folder
    )
    if main_process() and run.path.exists():
        check_free(run.path, "folder")
    with run.lock():
        if main_process():
            check_free(run.path, "folder")  # another process may have had it meanwhile
            left = run.best, run.config.with_name("overrides.yaml"), *run.events(), *run.parts()
            for path in left:  # of a run that never began
                path.unlink(missing_ok=True)
            run.save_config(settings, overrides)
        with keep_record(run, settings["seed"]) as record:
            record |= fit(run, *assemble(settings, run, *callbacks))
    return run


def check_settings(settings: dict[str, Any]) -> None:
    """Raises UserError unless everything that a run needs can be built from the settings; builds
    nothing."""
    check("data", settings["data"])
    check("model", settings["model"], WIDTH)
    for name, callback in settings["callbacks"].items():
        check(f"callbacks.{name}", callback)
    if settings["logger"]:
        check("logger", settings["logger"])
    trainer_arguments(settings)


def trainer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the trainer, those that are left out with their defaults."""
    given = arguments("trainer", build_trainer, settings["trainer"], ("folder", "callbacks"))
    return DEFAULTS | given


def assemble(
    settings: dict[str, Any], run: Run, *further: L.Callback, goes_on: bool = False
) -> tuple[L.Trainer, L.LightningModule, L.LightningDataModule]:
    """Everything that `fit` needs, built and checked; nothing is written or trained."""
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
    configured = {
        name: build(f"callbacks.{name}", each) for name, each in settings["callbacks"].items()
    }
    check_callbacks(configured, model, data)
    last = configured.pop("last", None) or Last()
    logger = [build("logger", settings["logger"])] if settings["logger"] else []
    written = [History(), *(logger if main_process() else [])]
    # the history comes before what is drawn, written or saved of it
    callbacks = [Timer(), *written, *configured.values(), Ending(goes_on), last, *further]
    trainer = build_trainer(**trainer_arguments(settings), folder=run.path, callbacks=callbacks)
    return trainer, model, data


def check_callbacks(
    callbacks: dict[str, L.Callback], model: L.LightningModule, data: L.LightningDataModule
) -> None:
    """Raises UserError for one that waits for a metric that is not measured, and for two with the
    same state."""
    # what is to end the run must be measured, and not on the test set
    stages = sorted({"train", data.validates_on} - {"test"})
    measured = [
        f"{stage}/{name}" for stage in stages for name in ("loss", *["acc"] * model.classifies)
    ]
    keys = {
        each.state_key: f"the {type(each).__name__} of every run" for each in (History(), Timer())
    }
    for name, callback in callbacks.items():
        if isinstance(callback, EarlyStopping) and callback.monitor not in measured:
            waits = f"callbacks.{name}.monitor={callback.monitor}"
            found = f"{waits}, but this run measures {', '.join(measured)}"
            raise UserError(f"{found}; early stopping needs a validation split (data.val_size)")
        if type(callback).state_dict is L.Callback.state_dict:  # it has no state
            continue
        other = keys.setdefault(callback.state_key, f"callbacks.{name}")
        if other != f"callbacks.{name}":
            raise UserError(
                f"callbacks.{name} is the same as {other}: a checkpoint can hold the state of one"
            )


def fit(
    run: Run, trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule
) -> dict[str, Any]:
    """Fit, from the last checkpoint on if there is one, then test the best. Returns what is
    recorded."""
    trainer.fit(model, data, ckpt_path=run.last if run.last.exists() else None)
    ended = next(each.how for each in trainer.callbacks if isinstance(each, Ending))
    timer = next(each for each in trainer.callbacks if isinstance(each, Timer))
    seconds = timer.time_elapsed("train")  # those before a resume included
    trainer.test(model, data, ckpt_path=run.best, verbose=False)
    row = history(trainer).tested
    return {
        **measures(row),
        **logged(trainer),
        "ended": ended,
        "best_epoch": row["epoch"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 3),
        "examples_per_second": round(
            len(data.splits["train"][1]) * trainer.current_epoch / seconds, 1
        ),
        "device": str(trainer.strategy.root_device),
        "threads": torch.get_num_threads(),
        "data_sha256": data.checksums,
    }


def check_same_experiment(before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raises UserError for a setting that would make another experiment of the run."""
    old, new = identity(before), identity(settings)
    for key in {**old, **new}:
        if old.get(key) != new.get(key):
            what = (
                f"{key}={new.get(key)} would make this another experiment (it was {old.get(key)})"
            )
            raise UserError(f"{what}; start a new run with src.train")


def what_ends(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide after which epoch a run ends."""
    found = {"max_epochs": trainer_arguments(settings)["max_epochs"]}
    for name, callback in settings["callbacks"].items():
        kind, values = check(f"callbacks.{name}", callback)
        if issubclass(kind, EarlyStopping):
            found[name] = values
    return found


def resume(
    folder: str | Path, cfg: DictConfig | dict | None = None, overrides: Sequence[str] = ()
) -> Run:
    """Finish the run in `folder`; `cfg` is its config with `overrides` applied, without which it is
    as it was.

    Raises UserError, with the folder as it was, if the run cannot go on like that.
    """
    run = Run(folder)
    with run.lock():
        earlier = run.results()
        if "versions" in earlier:  # which 0.1.0 did not have of itself
            check_version(earlier["versions"].get("softmax-lab", "0.1.0"), f"run {run.path}")
        before = plain(run.settings())
        settings = plain(before if cfg is None else cfg)
        check_settings(settings)
        check_same_experiment(before, settings)
        max_epochs = trainer_arguments(settings)["max_epochs"]
        changed = what_ends(settings) != what_ends(before)
        if earlier.get("status") == "finished" and not (
            changed and max_epochs > earlier.get("epochs", 0)
        ):
            trained = f", {earlier['epochs']} epochs" if "epochs" in earlier else ""
            text = "run %s is finished%s; nothing is left to do. To train on: trainer.max_epochs=N"
            log.info(text, run.path, trained)
            return run
        if not run.last.exists():
            raise UserError(
                f"run {run.path} never began; start it with the command that was to make it"
            )

        restore(settings, run.last, within=run.path)
        checkpoint = load_checkpoint(run.last, run.path)
        kept = checkpoint["callbacks"].get("History")
        if not isinstance(kept, dict) or not isinstance(kept.get("rows"), list):
            raise UserError(f"{run.last} is no checkpoint of a run: it has no history")
        epochs, steps = len(kept["rows"]), checkpoint["global_step"]
        if max_epochs < epochs:
            raise UserError(
                f"trainer.max_epochs={max_epochs}, but run {run.path} has {epochs} epochs already"
            )
        # the overrides count from the moment that they are known to work
        save = LambdaCallback(
            on_train_start=lambda *_: main_process() and run.save_config(settings, overrides)
        )
        trainer, model, data = assemble(settings, run, save, goes_on=changed)
        data.prepare_data()

        resumed = [*earlier.get("resumed", []), {"step": steps, "overrides": [*overrides]}]
        with keep_record(run, settings["seed"], resumed=resumed) as record:
            log.info("resumed after %d epochs, %d steps", epochs, steps)
            record |= fit(run, trainer, model, data)
    return run
