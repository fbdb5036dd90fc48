"""The run folder: a new one for every run, what is where in it, and who may be in it."""

import contextlib
import fcntl
import functools
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pydantic
import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout
from typing_extensions import TypedDict

from src import __version__, files
from src.errors import UserError
from src.processes import main_process
from src.runs.config import GROUPS, OPTIONAL
from src.tables import table

# What a run may leave before it has begun; a folder that holds nothing else is nobody's.
EARLY = {".hydra", "train.log", "metrics.json", "metrics.csv", "checkpoints", "figures"}
ALL_EPOCHS = "all epochs"  # how a run has ended, if nothing ended it early
MOST_METRICS = 200  # names of metrics in a record, of all runs of a sweep together
LARGEST_METRIC = 1e100  # but for nan and inf; sums of squares of such numbers are still finite
PART = re.compile(r"(\.\d+)?\.part$")  # how a file ends that a killed process was writing


class Resumption(TypedDict):
    """When a run was gone on with, and how its settings were changed."""

    step: int
    overrides: list[str]


class Results(TypedDict, total=False):
    """metrics.json; it also has the final metrics, numbers under names with a slash, as
    test/acc."""

    seed: int
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    resumed: list[Resumption]
    status: str
    reason: str
    ended: str
    best_epoch: int
    epochs: int
    steps: int
    seconds: float
    examples_per_second: float
    device: str
    threads: int
    data_sha256: dict[str, str] | None
    __pydantic_config__ = pydantic.ConfigDict(extra="allow", strict=True)


RESULTS = pydantic.TypeAdapter(Results)


class Run:
    """A run: the paths and records of its folder, and what it has made, `metrics`, `model` and
    `data`.

    `within` is the folder below which no link is followed: its own, or that of its sweep.
    """

    def __init__(self, path: str | Path, within: Path | None = None):
        self.path = files.expanded(path)
        self.within = within or self.path
        self.config = self.path / ".hydra" / "config.yaml"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.metrics_csv = self.path / "metrics.csv"
        self.metrics_json = self.path / "metrics.json"
        self.figures = self.path / "figures"

    def begun(self) -> bool:
        """Whether there is a state to go on from, or a result; else the folder may be used
        afresh."""
        return self.last.exists() or self.results().get("status") in ("finished", "diverged")

    def early(self) -> bool:
        """Whether the folder holds nothing but what a run of ours may leave before it has begun."""
        names = {PART.sub("", path.name) for path in self.path.glob("*")}
        names -= {path.relative_to(self.path).parts[0] for path in self.events()}
        saved = {PART.sub("", path.name) for path in self.best.parent.glob("*")}
        ours = ".hydra" in names or names <= {"train.log"}
        return (
            ours
            and names <= EARLY
            and saved <= {self.best.name, self.last.name}
            and not self.begun()
        )

    def parts(self) -> Iterator[Path]:
        """The files that a killed process was writing."""
        for folder in (self.path, self.config.parent, self.best.parent, self.figures):
            yield from folder.glob("*.part")

    def events(self) -> list[Path]:
        """TensorBoard's files: here or, of a job of a sweep, in a folder that holds nothing
        else."""
        named = (each for each in self.path.glob("*") if each.is_dir() and not each.is_symlink())
        own = (
            each
            for each in named
            if all(path.match("events.out.tfevents.*") for path in each.iterdir())
        )
        return [
            path for folder in (self.path, *own) for path in folder.glob("events.out.tfevents.*")
        ]

    def in_sweep(self) -> bool:
        return (self.path.parent / "sweep.yaml").exists()

    def lock(self) -> contextlib.AbstractContextManager:
        """Keep other commands out of this run: `with run.lock(): ...`. Raises UserError if one is
        in it."""
        if not main_process():  # which holds the lock for all processes of the run
            return contextlib.nullcontext()
        return lock(self.config.with_name("lock"), f"run {self.path}")

    def in_use(self) -> bool:
        try:
            with files.open_regular(
                self.config.with_name("lock"), files.TEXT, within=self.within
            ) as file:
                fcntl.flock(
                    file, fcntl.LOCK_SH | fcntl.LOCK_NB
                )  # shared: others can ask at the same moment
                return False
        except OSError as error:  # else nobody has ever had it, or we may not read it
            return isinstance(error, BlockingIOError)

    def save_config(self, settings: dict[str, Any], overrides: Sequence[str] = ()) -> None:
        """Save the settings, plain values, and the overrides that made them, behind earlier
        ones."""
        path = self.config.with_name("overrides.yaml")
        earlier = self.overrides() if path.exists() else []
        files.write(path, yaml.safe_dump([*earlier, *overrides]))
        files.write(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def overrides(self) -> list[str]:
        """The overrides that made the settings. Raises UserError if their file is damaged."""
        path = self.config.with_name("overrides.yaml")
        found = files.read_yaml(path, within=self.within, interpolations=True)
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise UserError(f"{path} is damaged: it is no list of overrides")
        return found

    def settings(self) -> dict[str, Any]:
        """The settings of the run, plain values. Raises UserError for what is not a run folder of
        ours."""
        if not self.config.exists():
            what = "is no run folder, or one whose run never began"
            raise UserError(
                f"{self.path} {what}: it has no .hydra/config.yaml; try outputs/runs/NAME"
            )
        files.refuse_links(self.path, "run folder")
        settings = files.read_yaml(self.config, within=self.within)
        groups = settings if isinstance(settings, dict) else {}
        seeded = type(groups.get("seed")) is int
        if not seeded or not all(isinstance(groups.get(name), dict) for name in GROUPS):
            raise UserError(f"{self.config} is damaged: it lacks one of seed, {', '.join(GROUPS)}")
        if not all(isinstance(groups.get(name) or {}, dict) for name in OPTIONAL):
            raise UserError(
                f"{self.config} is damaged: {' or '.join(OPTIONAL)} is no group of settings"
            )
        if settings.keys() & {"hydra", "defaults"}:  # which would steer Hydra itself
            raise UserError(f"{self.config} is damaged: it must not have hydra or defaults")
        return settings

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value for name, value in self.results().items() if "/" in name}

    @functools.cached_property
    def loaded(self) -> tuple[Any, Any]:
        """The data module, set up, and the model of the best epoch.

        Raises UserError if they cannot be had.
        """
        # torch, without which a run can be summarized
        from src.runs.build import restore

        data, model = restore(self.settings(), self.best, within=self.path)
        data.prepare_data()
        data.setup()
        return data, model

    @property
    def data(self) -> Any:
        return self.loaded[0]

    @property
    def model(self) -> Any:
        return self.loaded[1]

    def table(self) -> str:
        """The final metrics in Markdown, a row for each stage."""
        stages: dict[str, dict[str, str]] = {}
        for name, value in sorted(
            self.metrics.items(), key=lambda item: item[0].startswith("error")
        ):
            stage, _, metric = name.partition("/")
            stages.setdefault(stage, {"": stage})[metric] = f"{value:.4f}"
        return table(stages.values())

    def _repr_markdown_(self) -> str:
        """The table and the folder, for a notebook."""
        return f"{self.table()}\n\n`{self.path}`"

    def save_results(self, record: dict[str, Any]) -> None:
        files.write(self.metrics_json, json.dumps(record, indent=2) + "\n")

    def results(self) -> dict[str, Any]:
        """metrics.json, {} if there is none yet: the status of the run, its results, what they
        depend on."""
        try:
            content = files.read_json(self.metrics_json, within=self.within)
            record = RESULTS.validate_python(content)
            check_metrics({name: value for name, value in record.items() if "/" in name})
        except FileNotFoundError:
            return {}
        except pydantic.ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(map(str, detail["loc"]))
            raise UserError(f"{self.metrics_json} is damaged: {place}: {detail['msg']}") from error
        except ValueError as error:
            raise UserError(f"{self.metrics_json} is damaged: {error}") from error
        return record

    def epochs(self) -> list[dict[str, float]]:
        """metrics.csv: the metrics of each epoch. Raises UserError if it is damaged."""
        rows = files.read_rows(self.metrics_csv, within=self.within)
        try:
            for row in rows:
                check_metrics(row)
                if not 1 <= row.get("epoch", 0) <= files.ROWS:
                    raise ValueError("a row has no epoch")
        except ValueError as error:
            raise UserError(f"{self.metrics_csv} is damaged: {error}") from error
        return rows


def check_metrics(metrics: dict[str, Any]) -> None:
    """Raises ValueError for values that are no numbers, or larger than those of any metric, and for
    too many."""
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"it has {len(metrics):,} metrics, more than {MOST_METRICS}")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise ValueError(f"{name} is no number")
        if LARGEST_METRIC < abs(value) < math.inf:
            raise ValueError(f"{name} is {value:g}, more than {LARGEST_METRIC:g}")


def lock(path: Path, subject: str) -> AcquireReturnProxy:
    """Hold the lock file until what is returned is dropped. Raises UserError if another process
    holds it."""
    try:
        return FileLock(path, is_singleton=True).acquire(
            timeout=0.5
        )  # `in_use` has it for a moment
    except Timeout:
        raise UserError(
            f"{subject} is in use by another process; wait until that one ends"
        ) from None
    except OSError as error:
        raise files.cannot_write(subject, error) from error


def claim(wanted: Path, key: str | None = None) -> Path:
    """Make a folder that is nobody else's: if its name is taken, the first free one with a number
    behind it.

    One that the user named, as `key`, must be new, empty, or that of a run that never began; else
    UserError.
    """
    folder = wanted
    for number in itertools.count(2):
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if key is None:
                folder = wanted.with_name(f"{wanted.name}_{number}")
                continue
            check_free(folder, key)
            return folder
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


def check_version(version: str, subject: str) -> None:
    """Raises UserError if another version than this one began what is to be gone on with.

    Its settings may name what has moved; versions that differ in the last number have the same.
    """
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise UserError(
            f"{subject} was begun by version {version}, and this is {__version__}: "
            "finish it with that version, or start it anew"
        )


def check_free(folder: Path, key: str) -> None:
    """Raises UserError if a run in the folder would overwrite anything; the user named it as
    `key`."""
    run = Run(folder)
    if run.last.exists():
        raise UserError(f"folder {folder} holds a run already; choose another with {key}=DIR")
    if not folder.is_dir() or not run.early():
        raise UserError(f"folder {folder} is not empty; choose another with {key}=DIR")
