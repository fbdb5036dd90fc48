"""How a run ends, and what resume makes of it: early stopping belongs to the settings of the run that goes on."""

import signal
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.runs import Run
from src.training.experiment import train
from src.training.resuming import resume
from src.training.stopping import Ending
from tests.tools.faults import differences

SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "data.val_size=20"]
SMALL += ["trainer.max_epochs=8", "~callbacks.figures"]
STOPPER = "callbacks.early_stopping"
# no loss falls by 10: it stops after epoch 3
EARLY = [
    f"+{STOPPER}._target_=lightning.pytorch.callbacks.EarlyStopping",
    *(f"+{STOPPER}.monitor=val/loss", f"+{STOPPER}.min_delta=10", f"+{STOPPER}.patience=2"),
]


@pytest.fixture
def stopped(config, tmp_path) -> Run:
    """A run that early stopping has ended."""
    train(config(*SMALL, *EARLY), tmp_path / "run")
    return Run(tmp_path / "run")


def go_on(run: Run, *overrides: str) -> Run:
    cfg = OmegaConf.create(run.settings())
    for override in overrides:
        if override.startswith("~"):
            del cfg.callbacks[override.rpartition(".")[2]]
        else:
            cfg.merge_with_dotlist([override])
    return resume(run.path, cfg, overrides)


def epochs(run: Run) -> int:
    return len(run.epochs())


def test_a_run_says_that_all_epochs_are_done(config, tmp_path):
    train(config(*SMALL, "trainer.max_epochs=1"), tmp_path / "run")
    assert Run(tmp_path / "run").results()["ended"] == "all epochs"


def test_a_run_says_at_which_epoch_early_stopping_ended_it_and_why(stopped):
    assert epochs(stopped) == 3
    ended = stopped.results()["ended"]
    why = "Monitored metric val/loss did not improve in the last 2 records"
    assert ended.startswith(f"early stopping at epoch 3: {why}. Best score: ")
    assert "Signaling" not in ended


def test_with_the_same_settings_it_is_finished(stopped, caplog):
    caplog.set_level("INFO")
    before = {path: path.read_bytes() for path in stopped.path.rglob("*") if path.is_file()}
    resume(stopped.path)
    assert "is finished, 3 epochs" in caplog.text
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"{STOPPER}.patience=4", 5),  # the third epoch was the second bad one
        (f"~{STOPPER}", 8),
        (f"{STOPPER}.min_delta=0.0", 8),  # the loss falls all the time
        ("trainer.max_epochs=20", 4),  # its stopper is as impatient as ever
    ],
)
def test_with_other_settings_it_goes_on(stopped, override, expected):
    go_on(stopped, override)
    assert epochs(stopped) >= min(expected, 4)
    assert epochs(stopped) == expected
    assert stopped.results()["status"] == "finished"
    assert stopped.results()["ended"].startswith(
        "all epochs" if expected == 8 else f"early stopping at epoch {expected}"
    )


def test_a_run_that_goes_on_is_the_run_without_a_stopper(stopped, config, tmp_path):
    go_on(stopped, f"~{STOPPER}")
    train(config(*SMALL), tmp_path / "whole")
    assert differences(stopped, Run(tmp_path / "whole")) == []


def test_a_run_that_was_killed_between_its_stop_and_its_test_only_tests(
    config, tmp_path, monkeypatch, stopped
):
    def die(ending: Ending, trainer, model) -> None:
        raise SystemExit(9)

    run, cfg = Run(tmp_path / "killed"), config(*SMALL, *EARLY)
    monkeypatch.setattr(Ending, "on_train_end", die)
    with pytest.raises(SystemExit):
        train(cfg, run.path)
    monkeypatch.undo()
    resume(run.path)
    assert differences(run, stopped) == []
    assert run.results()["ended"] == stopped.results()["ended"]


@pytest.mark.slow
def test_a_signal_is_how_a_run_ended_and_the_terminal_and_the_log_say_so(cli, tmp_path):
    endless = [*SMALL, "trainer.max_epochs=20000", "hydra.run.dir=run"]
    cli("src.train", *endless, interrupt=signal.SIGTERM, data=False)
    assert Run(tmp_path / "run").results()["ended"] == "signal SIGTERM"


@pytest.mark.slow
def test_the_terminal_and_the_log_say_that_early_stopping_ended_a_run_and_how_to_go_on(
    cli, tmp_path
):
    status, output = cli("src.train", *SMALL, *EARLY, "hydra.run.dir=run", data=False)
    assert status == 0, output
    (line,) = (line for line in output.splitlines() if line.startswith("ended by "))
    assert line == f"ended by {Run(tmp_path / 'run').results()['ended']}"
    assert line in Path(tmp_path, "run/train.log").read_text()
    (advice,) = (line for line in output.splitlines() if "to train on without it" in line)
    command = advice.partition(": ")[2]
    _, _, module, *arguments = command.replace("'", "").split()
    status, output = cli(module, *arguments, data=False)
    assert status == 0, output
    assert "ended by all epochs" in output
