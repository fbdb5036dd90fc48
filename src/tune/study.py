"""The study of a folder: its database, the experiment that it is of, and its results."""

import contextlib
import shlex
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import yaml
from filelock import FileLock
from omegaconf import DictConfig
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.trial import TrialState
from sqlalchemy import NullPool, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from src import terminal
from src.errors import UserError
from src.files import read_yaml
from src.runs import experiment, leaves, write, write_csv
from src.runs.settings import plain

DATABASE = (SQLAlchemyError, StorageInternalError)  # errors of the storage, wherever they are met
STATUS = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


@contextlib.contextmanager
def joined(cfg: DictConfig, folder: Path) -> Iterator[optuna.Study]:
    """The study of the folder, made if there is none, for a `with` block.

    Raises UserError if the folder is another experiment's, or the database fails, now or within the block.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the errors below say it
    pruner = optuna.pruners.NopPruner() if cfg.pruner is None else optuna.pruners.MedianPruner(**cfg.pruner)
    database = (shared := address(cfg.storage)) or f"{folder}/study.db"
    own = {} if shared else {"creator": lambda: sqlite3.connect(database)}  # whatever the folder's name
    engine = {"poolclass": NullPool, **own}  # no connection stays open
    try:
        with FileLock(folder / ".lock"):
            storage = optuna.storages.RDBStorage(cfg.storage or "sqlite:///study.db", engine)
            new = not (folder / "tune.yaml").exists()
            name = study_name(cfg, folder, shared)
            study = optuna.create_study(storage=storage, pruner=pruner, study_name=name, load_if_exists=not new)
        yield study
    except DuplicatedStudyError as error:
        (folder / "tune.yaml").unlink()  # which has just been made
        found = f"{database} has a study of folder={cfg.folder} already, but that folder here is new"
        raise UserError(f"{found}; machines of one study must share its folder, else choose another") from error
    except DATABASE as error:
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        advice = "when it can be used again, the same command goes on"
        raise UserError(f"the database {database} fails: {reason}; {advice}") from error


def study_name(cfg: DictConfig, folder: Path, storage: str | None) -> str:
    """What the database calls the study: its folder, as the process that made it was given that.

    tune.yaml records it with the experiment. Raises UserError if the experiment there is another one.
    """
    path, settings = folder / "tune.yaml", plain(cfg)
    wanted = {"storage": storage, "trainer.max_epochs": settings["trainer"].get("max_epochs")}
    wanted |= experiment(settings) | leaves({key: settings[key] for key in ("callbacks", "space", "pruner")})
    if not path.exists():
        write(path, yaml.safe_dump({**wanted, "study": cfg.folder}, sort_keys=False))
    known = read_yaml(path)
    if not isinstance(known, dict) or not (name := known.pop("study", None)):
        raise UserError(f"{path} is damaged: it names no study; choose another folder")
    for key in {**known, **wanted}:
        if known.get(key) != wanted.get(key):
            what = f"{key}={wanted.get(key)} (there {known.get(key)})"
            raise UserError(f"the study in {folder} is another experiment than {what}; choose another folder")
    return name


def address(url: Any) -> str | None:
    """Of a database, without what is secret in it. Raises UserError if it is none, or its driver is missing."""
    if url is None:
        return None
    try:
        parsed = make_url(url)
        shown = parsed.set(query={}).render_as_string(hide_password=True)
        parsed.get_dialect().import_dbapi()
    except ImportError as error:
        extra = "'.[postgres]'" if error.name.startswith("psycopg") else error.name
        raise UserError(f"{shown} needs the driver {error.name}; try pip install {extra}") from error
    except (ArgumentError, ValueError, AttributeError):
        found = f"storage={str(url).rpartition('@')[2]} is no address of a database"
        raise UserError(f"{found}; try sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE") from None
    return shown


def conclude(study: optuna.Study, folder: Path, overrides: list[str]) -> None:
    """Write trials.csv and best.txt, and print the best command. Raises UserError if no trial has finished."""
    rows = [
        {"trial": each.number, "status": STATUS.get(each.state, "running"), "val/loss": each.value}
        | {**each.params, "folder": str(folder / str(each.number))}
        for each in study.get_trials(deepcopy=False)
    ]
    write_csv(folder / "trials.csv", rows)
    counts = Counter(row["status"] for row in rows)
    if not counts["finished"]:
        raise UserError(f"no trial of {folder} finished; {folder}/trials.csv and the logs in it say why")
    best = study.best_trial
    parameters = [f"{key}={terminal.quoted(value)}" for key, value in best.params.items()]
    command = shlex.join(["python", "-m", "src.train", *overrides, *parameters])
    write(folder / "best.txt", f"{command}\n")
    terminal.say(f"\n{len(rows)} trials: {', '.join(f'{n} {status}' for status, n in counts.items())}")
    terminal.say(f"best: trial {best.number}, val/loss {best.value:.4f}\n  {command}")
    terminal.say(f"written to {terminal.relative(folder)}/: best.txt trials.csv")
