"""Settings: the config of a run as plain values."""

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, Any, cast

import pydantic
from omegaconf import DictConfig, ListConfig, OmegaConf

from src import files, formats
from src.errors import UserError
from src.signatures import arguments

CONF = Path(__file__).parents[2] / "conf"
# Keys of data that name the sources of its files.
SOURCES = ("root", "system_copies", "mirrors", "debian_package")
INCIDENTAL = (*SOURCES, "num_workers")  # keys of data that do not make a run another experiment
# Settings of the trainer that change what is computed, with their defaults.
MATHEMATICAL = {
    "precision": "32-true",
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "check_val_every_n_epoch": 1,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "gradient_clip_algorithm": "norm",
    "fast_dev_run": False,
}
GROUPS = ("data", "model", "trainer")  # without which there is no run
OPTIONAL = ("callbacks", "logger")  # groups that may be left out
# The lowest and the highest value.
Bounds = Annotated[list[float], pydantic.Field(min_length=2, max_length=2)]
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]


def plain(cfg: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, plain values with every reference filled in.

    Raises UserError if a group is missing, and for a setting that nothing reads.
    """
    config = OmegaConf.create(cfg)
    resolved = container(config, resolve=True, throw_on_missing=True)
    _refuse_unread(resolved, container(config))
    settings: dict[str, Any] = {}
    for name in ("seed", *GROUPS, *OPTIONAL):
        settings[name] = resolved.get(name)
    arguments("", _seeded, {"seed": settings["seed"]})
    for group in GROUPS:
        if not isinstance(settings[group], dict):
            raise UserError(
                f"{group} must be a group of settings, got {settings[group]}; see conf/{group}"
            )
    for group in OPTIONAL:
        if not isinstance(settings[group] or {}, dict):
            raise UserError(
                f"{group} must be a group of settings, got {settings[group]}; try ~{group}"
            )
        settings[group] = settings[group] or {}
    for group in OPTIONAL:
        parts = settings[group].items()
        settings[group] = {name: values for name, values in parts if values is not None}
    try:
        formats.check_plain(settings)
    except ValueError as error:
        raise UserError(f"the config cannot be recorded: {error}") from error
    if isinstance(settings["data"].get("root"), str):  # a run may be resumed from another folder
        settings["data"]["root"] = str(files.expanded(settings["data"]["root"]).absolute())
    return settings


def container(
    config: DictConfig | ListConfig, resolve: bool = False, throw_on_missing: bool = False
) -> dict[str, Any]:
    """A config with keys, as OmegaConf has it, in plain values."""
    values = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=throw_on_missing)
    return cast(dict[str, Any], values)


def _seeded(seed: Seed) -> None:
    """The argument that every run takes besides its groups."""


def _refuse_unread(settings: dict[str, Any], unresolved: dict[str, Any]) -> None:
    """Raises UserError for a key at the top that nothing reads.

    A part of a run may read it, or another setting may refer to it.
    """
    references = set(re.findall(r"\$\{(?:[\w.]+:)?\.*(\w+)", json.dumps(unresolved, default=str)))
    for key, value in settings.items():
        if key in ("seed", *GROUPS, *OPTIONAL) or key in references:
            continue
        if isinstance(value, dict):
            read = f"{key}: {{{', '.join(value)}}} is read by nothing"
            raise UserError(
                f"{read}; a file of conf/{key} must begin with the line # @package _global_"
            )
        raise UserError(f"{key}={value} is read by nothing. {suggestion(key, settings)}")


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of nested settings."""
    values: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, dict):
            values |= leaves(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def suggestion(key: str, siblings: dict[str, Any]) -> str:
    """Advice on a mistaken dotted key, given the settings beside it: "Did you mean model.lr?"."""
    group, _, name = key.rpartition(".")
    others = {sibling: value for sibling, value in siblings.items() if sibling != name}
    # The last word of a setting -> the whole; the first of several, and a sibling before all.
    known = {path.rpartition(".")[2]: path for path in reversed(leaves(others))}
    known |= {sibling: sibling for sibling in others}
    for match in difflib.get_close_matches(name, known, n=1):
        return f"Did you mean {group}{'.' if group else ''}{known[match]}?"
    names = [sibling for sibling in others if not sibling.startswith("_")]
    return f"{group or 'The config'} has {', '.join(names)}."


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, of the settings that make the run the experiment that it is.

    The length of the run and its machine are not among them.
    """
    trainer = settings["trainer"]
    values = {"seed": settings["seed"], "trainer.devices": trainer.get("devices", 1)}
    for name, default in MATHEMATICAL.items():
        if trainer.get(name, default) != default:
            values[f"trainer.{name}"] = trainer[name]
    for group in ("model", "data"):
        kept = {key: value for key, value in settings[group].items() if key not in INCIDENTAL}
        values |= leaves(kept, f"{group}.")
    return values
