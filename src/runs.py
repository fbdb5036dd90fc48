"""The run folder: a new one for every run, and what is where in it."""

import csv
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchvision
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from src.config import build


class Run:
    """Paths and records of the run folder `path`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / ".hydra" / "config.yaml"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.metrics_csv = self.path / "metrics.csv"
        self.metrics_json = self.path / "metrics.json"
        self.tensorboard = self.path / "tensorboard"

    def save_config(self, cfg: DictConfig) -> None:
        """Record the config, unless Hydra already has."""
        if not self.config.exists():
            self.config.parent.mkdir(parents=True, exist_ok=True)
            write(self.config, OmegaConf.to_yaml(cfg))

    def save_record(self, record: dict[str, Any]) -> None:
        """Write metrics.json: the status of the run, its results, and what they depend on."""
        write(self.metrics_json, json.dumps(record, indent=2) + "\n")

    def restore(self, checkpoint: Path) -> tuple[L.LightningDataModule, L.LightningModule]:
        """The data of the run, ready for use, and its model as it was at the checkpoint.

        Raises ValueError if this is no folder of a run.
        """
        if not self.config.exists():
            raise ValueError(
                f"{self.path} is no run folder (it has no .hydra/config.yaml); try outputs/runs/NAME"
            )
        cfg = OmegaConf.load(self.config)
        data, model = build(cfg, "data"), build(cfg, "model")
        data.prepare_data()
        data.setup()
        model.load_state_dict(self.load(checkpoint)["state_dict"])
        return data, model.eval()

    def record(self) -> dict[str, Any]:
        return json.loads(self.metrics_json.read_text())

    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one per epoch."""
        with open(self.metrics_csv, newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def written(self) -> dict[Path, list[str]]:
        """What is in the folder and in those of checkpoints and figures: folder -> sorted names."""
        folders = [self.path, self.best.parent, self.path / "figures"]
        return {folder: sorted(path.name for path in folder.glob("*")) for folder in folders if folder.exists()}

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Content of a checkpoint; nothing but tensors and plain values is ever unpickled."""
        return torch.load(checkpoint, map_location="cpu", weights_only=True)


def write(path: Path, text: str) -> None:
    """Replace the file in one step: whoever reads it meanwhile, or after a crash, sees the old or the new."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line per row, one column per key of any row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def provenance() -> dict[str, Any]:
    """What a result depends on besides its config: versions, git commit, machine; null is unknown."""
    changes = _git("status", "--porcelain")
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "lightning": L.__version__,
        },
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else changes != "",
        "threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a copy without history
        return None


class ClaimFolder(Callback):
    """Hydra callback: makes the run folder before anything is written, so that no two runs share one.

    A folder named by the time gets a number behind it if another run took the name first; one named by the
    user must be new or empty.
    """

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        if "LOCAL_RANK" in os.environ:  # a helper process of a run that has its folder
            return
        wanted = folder = Path(config.hydra.run.dir)
        named = any(override.startswith("hydra.run.dir=") for override in config.hydra.overrides.hydra)
        number = 1
        while True:
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                if not named:
                    number += 1
                    folder = wanted.with_name(f"{wanted.name}_{number}")
                elif folder.is_dir() and not any(folder.iterdir()):
                    break
                else:
                    sys.exit(f"error: run folder {folder} is not empty; choose another with hydra.run.dir=DIR")
            except OSError as error:
                sys.exit(f"error: cannot make the run folder {folder}: {error.strerror}")
        with read_write(config):
            config.hydra.run.dir = str(folder)
