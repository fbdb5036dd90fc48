"""What a test starts cannot outlive it."""

import importlib
import signal
import time

import pytest

from tests.conftest import PRELOADED, ROOT, Command, TooLong

pytestmark = pytest.mark.slow
SYNTHETIC = [
    "data=synthetic",
    "model=linear_scratch",
    "trainer.max_epochs=20000",
    "~callbacks.figures",
]


def until_something_else(command: Command, limit: float) -> None:
    command.until("never printed", limit)


@pytest.mark.parametrize(
    ("wait", "processes"),
    [(Command.wait, ["trainer=ddp"]), (until_something_else, [])],
)
def test_a_command_that_takes_too_long_is_killed_with_what_it_started_and_shows_its_output(
    start, wait, processes
):
    command = start("src.train", *SYNTHETIC, *processes, data=False, env={"PYTHONPATH": str(ROOT)})
    command.until("epoch 1/")
    with pytest.raises(TooLong, match=r"epoch 1/"):
        wait(command, limit=0.1)
    end = time.monotonic() + 10  # until whoever adopts the second process has taken note
    while not command.gone() and time.monotonic() < end:
        time.sleep(0.01)
    assert command.gone()
    assert command not in Command.started


def test_a_command_that_ends_too_early_shows_its_output(start):
    command = start("src.train", "model.lr=-1")
    with pytest.raises(AssertionError, match=r"ended with 1 before(.|\n)*model\.lr"):
        command.until("epoch 1/")


def test_a_signal_reaches_the_process_or_its_group(start):
    for group in (False, True):
        command = start("src.train", *SYNTHETIC, data=False)
        command.kill(signal.SIGKILL, group)
        assert command.wait() == -signal.SIGKILL


def test_what_commands_are_forked_with_can_be_imported():
    for name in PRELOADED:
        importlib.import_module(name)  # the server says nothing of what it cannot import
