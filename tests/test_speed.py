"""What is measured against the plain loops, and how it is judged."""

import math
import os

import pytest
import rich

from src import peers
from src.benchmark import speed_chart
from src.errors import UserError
from src.speed import FORMS, Series, Target, command, ours, terminal


def test_a_ratio_is_taken_within_each_round():
    # in a slow round both take longer: 2/1, 8/4, 3/2; the ratio of the medians would be 3/2
    measured = {"a": Series("s", [2, 8, 3]), "b": Series("s", [1, 4, 2])}
    row = Target("a", "/", "b", high=1.9).judge(measured)
    assert (row["median"], row["lowest"], row["highest"]) == (2, 1.5, 2)
    assert (row["figure"], row["unit"], row["target"], row["met"]) == ("a / b", "", "at most 1.9", False)


def test_a_difference_and_a_bare_figure_keep_their_unit():
    measured = {"a": Series("MB", [110, 130]), "b": Series("MB", [100, 100])}
    row = Target("a", "-", "b", low=20, high=20).judge(measured)
    assert (row["median"], row["unit"], row["met"]) == (20, "MB", True)
    assert row["target"] == "at least 20 and at most 20"
    row = Target("b", "", "", high=99).judge(measured)
    assert (row["figure"], row["median"], row["unit"], row["met"]) == ("b", 100, "MB", False)


def test_a_figure_that_is_no_number_meets_no_target():
    assert not Target("a", "", "", high=1).judge({"a": Series("s", [math.nan])})["met"]


def test_the_bare_loop_learns(data_root):
    """Else its time would mean nothing."""
    *_, last = peers.bare(str(data_root), 3)
    assert 0.3 < last.loss < 0.8  # log 10 = 2.3 at the start
    assert last.seconds > 0


@pytest.mark.slow
def test_the_textbook_loop_learns_and_validates(data_root, capsys):
    (done,) = peers.textbook(str(data_root), 1)
    assert done.seconds > 1
    accuracy = float(capsys.readouterr().out.split()[-1])
    assert 0.77 < accuracy < 0.83  # of the validation split after one epoch of lr 0.1, batch 256


@pytest.mark.parametrize("form", FORMS)
def test_ours_is_a_whole_run_epoch_by_epoch(data_root, tmp_path, form):
    short = ["data.train_size=512", "data.val_size=59000"]
    with terminal():
        seconds = ours([*FORMS[form], *short], data_root, 3, tmp_path)
    assert len(seconds) == 3
    (run,) = tmp_path.iterdir()
    for name in ("checkpoints/best.ckpt", "checkpoints/last.ckpt", "tensorboard"):
        assert (run / name).exists()
    held = [os.path.realpath(f"/dev/fd/{number}") for number in os.listdir("/dev/fd")]
    assert [path for path in held if path.startswith(str(tmp_path))] == []  # nothing is left open


def test_progress_is_drawn_on_a_terminal_that_nobody_sees(capsys):
    before = rich.get_console().is_terminal
    with terminal():
        assert rich.get_console().is_terminal
        rich.get_console().print("unseen")
        print("unseen")
    assert rich.get_console().is_terminal == before
    assert capsys.readouterr().out == ""


def test_a_command_is_charged_for_its_own_memory_and_time():
    holds = "import time; held = bytearray(80_000_000); time.sleep(0.3)"
    seconds, peak = command("-S", "-c", holds)
    assert 0.3 <= seconds < 10
    assert 80 < peak < 120  # this process, which starts it, has several hundred MB


def test_a_command_that_fails_says_why():
    with pytest.raises(UserError, match=r"ended with status 1: .*no such luck"):
        command("-c", "import sys; sys.exit('no such luck')")


def test_the_chart_shows_the_median_and_range_of_each_contestant_by_unit():
    measured = {"a": Series("s", [1.0, 4.0, 2.0]), "b": Series("s", [0.5]), "c": Series("MB", [1000.0, 3000.0])}
    seconds, memory = speed_chart(measured).axes
    assert [bar.get_width() for bar in seconds.patches] == [2.0, 0.5]
    assert [bar.get_width() for bar in memory.patches] == [2000.0]
    assert [text.get_text().strip() for text in (*seconds.texts, *memory.texts)] == ["2", "0.5", "2000"]
    ranges = [line.tolist() for line in seconds.collections[0].get_segments()]
    assert ranges == [[[1.0, 0.0], [4.0, 0.0]], [[0.5, 1.0], [0.5, 1.0]]]
