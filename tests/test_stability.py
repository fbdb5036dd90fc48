"""The demonstration of numerical stability shows what it claims, from the real functions."""

import math

import pytest
from PIL import Image

from src.errors import UserError
from src.runs.config import checked
from src.stability import Demonstration, chart, outcomes
from src.terminal import table
from tests.conftest import compose_config


def by_case() -> dict[tuple[str, str], dict]:
    rows = outcomes([1, 10, 100, 1000], shift=100, num_examples=500, num_outputs=10, seed=0)
    return {(row["logits"], row["numerics"]): row for row in rows}


def test_stable_numerics_survive_every_scale_and_shift():
    rows = by_case()
    assert len(rows) == 2 * 5
    for (_, numerics), row in rows.items():
        if numerics == "stable":
            assert (row["inf or nan"], row["gradient lost"]) == (0, 0)
            assert row["error of the loss"] < 1e-6 * row["loss"]
    assert math.isclose(rows["+ 100", "stable"]["loss"], rows["x 1", "stable"]["loss"], rel_tol=1e-5)


def test_textbook_numerics_break_in_three_ways():
    rows = by_case()
    assert rows["x 1", "textbook"]["error of the loss"] < 1e-6  # all is well with small logits
    assert rows["x 10", "textbook"]["inf or nan"] == 0  # nothing overflows yet, but
    assert rows["x 10", "textbook"]["gradient lost"] > 0.1  # the epsilon hides the gradient
    assert rows["x 10", "textbook"]["loss"] < 0.9 * rows["x 10", "stable"]["loss"]  # and caps the loss
    assert rows["x 100", "textbook"]["inf or nan"] > 0.5  # exp overflows
    assert rows["x 100", "textbook"]["P(true class) = 0"] > 0.5  # or the true class gets probability 0
    assert rows["+ 100", "textbook"]["inf or nan"] == 1  # a mere shift is enough
    assert math.isnan(rows["+ 100", "textbook"]["loss"])


@pytest.mark.slow
def test_command_prints_the_table_and_draws_the_picture(cli, tmp_path):
    status, output = cli("src.stability", "num_examples=50", data=False)
    assert status == 0, output
    expected = table(outcomes([1, 10, 100, 1000], shift=100, num_examples=50, num_outputs=10, seed=0))
    assert output.startswith(expected)
    picture = tmp_path / output.splitlines()[-1]
    with Image.open(picture) as image:
        assert image.width > 900


def test_picture_has_a_bar_for_every_case():
    rows = list(by_case().values())
    axes = chart(rows).axes
    assert [len(ax.patches) for ax in axes] == [len(rows)] * 3


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("scales=abc", "scales: input should be a valid list, got 'abc'"),
        ("scales=[]", "scales: list should have at least 1 item"),
        ("scales=[1,abc]", "scales.1: input should be a valid number, got 'abc'"),
        ("scales=[nan]", "scales.0: input should be a finite number, got nan"),
        ("shift=null", "shift: input should be a valid number, got None"),
        ("num_examples=0", "num_examples: input should be greater than or equal to 1, got 0"),
        ("num_examples=1000000000000", "num_examples: input should be less than or equal to 100000"),
        ("num_outputs=1", "num_outputs: input should be greater than or equal to 2, got 1"),
        ("seed=[1]", "seed: input should be a valid integer, got [1]"),
        ("seed=-1", "seed: input should be greater than or equal to 0, got -1"),
    ],
)
def test_values_that_make_no_sense_are_refused_by_name(override, complaint):
    with pytest.raises(UserError) as error:
        checked(Demonstration, compose_config("stability", override))
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)
