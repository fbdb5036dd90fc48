"""The terminal: how log lines, errors and the exit status of every entry point reach it."""

import atexit
import contextlib
import difflib
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rich
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from src.errors import Stopped, UserError, on_signals, printable
from src.runs import leaves, main_process

HYDRA_ERRORS = (HydraException, OmegaConfBaseException)
USER_ERRORS = (UserError, OSError, *HYDRA_ERRORS)  # anything else is a bug of ours and shows its traceback
tracebacks = False  # whether to show those of users' mistakes too


class ConsoleHandler(logging.Handler):
    """Log lines on rich's console, above a progress bar, if there is one; none of the jobs of a sweep."""

    def emit(self, record: logging.LogRecord) -> None:
        if not in_sweep():
            say(self.format(record))


class LogFile(logging.FileHandler):
    """The log of a run. It ends, with a line on the console, where it cannot be written any more."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if not isinstance(error, OSError):
            raise error
        self.setLevel(logging.CRITICAL + 1)  # nothing more
        say(f"cannot write {self.baseFilename}: {error.strerror}; the log ends here")


def in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def say(line: str) -> None:
    """Print the line on rich's console, as it is but for what would steer a terminal."""
    rich.get_console().print(printable(line, keep="\n"), markup=False, highlight=False, soft_wrap=True)


def explain(error: BaseException) -> str:
    """What was wrong, with the class of a bug, without what helps nobody in Hydra's: one line, but a list."""
    text = str(error) or type(error).__name__
    if not isinstance(error, USER_ERRORS):
        text = f"{type(error).__name__}: {text}"
    if isinstance(error, OSError) and error.strerror:
        run = HydraConfig.get().runtime.output_dir if HydraConfig.initialized() else "the disk"
        text = f"{error.strerror}: {error.filename or run}"
    if isinstance(error, HYDRA_ERRORS):
        text = re.split(r"\n\s*(?:Config search path|full_key|object_type|To append)", text)[0]
        if isinstance(error.__cause__, ConfigAttributeError | ConfigKeyError):
            text += f" {meant(error.__cause__)}"
        elif isinstance(error.__cause__, OmegaConfBaseException):
            text += f": {explain(error.__cause__)}"
        text = " ".join(text.split())
    return text


def meant(error: ConfigAttributeError | ConfigKeyError) -> str:
    """The key that was probably meant by one that does not exist."""
    group, _, key = error.full_key.rpartition(".")
    beside = OmegaConf.to_container(error.parent_node, resolve=False)
    if not isinstance(beside, dict) or not beside:
        return f"{group} is a value, not a group of settings."
    known = {path.rpartition(".")[2]: path for path in reversed([*beside, *leaves(beside)])}
    if close := difflib.get_close_matches(key, known, n=1):
        return f"Did you mean {group}{'.' * bool(group)}{known[close[0]]}?"
    return f"{group or 'The config'} has {', '.join(name for name in beside if name[0] != '_')}."


def relative(path: Path) -> str:
    """The path as the user would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def quoted(value: object) -> str:
    """The value as Hydra's grammar of overrides has it."""
    plain = re.fullmatch(r"[\w./+-]+", str(value), re.ASCII)
    return str(value) if plain else QuotedString(str(value), Quote.single).with_quotes()


def run(main: Callable[[], None]) -> None:
    """Call an entry point and leave with the status it deserves.

    0 if all was done, 1 after an error (one line; HYDRA_FULL_ERROR=1 adds the traceback), 143 after SIGTERM,
    129 after SIGHUP and 130 after Ctrl-C, which src.training.saving.Last handles while a model trains.
    """
    global tracebacks
    status = [1]  # unless it becomes another: that of an error which shows its traceback
    atexit.register(leave, status)  # the first, which is called last: all that others have opened is closed
    # a process that the main one starts inherits what is set below, and is to say no more than that one
    tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1" and main_process()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises to us instead of printing
    on_signals(stop)
    threading.excepthook = thread_failed
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal without ± shows ?
    try:
        call_or_exit(main)
        status[0] = 0
    except SystemExit as error:
        status[0] = error.code if isinstance(error.code, int) else bool(error.code)
        raise
    finally:
        on_signals(signal.SIG_IGN)  # there is nothing left to stop


def leave(status: list[int]) -> None:
    """End the process without the tear-down of its modules, which takes half as long as to import them."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    os._exit(status[0])


def call_or_exit(function: Callable[[], Any]) -> Any:
    """Call an entry point, or a callback, of whose errors Hydra would make warnings: they end the command."""
    try:
        return function()
    except BaseException as error:
        if Stopped.received:  # whatever was made of it: Lightning ends with 0, Hydra with an error of its own
            raise Stopped(Stopped.received) from None
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, BrokenPipeError):  # as of `| head`, which has seen enough
            sys.exit(1)
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        library = frame.f_globals.get("__name__", "").partition(".")[0]
        if isinstance(error, ValueError | TypeError) and library in ("hydra", "omegaconf") and not tracebacks:
            advice = "keys in a list are numbers, and ~GROUP leaves a group out"
            sys.exit(printable(f"error: an override does not fit the config ({error}); {advice}"))
        if tracebacks or not isinstance(error, USER_ERRORS):
            traceback.print_exception(error)
            sys.exit(1)
        sys.exit(printable(f"error: {explain(error)}", keep="\n"))


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """An error in the thread that writes for TensorBoard, as of a full disk, is met in the main thread too."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def stop(signum: int, *_) -> None:
    raise Stopped(signum)
