"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ..."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import hydra
import lightning as L
from omegaconf import DictConfig

from src import cli
from src.callbacks import history
from src.config import build
from src.models.regression import Diverged
from src.runs import Run, provenance

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train as `cfg` says and fill the folder cfg.run_dir.

    Returns the val/loss of the best epoch, None without a validation split. Raises ValueError for a config
    that cannot work, DataError if the data cannot be had and Diverged if the loss becomes nan or infinite.
    """
    run = Run(cfg.run_dir)
    if run.metrics_json.exists():
        raise ValueError(f"run_dir {run.path} holds a run already, and no run is overwritten; choose another")
    with run.lock(), recorded(run, {"seed": cfg.seed, **provenance()}) as record:
        run.save_config(cfg)
        record |= fit(run, *assemble(cfg))
    return record.get("val/loss")


Parts = tuple[L.Trainer, L.LightningModule, L.LightningDataModule]


def assemble(cfg: DictConfig) -> Parts:
    """Everything that `fit` needs, built and checked; nothing is written or trained."""
    for name in ("history", "best"):  # the record of the run is made from them
        if name not in cfg.callbacks:
            raise ValueError(f"callbacks.{name} cannot be left out: metrics.json is made from it")
    data = build(cfg, "data")
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    model = build(cfg, "model")
    callbacks = {name: build(cfg, f"callbacks.{name}") for name in cfg.callbacks}
    if not cfg.trainer.enable_progress_bar:
        callbacks.pop("progress", None)
    logger = build(cfg, "logger") if cfg.get("logger") else False
    return build(cfg, "trainer", callbacks=list(callbacks.values()), logger=logger), model, data


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
        "examples_per_second": round(data.train_size * trainer.current_epoch / seconds, 1),
        "device": str(trainer.strategy.root_device),
        "data_sha256": data.checksums,
    }


@contextlib.contextmanager
def recorded(run: Run, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep the run's metrics.json true, however the block ends. The block adds its results to the record."""
    record["status"] = "running"
    run.save_record(record)
    try:
        yield record
    except BaseException as error:
        status, reason = "interrupted", type(error).__name__  # by SIGTERM or Ctrl-C
        if isinstance(error, Exception):
            status, reason = "diverged" if isinstance(error, Diverged) else "failed", str(error)
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


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    return train(cfg)


if __name__ == "__main__":
    cli.run(main)
