"""The loggers that the settings name, checked and built."""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers as of_lightning
from lightning.pytorch.loggers import Logger

from src.errors import UserError
from src.runs.build import build, check
from src.training.foreign import Foreign, check_named, targets
from src.training.loggers.destination import CSV, Destination, Origin
from src.training.loggers.mlflow import MLflow
from src.training.loggers.tensorboard import TensorBoard
from src.training.loggers.wandb import Wandb

# Lightning's loggers that are tested with all that a run promises -> how they are written to.
GUARANTEED: dict[type, type[Destination]] = {
    of_lightning.TensorBoardLogger: TensorBoard,
    of_lightning.CSVLogger: CSV,
    of_lightning.MLFlowLogger: MLflow,
    of_lightning.WandbLogger: Wandb,
}
# Settings of loggers that are places on this machine, or may be.
PLACES = ("tracking_uri", "artifact_location", "save_dir", "dir", "root_dir")
SERVERS = ("http://", "https://", "databricks")
EXTRAS = {of_lightning.MLFlowLogger: "mlflow", of_lightning.WandbLogger: "wandb"}


def check_loggers(settings: dict[str, Any], foreign: Foreign = None) -> dict[str, type]:
    """The class of each logger. Builds none.

    Raises UserError for a logger whose settings do not fit, or whose package is not installed.
    """
    if "_target_" in settings["logger"]:
        raise UserError(
            "logger is a group of loggers by name: logger=csv, or +logger.NAME._target_=CLASS"
        )
    kinds = {}
    for name, values in settings["logger"].items():
        key, allowed = f"logger.{name}", targets(settings, foreign)
        kind, _ = check(key, values, objects=decided_by_run(values, key), foreign=allowed)
        if foreign is not None:
            check_places(key, values, foreign)
        package = EXTRAS.get(kind)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f"{key} needs {package}: pip install -e '.[{package}]'")
        if kind not in GUARANTEED:
            check_named(key, values["_target_"], allowed)
        kinds[name] = kind
    return kinds


def decided_by_run(values: Any, key: str) -> tuple[str, ...]:
    """The arguments of the logger that are no settings.

    Raises UserError if one of them is set.
    """
    target = values.get("_target_") if isinstance(values, dict) else None
    for kind, destination in GUARANTEED.items():
        if str(target).rpartition(".")[2] != kind.__name__:
            continue
        for name in destination.decided:
            if name in values:
                raise UserError(
                    f"{key}.{name}={values[name]}: the run decides it; leave it out, or choose the "
                    "folder of the run by hydra.run.dir=DIR"
                )
        return destination.decided
    return ()


def check_places(key: str, settings: dict[str, Any], named: Collection[str]) -> None:
    """Raises UserError if the settings of a folder let a logger write outside of this folder.

    `named` are the overrides of the command line, which may.
    """
    for name in PLACES:
        place = str(settings.get(name) or "")
        if place.startswith(SERVERS) or f"{key}.{name}={place}" in named:
            continue
        local = place.removeprefix("sqlite:///")
        if ":" in local or local.startswith(("/", "~")) or ".." in Path(local).parts:
            raise UserError(
                f"{key}.{name}={place} is not in this folder; to go on with it, give "
                f"{key}.{name}={place} on the command line too"
            )


def untested_loggers(settings: dict[str, Any], foreign: Foreign = None) -> list[str]:
    """The loggers that no test has tried with all that a run promises."""
    names = []
    for name, kind in check_loggers(settings, foreign).items():
        if kind not in GUARANTEED:
            names.append(f"logger.{name}")
    return names


def build_destinations(
    settings: dict[str, Any], origin: Origin, foreign: Foreign = None
) -> list[Destination]:
    """What the rows of the run are sent to."""
    destinations: list[Destination] = []
    for name, kind in check_loggers(settings, foreign).items():
        for other in destinations:
            if not other.remote and type(other.logger) is kind:
                raise UserError(
                    f"logger.{name} is of the same class as logger.{other.name}, and writes the "
                    f"same files; leave one out: ~logger.{name}"
                )
        destination = GUARANTEED.get(kind, Destination)
        values = dict(settings["logger"][name])
        decided = destination.arguments(values, origin)
        for argument in decided:
            values.pop(argument, None)
        allowed = targets(settings, foreign)
        logger: Logger = build(f"logger.{name}", values, allowed, **decided)
        destinations.append(destination(name, logger, origin))
    return destinations
