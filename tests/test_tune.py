"""The search: what is drawn, what decides, and that no trial is lost, repeated or in the way of the others."""

import csv
import json
import signal
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from src.errors import UserError
from src.runs import Run
from src.tune import distributions, tune
from tests.conftest import compose_config

# a trial takes a tenth of a second
SMALL = [
    *("data=synthetic", "model=linear_scratch", "data.train_size=200", "data.val_size=50"),
    *("trainer.max_epochs=5", "~logger"),
]


def search(folder: Path, *overrides: str) -> optuna.Study:
    return tune(compose_config("tune", f"folder={folder}", *SMALL, *overrides), [*SMALL, *overrides])


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_space_reads_like_hydras_sweeps():
    assert distributions(
        {
            "model": {"lr": "tag(log, interval(0.01, 1))", "gamma": "interval(0.8, 1.0)"},
            "data": {"batch_size": "choice(32, 64)", "train_size": "range(100, 500, 100)"},
            "seed": "int(interval(1, 9))",
        }
    ) == {
        "model.lr": FloatDistribution(0.01, 1, log=True),
        "model.gamma": FloatDistribution(0.8, 1.0),
        "data.batch_size": CategoricalDistribution([32, 64]),
        "data.train_size": IntDistribution(100, 400, step=100),  # the end of a range is not in it
        "seed": IntDistribution(1, 9),
    }


@pytest.mark.parametrize("text", ["0.5", "interval(1, 0)", "tag(log, interval(-1, 1))", "interval(", "abc", ""])
def test_what_is_no_space_is_refused(text):
    with pytest.raises(
        UserError, match=r"^space\.model\.lr=.* is no search space .*; try interval\(0\.01, 1\)$"
    ):
        distributions({"model": {"lr": text}})


def test_an_empty_space_is_refused():
    with pytest.raises(UserError, match="space is empty"):
        distributions({})


def test_every_trial_is_a_run_and_the_best_one_a_command(tmp_path, caplog):
    caplog.set_level("INFO")
    study = search(tmp_path / "a", "n_trials=6", "pruner=null")
    rows = table(tmp_path / "a")
    assert [row["trial"] for row in rows] == list("012345")
    for row in rows:
        run = Run(row["folder"])
        assert run.record()["status"] == "finished"
        assert float(row["val/loss"]) == run.record()["val/loss"]
        assert run.recorded()["model"]["lr"] == float(row["model.lr"])
        assert "epoch 5/5" in (run.path / "train.log").read_text()
        assert set(run.recorded()) == set(compose_config("train", "~logger"))
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert study.best_trial.number == int(best["trial"])
    command = (tmp_path / "a/best.txt").read_text().split()
    assert command[:3] == ["python", "-m", "src.train"]
    assert command[3:-3] == SMALL
    assert command[-3:] == [f"{key}={best[key]}" for key in ("model.lr", "model.gamma", "model.weight_decay")]
    assert (tmp_path / "a/history.png").stat().st_size > 5000
    assert (tmp_path / "a/importance.png").stat().st_size > 5000
    assert OmegaConf.load(tmp_path / "a/tune.yaml").n_trials == 6


@pytest.mark.slow
def test_the_same_seed_searches_the_same_points_and_another_seed_others(tmp_path):
    points = [
        [trial.params for trial in search(tmp_path / name, "n_trials=12", f"seed={seed}").trials]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert points[0] == points[1]
    assert points[0] != points[2]


@pytest.mark.slow
def test_a_study_goes_on_without_repeating_a_point(tmp_path):
    search(tmp_path / "a", "n_trials=3")
    before = {path: path.read_bytes() for path in (tmp_path / "a").glob("[012]/**/*") if path.is_file()}
    study = search(tmp_path / "a", "n_trials=8")
    assert len(study.trials) == 8
    assert len({json.dumps(trial.params) for trial in study.trials}) == 8
    assert {path: path.read_bytes() for path in before} == before
    assert len(search(tmp_path / "a", "n_trials=8").trials) == 8
    # the same as if it had been asked for at once
    at_once = search(tmp_path / "b", "n_trials=8")
    assert [trial.params for trial in at_once.trials] == [trial.params for trial in study.trials]


@pytest.mark.slow
def test_poor_trials_are_pruned(tmp_path):
    pruner = ["pruner.n_startup_trials=2", "pruner.n_warmup_steps=2"]
    search(tmp_path / "a", "n_trials=10", *pruner)
    states = {row["status"] for row in table(tmp_path / "a")}
    assert states == {"finished", "pruned"}
    for row in table(tmp_path / "a"):
        run = Run(row["folder"])
        assert run.record()["status"] == row["status"]
        epochs = len(run.rows())
        assert epochs == 5 if row["status"] == "finished" else 2 <= epochs < 5


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    space = ["~space.model", "+space.data.batch_size='choice(10, 0)'"]
    study = search(tmp_path / "a", "n_trials=6", *space)
    rows = table(tmp_path / "a")
    assert {row["status"] for row in rows} == {"finished", "failed"}
    for row in rows:
        assert (row["status"] == "failed") == (row["data.batch_size"] == "0")
        if row["status"] == "failed":
            assert "data.batch_size" in Run(row["folder"]).record()["reason"]
            assert "Traceback" in (Path(row["folder"]) / "train.log").read_text()
    assert study.best_params == {"data.batch_size": 10}


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["n_trials=0"], r"^n_trials must be >= 1, got 0; try n_trials=50$"),
        (["data.val_size=0"], r"^data\.val_size=0: tuning needs a validation split"),
        (["+space.model.lrr='interval(1, 2)'"], r"^space\.model\.lrr: there is no key model\.lrr"),
        (["+space.optim.lr='interval(1, 2)'"], r"^space\.optim\.lr: there is no key optim\.lr"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path, overrides, complaint):
    with pytest.raises(UserError, match=complaint):
        search(tmp_path / "a", *overrides)


def test_a_study_cannot_change_its_space(tmp_path):
    search(tmp_path / "a", "n_trials=1")
    with pytest.raises(UserError, match=r"the study in .* searches .*; choose another folder"):
        search(tmp_path / "a", "n_trials=2", "space.model.lr='interval(0.1, 0.2)'")


@pytest.mark.slow
def test_two_processes_share_forty_trials_none_lost_none_repeated(start, tmp_path):
    arguments = ["src.tune", "n_trials=40", "folder=study", *SMALL]
    workers = [start(*arguments, data=False) for _ in range(2)]
    outputs = [(worker.wait(), worker.output()) for worker in workers]
    assert [status for status, _ in outputs] == [0, 0], outputs
    rows = table(tmp_path / "study")
    assert [int(row["trial"]) for row in rows] == list(range(40))
    assert {row["status"] for row in rows} <= {"finished", "pruned"}
    assert len({row["model.lr"] for row in rows}) == 40
    made = [output.count("  trial ") for _, output in outputs]
    assert sum(made) == 40
    assert min(made) >= 5  # both had a share


@pytest.mark.slow
def test_the_trial_of_a_killed_process_is_finished_by_the_next(start, cli, tmp_path):
    long = [*SMALL, "data.train_size=5000", "trainer.max_epochs=4", "pruner=null"]
    arguments = ["src.tune", "n_trials=3", "folder=study", *long]
    worker = start(*arguments, data=False)
    worker.until((tmp_path / "study/1/checkpoints/last.ckpt").exists)
    worker.kill(signal.SIGKILL)
    worker.wait()
    status, output = cli(*arguments, data=False)
    assert status == 0, output
    rows = table(tmp_path / "study")
    assert [(row["trial"], row["status"]) for row in rows] == [(str(n), "finished") for n in range(3)]
    assert Run(tmp_path / "study/1").record()["resumed"]
    # the same search, left alone
    assert cli("src.tune", "n_trials=3", "folder=alone", *long, data=False).status == 0
    for row, other in zip(rows, table(tmp_path / "alone"), strict=True):
        assert (row["model.lr"], row["val/loss"]) == (other["model.lr"], other["val/loss"])


@pytest.mark.slow
def test_the_command_says_a_line_per_trial_and_the_best_command(cli, tmp_path):
    status, output = cli("src.tune", "n_trials=3", "folder=study", *SMALL, data=False)
    assert status == 0, output
    lines = output.splitlines()
    assert [line.split("  ")[:2] for line in lines[:3]] == [[f"{n + 1}/3", f"trial {n}"] for n in range(3)]
    assert lines[4] == "3 trials: 3 finished"
    assert lines[5].startswith("best: trial ")
    command = lines[6].split()
    assert cli(*command[2:], "hydra.run.dir=again", data=False).status == 0
    assert Run(tmp_path / "again").record()["val/loss"] == min(
        float(r["val/loss"]) for r in table(tmp_path / "study")
    )
    assert lines[7] == "written to study/: best.txt history.png trials.csv"


@pytest.mark.slow
def test_a_search_of_which_no_trial_finishes_fails(cli):
    status, output = cli("src.tune", "n_trials=2", "folder=study", *SMALL, "model.loss=l9", data=False)
    assert status == 1
    assert output.splitlines()[-1].startswith(
        "error: no trial of study finished; study/trials.csv and the logs"
    )
