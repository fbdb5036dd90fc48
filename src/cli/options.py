"""The options of a command, its config or its arguments, as typed values.

They are refused where they do not fit.
"""

import argparse
from typing import Any, NoReturn

import pydantic
from omegaconf import DictConfig, OmegaConf

from src.errors import UserError
from src.signatures import complain


class Options(pydantic.BaseModel):
    """Options of a command: no conversion (1 is no text, true no number), and no others."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", frozen=True)


def checked(kind: type[Options], cfg: DictConfig) -> Any:
    """The config of a command as `kind`. Raises UserError, one line, for what does not fit."""
    try:
        return kind.model_validate(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except pydantic.ValidationError as error:
        raise UserError("; ".join(complain(error, ""))) from None


class Parser(argparse.ArgumentParser):
    """Arguments of a command that Hydra does not configure.

    As everywhere, those that do not fit are a UserError.
    """

    def __init__(self, program: str, description: str):
        super().__init__(
            program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")
