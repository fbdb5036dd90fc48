"""What ends a command besides a bug: a mistake that the user can put right, or a signal. Text safe to print."""

import signal
from collections.abc import Callable
from typing import ClassVar
from unicodedata import category


class UserError(Exception):
    """A mistake or a circumstance that the user can put right; the message says what is wrong and what to do.

    Commands print that one line and end with status 1. Any other exception is a bug of ours, with a traceback.
    """


class Stopped(SystemExit):
    """SIGTERM, SIGHUP or Ctrl-C: the process ends with 128 + its number. The text is the signal's name."""

    # The number of the last signal; Python forgets an exception in a destructor, and others may take its place.
    received: ClassVar[int] = 0

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signum = Stopped.received = signum

    def __str__(self) -> str:
        return signal.Signals(self.signum).name


def on_signals(handler: Callable | signal.Handlers) -> None:
    """Let the handler have the signals that end a command, but for one that is ignored, as nohup has it."""
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handler)


def printable(text: str, keep: str = "") -> str:
    """The text, with escapes for what a terminal would obey, not print, except the characters `keep`."""
    unfit = {c for c in text if not (c.isprintable() or category(c) == "Zs" or c in keep)}  # Zs: spaces
    return text.translate({ord(c): c.encode("unicode_escape").decode() for c in unfit})
