"""A folder of its own for every run, and the checks before a run is begun or gone on with in it."""

import itertools
from pathlib import Path

from src import __version__
from src.errors import UserError
from src.runs.run import Run


def claim(wanted: Path, key: str | None = None) -> Path:
    """Make a folder that is nobody else's.

    If its name is taken, it has the first free one with a number behind it. A folder that the user
    named, as `key`, must be new, empty, or that of a run that never began; else UserError.
    """
    folder = wanted
    numbers = itertools.count(2)
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if key is not None:
                check_free(folder, key)
                return folder
            folder = wanted.with_name(f"{wanted.name}_{next(numbers)}")
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error


def check_version(version: str, subject: str) -> None:
    """Raises UserError if another version than this one began the subject.

    The subject is to be gone on with, and its settings may name modules that have moved since.
    Versions that differ in the last number alone have the same modules.
    """
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise UserError(
            f"{subject} was begun by version {version}, and this is {__version__}: "
            "finish it with that version, or start it anew"
        )


def check_free(folder: Path, key: str) -> None:
    """Raises UserError if a run in the folder, named by the user as `key`, would overwrite any."""
    run = Run(folder)
    if run.last.exists():
        raise UserError(f"folder {folder} holds a run already; choose another with {key}=DIR")
    if not folder.is_dir() or not run.early():
        raise UserError(f"folder {folder} is not empty; choose another with {key}=DIR")
