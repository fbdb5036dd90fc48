"""The study of a folder: its database, its experiment and its results."""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.trial import TrialState
from sqlalchemy import NullPool, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from src.cli.console import command_line, pasteable, quoted, say
from src.errors import UserError
from src.formats import read_yaml
from src.runs import identity, leaves, write, write_csv
from src.runs.config import plain

DATABASE = (SQLAlchemyError, StorageInternalError)  # errors of the storage, wherever they are met
EARLY = (".lock", "study.db", "tune.yaml", "tune.log")  # files of a study that has not begun
# State of a trial that has ended -> its status in trials.csv.
STATUS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def claim_study(folder: Path) -> None:
    """Make the folder of a study, if there is none. Raises UserError if it is somebody else's."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if "tune.yaml" not in names and any(not name.startswith(EARLY) for name in names):
        raise UserError(
            f"folder {folder} is not empty, and has no study; choose another with folder=DIR"
        )


@contextlib.contextmanager
def joined(cfg: DictConfig, settings: DictConfig, folder: Path) -> Iterator[optuna.Study]:
    """The study of the folder, made if there is none, for a `with` block.

    Raises UserError if the folder is another experiment's, or the database fails, now or within the
    block.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the errors below say it
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if cfg.pruner is not None:
        pruner = optuna.pruners.MedianPruner(**cfg.pruner)
    shared = address(cfg.storage)
    database = shared or f"{folder}/study.db"
    try:
        with FileLock(folder / ".lock"):
            storage = opened(cfg.storage, database)
            new = not (folder / "tune.yaml").exists()
            name = study_name(cfg, settings, folder, shared)
            study = optuna.create_study(
                storage=storage, pruner=pruner, study_name=name, load_if_exists=not new
            )
        yield study
    except DuplicatedStudyError as error:
        (folder / "tune.yaml").unlink()  # made a moment ago
        raise UserError(
            f"{database} has a study of folder={cfg.folder} already, but that folder here is new; "
            "machines of one study must share its folder, else choose another"
        ) from error
    except DATABASE as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        advice = "when it can be used again, the same command goes on"
        raise UserError(f"the database {database} fails: {reason}; {advice}") from error


def opened(url: str | None, database: str) -> optuna.storages.RDBStorage:
    """The database at the url, or an SQLite file called `database`.

    Raises UserError if its options do not fit.
    """
    engine: dict[str, Any] = {"poolclass": NullPool}  # no connection stays open
    if url is None:
        # The file is opened by its name: a url could not have every name of a folder.
        url = "sqlite:///study.db"
        engine["creator"] = lambda: sqlite3.connect(database)
    try:
        return optuna.storages.RDBStorage(url, engine)
    except (TypeError, ValueError) as error:  # its text may have the password
        raise UserError(
            f"the database {database} cannot be opened: an option of its address does not fit"
        ) from error


def study_name(cfg: DictConfig, settings: DictConfig, folder: Path, storage: str | None) -> str:
    """The name of the study in the database: its folder, as the process that made it was given it.

    tune.yaml records the name and the experiment. Raises UserError if the experiment there is
    another one.
    """
    path = folder / "tune.yaml"
    wanted = common_settings(cfg, plain(settings), storage)
    if not path.exists():
        write(path, yaml.safe_dump({**wanted, "study": cfg.folder}, sort_keys=False))
    recorded = read_yaml(path)
    if not isinstance(recorded, dict) or not recorded.get("study"):
        raise UserError(f"{path} is damaged: it names no study; choose another folder")
    name = recorded.pop("study")
    for key in {**recorded, **wanted}:
        if recorded.get(key) != wanted.get(key):
            difference = f"{key}={wanted.get(key)} (there {recorded.get(key)})"
            raise UserError(
                f"the study in {folder} is another experiment than {difference}; "
                "choose another folder"
            )
    return name


def common_settings(
    cfg: DictConfig, settings: dict[str, Any], storage: str | None
) -> dict[str, Any]:
    """The settings, dotted key -> value, that the processes of one study must have in common."""
    common = {"storage": storage, "trainer.max_epochs": settings["trainer"].get("max_epochs")}
    common |= identity(settings)
    searched = OmegaConf.to_container(OmegaConf.masked_copy(cfg, ["space", "pruner"]), resolve=True)
    return common | leaves({"callbacks": settings["callbacks"], **searched})


def address(url: Any) -> str | None:
    """The address of a database, without the secrets in it; None of the study's own file.

    Raises UserError if it is no address, or its driver is missing.
    """
    if url is None:
        return None
    try:
        parsed = make_url(url)
        shown = parsed.set(query={}).render_as_string(hide_password=True)
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        package = error.name
        if package.startswith("psycopg"):
            package = "'.[postgres]'"
        raise UserError(
            f"{shown} needs the driver {error.name}; try pip install {package}"
        ) from error
    except (ArgumentError, ValueError, AttributeError):
        without_password = str(url).rpartition("@")[2]
        raise UserError(
            f"storage={without_password} is no address of a database; "
            "try sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    return shown


def conclude(study: optuna.Study, folder: Path, overrides: list[str]) -> None:
    """Write trials.csv and best.txt, and print the best command.

    Raises UserError if no trial has finished.
    """
    rows = []
    counts: Counter[str] = Counter()
    for trial in study.get_trials(deepcopy=False):
        status = STATUS.get(trial.state, "running")
        counts[status] += 1
        row = {"trial": trial.number, "status": status, "val/loss": trial.value}
        row |= trial.params
        row["folder"] = str(folder / str(trial.number))
        rows.append(row)
    write_csv(folder / "trials.csv", rows)
    if not counts["finished"]:
        raise UserError(
            f"no trial of {folder} finished; {folder}/trials.csv and the logs in it say why"
        )
    best = study.best_trial
    parameters = [f"{key}={quoted(value)}" for key, value in best.params.items()]
    command = command_line("src.train", *overrides, *parameters)
    write(folder / "best.txt", f"{command}\n")
    states = ", ".join(f"{n} {status}" for status, n in counts.items())
    say(f"\n{len(rows)} trials: {states}")
    say(f"best: trial {best.number}, val/loss {best.value:.4f}\n  {command}")
    say(f"written to {pasteable(folder)}/: best.txt trials.csv")
