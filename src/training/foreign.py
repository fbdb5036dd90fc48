"""Classes and places that a run folder names, and that its owner has to name too."""

from collections.abc import Collection, Sequence
from typing import Any

from src.errors import UserError

# What the command line names: overrides, and the classes in them by their full names. None is all
# that the settings name, which are then one's own.
Foreign = Collection[str] | None


def named_in(overrides: Sequence[str]) -> set[str]:
    """The overrides, and the classes that they name."""
    named = set()
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        named.add(f"{key}={value}")
        if key.endswith("._target_"):
            named.add(value)
    return named


def targets(settings: dict[str, Any], foreign: Foreign) -> Collection[str]:
    """The `foreign` classes, or if they are None all those that the settings name."""
    if foreign is not None:
        return foreign
    named = set()
    for group in ("callbacks", "logger"):
        for part in settings[group].values():
            if isinstance(part, dict):
                named.add(str(part.get("_target_")))
    return named


def check_named(key: str, target: str, allowed: Collection[str]) -> None:
    """Raises UserError unless the untested class at `key` is one of those that are allowed."""
    if target not in allowed:
        named = f"{key}._target_={target}"
        raise UserError(
            f"{named} is not tested with all that a run promises; to go on with it, give "
            f"{named} on the command line too"
        )
