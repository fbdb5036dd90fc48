"""The run folder: the files in it, and how they are read and written."""

import contextlib
import fcntl
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from src import files, formats
from src.errors import UserError
from src.processes import main_process
from src.runs.config import GROUPS, OPTIONAL
from src.runs.locks import lock
from src.runs.record import check_metrics, check_record
from src.tables import table

# A run may leave these before it has begun; a folder that holds nothing else is nobody's.
EARLY = {".hydra", "train.log", "metrics.json", "metrics.csv", "checkpoints", "figures", "csv"}
ALL_EPOCHS = "all epochs"  # the end of a run that nothing ended early
EVENTS = "events.out.tfevents.*"  # names of TensorBoard's files
PART = re.compile(r"(\.\d+)?\.part$")  # the end of a file that a killed process was writing


class Run:
    """A run: the paths and records of its folder, and its `metrics`, `model` and `data`.

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
        """True if there is a state to go on from, or a result; else the folder may be used anew."""
        return self.last.exists() or self.results().get("status") in ("finished", "diverged")

    def early(self) -> bool:
        """True if the folder holds only files that a run of ours may leave before it has begun."""
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
        """TensorBoard's files, here or in a folder that holds nothing else.

        Such a folder is that of a job of a sweep.
        """
        paths = list(self.path.glob(EVENTS))
        for folder in self.path.glob("*"):
            if not folder.is_dir() or folder.is_symlink():
                continue
            if all(path.match(EVENTS) for path in folder.iterdir()):
                paths += folder.glob(EVENTS)
        return paths

    def in_sweep(self) -> bool:
        return (self.path.parent / "sweep.yaml").exists()

    def lock(self) -> contextlib.AbstractContextManager:
        """Keep other commands out of this run: `with run.lock(): ...`.

        Raises UserError if one is in it.
        """
        if not main_process():  # which holds the lock for all processes of the run
            return contextlib.nullcontext()
        return lock(self.config.with_name("lock"), f"run {self.path}")

    def in_use(self) -> bool:
        path = self.config.with_name("lock")
        try:
            with files.open_regular(path, files.TEXT, within=self.within) as file:
                # A shared lock: others can ask at the same moment.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except OSError as error:  # else nobody has ever had it, or we may not read it
            return isinstance(error, BlockingIOError)

    def save_config(self, settings: dict[str, Any], overrides: Sequence[str] = ()) -> None:
        """Save the settings, plain values, and the overrides that made them after earlier ones."""
        path = self.config.with_name("overrides.yaml")
        earlier = self.overrides() if path.exists() else []
        files.write(path, yaml.safe_dump([*earlier, *overrides]))
        files.write(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    def overrides(self) -> list[str]:
        """The overrides that made the settings.

        Raises UserError if their file is damaged.
        """
        path = self.config.with_name("overrides.yaml")
        overrides = formats.read_yaml(path, within=self.within, interpolations=True)
        if not isinstance(overrides, list) or not all(isinstance(text, str) for text in overrides):
            raise UserError(f"{path} is damaged: it is no list of overrides")
        return overrides

    def settings(self) -> dict[str, Any]:
        """The settings of the run, plain values.

        Raises UserError for any folder but one of a run of ours.
        """
        if not self.config.exists():
            what = "is no run folder, or one whose run never began"
            raise UserError(
                f"{self.path} {what}: it has no .hydra/config.yaml; try outputs/runs/NAME"
            )
        files.refuse_links(self.path, "run folder")
        settings = formats.read_yaml(self.config, within=self.within)
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
        # This imports torch, without which a run can be summarized.
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
        stages: dict[str, dict[str, object]] = {}
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
        """metrics.json, {} if there is none yet: the status of the run and its results.

        It also has the versions, the commit and the data that these depend on.
        """
        try:
            return check_record(formats.read_json(self.metrics_json, within=self.within))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise UserError(f"{self.metrics_json} is damaged: {error}") from error

    def epochs(self) -> list[dict[str, float]]:
        """metrics.csv: the metrics of each epoch.

        Raises UserError if it is damaged.
        """
        rows = formats.read_rows(self.metrics_csv, within=self.within)
        try:
            for row in rows:
                check_metrics(row)
                if not 1 <= row.get("epoch", 0) <= formats.ROWS:
                    raise ValueError("a row has no epoch")
        except ValueError as error:
            raise UserError(f"{self.metrics_csv} is damaged: {error}") from error
        return rows
