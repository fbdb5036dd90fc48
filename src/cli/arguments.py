"""The command line, as users type it, made into what Hydra takes."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from src.cli.console import quoted
from src.errors import UserError

# Hydra's flags that are used here, and whether a value follows.
FLAGS = {
    **dict.fromkeys(["--help", "-h", "--hydra-help", "--version", "--resolve"], False),
    **dict.fromkeys(["--run", "-r", "--multirun", "-m", "--shell-completion", "-sc"], False),
    **dict.fromkeys(["--info", "-i"], False),  # its value, if there is one, stands behind a =
    **dict.fromkeys(["--cfg", "-c", "--package", "-p"], True),
    **dict.fromkeys(["--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"], True),
}
LEFT_OUT = {"logger=null": "~logger", "callbacks=null": "~callbacks"}
# Keys whose value is a path, which may have any characters.
PATHS = ("run", "checkpoint", "inputs", "decision.costs", "folder", "data.root")
PATHS += ("hydra.run.dir", "hydra.sweep.dir")


def as_hydra_takes_them(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flags in front, where alone Hydra finds them all, and paths in quotes.

    Raises UserError for a flag that there is not.
    """
    flags, overrides = [], []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        if not argument.startswith("-"):
            overrides.append(_override(argument))
            continue
        flag, equals, _ = argument.partition("=")
        if flag not in FLAGS:
            raise UserError(f"there is no flag {flag} here; --help shows what there is")
        flags.append(argument)
        if FLAGS[flag] and not equals and remaining:
            flags.append(remaining.pop(0))
    return [*flags, *overrides]


def _override(text: str) -> str:
    """The override; the value of a path in quotes, if Hydra's grammar cannot read it without."""
    text = LEFT_OUT.get(text, text)
    key, equals, value = text.partition("=")
    if not equals or key.lstrip("+") not in PATHS:
        return text
    try:
        OverridesParser.create().parse_overrides([text])
    except HydraException:
        return f"{key}={quoted(value)}"
    return text
