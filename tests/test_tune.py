"""The search: what is drawn, what decides, and that no trial is lost, repeated or in the way of the
others."""

import contextlib
import csv
import functools
import gc
import io
import json
import os
import shlex
import shutil
import signal
import sqlite3
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import OperationalError

from src import signals
from src.cli.console import relative
from src.errors import UserError
from src.runs import Run
from src.signals import Stopped
from src.tune.pruning import Prune
from src.tune.search import Search, distributions, next_trial, tune
from tests.conftest import compose_config

# a trial takes a tenth of a second
SMALL = [
    *("data=synthetic", "model=linear_scratch", "data.train_size=200", "data.val_size=50"),
    *("trainer.max_epochs=5", "~logger"),
]
composed = functools.cache(compose_config)


def search(folder: Path, n_trials: int, /, **settings: Any) -> list[FrozenTrial]:
    cfg = composed("tune", *SMALL).copy()
    for key, value in {"folder": str(folder), "n_trials": n_trials, **settings}.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return tune(cfg, SMALL)


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def untrained_run(cfg: DictConfig, *rest: object) -> SimpleNamespace:
    return SimpleNamespace(metrics={"val/loss": (cfg.model.lr - 0.3) ** 2})


@pytest.fixture
def untrained(monkeypatch) -> None:
    """Trials whose value is a function of their parameters, without a run."""
    monkeypatch.setattr("src.tune.search.train", untrained_run)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    """A study of six trials, each a run, and what it printed."""
    folder = tmp_path_factory.mktemp("tune") / "study"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        search(folder, 6, pruner=None)
    return folder, printed.getvalue()


@pytest.fixture
def study(made: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that study."""
    return shutil.copytree(made[0], tmp_path / "study")


def test_a_space_reads_like_hydras_sweeps():
    assert distributions(
        {
            "model": {"lr": "tag(log, interval(0.01, 1))", "gamma": "interval(0.8, 1.0)"},
            "data": {"batch_size": "choice(32, 64)"},
            "seed": "int(interval(1, 9))",
        }
    ) == {
        "model.lr": FloatDistribution(0.01, 1, log=True),
        "model.gamma": FloatDistribution(0.8, 1.0),
        "data.batch_size": CategoricalDistribution([32, 64]),
        "seed": IntDistribution(1, 9),
    }


def test_a_choice_is_its_texts():
    assert distributions({"key": "choice(1, 'a, b')"})["key"] == CategoricalDistribution(
        [1, "a, b"]
    )


NO_SPACE = [
    "0.5",
    "interval(1, 0)",
    "tag(log, interval(-1, 1))",
    "interval(0, inf)",
    "interval(",
    "abc",
    "",
]
NO_SPACE += ["range(1, 5)", "tag(x, interval(0, 1))", "choice([1, 2], [3])", "glob(*)"]


@pytest.mark.parametrize("text", NO_SPACE)
def test_what_is_no_space_is_refused(text):
    with pytest.raises(
        UserError, match=r"^space\.model\.lr=.* is no search space .*; try interval\(0\.01, 1\)$"
    ):
        distributions({"model": {"lr": text}})


def test_an_empty_space_is_refused():
    with pytest.raises(UserError, match="space is empty"):
        distributions({})


@pytest.mark.slow
def test_every_trial_is_a_run_and_the_best_one_a_command(made):
    folder, _ = made
    trials = rows(folder)
    assert [row["trial"] for row in trials] == list("012345")
    for row in trials:
        run = Run(row["folder"])
        assert run.results()["status"] == "finished"
        assert float(row["val/loss"]) == run.results()["val/loss"]
        assert run.settings()["model"]["lr"] == float(row["model.lr"])
        assert "trial failed" not in (run.path / "train.log").read_text()
        assert set(run.settings()) == set(composed("train"))
    best = min(trials, key=lambda row: float(row["val/loss"]))
    command = shlex.split((folder / "best.txt").read_text())
    assert command[:3] == [relative(Path(sys.executable)), "-m", "src.train"]
    assert command[3:-3] == SMALL
    assert command[-3:] == [
        f"{key}={best[key]}" for key in ("model.lr", "model.gamma", "model.weight_decay")
    ]
    again = OmegaConf.to_container(compose_config("train", *command[3:]), resolve=True)
    assert again["model"] == Run(best["folder"]).settings()["model"]
    recorded = OmegaConf.load(folder / "tune.yaml")
    assert recorded["space.model.gamma"] == "interval(0.85, 1.0)"
    assert recorded["trainer.max_epochs"] == 5


@pytest.mark.slow
def test_a_line_per_trial_and_the_best_command_are_printed(made):
    folder, printed = made
    lines = printed.splitlines()
    assert [line.split("  ")[:2] for line in lines[:6]] == [
        [f"{n + 1}/6", f"trial {n}"] for n in range(6)
    ]
    best = min(rows(folder), key=lambda row: float(row["val/loss"]))
    assert lines[5].endswith(f"  best {float(best['val/loss']):.4f} (trial {best['trial']})")
    assert lines[6:8] == ["", "6 trials: 6 finished"]
    assert lines[8] == f"best: trial {best['trial']}, val/loss {float(best['val/loss']):.4f}"
    assert lines[9] == f"  {(folder / 'best.txt').read_text().rstrip()}"
    assert lines[10:] == [f"written to {folder}/: best.txt trials.csv"]


@pytest.mark.slow
def test_the_same_seed_searches_the_same_points_however_often_it_starts(tmp_path, untrained):
    for n_trials in (3, 8, 12, 12):
        trials = search(tmp_path / "a", n_trials)
        assert len({json.dumps(trial.params) for trial in trials}) == len(trials) == n_trials
    points = [trial.params for trial in trials]
    assert points == [trial.params for trial in search(tmp_path / "b", 12)]
    assert points[0] != search(tmp_path / "c", 1, seed=1)[0].params


@pytest.mark.slow
def test_a_study_goes_on_and_leaves_what_it_has(study, untrained):
    before = {path: path.read_bytes() for path in study.glob("[0-5]/**/*") if path.is_file()}
    assert len(before) > 30
    assert len(search(study, 7, pruner=None)) == 7
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_poor_trials_are_pruned(tmp_path):
    search(tmp_path, 6, **{"pruner.n_startup_trials": 2, "pruner.n_warmup_steps": 2})
    assert {row["status"] for row in rows(tmp_path)} == {"finished", "pruned"}
    for row in rows(tmp_path):
        run = Run(row["folder"])
        assert run.results()["status"] == row["status"]
        epochs = len(run.epochs())
        assert epochs == 5 if row["status"] == "finished" else 2 <= epochs < 5


@pytest.mark.slow
def test_a_trial_that_diverges_is_a_line_and_the_others_go_on(tmp_path, capsys):
    search(tmp_path, 4, space={"model": {"lr": "choice(0.03, 3)"}}, pruner=None)
    printed = capsys.readouterr().out
    trials = rows(tmp_path)
    assert {row["status"] for row in trials} == {"finished", "failed"}
    for row in trials:
        assert (row["status"] == "failed") == (row["model.lr"] == "3")
        if row["status"] == "failed":  # an error of 1 - 3 is twice as large after each step
            record, log = (
                Run(row["folder"]).results(),
                (Path(row["folder"]) / "train.log").read_text(),
            )
            assert record["status"] == "diverged"
            assert record["reason"] in log
            assert "Traceback" not in log
            assert f"failed: {record['reason']}; see " in printed
    assert (tmp_path / "best.txt").read_text().endswith(" model.lr=0.03\n")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("n_trials", 0, r"^n_trials: input should be greater than or equal to 1, got 0$"),
        ("n_trials", "abc", r"^n_trials: input should be a valid integer, got 'abc'$"),
        ("n_trials", True, r"^n_trials: input should be a valid integer, got True$"),
        ("seed", [1], r"^seed: input should be a valid integer, got \[1\]$"),
        ("seed", 2**32, r"^seed: input should be less than 4294967296, got 4294967296$"),
        ("folder", None, r"^folder: input should be a valid string, got None$"),
        ("folder", "", r"^folder: string should have at least 1 character, got ''$"),
        (
            "storage",
            "foo",
            r"^storage=foo is no address of a database; try sqlite:///FILE or postgresql://",
        ),
        ("storage", 1, r"^storage=1 is no address of a database"),
        ("storage", "//u:secret@y", r"^storage=y is no address of a database"),
        ("storage", "nosql://u:secret@y/z", r"^storage=y/z is no address of a database"),
        ("space", {}, r"^space is empty"),
        ("space", 5, r"^space: input should be a valid dictionary, got 5$"),
        ("pruner", "foo", r"^pruner: input should be a valid dictionary, got 'foo'$"),
        (
            "pruner.n_warmup_steps",
            -1,
            r"^pruner\.n_warmup_steps: input should be greater than or equal to 0, got -1$",
        ),
        (
            "pruner._target_",
            "builtins.object",
            r"^pruner\._target_\S*: input should be 'n_startup_trials' or 'n_w",
        ),
        (
            "trainer.strategy",
            "ddp",
            r"^a search trains on one device: leave out trainer=ddp and trainer\.dev",
        ),
        ("trainer.devices", 2, r"^a search trains on one device"),
        ("data.val_size", 0, r"^data\.val_size=0: tuning needs a validation split"),
        ("trainer.limit_val_batches", 0, r"^trainer\.limit_val_batches=0: tuning selects by val"),
        (
            "trainer.check_val_every_n_epoch",
            99,
            r"=99: tuning selects by val/loss, and no epoch wou",
        ),
        ("space.model.lrr", "interval(1, 2)", r"^space\.model\.lrr: there is no key model\.lrr"),
        ("space.optim.lr", "interval(1, 2)", r"^space\.optim\.lr: there is no key optim\.lr"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path, key, value, complaint):
    with pytest.raises(UserError, match=complaint):
        search(tmp_path, 1, **{key: value})
    assert not (tmp_path / "0").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        (
            "space.model.lr",
            "interval(0.1, 0.2)",
            r"space\.model\.lr=interval\(0\.1, 0\.2\) \(there tag",
        ),
        (
            "model._target_",
            "src.models.concise.LinearRegression",
            r"model\._target_=\S+ \(there \S+\.scratch\.\S+\)",
        ),
        ("seed", 1, r"seed=1 \(there 0\)"),
        ("trainer.max_epochs", 6, r"trainer\.max_epochs=6 \(there 5\)"),
        ("data.train_size", 100, r"data\.train_size=100 \(there 200\)"),
        ("callbacks.figures.draw", True, r"callbacks\.figures\.draw=True \(there False\)"),
        ("pruner", {"n_warmup_steps": 4}, r"pruner\.n_warmup_steps=4 \(t"),
        ("storage", "sqlite:///other.db", r"storage=sqlite:///other\.db \(there None\)"),
    ],
)
def test_a_folder_is_of_one_experiment(study, monkeypatch, key, value, difference):
    monkeypatch.chdir(study)
    with pytest.raises(
        UserError, match=rf"the study in .* is another experiment than .*{difference}.*; choose"
    ):
        search(study, 7, **{"pruner": None, key: value})
    assert len(search(study, 6, pruner=None, **{"trainer.threads": 2})) == 6  # the same one


def test_a_folder_whose_record_is_damaged_is_refused(tmp_path):
    for text in ("study: [", "experiment: {}", "study:", "5", "[study]"):
        (tmp_path / "tune.yaml").write_text(text)
        with pytest.raises(UserError, match=r"tune\.yaml is damaged: "):
            search(tmp_path, 1)


@pytest.mark.slow
def test_two_folders_in_one_database_share_nothing(tmp_path, untrained):
    storage = f"sqlite:///{tmp_path}/studies.db"
    one = search(tmp_path / "x/study", 2, storage=storage)
    other = search(tmp_path / "y/study", 3, storage=storage, **{"trainer.max_epochs": 6})
    assert [len(one), len(other)] == [2, 3]
    assert [row["folder"] for row in rows(tmp_path / "y/study")] == [
        f"{tmp_path}/y/study/{n}" for n in range(3)
    ]
    assert len(search(tmp_path / "x/study", 2, storage=storage)) == 2


def test_a_folder_that_is_not_that_of_the_study_is_refused(tmp_path, monkeypatch, untrained):
    storage = f"sqlite:///{tmp_path}/studies.db"
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    search(Path("study"), 1, storage=storage)
    monkeypatch.chdir(tmp_path / "there")  # as another machine that does not share the folder
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"a study of folder=study already, .* must share its folder"
        ):
            search(Path("study"), 2, storage=storage)
    shutil.copytree(tmp_path / "here/study", tmp_path / "there/shared")
    assert len(search(Path("shared"), 2, storage=storage)) == 2


def test_the_sampler_takes_any_number_of_trials_and_any_seed(tmp_path):
    study = optuna.create_study()
    study.add_trials([optuna.create_trial(state=TrialState.FAIL) for _ in range(4300)])
    largest = Search(
        folder=str(tmp_path), n_trials=5000, space={}, storage=None, pruner=None, seed=2**32 - 1
    )
    trial = next_trial(study, largest, tmp_path, {"model.lr": FloatDistribution(0.1, 1)})
    assert trial.number == 4300
    assert 0.1 <= trial.params["model.lr"] <= 1


def test_a_study_closes_its_database(tmp_path, untrained):
    def opened() -> list[str]:
        return [
            path
            for path in map(os.path.realpath, Path("/proc/self/fd").iterdir())
            if "study.db" in path
        ]

    gc.disable()  # it would close what was forgotten
    try:
        kept = search(tmp_path, 1)
        assert opened() == []
        with pytest.raises(UserError):
            search(tmp_path, 1, seed=1)
        assert opened() == []
    finally:
        gc.enable()
    assert len(kept) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["it's", "a=b, c d", "50% {x}?y#z", "back\\"])
def test_a_folder_may_have_any_name(tmp_path, untrained, name):
    assert len(search(tmp_path / name, 1)) == 1
    assert {"study.db", "trials.csv", "best.txt"} <= {
        path.name for path in (tmp_path / name).iterdir()
    }
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_database_that_cannot_be_used_is_one_line_without_its_password(tmp_path):
    with pytest.raises(
        UserError, match=r"^the database sqlite:////nowhere/x\.db fails: unable to open"
    ):
        search(tmp_path / "a", 1, storage="sqlite:////nowhere/x.db")
    (tmp_path / "garbage.db").write_text("nothing that SQLite knows" * 100)
    with pytest.raises(
        UserError, match=r"garbage\.db fails: file is not a database; when it can be"
    ):
        search(tmp_path / "a", 1, storage=f"sqlite:///{tmp_path}/garbage.db")
    with pytest.raises(UserError) as caught:
        search(
            tmp_path / "a", 1, storage="mssql+pyodbc://nobody:secret@127.0.0.1:1/x?password=secret"
        )
    assert str(caught.value) == (
        "mssql+pyodbc://nobody:***@127.0.0.1:1/x needs the driver pyodbc; try pip install pyodbc"
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "held.db")) as held:
        held.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError, match=r"held\.db fails: database is locked; when"):
            search(tmp_path / "a", 1, storage=f"sqlite:///{tmp_path}/held.db?timeout=0")
    assert not (tmp_path / "a/tune.yaml").exists()  # the folder is not yet anybody's


def closed() -> Exception:
    return OperationalError(
        "UPDATE trials", {}, Exception("server closed the connection\nunexpectedly")
    )


def signalled() -> Exception:
    with contextlib.suppress(Stopped):
        signals.stop(signal.SIGTERM)
    return RuntimeError("what a library makes of it")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (closed, UserError, r"^the database sqlite:.* fails: server closed the connection;"),
        (signalled, RuntimeError, "what a library makes of it"),
    ],
)
def test_a_database_or_a_signal_that_stops_a_search_loses_no_trial(
    tmp_path, monkeypatch, failure, kind, message
):
    def stopped(callback, trainer, model):
        if trainer.current_epoch == 2:
            raise failure()
        original(callback, trainer, model)

    original = Prune.on_train_epoch_end
    monkeypatch.setattr(signals, "_received", 0)
    # an option of an address may be secret, and so may the variable that the address comes from
    monkeypatch.setenv("DATABASE", f"sqlite:///{tmp_path}/studies.db?timeout=77")
    both = {"pruner": None, "storage": "${oc.env:DATABASE}"}
    with monkeypatch.context() as patch:
        patch.setattr(Prune, "on_train_epoch_end", stopped)
        with pytest.raises(kind, match=message):
            search(tmp_path / "a", 1, **both)
    assert [trial.state.name for trial in search(tmp_path / "a", 1, **both)] == ["COMPLETE"]
    assert Run(tmp_path / "a/0").results()["resumed"]
    written = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert not [path for path in written if b"timeout=77" in path.read_bytes()]


def test_a_bug_of_ours_is_told_from_a_users_mistake(tmp_path, monkeypatch, capsys):
    def broken(callback, trainer, model):
        raise KeyError("weights")

    monkeypatch.setattr(Prune, "on_train_epoch_end", broken)
    with pytest.raises(UserError, match=r"no trial of .* finished"):
        search(tmp_path, 1)
    assert "failed: KeyError: 'weights'; see " in capsys.readouterr().out
    log = (tmp_path / "0/train.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "in broken" in log


def test_no_process_looks_for_left_trials_while_another_ends_its_own(
    tmp_path, monkeypatch, untrained
):
    def guarded(study, number, *rest, **options):
        for held in (tmp_path / ".lock", tmp_path / str(number) / ".hydra/lock"):
            with pytest.raises(Timeout):
                FileLock(held).acquire(timeout=0)  # as another process would
        told.append(number)
        return original(study, number, *rest, **options)

    told, original = [], optuna.Study.tell
    monkeypatch.setattr(optuna.Study, "tell", guarded)
    search(tmp_path, 3)
    assert told == [0, 1, 2]


@pytest.mark.slow
def test_two_processes_share_the_trials_none_lost_none_repeated(start, tmp_path):
    arguments = ["src.tune", "n_trials=12", "folder=study", *SMALL]
    workers = [start(*arguments, data=False) for _ in range(2)]
    outputs = [(worker.wait(), worker.output()) for worker in workers]
    assert [status for status, _ in outputs] == [0, 0], outputs
    trials = rows(tmp_path / "study")
    assert [int(row["trial"]) for row in trials] == list(range(12))
    assert {row["status"] for row in trials} <= {"finished", "pruned"}
    assert len({row["model.lr"] for row in trials}) == 12
    counts = [output.count("  trial ") for _, output in outputs]
    assert sum(counts) == 12
    assert min(counts) >= 2  # both had a share


@pytest.mark.slow
def test_the_trial_of_a_killed_process_is_finished_by_the_next(start, cli, tmp_path):
    long = ["data.train_size=5000", "trainer.max_epochs=3", "pruner=null"]
    # the address, which may hold a password, is in no run
    arguments = [
        "src.tune",
        "n_trials=2",
        "folder=study",
        *SMALL,
        *long,
        "storage=sqlite:///secret.db",
    ]
    worker = start(*arguments, data=False)
    worker.until((tmp_path / "study/0/checkpoints/last.ckpt").exists)
    worker.kill(signal.SIGKILL)
    worker.wait()
    status, output = cli(*arguments, data=False)
    assert status == 0, output
    trials = rows(tmp_path / "study")
    assert [(row["trial"], row["status"]) for row in trials] == [
        (str(n), "finished") for n in range(2)
    ]
    assert Run(tmp_path / "study/0").results()["resumed"]
    assert {path.name for path in (tmp_path / "study").glob("*.log")} <= {"tune.log"}
    written = [path for path in (tmp_path / "study").glob("[01]/**/*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if b"secret" in path.read_bytes()]
    # the same search, left alone
    search(tmp_path / "alone", 2, pruner=None, **{"data.train_size": 5000, "trainer.max_epochs": 3})
    for row, other in zip(trials, rows(tmp_path / "alone"), strict=True):
        assert (row["model.lr"], row["val/loss"]) == (other["model.lr"], other["val/loss"])


@pytest.mark.slow
def test_a_search_of_which_no_trial_finishes_fails(cli):
    status, output = cli(
        "src.tune",
        "n_trials=1",
        "folder=study",
        *SMALL,
        "space.model.lr='interval(3, 4)'",
        "pruner=null",
        data=False,
    )
    assert status == 1
    assert output.splitlines()[-1].startswith(
        "error: no trial of study finished; study/trials.csv and the logs"
    )
