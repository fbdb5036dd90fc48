"""Lightning's loggers: each row once, whatever stops the run or the server."""

import csv
import importlib.util
import sys
import types
from collections.abc import Iterator

import lightning as L
import pytest
from lightning.pytorch.loggers import Logger

from src.errors import UserError
from src.runs import Run
from src.training.experiment import train
from src.training.late import Late
from src.training.loggers.sender import send_missing
from src.training.loggers.state import save_state
from src.training.loggers.wandb_files import history_of
from src.training.resuming import resume
from tests.tools.faults import differences
from tests.tools.mlflow_server import MLflowServer

SMALL = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=50",
    "data.val_size=20",
    "trainer.max_epochs=4",
    "~callbacks.figures",
]
IMAGES = ["data.train_size=500", "data.val_size=200", "trainer.max_epochs=2"]


class Stop(L.Callback):
    """An error in the middle of the second epoch."""

    def on_train_batch_start(self, trainer, model, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("stopped")


def interrupted(cfg, run: Run) -> None:
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, run.path, Stop())


def test_rows_of_the_csv_logger_are_those_of_the_run(config, tmp_path):
    run = Run(tmp_path / "run")
    interrupted(config(*SMALL, "logger=csv"), run)
    resume(run.path)
    with open(run.path / "csv/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    for row, own in zip(rows, run.epochs(), strict=False):
        assert int(row["step"]) == own["epoch"]
        assert float(row["train/loss"]) == own["train/loss"]
        assert float(row["val/loss"]) == own["val/loss"]
    tested = {name: text for name, text in rows[-1].items() if text and name != "step"}
    assert len(rows) == len(run.epochs()) + 1
    assert float(tested["tested/test_loss"]) == run.results()["test/loss"]
    assert not run.events()


def test_several_loggers_and_none_make_the_same_run(config, tmp_path):
    several = train(config(*SMALL, "logger=[tensorboard,csv]"), tmp_path / "several")
    assert (several.path / "csv/metrics.csv").exists()
    one = train(config(*SMALL), tmp_path / "one")
    assert differences(several, one) == ["csv/metrics.csv"]
    none = train(config(*SMALL, "~logger"), tmp_path / "none")
    assert not none.events()
    assert none.metrics_csv.read_text() == several.metrics_csv.read_text()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("+logger.csv.save_dir=/tmp/x", r"logger\.csv\.save_dir=/tmp/x: the run decides it; leave"),
        ("+logger.csv.version=3", r"logger\.csv\.version=3: the run decides it"),
        ("+logger.csv.nosuch=3", r"logger\.csv\.nosuch=3: there is no such setting"),
        (
            "logger.csv._target_=os.system",
            r"logger\.csv\._target_ is 'os\.system', but must be a L",
        ),
        ("+logger.csv.flush_logs_every_n_steps=0", r"flush_logs_every_n_steps: input should be gr"),
        (
            "+logger.b._target_=lightning.pytorch.loggers.CSVLogger",
            "is of the same class as logger",
        ),
        ("+logger.x=3", r"logger\.x must be a group of settings with a _target_, got 3"),
    ],
)
def test_what_a_logger_cannot_have_is_one_line(config, tmp_path, argument, said):
    with pytest.raises(UserError, match=said) as refused:
        train(config(*SMALL, "logger=csv", argument), tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_a_logger_without_a_name_is_one_line(config, tmp_path):
    cfg = config(*SMALL)
    cfg.logger = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "x"}
    with pytest.raises(UserError, match=r"^logger is a group of loggers by name: logger=csv, or"):
        train(cfg, tmp_path / "run")


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed_is_named(config, tmp_path, monkeypatch, name):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: None if wanted == name else found(wanted)
    )
    expected = rf"^logger\.{name} needs {name}: pip install -e '\.\[{name}\]'$"
    with pytest.raises(UserError, match=expected):
        train(config(*SMALL, f"logger={name}"), tmp_path / "run")


@pytest.fixture
def own_module(monkeypatch):
    """A module that is not in this project, with a logger that keeps what it gets."""
    module = types.ModuleType("somebodys")
    got = []

    class Keeps(Logger):
        name, version = "keeps", ""

        def log_metrics(self, metrics, step=None) -> None:
            got.append((step, metrics))

        def log_hyperparams(self, params, *_) -> None:
            got.append((0, params))

    Keeps.__module__ = "somebodys"
    module.Keeps, module.got = Keeps, got
    monkeypatch.setitem(sys.modules, "somebodys", module)
    return module


def test_a_logger_of_ones_own_gets_all_and_is_recorded_as_untested(config, tmp_path, own_module):
    cfg = config(*SMALL, "+logger.x._target_=somebodys.Keeps")
    run = train(cfg, tmp_path / "run")
    assert run.results()["untested"] == ["logger.x"]
    (_, settings), *rows, (step, tested) = own_module.got
    assert settings["model.lr"] == run.settings()["model"]["lr"]
    expected = []
    for row in run.epochs():
        expected.append((row["epoch"], {k: v for k, v in row.items() if k != "epoch"}))
    assert rows == expected
    assert (step, tested["tested/test_loss"]) == (4, run.results()["test/loss"])


def test_a_logger_that_a_folder_names_is_built_only_if_the_command_line_names_it(
    config, tmp_path, own_module
):
    run = Run(tmp_path / "run")
    interrupted(config(*SMALL, "+logger.x._target_=somebodys.Keeps"), run)
    with pytest.raises(UserError, match=r"give logger\.x\._target_ on the command line too$"):
        resume(run.path)
    resume(run.path, run.settings(), ["logger.x._target_=somebodys.Keeps"])
    epochs = [step for step, metrics in own_module.got if "train/loss" in metrics]
    assert epochs == [1, 1, 2, 3, 4]  # nobody knows what an unknown logger has: it gets all again


# --- MLflow -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[MLflowServer]:
    server = MLflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def to_mlflow(server) -> list[str]:
    if server.process is None:
        server.start()
    return ["logger=mlflow", f"logger.mlflow.tracking_uri={server.address}"]


def check_rows(server: MLflowServer, run: Run, mlflow_run) -> None:
    """The server has each row of the run once, and its results."""
    for name in ("train/loss", "val/loss", "lr"):
        expected = [(row["epoch"], row[name]) for row in run.epochs()]
        assert server.history(mlflow_run.info.run_id, name) == expected
    tested = mlflow_run.data.metrics["tested/test_loss"]
    assert tested == run.results()["test/loss"]


def of_run(server: MLflowServer, name: str) -> list:
    return [found for found in server.runs() if found.info.run_name == name]


@pytest.mark.slow
def test_a_run_that_is_interrupted_is_one_run_at_the_server(config, tmp_path, server, to_mlflow):
    run = Run(tmp_path / "interrupted")
    interrupted(config(*IMAGES, *to_mlflow, "data.batch_size=50"), run)
    (found,) = of_run(server, "interrupted")
    assert found.info.status == "FAILED"
    resume(run.path)
    (found,) = of_run(server, "interrupted")
    check_rows(server, run, found)
    assert found.info.status == "FINISHED"
    assert found.data.params["model.lr"] == "0.1"
    pictures = {
        entry.path for entry in server.client().list_artifacts(found.info.run_id, "figures")
    }
    assert pictures == {
        f"figures/{path.name}" for path in run.figures.glob("*.png") if path.stem != "curves"
    }
    assert pictures


class StopAfterTest(Late):
    """An error when the results have been sent."""

    def on_test_end(self, trainer, model) -> None:
        raise RuntimeError("stopped")


@pytest.mark.slow
def test_results_are_sent_once(config, tmp_path, server, to_mlflow):
    run = Run(tmp_path / "tested_twice")
    with pytest.raises(RuntimeError, match="stopped"):
        train(config(*SMALL, *to_mlflow), run.path, StopAfterTest())
    resume(run.path)
    (found,) = of_run(server, "tested_twice")
    check_rows(server, run, found)
    history = server.history(found.info.run_id, "tested/test_loss")
    assert history == [(4, run.results()["test/loss"])]


class AtEpoch(L.Callback):
    """Calls a function at the start of an epoch."""

    def __init__(self, epoch: int, function):
        self.epoch, self.function = epoch, function

    def on_train_epoch_start(self, trainer, model) -> None:
        if trainer.current_epoch + 1 == self.epoch:
            self.function()


@pytest.mark.slow
@pytest.mark.thorough
def test_a_server_that_fails_for_a_while_has_all_in_the_end(
    config, tmp_path, server, to_mlflow, caplog
):
    caplog.set_level("INFO")
    kill, start = AtEpoch(2, server.kill), AtEpoch(4, server.start)
    run = train(config(*SMALL, *to_mlflow), tmp_path / "for_a_while", kill, start)
    (found,) = of_run(server, "for_a_while")
    check_rows(server, run, found)
    warned = [text for text in caplog.messages if text.startswith("logger.mlflow takes nothing (")]
    assert len(warned) == 1
    assert "\n" not in warned[0]
    assert "logger.mlflow answers again and has all" in caplog.messages


@pytest.mark.slow
def test_what_a_server_misses_is_sent_by_resume(config, tmp_path, server, to_mlflow, caplog):
    caplog.set_level("INFO")
    run = train(config(*SMALL, *to_mlflow), tmp_path / "missed", AtEpoch(3, server.kill))
    assert run.results()["status"] == "finished"
    assert "logger.mlflow lacks a part of the run, which resume sends" in caplog.messages
    with pytest.raises(UserError, match=r"^logger\.mlflow does not answer \(.*~logger\.mlflow$"):
        resume(run.path)
    server.start()
    resume(run.path)
    assert f"sent to mlflow what it lacked of run {run.path}" in caplog.messages
    (found,) = of_run(server, "missed")
    check_rows(server, run, found)
    resume(run.path)
    assert "is finished, 4 epochs; nothing is left to do" in caplog.messages[-1]


def test_a_finished_run_without_epochs_is_damaged(config, tmp_path):
    run = train(config(*SMALL, "~logger"), tmp_path / "run")
    run.metrics_csv.write_text("epoch,step\n")
    save_state(run, {"identity": "a1", "job": "", "sent": {"mlflow": 0}, "done": []})
    server = {
        "_target_": "lightning.pytorch.loggers.MLFlowLogger",
        "tracking_uri": "http://127.0.0.1:9",
    }
    with pytest.raises(UserError, match=r"metrics\.csv is damaged: a finished run has epochs$"):
        send_missing(run, {**run.settings(), "logger": {"mlflow": server}})


def test_a_server_that_is_not_there_ends_the_run_before_it_begins(config, tmp_path):
    cfg = config(*SMALL, "logger=mlflow", "logger.mlflow.tracking_uri=http://127.0.0.1:9")
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"^logger\.mlflow does not answer \(") as refused:
        train(cfg, run.path)
    assert "\n" not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)
    assert not run.last.exists()
    assert run.results()["status"] == "failed"


@pytest.mark.slow
@pytest.mark.thorough
def test_jobs_of_a_sweep_have_its_run_for_a_parent(cli, tmp_path, server, to_mlflow):
    small = [*SMALL, *to_mlflow, "logger.mlflow.experiment_name=swept", "trainer.max_epochs=1"]
    jobs = ["-m", "seed=1,2", "hydra.sweep.dir=sweep"]
    status, output = cli("src.train", *small, *jobs, data=False)
    assert status == 0, output
    runs = {found.info.run_name: found for found in server.runs("swept")}
    assert set(runs) == {"sweep", "seed=1", "seed=2"}
    for name in ("seed=1", "seed=2"):
        assert runs[name].data.tags["mlflow.parentRunId"] == runs["sweep"].info.run_id


# --- Weights & Biases -------------------------------------------------------------------------------


@pytest.mark.slow
def test_wandb_has_each_row_once_and_the_pictures(config, tmp_path):
    run, place = Run(tmp_path / "run"), tmp_path / "files"
    offline = ["logger=wandb", "logger.wandb.offline=true", f"logger.wandb.save_dir={place}"]
    interrupted(config(*IMAGES, *offline, "data.batch_size=50"), run)
    with pytest.raises(UserError, match="is not in this folder; to go on with it, give logger"):
        resume(run.path)
    resume(run.path, run.settings(), [f"logger.wandb.save_dir={place}"])
    names = {path.name.rpartition("-")[2] for path in place.glob("wandb/offline-run-*")}
    assert len(names) == 1  # one run, in two files
    assert len(list(place.glob("wandb/offline-run-*"))) == 2
    history = history_of(place / "wandb", names.pop())
    losses = []
    for row in history:
        if "train/loss" in row:
            losses.append((row["trainer/global_step"], row["train/loss"]))
    assert losses == [(row["epoch"], row["train/loss"]) for row in run.epochs()]
    (tested,) = [row for row in history if "tested/test_loss" in row]
    assert tested["tested/test_loss"] == run.results()["test/loss"]
    names = {name for row in history for name in row}
    assert any(name.startswith("tested/confusion") for name in names)
