"""The record of a run, metrics.json: its status, its results, and what they depend on besides the config."""

import contextlib
import functools
import platform
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision

from src.errors import Stopped, UserError
from src.runs import Run, main_process


@contextlib.contextmanager
def keep_record(run: Run, seed: int, **known: Any) -> Iterator[dict[str, Any]]:
    """Keep the run's metrics.json true, however the block ends. The block adds its results to the record.

    Of a run in several processes, the main one does this.
    """
    if not main_process():
        yield {}
        return
    record = {"seed": seed, **provenance(), **known, "status": "running"}
    run.save_record(record)
    Stopped.received = 0
    try:
        yield record
    except BaseException as error:
        cause = Stopped(Stopped.received) if Stopped.received else error
        ended = isinstance(cause, SystemExit | KeyboardInterrupt)
        record["status"] = "interrupted" if ended else getattr(cause, "status", "failed")
        record["reason"] = str(cause) or type(cause).__name__
        with contextlib.suppress(UserError):  # on a full disk the first error is the one to report
            run.save_record(record)
        if Stopped.received == signal.SIGINT:  # in a notebook; a command ends with status 130
            how = f"to go on: resume({str(run.path)!r})" if run.begun() else "nothing saved yet"
            raise KeyboardInterrupt(how) from None
        raise
    record["status"] = "finished"
    run.save_record(record)


@functools.cache  # the jobs of a sweep run the code that this process has loaded
def provenance() -> dict[str, Any]:
    """What a result depends on besides its config: versions and git commit; null is unknown."""
    git = functools.partial(subprocess.check_output, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    try:
        commit, changes = git(["git", "rev-parse", "HEAD"]), git(["git", "status", "--porcelain"])
        known = {"git_commit": commit.decode().strip(), "git_dirty": changes != b""}
    except (OSError, subprocess.CalledProcessError):  # no git, or a copy without history
        known = {"git_commit": None, "git_dirty": None}
    versions = {package.__name__: package.__version__ for package in (torch, torchvision, lightning)}
    return {"versions": {"python": platform.python_version(), **versions}, **known}
