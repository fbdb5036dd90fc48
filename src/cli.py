"""The terminal: how log lines, errors and the exit status of every entry point reach it."""

import io
import logging
import os
import re
import signal
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import rich
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich import box
from rich.console import Console
from rich.table import Table

import src.config  # noqa: F401  (registers the resolvers that conf/ uses)
from src.errors import UserError
from src.runs import Run

# What a user can put right; anything else is a defect of ours and shows its traceback.
HYDRA_ERRORS = (HydraException, OmegaConfBaseException)
USER_ERRORS = (UserError, OSError, MisconfigurationException, *HYDRA_ERRORS)

log = logging.getLogger(__name__)


class ConsoleHandler(logging.Handler):
    """Log lines on the console that rich draws on, above a progress bar if there is one, never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(line: str) -> None:
    """Print the line on rich's console, as it is, and without what would steer a terminal."""
    rich.get_console().print(printable(line), markup=False, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    """The text with control and format characters but line breaks, and bytes that are not UTF-8, as escapes."""
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"
        else c
        for c in text
    )


def quoted(value: object) -> str:
    """The value as Hydra's grammar of overrides has it."""
    plain = re.fullmatch(r"[\w./+-]+", str(value), re.ASCII)
    return str(value) if plain else QuotedString(str(value), Quote.single).with_quotes()


class ReportErrors(Callback):
    """Hydra callback: a job that fails says why in its own log, and a single run ends there.

    A sweep goes on. Its jobs' errors are in its summary, with the tracebacks in their logs; where there is a
    summary, Hydra, which would repeat the first one at the end, is told that all went well.
    """

    tracebacks = False  # of the user's errors too

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs) -> None:
        if job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        single = config.hydra.mode == RunMode.RUN
        expected = isinstance(error, USER_ERRORS) and single and not self.tracebacks
        log.error("error: %s", explain(error), exc_info=None if expected else error)
        if single:
            sys.exit(1)
        if "report_sweep" in config.hydra.callbacks:
            job_return.status, job_return._return_value = JobStatus.COMPLETED, None


def explain(error: BaseException) -> str:
    """What was wrong, without the parts of Hydra's messages that help nobody: one line, but for lists."""
    text = str(error)
    if isinstance(error, HYDRA_ERRORS):
        text = re.split(r"\n\s*(?:Config search path|full_key|object_type)", text)[0]
        if isinstance(error.__cause__, OmegaConfBaseException):
            text += f": {explain(error.__cause__)}"
        text = " ".join(text.split())
    return text


def summary(record: dict[str, Any], run: Run) -> str:
    """The end of a run: its results as a small table, and where everything is."""
    stages = [stage for stage in ("train", "val", "test") if f"{stage}/loss" in record]
    names = [name for name in ("loss", "acc") if f"{stages[0]}/{name}" in record]
    lines = ["", " " * 8 + "".join(f"{name:>10}" for name in names)]
    for stage in stages:
        lines.append(f"  {stage:6}" + "".join(f"{record[f'{stage}/{name}']:10.4f}" for name in names))
    for name in record:
        stage, _, metric = name.partition("/")
        if metric and stage not in stages:
            lines.append(f"  {name:8}{record[name]:10.4f}")
    speed = f"{record['seconds']:.1f} s, {record['examples_per_second']:,.0f} examples/s"
    lines += ["", f"  epoch {record['best_epoch']} of {record['epochs']} is the best; {speed}", ""]
    lines += [f"  {shown(folder)}/  {' '.join(names)}" for folder, names in run.written().items()]
    return "\n".join([*lines, f"  look at it: tensorboard --logdir {shown(run.path.parent)}"])


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, aligned so that it can be read as text too."""
    table = Table(*columns, box=box.MARKDOWN)
    for row in rows:
        table.add_row(*map(str, row))
    page = Console(file=io.StringIO(), width=10_000, markup=False, emoji=False, highlight=False)
    page.print(table)
    return page.file.getvalue().strip()


def shown(path: Path) -> str:
    """The path as the user would type it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def run(main: Callable[[], None]) -> None:
    """Call a Hydra entry point and leave with the status it deserves.

    0 if all was done, 1 after an error (one line; HYDRA_FULL_ERROR=1 adds the traceback), 143 after SIGTERM
    and 130 after Ctrl-C, which src.callbacks.Last handles while a model trains.
    """
    ReportErrors.tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises to us instead of printing
    try:
        main()
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except USER_ERRORS as error:
        if ReportErrors.tracebacks:
            raise
        sys.exit(f"error: {printable(explain(error))}")
