"""Options of a command and arguments of an object, refused in one line where they do not fit."""

import inspect
from collections.abc import Callable
from typing import Any

import pydantic
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError


class Options(pydantic.BaseModel):
    """Options of a command: no conversion (1 is no text, true no number), and no others."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class Places(Options):
    """Where the data of a run that is read come from; None is what conf/data says."""

    root: str | None
    system_copies: list[str] | None
    mirrors: list[str] | None


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
