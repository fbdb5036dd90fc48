"""Objects from plain settings: classes of this project, each in the role that it was written for.

Settings may come from a stranger's run folder: nothing in them is called but the one class that
`_target_` names, which must be defined where its role says, and no interpolation or nested target
is followed.
"""

import importlib
import inspect
from pathlib import Path
from typing import Annotated, Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import OmegaConf
from pydantic import Field, NonNegativeInt

from src.errors import UserError
from src.runs.checkpoint import load_checkpoint
from src.runs.config import CONF, INCIDENTAL, SOURCES
from src.signatures import arguments

ROLES = {  # group of the config -> (where its classes are defined, what they are)
    "data": ("src.data.", L.LightningDataModule),
    "model": ("src.models.", L.LightningModule),
    "callbacks": ("src.", L.Callback),
    "logger": ("src.", Checkpoint),
}
# Lightning's own callbacks that are tested with everything a run promises, and what Lightning does
# not check.
LIGHTNING = {
    "lightning.pytorch.callbacks.EarlyStopping": {
        "patience": NonNegativeInt,
        "min_delta": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    }
}
WIDTH = ("num_inputs", "num_outputs")  # arguments of a model that its data decide


def build(key: str, settings: Any, **objects: Any) -> Any:
    """The object that the settings at `key` describe. Raises UserError if they, or their class, are
    refused."""
    kind, values = check(key, settings, tuple(objects))
    try:
        return kind(**values, **objects)
    except Exception as error:
        if isinstance(error, UserError) or kind.__module__.startswith("src."):
            raise
        raise UserError(
            f"{key}: {' '.join(str(error).split())}"
        ) from error  # a library refuses a value


def check(key: str, settings: Any, objects: tuple[str, ...] = ()) -> tuple[type, dict[str, Any]]:
    """The class that the settings at `key` name, and its arguments, without those that are
    `objects`.

    Raises UserError if the class is not one of its role, or an argument does not fit.
    """
    if not isinstance(settings, dict) or not isinstance(settings.get("_target_"), str):
        raise UserError(f"{key} must be a group of settings with a _target_, got {settings!r}")
    values = {name: value for name, value in settings.items() if name != "_target_"}
    kind = _class(key, settings["_target_"])
    return kind, arguments(key, kind, values, objects, LIGHTNING.get(settings["_target_"]))


def _class(key: str, target: str) -> type:
    """The class of that name, if it fits the role of the key."""
    package, base = ROLES[key.partition(".")[0]]
    module, _, name = target.rpartition(".")
    found = None
    if target in LIGHTNING:
        found = getattr(importlib.import_module(module), name)
    elif target.startswith(package) and all(part.isidentifier() for part in target.split(".")):
        found = _imported(module, name)
        if not f"{getattr(found, '__module__', '')}.".startswith(package):
            found = None
    if inspect.isclass(found) and issubclass(found, base) and not inspect.isabstract(found):
        return found
    must = f"must be a {base.__name__} that is defined in {package[:-1]}"
    also = f" or one of {', '.join(LIGHTNING)}" if base is L.Callback else ""
    raise UserError(f"{key}._target_ is {target!r}, but {must}{also}")


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            return None
        raise


def build_model(settings: dict[str, Any], data: L.LightningDataModule) -> L.LightningModule:
    """The model, as wide as the data."""
    return build(
        "model", settings["model"], num_inputs=data.num_inputs, num_outputs=data.num_outputs
    )


def restore(
    settings: dict[str, Any], checkpoint: Path, root: str | None = None, within: Path | None = None
) -> tuple[L.LightningDataModule, L.LightningModule]:
    """The data of a run, not yet loaded, and its model as it was at the checkpoint, in the run
    folder `within`.

    Raises UserError for settings or a checkpoint that cannot be used.
    """
    data, model = rebuild(settings, root)
    load_weights(model, checkpoint, within)
    return data, model


def rebuild(
    settings: dict[str, Any], root: str | None = None
) -> tuple[L.LightningDataModule, L.LightningModule]:
    """The data of a run, not yet loaded, and its model, untrained.

    Where the data come from is never taken from the settings, which may be a stranger's: the folder
    is `root`, or that of conf/data, which if relative is in this project.
    """
    node = {name: value for name, value in settings["data"].items() if name not in INCIDENTAL}
    data = build("data", node | _sources(node.get("_target_"), root))
    return data, build_model(settings, data)


def load_weights(model: L.LightningModule, checkpoint: Path, within: Path | None = None) -> int:
    """Let the model be as it was at the checkpoint, ready for use; returns how many epochs it had
    then. Raises UserError if the checkpoint is of another model."""
    content = load_checkpoint(checkpoint, within)
    found, expected = (_described(each) for each in (content["state_dict"], model.state_dict()))
    if found != expected:
        raise UserError(
            f"{checkpoint} is of another model: it has {found}, the model of this run {expected}"
        )
    model.load_state_dict(content["state_dict"])
    model.eval()
    return content["epoch"] + 1


def _sources(target: Any, root: str | None) -> dict[str, Any]:
    """Where conf/data says that the data of this class come from; their folder is `root`, if that
    is given."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        config = OmegaConf.to_container(OmegaConf.load(path))
        if config.get("_target_") == target:
            sources = {name: value for name, value in config.items() if name in SOURCES}
            if "root" in sources:
                sources["root"] = str(CONF.parent / sources["root"]) if root is None else root
            return sources
    return {}


def _described(state: dict[str, Any]) -> dict[str, str]:
    """Name -> size and type of each tensor, as in "784x10 float32"."""
    texts = {}
    for name, tensor in state.items():
        size = "x".join(str(length) for length in tensor.shape)
        texts[name] = f"{size} {str(tensor.dtype).removeprefix('torch.')}".strip()
    return texts
