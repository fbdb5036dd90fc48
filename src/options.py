"""Values from outside, checked by the types that pydantic reads, with complaints that name key and value."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import pydantic
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError

Accelerator = Literal["cpu", "gpu", "mps", "auto"]


class Options(pydantic.BaseModel):
    """Options of a command: no conversion (1 is no text, true no number), and no others."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


class Places(Options):
    """Where the data of a run come from; None is what conf/data says, never what the run says."""

    root: str | None
    system_copies: list[str] | None
    mirrors: list[str] | None

    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


Kind = TypeVar("Kind", bound=Options)


def checked(kind: type[Kind], cfg: DictConfig) -> Kind:
    """The config as `kind`. Raises UserError, one line, for what does not fit."""
    try:
        return kind.model_validate(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except pydantic.ValidationError as error:
        raise UserError(complaints(error)) from None


def call(function: Callable[..., Any], group: str, values: dict[str, Any]) -> Any:
    """function(**values). Raises UserError if it does not take them; `group` is the key they stand under."""
    try:
        inspect.signature(function).bind(**values)
    except TypeError as error:
        raise UserError(f"{group}: {error}") from None
    try:
        return function(**values)
    except pydantic.ValidationError as error:
        raise UserError(complaints(error, group)) from None


def complaints(error: pydantic.ValidationError, group: str | None = None) -> str:
    found = []
    for detail in error.errors():
        key = ".".join(map(str, [*([group] if group else []), *detail["loc"]]))
        found.append(f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}")
    return "; ".join(found)
