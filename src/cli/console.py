"""The words of a command, on the terminal and in the log of a run.

They are log lines, results, paths, and commands to paste.
"""

import logging
import re
import shlex
import shutil
import sys
from io import TextIOWrapper
from pathlib import Path

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode

from src import files
from src.errors import printable

SILENT = logging.CRITICAL + 1  # the level of a handler that says nothing more


class ConsoleHandler(logging.Handler):
    """Log lines on rich's console, above a progress bar if there is one.

    Those of the jobs of a sweep are left out.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if in_sweep():
            return
        try:
            say(self.format(record))
        except BrokenPipeError:  # the reader has seen enough
            raise
        except OSError as error:  # as on a full disk; the run goes on
            self.setLevel(SILENT)
            print(f"cannot write to stdout: {error.strerror}; the run goes on", file=sys.stderr)


class LogFile(logging.FileHandler):
    """The log of a run.

    Where it cannot be written any more, it ends with a line on the console.
    """

    def _open(self) -> TextIOWrapper:
        return files.open_to_append(Path(self.baseFilename))

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            raise error
        self.setLevel(SILENT)
        say(f"cannot write {self.baseFilename}: {error.strerror}; the log ends here")


def in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def say(text: str) -> None:
    """Print the text on rich's console, as it is except for what would steer a terminal."""
    rich.get_console().print(
        printable(text, keep="\n"), markup=False, highlight=False, soft_wrap=True
    )


def relative(path: Path) -> str:
    """The path as the user would type it: from the folder of the command, if it lies in there."""
    absolute = path.absolute()
    return str(
        absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
    )


def pasteable(path: Path) -> str:
    """The path as a word for the shell, ready to be pasted into a command that takes a path."""
    return shlex.quote(relative(path))


def quoted(value: object) -> str:
    """The value as Hydra's grammar of overrides has it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    plain = re.fullmatch(r"[\w./+-]+", str(value), re.ASCII)
    return str(value) if plain else QuotedString(str(value), Quote.single).with_quotes()


def command_line(module: str, *arguments: str) -> str:
    """`python -m module arguments`, to paste.

    It works whether the environment is activated or not.
    """
    python = (
        "python" if shutil.which("python") == sys.executable else relative(Path(sys.executable))
    )
    return shlex.join([python, "-m", module, *arguments])


def override(key: str, path: Path) -> str:
    """KEY=PATH as an argument of a Hydra command."""
    return f"{key}={quoted(relative(path))}"
