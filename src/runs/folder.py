"""The run folder: a new one for every run, what is where in it, and who may be in it."""

import contextlib
import csv
import fcntl
import functools
import io
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout

from src import files
from src.errors import UserError
from src.runs.settings import GROUPS
from src.tables import table

# What a run may leave before it has begun; a folder that holds nothing else is nobody's.
EARLY = {".hydra", "train.log", "metrics.json", "metrics.csv", "checkpoints", "figures"}


class Run:
    """A run: the paths and records of its folder, and what it has made, `metrics`, `model` and `data`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / ".hydra" / "config.yaml"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.metrics_csv = self.path / "metrics.csv"
        self.metrics_json = self.path / "metrics.json"
        self.figures = self.path / "figures"

    def begun(self) -> bool:
        """Whether there is a state to go on from, or a result; else the folder may be used afresh."""
        return self.last.exists() or self.record().get("status") in ("finished", "diverged")

    def early(self) -> bool:
        """Whether the folder holds nothing but what a run of ours may leave before it has begun."""
        folders = self.path, self.best.parent
        names, saved = ({each.name.removesuffix(".part") for each in folder.glob("*")} for folder in folders)
        names -= {each.relative_to(self.path).parts[0] for each in self.events()}
        ours = ".hydra" in names or names <= {"train.log"}
        return ours and not self.begun() and names <= EARLY and saved <= {self.best.name, self.last.name}

    def events(self) -> list[Path]:
        """TensorBoard's files: here or, of a job of a sweep, in a folder that holds nothing else."""
        named = (each for each in self.path.glob("*") if each.is_dir() and not each.is_symlink())
        own = (each for each in named if all(path.match("events.out.*") for path in each.iterdir()))
        return [path for folder in (self.path, *own) for path in folder.glob("events.out.*")]

    def in_sweep(self) -> bool:
        return (self.path.parent / "sweep.yaml").exists()

    def lock(self) -> contextlib.AbstractContextManager:
        """Keep other commands out of this run: `with run.lock(): ...`. Raises UserError if one is in it."""
        if not main_process():  # which holds the lock for all processes of the run
            return contextlib.nullcontext()
        return lock(self.config.with_name("lock"), f"run {self.path}")

    def in_use(self) -> bool:
        try:
            with files.open_regular(self.config.with_name("lock"), files.LARGEST) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others can ask at the same moment
                return False
        except OSError as error:  # else nobody has ever had it, or we may not read it
            return isinstance(error, BlockingIOError)

    def save_config(self, settings: dict[str, Any], overrides: Sequence[str] = ()) -> None:
        """Save the settings, plain values, and the overrides that made them, behind earlier ones."""
        path = self.config.with_name("overrides.yaml")
        earlier = yaml.safe_load(files.read(path)) if path.exists() else []
        files.write(path, yaml.safe_dump([*earlier, *overrides]))
        files.write(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def recorded(self) -> dict[str, Any]:
        """The settings of the run, plain values. Raises UserError for what is not a run folder of ours."""
        if not self.config.exists():
            what = "is no run folder, or one whose run never began"
            raise UserError(f"{self.path} {what}: it has no .hydra/config.yaml; try outputs/runs/NAME")
        files.refuse_links(self.path.rglob("*"), "run folder")
        settings = files.read_yaml(self.config)
        groups = settings if isinstance(settings, dict) else {}
        if "seed" not in groups or not all(isinstance(groups.get(name), dict) for name in GROUPS):
            raise UserError(f"{self.config} is damaged: it lacks one of seed, {', '.join(GROUPS)}")
        if settings.keys() & {"hydra", "defaults"}:  # which would steer Hydra itself
            raise UserError(f"{self.config} is damaged: it must not have hydra or defaults")
        return settings

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value for name, value in self.record().items() if "/" in name}

    @functools.cached_property
    def restored(self) -> tuple[Any, Any]:
        """The data module, set up, and the model of the best epoch. Raises UserError if they cannot be had."""
        from src.runs.config import restore  # torch, without which a run can be summarized

        data, model = restore(self.recorded(), self.best)
        data.prepare_data()
        data.setup()
        return data, model

    data = property(lambda self: self.restored[0])
    model = property(lambda self: self.restored[1])

    def table(self) -> str:
        """The final metrics in Markdown, a row for each stage."""
        stages: dict[str, dict[str, str]] = {}
        for name, value in sorted(self.metrics.items(), key=lambda item: item[0].startswith("error")):
            stage, _, metric = name.partition("/")
            stages.setdefault(stage, {"": stage})[metric] = f"{value:.4f}"
        return table(stages.values())

    def _repr_markdown_(self) -> str:  # what a notebook shows
        return f"{self.table()}\n\n`{self.path}`"

    def save_record(self, record: dict[str, Any]) -> None:
        files.write(self.metrics_json, json.dumps(record, indent=2) + "\n")

    def record(self) -> dict[str, Any]:
        """metrics.json, {} if there is none yet: the status of the run, its results, what they depend on."""
        try:
            record = json.loads(files.read(self.metrics_json))
            if any("/" in name and not isinstance(value, float | int) for name, value in record.items()):
                raise ValueError("a metric is no number")
        except FileNotFoundError:
            return {}
        except (AttributeError, ValueError, RecursionError) as error:
            raise UserError(f"{self.metrics_json} is damaged: {error}") from error
        return record

    def rows(self) -> list[dict[str, float]]:
        rows = csv.DictReader(io.StringIO(files.read(self.metrics_csv)))
        try:
            return [{name: float(value) for name, value in row.items()} for row in rows]
        except (TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{self.metrics_csv} is damaged: {error}") from error


def lock(path: Path, subject: str) -> AcquireReturnProxy:
    """Hold the lock file until what is returned is dropped. Raises UserError if another process holds it."""
    try:
        return FileLock(path, is_singleton=True).acquire(timeout=0.5)  # `in_use` has it for a moment
    except Timeout:
        raise UserError(f"{subject} is in use by another process; wait until that one ends") from None
    except OSError as error:
        raise files.cannot_write(subject, error) from error


def main_process() -> bool:
    """Whether this is the process that saves the run: of several, the one that a launcher gave rank 0."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def claim(wanted: Path, key: str | None = None) -> Path:
    """Make a folder that is nobody else's: if its name is taken, the first free one with a number behind it.

    One that the user named, as `key`, must be new, empty, or that of a run that never began; else UserError.
    """
    folder = wanted
    for number in itertools.count(2):
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not key:
                folder = wanted.with_name(f"{wanted.name}_{number}")
            elif folder.is_dir() and Run(folder).early():
                return folder
            else:
                raise UserError(f"folder {folder} is not empty; choose another with {key}=DIR") from None
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
