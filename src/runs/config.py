"""Objects from plain settings: classes of this project alone, each in the role that it was written for.

Settings may come from a stranger's run folder: nothing in them is called but the one class that `_target_`
names, which must be defined where its role says, and no interpolation or nested target is followed.
"""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pydantic
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from omegaconf import OmegaConf

from src.errors import UserError
from src.runs.checkpoint import load_checkpoint
from src.runs.settings import CONF, SOURCES, refused

ROLES = {  # group of the config -> (where its classes are defined, what they are)
    "data": ("src.data.", L.LightningDataModule),
    "model": ("src.models.", L.LightningModule),
    "callbacks": ("src.", L.Callback),
    "logger": ("src.", Checkpoint),
}
# Of Lightning's own callbacks, those that are tested with everything a run promises.
LIGHTNING = {"lightning.pytorch.callbacks.EarlyStopping": EarlyStopping}


def build(key: str, settings: Any, **objects: Any) -> Any:
    """The object that the settings at `key` describe. Raises UserError if they, or their class, are refused."""
    if not isinstance(settings, dict) or not isinstance(settings.get("_target_"), str):
        raise UserError(f"{key} must be a group of settings with a _target_, got {settings!r}")
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    return call(key, _class(key, settings["_target_"]), arguments, **objects)


def _class(key: str, target: str) -> type:
    place, base = ROLES[key.partition(".")[0]]
    module, _, name = target.rpartition(".")
    found = LIGHTNING.get(target)
    if f"{module}.".startswith(place) and all(part.isidentifier() for part in target.split(".")):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            if not (error.name and module.startswith(error.name)):
                raise
    fits = inspect.isclass(found) and issubclass(found, base)
    if not fits or not (target in LIGHTNING or f"{found.__module__}.".startswith(place)):
        must = f"must be a {base.__name__} that is defined in {place[:-1]}"
        also = f" or one of {', '.join(LIGHTNING)}" if base is L.Callback else ""
        raise UserError(f"{key}._target_ is {target!r}, but {must}{also}")
    return found


def call(key: str, function: Callable, settings: dict[str, Any], **objects: Any) -> Any:
    """`function` called with the settings at `key`, and the objects. Raises UserError for a refused setting."""
    parameters = inspect.signature(function).parameters
    known = [name for name in parameters if name not in objects]
    anything = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name, value in settings.items():
        if name in objects or not (name in known or anything):
            path = f"{key}.{name}".lstrip(".")
            raise UserError(f"{path}={value}: there is no such setting; there are {', '.join(known)}")
    try:
        return function(**settings, **objects)
    except pydantic.ValidationError as error:
        # a model hands on to its base class what it does not know itself
        bases = reversed(function.__mro__) if inspect.isclass(function) else ()
        raise refused(error, key, *(each.__init__ for each in bases), function) from None


def build_model(settings: dict[str, Any], data: L.LightningDataModule) -> L.LightningModule:
    """The model, as wide as the data."""
    return build("model", settings["model"], num_inputs=data.num_inputs, num_outputs=data.num_outputs)


def restore(
    settings: dict[str, Any], checkpoint: Path, root: str | None = None
) -> tuple[L.LightningDataModule, L.LightningModule]:
    """The data of a run, not yet loaded, and its model as it was at the checkpoint.

    Where the data come from is never taken from the settings, which may be a stranger's: the folder is `root`,
    or that of conf/data, which if relative is in this project. Raises UserError for settings or a checkpoint
    that cannot be used.
    """
    node = settings["data"]
    configs = (OmegaConf.to_container(OmegaConf.load(path)) for path in sorted((CONF / "data").glob("*.yaml")))
    ours = next((config for config in configs if config.get("_target_") == node.get("_target_")), {})
    places = {name: value for name, value in ours.items() if name in SOURCES}
    if "root" in places:
        places["root"] = str(CONF.parent / places["root"]) if root is None else root
    data = build("data", {name: value for name, value in node.items() if name not in SOURCES} | places)
    model = build_model(settings, data)
    states = load_checkpoint(checkpoint)["state_dict"], model.state_dict()
    found, expected = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in states)
    if found != expected:
        raise UserError(f"{checkpoint} is of another model: it has {found}, the model of this run {expected}")
    model.load_state_dict(states[0])
    return data, model.eval()
