"""What ends a command besides a bug: a mistake that the user can put right, and a signal; text safe to show."""

import signal
import unicodedata
from typing import ClassVar

# control, format (which may reverse the writing), bytes that are not UTF-8, line and paragraph separators
UNFIT = {"Cc", "Cf", "Cs", "Zl", "Zp"}


class UserError(Exception):
    """A mistake or a circumstance that the user can put right; the message says what is wrong and what to do.

    Commands print it as one line and end with a non-zero status. Any other exception is a bug of ours and shows
    its traceback.
    """


class Stopped(SystemExit):
    """SIGTERM, SIGHUP or Ctrl-C: the process ends with 128 + its number. The text is the signal's name.

    Python forgets an exception that is raised in a destructor, and what it interrupts may raise another one:
    `received` tells that there was a signal all the same.
    """

    received: ClassVar[int] = 0  # its number

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signum = Stopped.received = signum

    def __str__(self) -> str:
        return signal.Signals(self.signum).name


def printable(text: str, keep: str = "") -> str:
    """The text with what a terminal would obey, not show, written as escapes, except the characters `keep`."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in UNFIT and c not in keep else c
        for c in text
    )
