"""Objects from plain settings: classes of this project, each in the role that it was written for.

Settings may come from a stranger's run folder: nothing in them is called but the one class that
`_target_` names, which must be defined where its role says, and no interpolation or nested target
is followed.
"""

import importlib
import inspect
from collections.abc import Collection
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import lightning as L
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from src.data.module import SplitDataModule
from src.errors import UserError
from src.runs.checkpoint import load_checkpoint
from src.runs.config import CONF, INCIDENTAL, SOURCES, container
from src.signatures import arguments

# Group of the config -> (packages of its classes, their base).
ROLES: dict[str, tuple[tuple[str, ...], type]] = {
    "data": (("src.data.",), L.LightningDataModule),
    "model": (("src.models.",), L.LightningModule),
    "callbacks": (("src.", "lightning.pytorch.callbacks."), L.Callback),
    "logger": (("src.", "lightning.pytorch.loggers."), Logger),
}


def check_file_name(text: str) -> str:
    """The text, if it is a pattern of a file name within a folder. Raises ValueError."""
    if text.startswith(("/", "~")) or ".." in Path(text).parts:
        raise ValueError("it must not lead out of its folder")
    for _, name, spec, _ in Formatter().parse(text):
        if name is not None:
            format(0 if name in ("epoch", "step") else 0.0, spec or "")
    return text


# What Lightning does not check of its own callbacks and loggers.
LIGHTNING: dict[str, dict[str, Any]] = {
    "EarlyStopping": {
        "patience": NonNegativeInt,
        "min_delta": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    },
    "ModelCheckpoint": {
        "filename": Annotated[str, AfterValidator(check_file_name)] | None,
        "save_last": bool | None,
    },
    "CSVLogger": {"flush_logs_every_n_steps": PositiveInt},
    "TensorBoardLogger": {"max_queue": PositiveInt, "flush_secs": PositiveInt},
}
WIDTH = ("num_inputs", "num_outputs")  # arguments of a model that its data decide


def build(key: str, settings: Any, foreign: Collection[str] = (), /, **objects: Any) -> Any:
    """The object that the settings at `key` describe.

    Raises UserError if they, or their class, are refused.
    """
    kind, values = check(key, settings, tuple(objects), foreign)
    try:
        return kind(**values, **objects)
    except Exception as error:
        if isinstance(error, UserError) or kind.__module__.startswith("src."):
            raise
        # A library refuses a value.
        raise UserError(f"{key}: {' '.join(str(error).split())}") from error


def check(
    key: str, settings: Any, objects: tuple[str, ...] = (), foreign: Collection[str] = ()
) -> tuple[type, dict[str, Any]]:
    """The class that the settings at `key` name, and its arguments but those that are `objects`.

    `foreign` are classes outside of this project and Lightning that may be built. Raises
    UserError if the class is not one of its role, or an argument does not fit.
    """
    if not isinstance(settings, dict) or not isinstance(settings.get("_target_"), str):
        raise UserError(f"{key} must be a group of settings with a _target_, got {settings!r}")
    values = {name: value for name, value in settings.items() if name != "_target_"}
    kind = _class(key, settings["_target_"], foreign)
    narrower = LIGHTNING.get(kind.__name__) if kind.__module__.startswith("lightning.") else None
    return kind, arguments(key, kind, values, objects, narrower)


def _class(key: str, target: str, foreign: Collection[str]) -> type:
    """The class of that name, if it fits the role of the key."""
    packages, base = ROLES[key.partition(".")[0]]
    module, _, name = target.rpartition(".")
    kind = None
    allowed = target.startswith(packages) or target in foreign
    if allowed and module and all(part.isidentifier() for part in target.split(".")):
        kind = _imported(module, name)
        defined = f"{getattr(kind, '__module__', '')}."
        if target not in foreign and not defined.startswith(packages):
            kind = None
    if inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind):
        return kind
    names = " or ".join(package[:-1] for package in packages)
    must = f"must be a {base.__name__} that is defined in {names}"
    also = ""
    if len(packages) > 1 and target not in foreign:
        also = f"; for another, give {key}._target_ on the command line too"
    raise UserError(f"{key}._target_ is {target!r}, but {must}{also}")


def _imported(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError as error:
        if error.name and module.startswith(error.name):
            return None
        raise


def build_model(settings: dict[str, Any], data: SplitDataModule) -> L.LightningModule:
    """The model, as wide as the data, in the precision of the run.

    Lightning would make it one of 64 bits only after it has loaded a checkpoint into 32.
    """
    model = build(
        "model", settings["model"], num_inputs=data.num_inputs, num_outputs=data.num_outputs
    )
    if str(settings["trainer"].get("precision")) in ("64-true", "64"):
        model.double()
    return model


def restore(
    settings: dict[str, Any], checkpoint: Path, root: str | None = None, within: Path | None = None
) -> tuple[SplitDataModule, L.LightningModule]:
    """The data of a run, not yet loaded, and its model as it was at the checkpoint.

    `within` is the run folder. Raises UserError for settings or a checkpoint that cannot be used.
    """
    data, model = rebuild(settings, root)
    load_weights(model, checkpoint, within)
    return data, model


def rebuild(
    settings: dict[str, Any], root: str | None = None
) -> tuple[SplitDataModule, L.LightningModule]:
    """The data of a run, not yet loaded, and its model, untrained.

    The source of the data is never taken from the settings, which may be a stranger's: the folder
    is `root`, or that of conf/data, which if relative is in this project.
    """
    node = {name: value for name, value in settings["data"].items() if name not in INCIDENTAL}
    data = build("data", node | _sources(node.get("_target_"), root))
    return data, build_model(settings, data)


def load_weights(model: L.LightningModule, checkpoint: Path, within: Path | None = None) -> int:
    """Let the model be as it was at the checkpoint, and return the number of its epochs then.

    The model is ready for use. Raises UserError if the checkpoint is of another model.
    """
    content = load_checkpoint(checkpoint, within)
    saved, expected = _described(content["state_dict"]), _described(model.state_dict())
    if saved != expected:
        raise UserError(
            f"{checkpoint} is of another model: it has {saved}, the model of this run {expected}"
        )
    model.load_state_dict(content["state_dict"])
    model.eval()
    return content["epoch"] + 1


def _sources(target: Any, root: str | None) -> dict[str, Any]:
    """The sources that conf/data has for the data of this class, in the folder `root` if given."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        config = container(OmegaConf.load(path))
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
