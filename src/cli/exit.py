"""How a command ends: its exit status, and what it says last."""

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from src import signals
from src.cli.console import say
from src.cli.explain import USER_ERRORS, explain, explain_misfit
from src.errors import printable
from src.processes import main_process

tracebacks = False  # True shows those of users' mistakes too


def run(main: Callable[[], None]) -> None:
    """Call an entry point and leave with the status it deserves.

    0 if all was done, 1 after an error (one line; HYDRA_FULL_ERROR=1 adds the traceback), 143 after
    SIGTERM, 129 after SIGHUP and 130 after Ctrl-C, which src.training.saving.Last handles while a
    model trains.
    """
    global tracebacks
    status = [1]  # unless it becomes another: that of an error which shows its traceback
    # Registered first, it is called last: all that others have opened is closed by then.
    atexit.register(leave, status)
    # A process that the main one starts inherits these settings, and says no more than that one.
    tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1" and main_process()
    prepare_environment()
    prepare_streams()
    signals.end_command()
    threading.excepthook = thread_failed
    warnings.showwarning = show_warning
    try:
        call_or_exit(main)
        status[0] = 0
    except SystemExit as error:
        status[0] = error.code if isinstance(error.code, int) else bool(error.code)
        raise
    finally:
        signals.handle(signal.SIG_IGN)  # there is nothing left to stop


def prepare_environment() -> None:
    """Take away what would break the libraries.

    Hydra is to raise its errors to us instead of printing them.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # our charts need no backend, and matplotlib fails with an unknown one
    os.environ.pop("MPLBACKEND", None)
    if not os.environ.get("COLUMNS", "1").strip("0"):
        del os.environ["COLUMNS"]  # rich would print nothing in 0 columns


def prepare_streams() -> None:
    """Let a terminal without ± show ?, and a closed stream take what is said."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (until the process ends)
        getattr(sys, name).reconfigure(errors="replace")


def leave(status: list[int]) -> None:
    """End the process without the tear-down of its modules.

    That takes half as long as to import them.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:  # the reader has seen enough
            pass
        except OSError as error:  # the output is lost, as on a full disk
            status[0] = status[0] or 1
            with contextlib.suppress(OSError):
                os.write(
                    2, f"error: cannot write to the {stream.name}: {error.strerror}\n".encode()
                )
    os._exit(status[0])


def call_or_exit(function: Callable[[], Any]) -> Any:
    """Call an entry point or a callback; its errors end the command.

    Hydra would make warnings of them.
    """
    try:
        return function()
    except BaseException as error:
        # libraries may have made another error of a signal
        signals.raise_received()
        if isinstance(error, SystemExit):
            raise
        if isinstance(error, BrokenPipeError):  # as of `| head`, which has seen enough
            sys.exit(1)
        if isinstance(error, USER_ERRORS) and not tracebacks:
            end_with(explain(error))
        if not tracebacks and found_by_hydra(error):
            end_with(explain_misfit(error))
        say_traceback(error)
        sys.exit(1)


def end_with(message: str) -> None:
    """End the command with status 1 and the message on stderr."""
    sys.exit(printable(f"error: {message}", keep="\n"))


def say_traceback(error: BaseException) -> None:
    """Print the traceback on stderr, with nothing in it that would steer a terminal."""
    text = "".join(traceback.format_exception(error))
    print(printable(text, keep="\n"), end="", file=sys.stderr)


def found_by_hydra(error: BaseException) -> bool:
    """Whether Hydra was at work, and had called no code of this project.

    It reads the arguments and the config files.
    """
    packages = [
        frame.f_globals.get("__name__", "").partition(".")[0]
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    known = [package for package in packages if package in ("src", "hydra", "omegaconf")]
    return known[-1:] not in ([], ["src"])


def show_warning(message: Warning | str, *_: object) -> None:
    """Say what a library warns of, without the lines of its code."""
    say(f"warning: {' '.join(str(message).split())}")


def thread_failed(failure: threading.ExceptHookArgs) -> None:
    """Pass over an error in the thread that writes for TensorBoard, as on a full disk.

    The main thread meets it too.
    """
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)
