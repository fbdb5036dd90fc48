"""Settings: of a run, its config as plain values; of a command or an object, refused where they do not fit."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pydantic
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
SOURCES = ("root", "system_copies", "mirrors", "debian_package")  # keys of data: where its files come from
INCIDENTAL = (*SOURCES, "num_workers")  # keys of data that do not make a run another experiment
Bounds = Annotated[list[float], pydantic.Field(min_length=2, max_length=2)]  # the lowest and the highest
GROUPS = ("data", "model", "trainer", "callbacks")  # of settings, without which there is no run


def plain(cfg: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, plain values with every reference filled in. UserError if a group is missing."""
    settings = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True, throw_on_missing=True)
    for group in GROUPS:
        if not isinstance(settings.get(group), dict):
            raise UserError(f"{group} must be a group of settings, got {settings.get(group)}; see conf/{group}")
    if "root" in settings["data"]:  # a run may be resumed from another folder
        settings["data"]["root"] = str(Path(str(settings["data"]["root"])).absolute())
    return settings


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of nested settings."""
    found = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return found


def experiment(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of what makes the run the experiment that it is, however long and where it runs."""
    found = {"seed": settings["seed"], "trainer.devices": settings["trainer"].get("devices", 1)}
    for group in ("model", "data"):
        found |= {f"{group}.{key}": value for key, value in settings[group].items() if key not in INCIDENTAL}
    return found


class Options(pydantic.BaseModel):
    """Options of a command: no conversion (1 is no text, true no number), and no others."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


def checked(kind: type[Options], cfg: DictConfig) -> Any:
    """The config of a command as `kind`. Raises UserError, one line, for what does not fit."""
    try:
        return kind.model_validate(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except pydantic.ValidationError as error:
        raise refused(error) from None


def refused(error: pydantic.ValidationError, key: str = "", *functions: Callable) -> UserError:
    """What pydantic found, in one line: each key with its value and, if the functions have one, a default."""
    parameters = {name: each for one in functions for name, each in inspect.signature(one).parameters.items()}
    complaints = []
    for detail in error.errors():
        name = ".".join(map(str, detail["loc"]))
        path, message = f"{key}.{name}".strip("."), detail["msg"]
        complaints.append(f"{path}: {message[0].lower()}{message[1:]}, got {detail['input']!r}")
        if name in parameters and parameters[name].default is not inspect.Parameter.empty:
            complaints[-1] += f"; try {path}={parameters[name].default}"
    return UserError("; ".join(complaints))
