"""The run folder: a new one for every run, what is where in it, and who may be in it."""

import contextlib
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout

from src import files
from src.errors import UserError
from src.runs.checkpoint import load_checkpoint

GROUPS = ("data", "model", "trainer", "callbacks")  # of settings, without which there is no run
# What a run may leave before it has begun; a folder that holds nothing else is nobody's.
EARLY = {".hydra", "train.log", "metrics.json", "metrics.csv", "tensorboard", "checkpoints", "figures"}


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
        self.figures = self.path / "figures"

    def begun(self) -> bool:
        """Whether there is a state to go on from, or a result; else the folder may be used afresh."""
        return self.last.exists() or self.record().get("status") in ("finished", "diverged")

    def early(self) -> bool:
        """Whether the folder holds nothing but what a run of ours may leave before it has begun."""
        names = {each.name.removesuffix(".part") for each in self.path.iterdir()}
        saved = {each.name.removesuffix(".part") for each in self.last.parent.glob("*")}
        ours = ".hydra" in names or names <= {"train.log"}
        return ours and not self.begun() and names <= EARLY and saved <= {self.best.name, self.last.name}

    def in_sweep(self) -> bool:
        """Whether it is a job of a sweep."""
        return (self.path.parent / "sweep.yaml").exists()

    def lock(self) -> contextlib.AbstractContextManager:
        """Keep every other process out of this run: `with run.lock(): ...`.

        Raises UserError at once if one is in it. The other processes of a run rely on the main process' lock.
        """
        if not main_process():
            return contextlib.nullcontext()
        return lock(self.config.with_name("lock"), f"run {self.path}")

    def in_use(self) -> bool:
        """Whether another process is in this run."""
        try:
            with FileLock(self.config.with_name("lock"), is_singleton=True).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # nothing there, or nothing to be written
            return False

    def save_config(self, settings: dict[str, Any], overrides: Sequence[str] = ()) -> None:
        """Record the settings, as plain values, and the overrides that made them what they are."""
        path = self.config.with_name("overrides.yaml")
        earlier = yaml.safe_load(files.read(path)) if path.exists() else []
        files.write(path, yaml.safe_dump([*earlier, *overrides]))
        files.write(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def recorded(self) -> dict[str, Any]:
        """The settings of the run, plain values throughout.

        Raises UserError if this is no run folder, it holds a link, or the config is damaged.
        """
        if not self.config.exists():
            if self.path.is_dir() and any(self.path.iterdir()) and self.early():
                raise UserError(f"run {self.path} never began; start it with the command that was to make it")
            raise UserError(
                f"{self.path} is no run folder (it has no .hydra/config.yaml); try outputs/runs/NAME"
            )
        self.refuse_links()
        settings = files.read_yaml(self.config)
        keys = settings.keys() if isinstance(settings, dict) else set()
        # what must be there, and what would steer Hydra itself
        if lacking := {"seed", *GROUPS} - keys:
            raise UserError(f"{self.config} is damaged: it lacks {', '.join(sorted(lacking))}")
        if foreign := {"hydra", "defaults"} & keys:
            raise UserError(f"{self.config} is damaged: it must not have {', '.join(sorted(foreign))}")
        return settings

    def refuse_links(self) -> None:
        """Raises UserError for a link in the folder, through which others could be written to, or a device."""
        for folder, folders, names in os.walk(self.path):
            for path in (Path(folder, name) for name in (*folders, *names)):
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise UserError(
                        f"{path} is a link or a device; a run folder must hold files and folders alone"
                    )

    def save_record(self, record: dict[str, Any]) -> None:
        """Write metrics.json: the status of the run, its results, and what they depend on."""
        files.write_json(self.metrics_json, record)

    def record(self) -> dict[str, Any]:
        """What metrics.json says; nothing if the run has none yet."""
        try:
            record = files.read_json(self.metrics_json)
        except FileNotFoundError:
            return {}
        if not all(isinstance(record[name], float | int) for name in record if "/" in name):
            raise UserError(f"{self.metrics_json} is damaged: a metric is no number")
        return record

    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one per epoch."""
        rows = csv.DictReader(io.StringIO(files.read(self.metrics_csv)))
        try:
            return [{name: float(value) for name, value in row.items()} for row in rows]
        except (TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{self.metrics_csv} is damaged: {error}") from error

    def written(self) -> dict[Path, list[str]]:
        """What is in the folder and in those of checkpoints and figures: folder -> sorted names."""
        folders = [self.path, self.best.parent, self.figures]
        return {folder: sorted(path.name for path in folder.glob("*")) for folder in folders if folder.exists()}

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Content of a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(checkpoint)


def lock(path: Path, subject: str) -> AcquireReturnProxy:
    """Hold the lock file `path` until the `with` block ends, what is returned is dropped, or the process ends.

    A process that holds it may take it again. Raises UserError if another one does; `subject` is for the
    message.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, is_singleton=True).acquire(timeout=0)
    except Timeout:
        raise UserError(f"{subject} is in use by another process; wait until that one ends") from None
    except OSError as error:
        raise files.cannot_write(subject, error) from error


def main_process() -> bool:
    """Whether this is the process that records the run: of several, the one that a launcher gave rank 0."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def claim(wanted: Path, named: bool, key: str) -> Path:
    """Make a folder that is nobody else's.

    A folder `named` by the user, as `key`, must be new, empty, or that of a run that never began: else
    UserError. Another, named by the time, gets a number behind it if somebody took the name first.
    """
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not named:
                number += 1
                folder = wanted.with_name(f"{wanted.name}_{number}")
            elif folder.is_dir() and Run(folder).early():
                return folder
            else:
                raise UserError(f"folder {folder} is not empty; choose another with {key}=DIR") from None
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
