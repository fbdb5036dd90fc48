"""Fit a model, test its best checkpoint, write the run folder: python -m src.train key=value ..."""

import logging
import time
from typing import Any

import hydra
import lightning as L
from omegaconf import DictConfig

from src import cli
from src.config import build
from src.runs import Run, provenance

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Train as `cfg` says and fill the folder cfg.run_dir.

    Returns the val/loss of the best epoch, None without a validation split. Raises ValueError for a config
    that cannot work and DataError if the data cannot be had.
    """
    run = Run(cfg.run_dir)
    if run.metrics_json.exists():
        raise ValueError(f"run_dir {run.path} holds a run already, and no run is overwritten; choose another")
    run.save_config(cfg)
    record = {"status": "running", "seed": cfg.seed, **provenance()}
    run.save_record(record)
    try:
        record |= fit(cfg, run)
        record["status"] = "finished"
    except Exception as error:
        record |= {"status": "failed", "reason": str(error) or type(error).__name__}
        raise
    except BaseException as error:  # SIGTERM or Ctrl-C, which Lightning has answered by a checkpoint
        record |= {"status": "interrupted", "reason": type(error).__name__}
        log.warning(
            "interrupted; %s", f"saved in {cli.shown(run.last)}" if run.last.exists() else "nothing saved"
        )
        raise
    finally:
        run.save_record(record)
    log.info(cli.summary(record, run))
    return record.get("val/loss")


def fit(cfg: DictConfig, run: Run) -> dict[str, Any]:
    """Fit, then test the best checkpoint. Returns what the run's record says about it."""
    data = build(cfg, "data")
    L.seed_everything(cfg.seed, workers=True, verbose=False)
    model = build(cfg, "model")
    callbacks = {name: build(cfg, f"callbacks.{name}") for name in cfg.callbacks}
    if not cfg.trainer.enable_progress_bar:
        callbacks.pop("progress", None)
    logger = build(cfg, "logger") if cfg.get("logger") else False
    trainer = build(cfg, "trainer", callbacks=list(callbacks.values()), logger=logger)

    started = time.perf_counter()
    trainer.fit(model, data)
    seconds = time.perf_counter() - started

    row = run.load(run.best)["callbacks"]["History"]["rows"][-1]  # the epoch that made the checkpoint
    (test,) = trainer.test(model, data, ckpt_path=run.best, verbose=False)
    examples = data.train_size * trainer.current_epoch
    return {
        **{name: value for name, value in row.items() if "/" in name},
        **test,
        "best_epoch": row["epoch"],
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 3),
        "examples_per_second": round(examples / seconds, 1),
        "device": str(trainer.strategy.root_device),
        "data_sha256": data.checksums,
    }


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    return train(cfg)


if __name__ == "__main__":
    cli.run(main)
