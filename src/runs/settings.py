"""Settings: the config of a run as plain values, and whether they fit what is built from them."""

import difflib
import inspect
import json
import re
import typing
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any

import pydantic
from omegaconf import DictConfig, OmegaConf

from src import files
from src.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
SOURCES = (
    "root",
    "system_copies",
    "mirrors",
    "debian_package",
)  # keys of data: where its files come from
INCIDENTAL = (*SOURCES, "num_workers")  # keys of data that do not make a run another experiment
GROUPS = ("data", "model", "trainer")  # without which there is no run
OPTIONAL = ("callbacks", "logger")  # groups that may be left out
Bounds = Annotated[
    list[float], pydantic.Field(min_length=2, max_length=2)
]  # the lowest and the highest
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]


def plain(cfg: DictConfig | dict[str, Any]) -> dict[str, Any]:
    """The settings of a run, plain values with every reference filled in.

    Raises UserError if a group is missing, and for a setting that nothing reads.
    """
    config = OmegaConf.create(cfg)
    settings = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    _refuse_unread(settings, OmegaConf.to_container(config, resolve=False))
    settings = {name: settings.get(name) for name in ("seed", *GROUPS, *OPTIONAL)}
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
    given = settings["callbacks"].items()
    settings["callbacks"] = {name: each for name, each in given if each is not None}
    try:
        files.check_plain(settings)
    except ValueError as error:
        raise UserError(f"the config cannot be recorded: {error}") from error
    if isinstance(settings["data"].get("root"), str):  # a run may be resumed from another folder
        settings["data"]["root"] = str(files.expanded(settings["data"]["root"]).absolute())
    return settings


def _seeded(seed: Seed) -> None:
    """What every run takes besides its groups."""


def _refuse_unread(settings: dict[str, Any], unresolved: dict[str, Any]) -> None:
    """Raises UserError for a key at the top that no part of a run reads, and no other setting
    refers to."""
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
    found = {}
    for name, value in node.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def suggestion(key: str, siblings: dict[str, Any]) -> str:
    """What may be meant by the dotted key, given the settings beside it: "Did you mean
    model.lr?"."""
    group, _, name = key.rpartition(".")
    others = {sibling: value for sibling, value in siblings.items() if sibling != name}
    # the last word of each setting -> the whole; the first of several, and a sibling before all
    known = {path.rpartition(".")[2]: path for path in reversed(leaves(others))}
    known |= {sibling: sibling for sibling in others}
    for match in difflib.get_close_matches(name, known, n=1):
        return f"Did you mean {group}{'.' if group else ''}{known[match]}?"
    names = [sibling for sibling in others if not sibling.startswith("_")]
    return f"{group or 'The config'} has {', '.join(names)}."


def experiment(settings: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value of what makes the run the experiment that it is, however long and where
    it runs."""
    found = {"seed": settings["seed"], "trainer.devices": settings["trainer"].get("devices", 1)}
    for group in ("model", "data"):
        found |= {
            f"{group}.{key}": value
            for key, value in settings[group].items()
            if key not in INCIDENTAL
        }
    return found


# --- whether settings fit -------------------------------------------------------------------------


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of a function or a class, by name, with their annotations.

    A class that hands `**settings` on to its base takes those of its base too.
    """
    if not inspect.isclass(function):
        return _annotated(function)
    found: dict[str, inspect.Parameter] = {}
    for kind in function.__mro__:
        if "__init__" not in vars(kind):
            continue
        _, *names = own = _annotated(kind.__init__)  # without self
        found = {name: own[name] for name in names} | found
        rest = [name for name in names if own[name].kind is inspect.Parameter.VAR_KEYWORD]
        if not rest:
            break
        if kind.__mro__[1] is not object:  # what is handed on is named by the base
            found.pop(rest[0])
    return found


def _annotated(function: Callable) -> dict[str, inspect.Parameter]:
    """The parameters of the function, with annotations that are texts in the source as what they
    stand for."""
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
    """The settings at `key` as arguments of the function or class: values of the types that it is
    annotated with.

    `objects` names the arguments that are no settings, `narrower` has narrower types than the
    annotations. A text is no number and true is not 1, as in JSON. Raises UserError for all that
    does not fit, in one line.
    """
    known = parameters(function)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in known.values())
    named = {
        n: p
        for n, p in known.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and n not in objects
    }
    for name, value in settings.items():
        if name not in named and (name in objects or not takes_any):
            there = f"there are {', '.join(named)}" if named else "it takes none"
            raise UserError(f"{key}.{name}={value}: there is no such setting; {there}".lstrip("."))
    found, complaints = {}, []
    for name, parameter in named.items():
        annotation = (narrower or {}).get(name, parameter.annotation)
        if name in settings:
            try:
                found[name] = _validated(annotation, settings[name])
            except pydantic.ValidationError as error:
                complaints += complain(error, f"{key}.{name}".lstrip("."), parameter.default)
        elif parameter.default is parameter.empty:
            complaints.append(f"{key}.{name}".lstrip(".") + " is missing")
    if complaints:
        raise UserError("; ".join(complaints))
    return settings | found


def _validated(annotation: Any, value: Any) -> Any:
    """The value as the annotation has it. Raises pydantic's ValidationError."""
    config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    return pydantic.TypeAdapter(annotation, config=config).validate_json(
        json.dumps(value), strict=True
    )


def complain(
    error: pydantic.ValidationError, key: str, default: Any = inspect.Parameter.empty
) -> list[str]:
    """What pydantic found: each key with its value and, if there is one, its default."""
    complaints = []
    for detail in error.errors():
        path = ".".join([key, *map(str, detail["loc"])]).strip(".")
        message = detail["msg"]
        text = f"{path}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"
        if isinstance(default, bool | int | float | str):
            text += f"; try {key}={default}"
        complaints.append(text)
    return complaints
