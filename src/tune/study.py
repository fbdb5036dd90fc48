"""The study of a folder: its database, the experiment that it is of, and its results."""

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
from src.files import read_yaml
from src.runs import identity, leaves, write, write_csv
from src.runs.config import plain

DATABASE = (SQLAlchemyError, StorageInternalError)  # errors of the storage, wherever they are met
EARLY = (".lock", "study.db", "tune.yaml", "tune.log")  # what a study may leave before it has begun
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
    pruner = (
        optuna.pruners.NopPruner()
        if cfg.pruner is None
        else optuna.pruners.MedianPruner(**cfg.pruner)
    )
    database = (shared := address(cfg.storage)) or f"{folder}/study.db"
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
        (folder / "tune.yaml").unlink()  # which has just been made
        found = (
            f"{database} has a study of folder={cfg.folder} already, but that folder here is new"
        )
        raise UserError(
            f"{found}; machines of one study must share its folder, else choose another"
        ) from error
    except DATABASE as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        advice = "when it can be used again, the same command goes on"
        raise UserError(f"the database {database} fails: {reason}; {advice}") from error


def opened(url: str | None, database: str) -> optuna.storages.RDBStorage:
    """The database at the url, or an SQLite file called `database`. Raises UserError if its options
    do not fit."""
    engine: dict[str, Any] = {"poolclass": NullPool}  # no connection stays open
    if url is None:
        url = "sqlite:///study.db"
        engine["creator"] = lambda: sqlite3.connect(database)  # whatever the folder's name
    try:
        return optuna.storages.RDBStorage(url, engine)
    except (TypeError, ValueError) as error:  # its text may have what is secret
        raise UserError(
            f"the database {database} cannot be opened: an option of its address does not fit"
        ) from error


def study_name(cfg: DictConfig, settings: DictConfig, folder: Path, storage: str | None) -> str:
    """What the database calls the study: its folder, as the process that made it was given that.

    tune.yaml records it with the experiment. Raises UserError if the experiment there is another
    one.
    """
    path, known_settings = folder / "tune.yaml", plain(settings)
    wanted = {"storage": storage, "trainer.max_epochs": known_settings["trainer"].get("max_epochs")}
    wanted |= identity(known_settings)
    searched = OmegaConf.to_container(OmegaConf.masked_copy(cfg, ["space", "pruner"]), resolve=True)
    wanted |= leaves({"callbacks": known_settings["callbacks"], **searched})
    if not path.exists():
        write(path, yaml.safe_dump({**wanted, "study": cfg.folder}, sort_keys=False))
    known = read_yaml(path)
    if not isinstance(known, dict) or not (name := known.pop("study", None)):
        raise UserError(f"{path} is damaged: it names no study; choose another folder")
    for key in {**known, **wanted}:
        if known.get(key) != wanted.get(key):
            what = f"{key}={wanted.get(key)} (there {known.get(key)})"
            raise UserError(
                f"the study in {folder} is another experiment than {what}; choose another folder"
            )
    return name


def address(url: Any) -> str | None:
    """Of a database, without what is secret in it. Raises UserError if it is none, or its driver is
    missing."""
    if url is None:
        return None
    try:
        parsed = make_url(url)
        shown = parsed.set(query={}).render_as_string(hide_password=True)
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        extra = "'.[postgres]'" if error.name.startswith("psycopg") else error.name
        raise UserError(
            f"{shown} needs the driver {error.name}; try pip install {extra}"
        ) from error
    except (ArgumentError, ValueError, AttributeError):
        found = f"storage={str(url).rpartition('@')[2]} is no address of a database"
        raise UserError(
            f"{found}; try sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    return shown


def conclude(study: optuna.Study, folder: Path, overrides: list[str]) -> None:
    """Write trials.csv and best.txt, and print the best command. Raises UserError if no trial has
    finished."""
    rows = [
        {"trial": each.number, "status": STATUS.get(each.state, "running"), "val/loss": each.value}
        | {**each.params, "folder": str(folder / str(each.number))}
        for each in study.get_trials(deepcopy=False)
    ]
    write_csv(folder / "trials.csv", rows)
    counts = Counter(row["status"] for row in rows)
    if not counts["finished"]:
        raise UserError(
            f"no trial of {folder} finished; {folder}/trials.csv and the logs in it say why"
        )
    best = study.best_trial
    parameters = [f"{key}={quoted(value)}" for key, value in best.params.items()]
    command = command_line("src.train", *overrides, *parameters)
    write(folder / "best.txt", f"{command}\n")
    say(f"\n{len(rows)} trials: {', '.join(f'{n} {status}' for status, n in counts.items())}")
    say(f"best: trial {best.number}, val/loss {best.value:.4f}\n  {command}")
    say(f"written to {pasteable(folder)}/: best.txt trials.csv")
