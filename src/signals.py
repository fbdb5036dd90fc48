"""SIGTERM, SIGHUP and Ctrl-C: which of them has come, and how it ends what is running."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
# The number of the signal that ends this process, 0 if none has come. It is kept apart from the
# exception, which may be lost: Python forgets one that is raised in a destructor, and libraries put
# others in its place.
_received = 0
_command = False  # True in a command, False in a notebook


class Stopped(SystemExit):
    """A signal ends the process, with status 128 + its number. The text is the signal's name."""

    def __init__(self, signum: int):
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return signal.Signals(self.signum).name


def handle(handler: Callable | signal.Handlers) -> None:
    """Let the handler have the signals that end a command.

    Those that are ignored stay so, as under nohup.
    """
    for signum in ENDING:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handler)


def end_command() -> None:
    """From now on this process is a command, and a signal ends it."""
    global _command
    _command = True
    handle(stop)


def in_command() -> bool:
    return _command


def stop(signum: int, *_: object) -> None:
    """A handler: record the signal and raise Stopped."""
    global _received
    _received = signum
    raise Stopped(signum)


def leave(signum: int, *_: object) -> None:
    """A handler: end the process at once. Nothing is open or saved yet."""
    os._exit(128 + signum)


def received() -> int:
    return _received


def raise_received() -> None:
    """Raise Stopped if a signal has come, whatever has become of the exception since."""
    if _received:
        raise Stopped(_received) from None


def forget() -> None:
    """The signal has ended what it was to end: the cell of a notebook, whose process goes on."""
    global _received
    _received = 0


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let a signal wait until the end of the block.

    An import that is cut off can abort the whole process.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    came: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in ENDING}
    handle(lambda signum, *_: came.append(signum))
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    if came:
        os.kill(os.getpid(), came[0])  # for the handler that was there before
