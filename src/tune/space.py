"""The search space: the words of Hydra's sweeps, as distributions that Optuna draws from."""

import math
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep
from hydra.errors import HydraException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from src.errors import UserError
from src.runs import leaves


def distributions(space: dict[str, Any]) -> dict[str, BaseDistribution]:
    """Dotted key -> what it is drawn from. Raises UserError if there is none, or one cannot be read."""
    if not (texts := leaves(space)):
        raise UserError("space is empty: nothing to search; try +space.model.lr='interval(0.01, 1)'")
    found = {}
    for key, text in texts.items():
        try:
            found[key] = distribution(OverridesParser.create().parse_override(f"{key}={text}").value())
        except (HydraException, ValueError, ArithmeticError) as error:
            reason = f"is no search space ({str(error).splitlines()[0]})"
            raise UserError(f"space.{key}={text} {reason}; try interval(0.01, 1)") from error
    return found


def distribution(sweep: Any) -> BaseDistribution:
    """Optuna's counterpart of what Hydra has parsed. Raises ValueError if it has none."""
    match sweep:
        case IntervalSweep(start=low, end=high, tags=tags) if tags <= {"log"} and math.isfinite(low + high):
            kind = IntDistribution if isinstance(low + high, int) else FloatDistribution
            return kind(low, high, log="log" in tags)
        case ChoiceSweep(list=values) if not any(isinstance(each, list | dict) for each in values):
            return CategoricalDistribution([getattr(each, "text", each) for each in values])
    raise ValueError("it must be an interval, which may have the tag log, or a choice of plain values")
