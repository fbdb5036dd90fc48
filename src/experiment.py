"""An experiment from its config to its run folder: trained, or gone on with, and tested."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig, OmegaConf

from src import cli
from src.callbacks import history
from src.config import build
from src.errors import UserError
from src.runs import Run, leads, provenance

# What makes a run the experiment it is, and the keys of data that do not.
EXPERIMENT = ("seed", "model", "data")
PLACES = ("root", "num_workers", "system_copies", "mirrors", "debian_package")

log = logging.getLogger(__name__)


def train(cfg: DictConfig, *callbacks: L.Callback) -> float | None:
    """Train as `cfg` says, with further callbacks if given, and fill the folder cfg.run_dir.

    Returns the val/loss of the best epoch, None without a validation split. Raises UserError for a config
    that cannot work, DataError if the data cannot be had and Diverged if the loss becomes nan or infinite.
    """
    run = Run(cfg.run_dir)
    if leads() and run.metrics_json.exists():
        raise UserError(f"run_dir {run.path} holds a run already, and no run is overwritten; choose another")
    with run.lock():
        if leads():
            run.save_config(cfg)
        with recorded(run, {"seed": cfg.seed, **provenance()}) as record:
            record |= fit(run, *assemble(cfg, *callbacks))
    return record.get("val/loss")


Parts = tuple[L.Trainer, L.LightningModule, L.LightningDataModule]


def assemble(cfg: DictConfig, *further: L.Callback) -> Parts:
    """Everything that `fit` needs, built and checked; nothing is written or trained."""
    for name in ("history", "best"):  # the record of the run is made from them
        if name not in cfg.callbacks:
            raise UserError(f"callbacks.{name} cannot be left out: metrics.json is made from it")
    data = build(cfg, "data")
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    model = build(cfg, "model")
    data.check(model)
    callbacks = {name: build(cfg, f"callbacks.{name}") for name in cfg.callbacks}
    if not cfg.trainer.enable_progress_bar:
        callbacks.pop("progress", None)
    logger = build(cfg, "logger") if cfg.get("logger") else False
    trainer = build(cfg, "trainer", callbacks=[*callbacks.values(), *further], logger=logger)
    return trainer, model, data


def fit(
    run: Run, trainer: L.Trainer, model: L.LightningModule, data: L.LightningDataModule, resume: bool = False
) -> dict[str, Any]:
    """Fit, from the last checkpoint if `resume`, then test the best one. Returns what the run's record says."""
    trainer.fit(model, data, ckpt_path=run.last if resume else None)
    row = run.load(run.best)["callbacks"]["History"]["rows"][-1]  # the epoch that made the checkpoint
    seconds = history(trainer).trained()
    trainer.test(model, data, ckpt_path=run.best, verbose=False)
    return {
        **{name: value for name, value in row.items() if "/" in name},
        **{name: value.item() for name, value in trainer.callback_metrics.items()},
        "best_epoch": row["epoch"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 3),
        "examples_per_second": round(len(data.splits["train"][1]) * trainer.current_epoch / seconds, 1),
        "device": str(trainer.strategy.root_device),
        "threads": torch.get_num_threads(),
        "data_sha256": data.checksums,
    }


@contextlib.contextmanager
def recorded(run: Run, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep the run's metrics.json true, however the block ends. The block adds its results to the record.

    Of a run in several processes, the leading one does this.
    """
    if not leads():
        yield record
        return
    record["status"] = "running"
    run.save_record(record)
    try:
        yield record
    except BaseException as error:
        status, reason = "interrupted", type(error).__name__  # by SIGTERM or Ctrl-C
        if isinstance(error, Exception):
            status, reason = getattr(error, "status", "failed"), str(error)
        record |= {"status": status, "reason": reason or type(error).__name__}
        with contextlib.suppress(OSError):  # on a full disk the first error is the one to tell
            run.save_record(record)
        if status == "interrupted":
            saved = f"saved in {cli.shown(run.last)}" if run.last.exists() else "nothing saved yet"
            log.warning("interrupted; %s; to go on: python -m src.resume run=%s", saved, cli.shown(run.path))
        raise
    record["status"] = "finished"
    run.save_record(record)
    log.info(cli.summary(record, run))


def resume(cfg: DictConfig, overrides: list[str]) -> float | None:
    """Finish the run in cfg.run_dir, whose lock the caller holds.

    `cfg` is its recorded config with `overrides` applied. Returns what `src.train.train` does. Raises
    ValueError if the run cannot go on like that; its folder is then as it was.
    """
    run = Run(cfg.run_dir)
    before, earlier = run.recorded(), run.record()
    refuse_another_experiment(before, cfg)
    if earlier.get("status") == "finished" and cfg.trainer.max_epochs <= before.trainer.max_epochs:
        epochs = f"{earlier['epochs']} epochs; nothing is left to do. To train on: trainer.max_epochs=N"
        log.info("run %s is finished, %s", cli.shown(run.path), epochs)
        return earlier.get("val/loss")

    saved = run.last.exists()  # else it was killed before its first checkpoint, and begins anew
    rows, step = [], 0
    if saved:
        run.restore(run.last, cfg)
        checkpoint = run.load(run.last)
        rows, step = checkpoint["callbacks"]["History"]["rows"], checkpoint["global_step"]
    continued = cfg.copy()
    if continued.get("logger") and "purge_step" in continued.logger:
        continued.logger.purge_step = rows[-1]["step"] if rows else 0
        # TensorBoard puts event files in order by the second in their names
        if any(str(int(time.time())) in path.name for path in run.tensorboard.glob("events*")):
            time.sleep(1)
    trainer, model, data = assemble(continued)
    data.prepare_data()

    resumed = [*earlier.get("resumed", []), {"step": step, "overrides": overrides}]
    with recorded(run, {"seed": cfg.seed, **provenance(), "resumed": resumed}) as record:
        if leads():
            run.save_config(cfg, overrides)
            log.info("resumed after %d epochs, %d steps", len(rows), step)
        record |= fit(run, trainer, model, data, resume=saved)
    return record.get("val/loss")


def refuse_another_experiment(before: DictConfig, cfg: DictConfig) -> None:
    """Raises UserError if the configs differ in more than how long, where and with what output they run."""
    for group in EXPERIMENT:
        old, new = (OmegaConf.to_container(node, resolve=True)[group] for node in (before, cfg))
        if not isinstance(old, dict):
            old, new, group = {group: old}, {group: new}, ""
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name) and not (group == "data" and name in PLACES):
                key = f"{group}.{name}".lstrip(".")
                raise UserError(
                    f"{key}={new.get(name)} would make this another experiment (it was {old.get(name)}); "
                    "start a new run with src.train"
                )
