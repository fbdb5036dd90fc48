"""Errors explained in one line.

The mistakes of users are told from ours, those that Hydra, OmegaConf and YAML find included.
"""

import re
import shlex
import sys

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    OmegaConfBaseException,
)

from src.errors import UserError, printable
from src.runs.config import suggestion

OPEN = ("trainer", "callbacks", "logger")  # groups that take more than conf/ has
HYDRA_ERRORS = (HydraException, OmegaConfBaseException)
USER_ERRORS = (UserError, OSError, yaml.YAMLError, *HYDRA_ERRORS)  # anything else is a bug of ours


def explain(error: BaseException) -> str:
    """The error in one line, and one more for each detail of a UserError.

    The line of a bug names its class.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.strerror}: {error.filename or _folder_of_the_run()}")
    if isinstance(error, yaml.MarkedYAMLError):
        return printable(_explain_yaml(error))
    if isinstance(error, OverrideParseException):
        return printable(_explain_argument(error))
    if isinstance(error, HYDRA_ERRORS):
        return printable(_explain_hydra(error))
    text = " ".join(str(error).split())
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def explain_misfit(error: BaseException) -> str:
    """What Hydra or OmegaConf stumbled over without knowing that it is a mistake of the user's."""
    text = explain(error)
    if "Got NoneType" in text:
        return "a group of settings cannot be null: choose one of the files in its folder of conf/"
    if "int() with base 10" in text or "is not an int" in text:
        advice = "a list has numbers as keys, as in data.w.0"
        return f"an override does not fit the config ({text}): {advice}"
    return f"the arguments or a config file do not fit: {text}"


def _folder_of_the_run() -> str:
    known = HydraConfig.initialized() and "output_dir" in HydraConfig.get().runtime
    return HydraConfig.get().runtime.output_dir if known else "the disk"


def _explain_yaml(error: yaml.MarkedYAMLError) -> str:
    """File, line, column, and what is wrong there."""
    mark = error.problem_mark or error.context_mark
    source = "a YAML file"
    if mark:
        source = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}"
    context = f", {error.context}" if error.context else ""
    return f"{source}: {error.problem}{context}"


def _explain_argument(error: OverrideParseException) -> str:
    """Which argument Hydra cannot read, why, and how its value is quoted."""
    text = str(error.override)
    reason = re.sub(
        r"^Error parsing override .*\n|^LexerNo.*\n\s*\^\n?|\n?(Available|See https).*",
        "",
        error.message,
    )
    what = f"cannot read the argument {text}"
    if reason := " ".join(reason.split()):
        what += f" ({reason})"
    key, equals, value = text.partition("=")
    if not equals:
        return f"{what}; arguments are KEY=VALUE, ~KEY, --help or -m"
    quote = "'" if '"' in value else '"'
    return f"{what}; put the value in quotes: {shlex.quote(f'{key}={quote}{value}{quote}')}"


def _explain_hydra(error: Exception) -> str:
    """The first sentences of Hydra's message, and the key that was meant.

    Its advice, which leads nowhere, is left out.
    """
    text = re.split(r"\n\s*(?:Config search path|full_key|object_type|To append)", str(error))[0]
    cause = error.__cause__
    if isinstance(error, InterpolationKeyError):
        text = f"{error.full_key}: {text}"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        text += f" {_meant(cause)}"
    elif isinstance(cause, OmegaConfBaseException):
        text += f": {_explain_hydra(cause)}"
    return " ".join(text.split()) or type(error).__name__


def _meant(error: ConfigAttributeError | ConfigKeyError) -> str:
    """The key that was probably meant by one that does not exist."""
    group, _, _ = error.full_key.rpartition(".")
    siblings = OmegaConf.to_container(error.parent_node, resolve=False)
    if not isinstance(siblings, dict) or not siblings:
        return f"{group} is a value, not a group of settings."
    text = suggestion(error.full_key, siblings)
    swept = [argument for argument in sys.argv if re.match(rf"{re.escape(group)}=.*,", argument)]
    for argument in sys.argv:
        if group.startswith(OPEN) and argument.startswith(error.full_key):
            text += f" To add what is not there: {shlex.quote(f'+{argument}')}"
    if group and swept:
        text += f" If each of {swept[0]} has it, write ++{error.full_key}=VALUE."
    return text
