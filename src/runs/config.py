"""Objects from plain settings: classes of this project alone, each in the role that it was written for.

Settings may come from a stranger's run folder. So nothing in them is called but the one class that `_target_`
names, which must be defined where its role says, and nothing is followed: no interpolation, no nested target.
"""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import pydantic
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.runs.checkpoint import load_checkpoint, shapes

ROLES = {  # group of the config -> (where its classes are defined, what they are)
    "data": ("src.data.", L.LightningDataModule),
    "model": ("src.models.", L.LightningModule),
    "callbacks": ("src.", L.Callback),
    "logger": ("src.", Logger),
}
PLACES = ("root", "system_copies", "mirrors", "debian_package")  # of data: where they come from
CONF = Path(__file__).parents[2] / "conf"
# Of Lightning's own callbacks, those that are tested with everything a run promises.
LIGHTNING = {"lightning.pytorch.callbacks.EarlyStopping": EarlyStopping}


def build(key: str, settings: Any, **objects: Any) -> Any:
    """The object that the settings at `key` of the config describe, made with `objects` as further arguments.

    Raises UserError if it is not in its role, or a value is refused; the message names the key, the value and,
    where there is one, the default.
    """
    if not isinstance(settings, dict) or not isinstance(settings.get("_target_"), str):
        raise UserError(f"{key} must be a group of settings with a _target_, got {settings!r}")
    arguments = {name: value for name, value in settings.items() if name != "_target_"}
    return call(key, _class(key, settings["_target_"]), arguments, **objects)


def _class(key: str, target: str) -> type:
    place, base = ROLES[key.partition(".")[0]]
    if target in LIGHTNING and issubclass(LIGHTNING[target], base):
        return LIGHTNING[target]
    module, _, name = target.rpartition(".")
    found = None
    if f"{module}.".startswith(place) and all(part.isidentifier() for part in target.split(".")):
        try:
            found = getattr(importlib.import_module(module), name, None)
        except ModuleNotFoundError as error:
            if not (error.name and module.startswith(error.name)):
                raise
    if not (inspect.isclass(found) and issubclass(found, base) and f"{found.__module__}.".startswith(place)):
        also = f" or one of {', '.join(LIGHTNING)}" if base is L.Callback else ""
        raise UserError(
            f"{key}._target_ is {target!r}, but must be a {base.__name__} that is defined in {place[:-1]}{also}"
        )
    return found


def call(key: str, function: Callable, settings: dict[str, Any], **objects: Any) -> Any:
    """`function` called with the settings at `key`, and the objects. Raises UserError for a refused setting.

    Its keyword-only parameters are for objects alone.
    """
    parameters = inspect.signature(function).parameters
    known = {name: each for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY}
    anything = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for name, value in settings.items():
        if (name not in known and not anything) or name in objects:
            names = ", ".join(each for each in known if each not in objects)
            raise UserError(
                f"{f'{key}.{name}'.lstrip('.')}={value}: there is no such setting; there are {names}"
            )
    try:
        return function(**settings, **objects)
    except pydantic.ValidationError as error:
        raise UserError("; ".join(_complaint(key, function, each) for each in error.errors())) from None


def _complaint(key: str, function: Callable | None, detail: dict) -> str:
    """What pydantic says, in one line, with the key, the value, and a default that would do."""
    name = ".".join(map(str, detail["loc"]))
    path = f"{key}.{name}".strip(".")
    complaint = f"{path}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"
    # a model hands on to its base class what it does not know itself
    functions = [each.__init__ for each in function.__mro__] if inspect.isclass(function) else [function]
    for each in filter(None, functions):
        parameter = inspect.signature(each).parameters.get(name)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return f"{complaint}; try {path}={parameter.default}"
    return complaint


def build_data(settings: dict[str, Any]) -> L.LightningDataModule:
    return build("data", settings["data"])


def build_model(settings: dict[str, Any], data: L.LightningDataModule) -> L.LightningModule:
    """The model, as wide as the data."""
    return build("model", settings["model"], num_inputs=data.num_inputs, num_outputs=data.num_outputs)


def restore(
    settings: dict[str, Any], checkpoint: Path, places: dict[str, Any] | None = None
) -> tuple[L.LightningDataModule, L.LightningModule]:
    """The data of a run, not yet loaded, and its model as it was at the checkpoint.

    Where the data come from is not taken from the settings: `places` says it and, what that leaves open, the
    file of conf/data that is about the same data module.

    Raises UserError for settings or a checkpoint that cannot be used.
    """
    node = settings["data"] if isinstance(settings["data"], dict) else {}
    ours = _configured_places(node.get("_target_"))
    given = {name: value for name, value in (places or {}).items() if name in ours}
    node = {name: value for name, value in node.items() if name not in PLACES} | ours | given
    data = build("data", node)
    model = build_model(settings, data)
    found, expected = load_checkpoint(checkpoint)["state_dict"], model.state_dict()
    if shapes(found) != shapes(expected):
        raise UserError(
            f"{checkpoint} is of another model: it has {shapes(found)}, "
            f"the model of this run {shapes(expected)}"
        )
    model.load_state_dict(found)
    return data, model.eval()


def _configured_places(target: str | None) -> dict[str, Any]:
    """What conf/data says; a relative root is in this project, wherever the command is called."""
    for path in sorted((CONF / "data").glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path))
        if node.get("_target_") == target:
            places = {name: value for name, value in node.items() if name in PLACES}
            return places | ({"root": str(CONF.parent / places["root"])} if "root" in places else {})
    return {}


class Options(pydantic.BaseModel):
    """Options of a command: no conversion (1 is no text, true no number), and no others."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class Places(Options):
    """Where the data of a run that is read come from; None is what conf/data says, never what the run says."""

    root: str | None
    system_copies: list[str] | None
    mirrors: list[str] | None

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


Kind = TypeVar("Kind", bound=Options)


def checked(kind: type[Kind], cfg: DictConfig) -> Kind:
    """The config of a command as `kind`. Raises UserError, one line, for what does not fit."""
    try:
        return kind.model_validate(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except pydantic.ValidationError as error:
        raise UserError("; ".join(_complaint("", None, each) for each in error.errors())) from None
