"""How much a loss moves: measured the same way within an epoch, at rest, and between epochs."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean


def mean_change(values: Sequence[float]) -> float:
    """Mean |change| from each value to the next; 0 of one value alone."""
    return fmean(abs(b - a) for a, b in pairwise(values)) if len(values) > 1 else 0.0
