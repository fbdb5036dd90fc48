"""Whether settings fit the signature of the function or class that is to take them."""

import inspect
import json
import typing
from collections.abc import Callable, Collection
from typing import Any

import pydantic

from src.errors import UserError


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of a function or a class, by name, with their annotations.

    A class that hands `**settings` on to its base takes those of its base too.
    """
    if not inspect.isclass(function):
        return _annotated(function)
    known: dict[str, inspect.Parameter] = {}
    for kind in function.__mro__:
        if kind is object or "__init__" not in vars(kind):
            continue
        _, *names = own = _annotated(kind.__init__)  # without self
        known = {name: own[name] for name in names} | known
        rest = [name for name in names if own[name].kind is inspect.Parameter.VAR_KEYWORD]
        if not rest:
            break
        _, base, *_ = kind.__mro__
        if base is object or kind.__module__.startswith("lightning."):
            break  # Lightning may do something else with them
        known.pop(rest[0])  # the base names the settings that are handed on
    return known


def _annotated(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of the function.

    Annotations that are texts in the source are replaced by their meaning.
    """
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # a name that is there for type checkers alone
        hints = {}
    known = {}
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = hints.get(name, parameter.annotation)
        if annotation is inspect.Parameter.empty or isinstance(annotation, str):
            annotation = Any
        known[name] = parameter.replace(annotation=annotation)
    return known


def arguments(
    key: str,
    function: Callable,
    settings: dict[str, Any],
    objects: Collection[str] = (),
    narrower: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings at `key` as arguments of the function or class.

    Their values have the types that it is annotated with.

    `objects` names the arguments that are no settings, `narrower` has narrower types than the
    annotations. A text is no number and true is not 1, as in JSON. Raises UserError for all that
    does not fit, in one line.
    """
    known = parameters(function)
    kinds = [parameter.kind for parameter in known.values()]
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    named = {
        n: p
        for n, p in known.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and n not in objects
    }
    for name, value in settings.items():
        if name not in named and (name in objects or not takes_any):
            there = f"there are {', '.join(named)}" if named else "it takes none"
            raise UserError(f"{key}.{name}={value}: there is no such setting; {there}".lstrip("."))
    values, complaints = {}, []
    for name, parameter in named.items():
        annotation = (narrower or {}).get(name, parameter.annotation)
        if name in settings:
            try:
                values[name] = _validated(annotation, settings[name])
            except pydantic.ValidationError as error:
                complaints += complain(error, f"{key}.{name}".lstrip("."), parameter.default)
        elif parameter.default is parameter.empty:
            complaints.append(f"{key}.{name}".lstrip(".") + " is missing")
    if complaints:
        raise UserError("; ".join(complaints))
    return settings | values


def _validated(annotation: Any, value: Any) -> Any:
    """The value as the annotation has it. Raises pydantic's ValidationError."""
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    return pydantic.TypeAdapter(annotation, config=config).validate_json(
        json.dumps(value), strict=True
    )


def complain(
    error: pydantic.ValidationError, key: str, default: Any = inspect.Parameter.empty
) -> list[str]:
    """The complaints of pydantic: a key, its value and, if there is one, its default."""
    complaints = []
    for detail in error.errors():
        path = ".".join([key, *map(str, detail["loc"])]).strip(".")
        message = detail["msg"]
        text = f"{path}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"
        if isinstance(default, bool | int | float | str):
            text += f"; try {key}={default}"
        complaints.append(text)
    return complaints
