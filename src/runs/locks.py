"""The lock of a folder, which one process at a time has."""

from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from src import files
from src.errors import UserError

PATIENCE = 0.5  # seconds; `Run.in_use` has the lock for a moment


def lock(path: Path, subject: str) -> AcquireReturnProxy:
    """Hold the lock file until the proxy that is returned is dropped.

    Raises UserError if another process holds it.
    """
    try:
        return FileLock(path, is_singleton=True).acquire(timeout=PATIENCE)
    except Timeout:
        raise UserError(
            f"{subject} is in use by another process; wait until that one ends"
        ) from None
    except OSError as error:
        raise files.cannot_write(subject, error) from error
