"""When the loggers get what: rows, results and pictures, each once, however a run is stopped."""

import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.errors import UserError, printable
from src.runs import Run
from src.runs.config import identity
from src.training.foreign import Foreign
from src.training.history import measures
from src.training.loggers.destination import Destination, Origin
from src.training.loggers.destinations import build_destinations
from src.training.loggers.state import read_state, save_state

log = logging.getLogger(__name__)


class Sender:
    """Sends to each destination what it is given, in order.

    What a server does not take waits, and is sent when the server takes the next. `.hydra` knows
    what each server has.
    """

    def __init__(self, run: Run, settings: dict[str, Any], epochs: int, foreign: Foreign = None):
        self.run, self.state = run, read_state(run)
        shown = identity(settings) | {"trainer.max_epochs": settings["trainer"].get("max_epochs")}
        shown.pop("data.seed", None)  # it is the seed of the run
        origin = Origin(run, epochs, self.state["identity"], self.state["job"], shown)
        self.destinations = build_destinations(settings, origin, foreign)
        self.waiting: dict[str, deque[Callable]] = {}
        self.opened = False

    def open(self) -> None:
        """Begin with each destination. Raises UserError for a server that does not answer."""
        save_state(self.run, self.state)
        for destination in self.destinations:
            name = destination.name
            try:
                known = destination.open()
            except Exception as error:
                if isinstance(error, UserError | OSError) and not destination.remote:
                    raise
                if not destination.remote:
                    raise UserError(f"logger.{name}: {reason(error)}") from error
                raise UserError(
                    f"logger.{name} does not answer ({reason(error)}); {destination.advice}, "
                    f"or leave it out: ~logger.{name}"
                ) from error
            self.waiting[name] = deque()
            if destination.remote:
                log.info("logger.%s sends to %s", name, destination.address())
            if known is None:
                known = self.state["sent"].get(name, 0)
            self.state["sent"][name] = known
        self.opened = True

    def put(self, send: Callable[[Destination], None]) -> None:
        """Let `send` reach each destination, behind what waits already."""
        for destination in self.destinations:
            self.waiting[destination.name].append(send)
            self.flush(destination)

    def flush(self, destination: Destination) -> None:
        """Send what waits for the destination, as far as it takes it."""
        queue = self.waiting[destination.name]
        behind = len(queue) > 1
        while queue:
            try:
                queue[0](destination)
            except Exception as error:
                if not destination.remote:
                    raise
                if not behind:
                    log.warning(
                        "logger.%s takes nothing (%s); the run goes on, and what is missing is "
                        "sent when it answers again",
                        *(destination.name, reason(error)),
                    )
                return
            queue.popleft()
        if behind:
            log.info("logger.%s answers again and has all", destination.name)

    def row(self, row: dict[str, float]) -> None:
        epoch = int(row["epoch"])

        def send(destination: Destination) -> None:
            if epoch > self.state["sent"][destination.name]:
                destination.log_row(row)
                self.state["sent"][destination.name] = epoch
                if destination.remote:
                    save_state(self.run, self.state)

        self.put(send)

    def results(self, results: dict[str, float], epoch: int) -> None:
        def send(destination: Destination) -> None:
            if epoch > destination.tested_epoch:
                destination.log_results(results, epoch)
                destination.tested_epoch = epoch

        self.put(send)

    def picture(self, path: Path, pixels: np.ndarray, epoch: int) -> None:
        self.put(lambda destination: destination.log_picture(path, pixels, epoch))

    def close(self, finished: bool) -> None:
        """End with each destination.

        Those that lack something of a run that is `finished` are named.
        """
        if not self.opened:
            return
        self.opened = False
        for destination in self.destinations:
            self.flush(destination)
            name = destination.name
            if self.waiting[name]:
                if finished:
                    log.warning("logger.%s lacks a part of the run, which resume sends", name)
                continue
            if finished and destination.remote and name not in self.state["done"]:
                self.state["done"].append(name)
                save_state(self.run, self.state)
            try:
                destination.close(finished)
            except Exception as error:
                if not destination.remote:
                    raise
                log.warning("logger.%s cannot be ended (%s)", name, reason(error))


def reason(error: BaseException) -> str:
    """The error of a library in one line of moderate length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return printable(text if len(text) <= 200 else f"{text[:200]}...")


def unsent(run: Run, settings: dict[str, Any]) -> list[str]:
    """The servers among the loggers that lack something of a finished run."""
    state = read_state(run)
    names = []
    for name in state["sent"]:
        remote = str(settings["logger"].get(name, {}).get("_target_")).rpartition(".")[2]
        if remote in ("MLFlowLogger", "WandbLogger") and name not in state["done"]:
            names.append(name)
    return names


def send_missing(run: Run, settings: dict[str, Any], foreign: Foreign = None) -> None:
    """Send what servers lack of a finished run."""
    names = unsent(run, settings)
    if not names:
        return
    rows, record = run.epochs(), run.results()
    if not rows:
        raise UserError(f"{run.metrics_csv} is damaged: a finished run has epochs")
    only_these = {name: settings["logger"][name] for name in names}
    sender = Sender(run, {**settings, "logger": only_these}, len(rows), foreign)
    sender.open()
    for row in rows:
        sender.row({name: value for name, value in row.items() if value is not None})
    results = {name: value for name, value in record.items() if "/" in name}
    epoch = int(rows[-1]["epoch"])
    sender.results(measures(results), epoch)
    for path in sorted(run.figures.glob("*.png")):
        if path.stem != "curves":
            with Image.open(path) as picture:
                sender.picture(path, np.asarray(picture), epoch)
    sender.close(finished=True)
    log.info("sent to %s what it lacked of run %s", ", ".join(names), run.path)
