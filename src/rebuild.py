"""Data and model of a run that may come from anyone, from nothing but the plain values of its config."""

import contextlib
import importlib
import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from src import options
from src.data.module import SplitDataModule
from src.errors import UserError
from src.models.regression import Regression

PLACES = ("root", "system_copies", "mirrors", "debian_package")  # of data: where they come from
CONF = Path(__file__).parent.parent / "conf"


def rebuild(config: dict[str, Any], places: dict[str, Any] | None = None) -> tuple[SplitDataModule, Regression]:
    """(data, not yet loaded; model, with its first weights) of the run that recorded `config`.

    Where the data come from is never taken from there: `places` says it, and what that leaves open, the file
    of conf/data that configures the same data module.

    Raises UserError unless both are of this project's classes, take their values and fit together.
    """
    data_class, values = role(config, "data", SplitDataModule)
    ours = configured(config["data"]["_target_"])
    known = ours.keys() | values.keys()
    values = {key: value for key, value in values.items() if key not in PLACES} | ours
    values |= {key: value for key, value in (places or {}).items() if key in known}
    data = options.call(data_class, "data", values)
    model_class, values = role(config, "model", Regression)
    model = options.call(model_class, "model", values)
    data.check(model)
    return data, model


def role(config: dict[str, Any], group: str, base: type) -> tuple[type, dict[str, Any]]:
    """(class, its arguments) described at `group`; the class is defined in this project and plays that role."""
    node = config.get(group)
    target = node.get("_target_") if isinstance(node, dict) else None
    package = base.__module__.rpartition(".")[0]  # src.data or src.models
    found = None
    if isinstance(target, str) and re.fullmatch(rf"{re.escape(package)}(\.[a-z]\w*)+\.[A-Z]\w*", target):
        module, _, name = target.rpartition(".")
        with contextlib.suppress(ModuleNotFoundError):
            found = getattr(importlib.import_module(module), name, None)
        if isinstance(found, type) and issubclass(found, base) and found.__module__ == module:
            return found, {key: value for key, value in node.items() if key != "_target_"}
    raise UserError(
        f"the run wants to build {target!r} as its {group}; "
        f"from a run folder only classes of {package} are built"
    )


def configured(target: str) -> dict[str, Any]:
    """Where conf/data says that the data of this class come from."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        cfg = OmegaConf.load(path)
        node = cfg.get("data", cfg)
        if node.get("_target_") == target:
            values = OmegaConf.to_container(node)
            return {key: values[key] for key in PLACES if key in values}
    return {}
