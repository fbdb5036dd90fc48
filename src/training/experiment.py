"""An experiment from its config to its run folder: trained, or gone on with, and tested."""

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, Timer
from omegaconf import DictConfig
from pydantic import Field, validate_call

from src.errors import UserError
from src.runs import Run, claim, main_process
from src.runs.checkpoint import load_checkpoint
from src.runs.config import build, build_model, call, restore
from src.runs.settings import experiment, plain
from src.training.history import History, history, keep_record, logged, measures
from src.training.saving import Last
from src.training.trainer import build_trainer

log = logging.getLogger(__name__)


def train(
    cfg: DictConfig, folder: str | Path | None = None, *callbacks: L.Callback, overrides: Sequence[str] = ()
) -> Run:
    """Train as `cfg` says, with further callbacks if given. The run has the metrics, the model and the data.

    Its folder must be new, or that of a run that never began; None makes one that is named by the time. It
    records the `overrides` that made `cfg`. Raises UserError, of which Diverged is one.
    """
    settings = plain(cfg)
    run = Run(claim(Path(f"outputs/runs/{datetime.now():%Y-%m-%d_%H-%M-%S}")) if folder is None else folder)
    with run.lock():
        if main_process():
            if run.begun():
                raise UserError(f"folder {run.path} holds a run already; choose another")
            left = run.best, run.config.with_name("overrides.yaml"), *run.events()
            for path in (*left, *run.best.parent.glob("*.part")):  # of a run that never began
                path.unlink(missing_ok=True)
            run.save_config(settings, overrides)
        with keep_record(run, settings["seed"]) as record:
            record |= fit(run, *assemble(settings, run, *callbacks))
    return run


@validate_call
def seed_everything(seed: Annotated[int, Field(ge=0, lt=2**32)]) -> None:
    L.seed_everything(seed, workers=True, verbose=False)


def assemble(
    settings: dict[str, Any], run: Run, *further: L.Callback
) -> tuple[L.Trainer, L.LightningModule, L.LightningDataModule]:
    """Everything that `fit` needs, built and checked; nothing is written or trained."""
    devices = settings["trainer"].get("devices", 1)
    if devices != 1 and run.in_sweep():
        raise UserError(
            f"trainer.devices={devices} in a sweep: its jobs train on one device each; start each run by "
            "itself, e.g. for lr in 0.1 0.3; do python -m src.train trainer=ddp model.lr=$lr; done"
        )
    call("", seed_everything, {"seed": settings["seed"]})
    data = build("data", settings["data"])
    model = build_model(settings, data)
    configured = {name: build(f"callbacks.{name}", each) for name, each in settings["callbacks"].items()}
    # what is to end the run must be measured, and not on the test set
    stages = sorted({"train", data.validates_on} - {"test"})
    measured = [f"{stage}/{name}" for stage in stages for name in ("loss", *["acc"] * model.classifies)]
    for name, callback in configured.items():
        if isinstance(callback, EarlyStopping) and callback.monitor not in measured:
            found = f"callbacks.{name}.monitor={callback.monitor}, but this run measures {', '.join(measured)}"
            raise UserError(f"{found}; early stopping needs a validation split (data.val_size)")
    last = configured.pop("last", None) or Last()
    logger = [build("logger", settings["logger"])] if settings.get("logger") else []
    written = [History(), *(logger if main_process() else [])]
    # the history comes before what is drawn, written or saved of it
    callbacks = [Timer(), *written, *configured.values(), last, *further]
    trainer = call("trainer", build_trainer, settings["trainer"], folder=run.path, callbacks=callbacks)
    return trainer, model, data


def fit(run: Run, trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule) -> dict[str, Any]:
    """Fit, from the last checkpoint on if there is one, then test the best. Returns what is recorded."""
    trainer.fit(model, data, ckpt_path=run.last if run.last.exists() else None)
    timer = next(each for each in trainer.callbacks if isinstance(each, Timer))
    seconds = timer.time_elapsed("train")  # those before a resume included
    trainer.test(model, data, ckpt_path=run.best, verbose=False)
    row = history(trainer).tested
    return {
        **measures(row),
        **logged(trainer),
        "best_epoch": row["epoch"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(data.splits["train"][1]) * trainer.current_epoch / seconds, 1),
        "device": str(trainer.strategy.root_device),
        "threads": torch.get_num_threads(),
        "data_sha256": data.checksums,
    }


def resume(folder: str | Path, cfg: DictConfig | dict | None = None, overrides: Sequence[str] = ()) -> Run:
    """Finish the run in `folder`; `cfg` is its config with `overrides` applied, without which it is as it was.

    Raises UserError, with the folder as it was, if the run cannot go on like that.
    """
    run = Run(folder)
    with run.lock():
        before, earlier = run.recorded(), run.record()
        settings = plain(before if cfg is None else cfg)
        old, new = experiment(before), experiment(settings)
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                what = f"{key}={new.get(key)} would make this another experiment (it was {old.get(key)})"
                raise UserError(f"{what}; start a new run with src.train")
        max_epochs = settings["trainer"]["max_epochs"]
        if earlier.get("status") == "finished" and max_epochs <= before["trainer"]["max_epochs"]:
            text = "run %s is finished, %d epochs; nothing is left to do. To train on: trainer.max_epochs=N"
            log.info(text, run.path, earlier["epochs"])
            return run
        if not run.last.exists():
            raise UserError(f"run {run.path} never began; start it with the command that was to make it")

        restore(settings, run.last)
        checkpoint = load_checkpoint(run.last)
        epochs, steps = len(checkpoint["callbacks"]["History"]["rows"]), checkpoint["global_step"]
        if max_epochs < epochs:
            raise UserError(f"trainer.max_epochs={max_epochs}, but run {run.path} has {epochs} epochs already")
        # the overrides count from the moment that they are known to work
        save = LambdaCallback(on_train_start=lambda *_: main_process() and run.save_config(settings, overrides))
        trainer, model, data = assemble(settings, run, save)
        data.prepare_data()

        resumed = [*earlier.get("resumed", []), {"step": steps, "overrides": [*overrides]}]
        with keep_record(run, settings["seed"], resumed=resumed) as record:
            log.info("resumed after %d epochs, %d steps", epochs, steps)
            record |= fit(run, trainer, model, data)
    return run
