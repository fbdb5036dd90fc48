"""The demonstration of numerical stability shows what it claims, from the real functions."""

import math

import pytest

from src.stability import outcomes
from src.tables import table


def by_case() -> dict[tuple[str, str], dict]:
    return {(row["logits"], row["numerics"]): row for row in outcomes()}


def test_stable_numerics_survive_every_scale_and_shift():
    rows = by_case()
    assert len(rows) == 2 * 5
    for (_, numerics), row in rows.items():
        if numerics == "stable":
            assert (row["inf or nan"], row["gradient lost"]) == (0, 0)
            assert row["error of the loss"] < 1e-6 * row["loss"]
    assert math.isclose(
        rows["+ 100", "stable"]["loss"], rows["x 1", "stable"]["loss"], rel_tol=1e-5
    )


def test_textbook_numerics_break_in_three_ways():
    rows = by_case()
    assert rows["x 1", "textbook"]["error of the loss"] < 1e-6  # all is well with small logits
    assert rows["x 10", "textbook"]["inf or nan"] == 0  # nothing overflows yet, but
    assert rows["x 10", "textbook"]["gradient lost"] > 0.1  # the epsilon hides the gradient
    assert (
        rows["x 10", "textbook"]["loss"] < 0.9 * rows["x 10", "stable"]["loss"]
    )  # and caps the loss
    assert rows["x 100", "textbook"]["inf or nan"] > 0.5  # exp overflows
    assert (
        rows["x 100", "textbook"]["P(true class) = 0"] > 0.5
    )  # or the true class gets probability 0
    assert rows["+ 100", "textbook"]["inf or nan"] == 1  # a mere shift is enough
    assert math.isnan(rows["+ 100", "textbook"]["loss"])


@pytest.mark.slow
def test_command_prints_the_table_and_writes_nothing(cli, tmp_path):
    before = {path for path in tmp_path.rglob("*") if path.suffix != ".txt"}
    status, output = cli("src.stability", data=False)
    assert status == 0, output
    assert output.startswith(table(outcomes()))
    assert {path for path in tmp_path.rglob("*") if path.suffix != ".txt"} == before
