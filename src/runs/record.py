"""The record of a run, metrics.json, and the checks that it passes when it is read."""

import math
from typing import Any

import pydantic
from typing_extensions import TypedDict

MOST_METRICS = 200  # names of metrics in a record, of all runs of a sweep together
LARGEST_METRIC = 1e100  # but for nan and inf; sums of squares of such numbers are still finite


class Resumption(TypedDict):
    """The step from which a run was gone on with, and the changes of its settings."""

    step: int
    overrides: list[str]


@pydantic.with_config(pydantic.ConfigDict(extra="allow", strict=True))
class Results(TypedDict, total=False):
    """metrics.json, which also has the final metrics, numbers under names as test/acc."""

    seed: int
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    resumed: list[Resumption]
    untested: list[str]
    status: str
    reason: str
    ended: str
    best_epoch: int
    epochs: int
    steps: int
    seconds: float
    examples_per_second: float
    device: str
    threads: int
    data_sha256: dict[str, str] | None


RESULTS = pydantic.TypeAdapter(Results)


def check_record(content: Any) -> dict[str, Any]:
    """The content of metrics.json, if it is a record.

    Raises ValueError for anything else.
    """
    try:
        record = dict(RESULTS.validate_python(content))
    except pydantic.ValidationError as error:
        detail = error.errors()[0]
        key = ".".join(map(str, detail["loc"]))
        raise ValueError(f"{key}: {detail['msg']}") from error
    check_metrics({name: value for name, value in record.items() if "/" in name})
    return record


def check_metrics(metrics: dict[str, Any]) -> None:
    """Raises ValueError for too many values, those that are no numbers, and far too large ones."""
    if len(metrics) > MOST_METRICS:
        raise ValueError(f"it has {len(metrics):,} metrics, more than {MOST_METRICS}")
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, float | int):
            raise ValueError(f"{name} is no number")
        if LARGEST_METRIC < abs(value) < math.inf:
            raise ValueError(f"{name} is {value:g}, more than {LARGEST_METRIC:g}")
