"""From YAML to objects: the resolvers that conf/ uses, and building a group with errors that name the key."""

import contextlib
import inspect
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pydantic
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError


def output_dir() -> str:
    """Folder of this run: the one Hydra made, or without Hydra (in a notebook) a new one named by the time."""
    if HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return HydraConfig.get().runtime.output_dir
    return f"outputs/runs/{datetime.now():%Y-%m-%d_%H-%M-%S}"


def sweeping() -> bool:
    """Whether this is a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


for name, resolver in {
    "output_dir": output_dir,
    "sweeping": sweeping,
    "len": len,
    "square": lambda side: side * side,
    "when": lambda condition, yes, no: yes if condition else no,
}.items():
    OmegaConf.register_new_resolver(name, resolver, replace=True, use_cache=name == "output_dir")


def build(cfg: DictConfig, group: str, **objects: Any) -> Any:
    """The object described at `group` of the config (a.b is b in a), made with `objects` as further arguments.

    Raises UserError if a value is refused; the message names the key, the value and, where there is one,
    the default.
    """
    node = OmegaConf.select(cfg, group)
    try:
        return instantiate(node, _convert_="all", **objects)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, pydantic.ValidationError):
            cause = "; ".join(_complaint(group, node._target_, detail) for detail in cause.errors())
            raise UserError(cause) from None
        raise UserError(f"{group}: {cause}") from error


def _complaint(group: str, target: str, detail: dict) -> str:
    name, *_ = detail["loc"]
    made = get_object(target)
    # a model hands on to its base class what it does not know itself
    functions = [base.__init__ for base in made.__mro__] if inspect.isclass(made) else [made]
    message = detail["msg"][0].lower() + detail["msg"][1:]
    complaint = f"{group}.{name}: {message}, got {detail['input']!r}"
    for function in functions:
        parameter = inspect.signature(function).parameters.get(name)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return f"{complaint}; try {group}.{name}={parameter.default}"
    return complaint


# A run folder may come from anyone: of what its config can name, these are built, and nothing else.
TRAINER = "src.trainer.build_trainer"
PACKAGES = ("src.", "lightning.", "torch.")


def check_targets(cfg: DictConfig, origin: Path) -> None:
    """Raises UserError unless every _target_ of the config is a class of this project, Lightning or torch.

    `origin`, the file it comes from, is for the message. A class counts where it is defined, so that a module
    of ours that imports subprocess gives no way to subprocess.Popen.
    """
    for target in _targets(OmegaConf.to_container(cfg)):
        if isinstance(target, str) and target.startswith(PACKAGES):
            with contextlib.suppress(Exception):  # whatever is wrong with it: it is refused below
                found = get_object(target)
                defined = f"{found.__module__}.{found.__qualname__}"
                if target == TRAINER or (inspect.isclass(found) and defined.startswith(PACKAGES)):
                    continue
        raise UserError(
            f"{origin} wants to build {target!r}; from a run folder only classes of this project, Lightning "
            "and torch are built"
        )


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _targets(value)
