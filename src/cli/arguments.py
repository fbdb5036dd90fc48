"""The command line, as users type it, made into what Hydra takes."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from src.cli.console import quoted
from src.errors import UserError

ALONE = ["--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"]
ALONE += ["--multirun", "-m", "--shell-completion", "-sc", "--info", "-i"]
VALUED = ["--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn"]
VALUED += ["--config-dir", "-cd"]
SHOWN = ("job", "hydra", "all")
KNOWN = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
CHOICES = {"--cfg": SHOWN, "-c": SHOWN, "--info": KNOWN, "-i": KNOWN}  # values that a flag may have
LEFT_OUT = {"logger=null": "~logger", "callbacks=null": "~callbacks"}
OPEN = ("model.optimizer.", "model.scheduler.")  # groups in which any key may be set, without a +
# Keys whose value is a path, which may have any characters.
PATHS = ("run", "checkpoint", "inputs", "decision.costs", "folder", "data.root")
PATHS += ("hydra.run.dir", "hydra.sweep.dir")


def as_hydra_takes_them(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flags in front, where alone Hydra finds them all, and paths in quotes.

    Raises UserError for a flag that there is not, or one without its value.
    """
    flags, overrides = [], []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("-"):
            overrides.append(_override(argument))
            continue
        flag, _, value = argument.partition("=")
        if flag in VALUED and not value and remaining:
            value = remaining.pop(0)
        flags += _flag(flag, value)
    return [*flags, *overrides]


def _flag(flag: str, value: str) -> list[str]:
    """The flag as one word, or two. Raises UserError if it is unknown or its value does not fit."""
    if flag not in ALONE + VALUED:
        raise UserError(f"there is no flag {flag} here; --help shows what there is")
    if flag in ("--info", "-i"):
        value = value or "all"  # else Hydra takes the next argument for its value
    if flag in CHOICES and value not in CHOICES[flag]:
        known = ", ".join(CHOICES[flag])
        raise UserError(f"{flag} must be one of {known}, got {value or 'nothing'}")
    if flag in VALUED and not value:
        raise UserError(f"{flag} needs a value")
    if not value:
        return [flag]
    return [f"{flag}={value}"] if flag.startswith("--") else [flag, value]


def _override(text: str) -> str:
    """The override; the value of a path in quotes, if Hydra's grammar cannot read it without."""
    text = LEFT_OUT.get(text, text)
    key, equals, value = text.partition("=")
    if equals and key.startswith(OPEN):
        return f"++{text}"
    if not equals or key.lstrip("+") not in PATHS:
        return text
    try:
        OverridesParser.create().parse_overrides([text])
    except HydraException:
        return f"{key}={quoted(value)}"
    return text
