"""No ratio has become much worse: the targets of src.benchmark with a margin, whatever the
machine's speed.

Not among the tests that pytest finds by itself, as it takes minutes and a machine with nothing else
to do: run by make bench, with time enough
"""

import pytest

from src.benchmark.suites import epoch_rows, epoch_seconds
from tests.conftest import compose_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
MARGIN = 1.3  # a target of at most 2.2 fails here above 2.86
TARGETS = compose_config("benchmark").targets


@pytest.fixture(scope="module")
def seconds(data_root, tmp_path_factory) -> dict[str, list[float]]:
    cfg = compose_config("benchmark", f"data.root={data_root}")
    return epoch_seconds(cfg, tmp_path_factory.mktemp("runs"), rounds=5, epochs=2)


@pytest.mark.parametrize("name", TARGETS)
def test_target_is_kept_but_for_the_margin(seconds, name):
    low, high = TARGETS[name]
    *_, row = epoch_rows(seconds, {name: [low / MARGIN, high * MARGIN]})
    assert row["met"], row
