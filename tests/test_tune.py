"""The search: what is drawn, what decides, and that no trial is lost, repeated or in the way of the others."""

import contextlib
import csv
import gc
import json
import os
import shlex
import signal
import sqlite3
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from sqlalchemy.exc import OperationalError

from src.errors import UserError
from src.runs import Run
from src.terminal import quoted
from src.tune import Prune, distributions, next_trial, tune
from tests.conftest import compose_config

# a trial takes a tenth of a second
SMALL = [
    *("data=synthetic", "model=linear_scratch", "data.train_size=200", "data.val_size=50"),
    *("trainer.max_epochs=5", "~logger"),
]


def search(folder: Path, *overrides: str) -> list[FrozenTrial]:
    cfg = compose_config("tune", f"folder={quoted(folder)}", *SMALL, *overrides)
    return tune(cfg, [*SMALL, *overrides])


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


def test_a_range_draws_what_hydras_sweeps_would():
    def values(text: str) -> list[float]:
        (found,) = distributions({"key": text}).values()
        count = round((found.high - found.low) / found.step) + 1
        kind = int if isinstance(found, IntDistribution) else float
        assert all(type(each) is kind for each in (found.low, found.high, found.step))
        return [found.low + k * found.step for k in range(count)]

    assert values("range(0.5, 3.5, 1)") == [0.5, 1.5, 2.5]
    assert values("range(0.1, 0.5, 0.1)") == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert values("range(0.7, 1.0, 0.1)") == pytest.approx([0.7, 0.8, 0.9])  # 3 * 0.1 is more than 0.3
    assert values("range(1.0, 3.0, 0.5)") == [1, 1.5, 2, 2.5]
    assert values("range(0, 1, 0.3)") == pytest.approx([0, 0.3, 0.6, 0.9])
    assert values("range(1, 8, 3)") == [1, 4, 7]
    assert values("range(1, 7, 3)") == [1, 4]
    assert values("range(9, 1, -4)") == [5, 9]
    assert values("range(3)") == [0, 1, 2]


def test_a_choice_is_its_texts():
    assert distributions({"key": "choice(1, 'a, b')"})["key"] == CategoricalDistribution([1, "a, b"])


EMPTY = ["range(1, 1)", "range(5, 1)", "range(0.1, 0.5, 0)", "range(1, 5, 0)", "range(0, inf)", "range(nan, 1)"]
EMPTY += ["interval(0, inf)", "tag(log, range(1, 5))", "choice([1, 2], [3])"]


@pytest.mark.parametrize(
    "text", ["0.5", "interval(1, 0)", "tag(log, interval(-1, 1))", "interval(", "abc", "", *EMPTY]
)
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
    trials = search(tmp_path / "a", "n_trials=6", "pruner=null")
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
    assert min(trials, key=lambda trial: trial.value).number == int(best["trial"])
    command = shlex.split((tmp_path / "a/best.txt").read_text())
    assert command[:3] == ["python", "-m", "src.train"]
    assert command[3:-3] == SMALL
    assert command[-3:] == [f"{key}={best[key]}" for key in ("model.lr", "model.gamma", "model.weight_decay")]
    assert (tmp_path / "a/history.png").stat().st_size > 5000
    assert (tmp_path / "a/importance.png").stat().st_size > 5000
    recorded = OmegaConf.load(tmp_path / "a/tune.yaml")
    assert recorded.experiment["space.model.gamma"] == "interval(0.85, 1.0)"
    assert recorded.experiment["trainer.max_epochs"] == 5


@pytest.mark.slow
def test_the_same_seed_searches_the_same_points_and_another_seed_others(tmp_path):
    points = [
        [trial.params for trial in search(tmp_path / name, "n_trials=12", f"seed={seed}")]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert points[0] == points[1]
    assert points[0] != points[2]


@pytest.mark.slow
def test_a_study_goes_on_without_repeating_a_point(tmp_path):
    search(tmp_path / "a", "n_trials=3")
    before = {path: path.read_bytes() for path in (tmp_path / "a").glob("[012]/**/*") if path.is_file()}
    trials = search(tmp_path / "a", "n_trials=8")
    assert len(trials) == 8
    assert len({json.dumps(trial.params) for trial in trials}) == 8
    assert {path: path.read_bytes() for path in before} == before
    assert len(search(tmp_path / "a", "n_trials=8")) == 8
    # the same as if it had been asked for at once
    at_once = search(tmp_path / "b", "n_trials=8")
    assert [trial.params for trial in at_once] == [trial.params for trial in trials]


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
    search(tmp_path / "a", "n_trials=6", *space)
    rows = table(tmp_path / "a")
    assert {row["status"] for row in rows} == {"finished", "failed"}
    for row in rows:
        assert (row["status"] == "failed") == (row["data.batch_size"] == "0")
        if row["status"] == "failed":
            assert "data.batch_size" in Run(row["folder"]).record()["reason"]
            assert "Traceback" in (Path(row["folder"]) / "train.log").read_text()
    assert (tmp_path / "a/best.txt").read_text().endswith(" data.batch_size=10\n")


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["n_trials=0"], r"^n_trials must be an integer >= 1, got 0; try n_trials=50$"),
        (["n_trials=abc"], r"^n_trials must be an integer >= 1, got abc; try n_trials=50$"),
        (["n_trials=true"], r"^n_trials must be an integer >= 1, got True"),
        (["seed=[1]"], r"^seed must be an integer >= 0, got \[1\]; try seed=0$"),
        (["folder=null"], r"^folder must be a path, got None"),
        (["storage=foo"], r"^storage=foo is no address of a database; try sqlite:///FILE or postgresql://"),
        (["storage=1"], r"^storage=1 is no address of a database"),
        (["storage='//u:secret@y'"], r"^storage=y is no address of a database"),
        (["~space.model", "space=5"], r"^space is empty"),
        (["pruner=foo"], r"^pruner must be one of optuna\.pruners, got foo; try pruner=null$"),
        (["trainer=ddp"], r"^a search trains on one device: leave out trainer=ddp and trainer\.devices"),
        (["trainer.devices=2"], r"^a search trains on one device"),
        (["data.val_size=0"], r"^data\.val_size=0: tuning needs a validation split"),
        (["+space.model.lrr='interval(1, 2)'"], r"^space\.model\.lrr: there is no key model\.lrr"),
        (["+space.optim.lr='interval(1, 2)'"], r"^space\.optim\.lr: there is no key optim\.lr"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path, overrides, complaint):
    with pytest.raises(UserError, match=complaint):
        search(tmp_path / "a", *overrides)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("space.model.lr='interval(0.1, 0.2)'", r"space\.model\.lr=interval\(0\.1, 0\.2\) \(there tag"),
        ("model=linear_concise", r"model\._target_=\S+\.concise\.\S+ \(there \S+\.scratch\.\S+\)"),
        ("seed=1", r"seed=1 \(there 0\)"),
        ("trainer.max_epochs=6", r"trainer\.max_epochs=6 \(there 5\)"),
        ("data.train_size=100", r"data\.train_size=100 \(there 200\)"),
        ("pruner.n_startup_trials=9", r"pruner\.n_startup_trials=9 \(there 5\)"),
    ],
)
def test_a_folder_is_of_one_experiment(tmp_path, override, said):
    search(tmp_path / "a", "n_trials=1")
    with pytest.raises(UserError, match=rf"the study in .*/a is another experiment than .*{said}.*; choose an"):
        search(tmp_path / "a", "n_trials=2", override)
    assert len(search(tmp_path / "a", "n_trials=1", "trainer.threads=2")) == 1  # the same one


def test_two_folders_in_one_database_share_nothing(tmp_path):
    storage = f"storage=sqlite:///{tmp_path}/studies.db"
    one = search(tmp_path / "x/study", "n_trials=2", storage)
    other = search(tmp_path / "y/study", "n_trials=3", storage, "model=linear_concise")
    assert [len(one), len(other)] == [2, 3]
    assert [row["folder"] for row in table(tmp_path / "y/study")] == [
        f"{tmp_path}/y/study/{n}" for n in range(3)
    ]
    assert len(search(tmp_path / "x/study", "n_trials=2", storage)) == 2
    with pytest.raises(UserError, match="another experiment than storage="):
        search(tmp_path / "x/study", "n_trials=2")


def test_the_sampler_takes_any_number_of_trials_and_any_seed(tmp_path, monkeypatch):
    search(tmp_path / "a", "n_trials=1", "seed=4294967295")  # the largest one that torch and numpy take
    study = optuna.create_study()
    study.add_trials([optuna.create_trial(value=1.0) for _ in range(4300)])
    cfg = compose_config("tune", "n_trials=5000")
    number, parameters, _ = next_trial(study, cfg, {"model.lr": FloatDistribution(0.1, 1)}, tmp_path)
    assert number == 4300
    assert 0.1 <= parameters["model.lr"] <= 1


def test_a_study_closes_its_database(tmp_path):
    def opened() -> list[str]:
        return [path for path in map(os.path.realpath, Path("/proc/self/fd").iterdir()) if "study.db" in path]

    gc.disable()  # it would close what was forgotten
    try:
        kept = search(tmp_path / "a", "n_trials=1")
        assert opened() == []
        with pytest.raises(UserError):
            search(tmp_path / "a", "n_trials=1", "seed=1")
        assert opened() == []
    finally:
        gc.enable()
    assert len(kept) == 1


@pytest.mark.parametrize("name", ["it's", "a=b, c d", "50% {x}?y#z", "back\\"])
def test_a_folder_may_have_any_name(tmp_path, name):
    assert len(search(tmp_path / name, "n_trials=1")) == 1
    assert {"study.db", "trials.csv", "best.txt", "0"} <= {path.name for path in (tmp_path / name).iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_database_that_cannot_be_used_is_one_line_without_its_password(tmp_path):
    with pytest.raises(UserError, match=r"^the database sqlite:////nowhere/x\.db fails: unable to open"):
        search(tmp_path / "a", "n_trials=1", "storage=sqlite:////nowhere/x.db")
    (tmp_path / "garbage.db").write_text("nothing that SQLite knows" * 100)
    with pytest.raises(UserError, match=r"garbage\.db fails: file is not a database; when it can be"):
        search(tmp_path / "a", "n_trials=1", f"storage=sqlite:///{tmp_path}/garbage.db")
    with pytest.raises(UserError) as caught:
        search(
            tmp_path / "a", "n_trials=1", "storage='mssql+pyodbc://nobody:secret@127.0.0.1:1/x?password=secret'"
        )
    assert str(caught.value) == (
        "mssql+pyodbc://nobody:***@127.0.0.1:1/x needs the driver pyodbc; try pip install pyodbc"
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "held.db")) as held:
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"held\.db fails: database is locked; when"):
            search(tmp_path / "a", "n_trials=1", f"storage='sqlite:///{tmp_path}/held.db?timeout=0'")
    assert not (tmp_path / "a/tune.yaml").exists()  # the folder is not yet anybody's


def test_a_database_that_stops_midway_loses_no_trial(tmp_path, monkeypatch):
    def stopped(callback, trainer, model):
        if trainer.current_epoch == 2 and callback.trial.number == 1:
            raise OperationalError("UPDATE trials", {}, Exception("server closed the connection\nunexpectedly"))
        original(callback, trainer, model)

    original = Prune.on_train_epoch_end
    storage = f"storage='sqlite:///{tmp_path}/studies.db?timeout=77'"
    with monkeypatch.context() as patch:
        patch.setattr(Prune, "on_train_epoch_end", stopped)
        with pytest.raises(UserError, match=r"^the database sqlite:.* fails: server closed the connection;"):
            search(tmp_path / "a", "n_trials=3", "pruner=null", storage)
    trials = search(tmp_path / "a", "n_trials=3", "pruner=null", storage)
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert Run(tmp_path / "a/1").record()["resumed"]
    # options of an address may be secret
    written = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert not [path for path in written if b"timeout=77" in path.read_bytes()]


def test_a_bug_of_ours_is_told_from_a_users_mistake(tmp_path, monkeypatch, capsys):
    def broken(callback, trainer, model):
        raise KeyError("weights")

    monkeypatch.setattr(Prune, "on_train_epoch_end", broken)
    with pytest.raises(UserError, match=r"no trial of .* finished"):
        search(tmp_path / "a", "n_trials=1")
    assert "failed: KeyError: 'weights'; see " in capsys.readouterr().out
    log = (tmp_path / "a/0/train.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "in broken" in log


def test_the_command_refuses_several_devices_in_one_line(cli, tmp_path):
    status, output = cli("src.tune", "n_trials=2", "folder=study", *SMALL, "trainer=ddp", data=False)
    assert status == 1
    assert output.startswith("error: a search trains on one device: ")
    assert output.count("\n") == 1
    assert not (tmp_path / "study/0").exists()


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
    command = shlex.split(lines[6])
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


@pytest.mark.slow
def test_no_trial_keeps_the_address_of_the_database(cli, tmp_path):
    # which may hold a password
    arguments = ["n_trials=1", "folder=study", "storage=sqlite:///secret.db", *SMALL]
    status, output = cli("src.tune", *arguments, data=False)
    assert status == 0, output
    kept = [path for path in (tmp_path / "study/0").rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert not [path for path in kept if b"secret" in path.read_bytes()]
