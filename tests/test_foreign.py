"""Reading a run that anyone may have made: it starts nothing, writes nowhere else, and never
hangs."""

import http.server
import json
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from src import files
from src.compare import compare, find
from src.errors import UserError
from src.evaluate.scores import evaluate
from src.models.scratch import LinearRegression, SoftmaxRegression
from src.predict.prediction import predict
from src.runs import Run
from src.runs.build import restore
from src.training.experiment import train
from src.training.resuming import resume
from tests.conftest import ROOT, compose_config

pytestmark = pytest.mark.timeout(
    120
)  # seconds; far more than any of this takes, on a busy machine too


def configuration() -> dict:
    return {
        "seed": 0,
        "data": {
            "_target_": "src.data.synthetic.SyntheticRegression",
            "test_size": 50,
            "val_size": 20,
        },
        "model": {"_target_": "src.models.scratch.LinearRegression"},
        "trainer": {"accelerator": "cpu", "max_epochs": 1},
        "callbacks": {},
    }


def write_run(folder: Path, **record) -> Run:
    """A run folder made by hand."""
    run = Run(folder)
    for part in (run.config.parent, run.best.parent):
        part.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(configuration()))
    content = {"callbacks": {}, "lr_schedulers": [], "loops": {}, "optimizer_states": []}
    state = LinearRegression(num_inputs=2, num_outputs=1).state_dict()
    content["callbacks"] = {"History": {"rows": [], "seconds": 0}}
    torch.save({**content, "epoch": 0, "global_step": 1, "state_dict": state}, run.best)
    run.metrics_json.write_text(
        json.dumps({"status": "finished", "test/loss": 1.0, "epochs": 1, **record})
    )
    run.metrics_csv.write_text("epoch,step,train/loss,val/loss\n1,1,1.0,1.0\n")
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return write_run(tmp_path / "run")


@pytest.fixture
def victim(tmp_path) -> Path:
    """A file of the user's, outside of the run folder."""
    path = tmp_path / "home" / "victim"
    path.parent.mkdir()
    path.write_text("dear")
    return path


def evaluated(run: Run) -> dict:
    return evaluate(compose_config("evaluate", f"run={run.path}"))


def test_a_harmless_one_can_be_evaluated(run):
    assert evaluated(run)["test/loss"] > 0


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def enormous(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [pipe, link_to_zero, enormous])
@pytest.mark.parametrize("name", ["checkpoints/best.ckpt", "metrics.json", "metrics.csv"])
def test_a_file_without_an_end_is_refused(run, name, make):
    (run.path / name).unlink()
    make(run.path / name)
    with pytest.raises(UserError, match=r"is no regular file|is too large|is a link"):
        run.epochs() if name == "metrics.csv" else evaluated(run)


def test_a_checkpoint_that_would_unpack_to_a_thousand_times_its_size_is_refused(run):
    with zipfile.ZipFile(run.best) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(run.best, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("archive/data/9", bytes(1 << 26))
    assert run.best.stat().st_size < 1 << 18
    with pytest.raises(UserError, match="it is compressed"):
        evaluated(run)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"val/loss": "\x1b[2J"}', '{"test/loss": [1]}', "\xff"]
)
def test_a_record_that_is_none_is_refused(run, text):
    run.metrics_json.write_text(text, "latin-1")
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        run.results()


@pytest.mark.parametrize(
    "text", ["val/loss\nabc\n", "a,b\n1\n", "a\n1,2\n", 'a\n"' + "x" * 200_000]
)
def test_rows_that_are_none_are_refused(run, text):
    run.metrics_csv.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        run.epochs()


@pytest.mark.parametrize("name", ["evaluation.json.part", "figures/evaluation_residuals.png.part"])
def test_evaluate_writes_through_no_link_to_a_file(run, victim, name):
    (run.path / "figures").mkdir()
    (run.path / name).symlink_to(victim)
    with pytest.raises(UserError, match=rf"{name} is a link"):
        evaluated(run)
    assert victim.read_text() == "dear"


def test_evaluate_writes_through_no_link_to_a_folder(run, victim):
    (run.path / "figures").symlink_to(victim.parent)
    with pytest.raises(UserError, match="figures is a link"):
        evaluated(run)
    assert list(victim.parent.iterdir()) == [victim]


def touches(path: Path) -> dict:
    return {"_target_": "subprocess.run", "args": [["touch", str(path)]]}


POPEN = {"_target_": "src.data.sources.subprocess.Popen"}
ROUTES: dict[str, Callable[[dict, Path], object]] = {
    "a program as data": lambda config, path: config["data"].update(
        POPEN, args=["touch", str(path)]
    ),
    "a program as model": lambda config, path: config["model"].update(
        POPEN, args=["touch", str(path)]
    ),
    "a program within the data": lambda config, path: config["data"].update(w=touches(path)),
    "a program within the model": lambda config, path: config["model"].update(lr=touches(path)),
    "a program of torch's as data": lambda config, path: config["data"].update(
        _target_="torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
        entrypoint="touch",
        args=[str(path)],
        env={},
        stdout=None,
        stderr=None,
        local_rank_id=0,
    ),
    "a model as data": lambda config, path: config["data"].update(
        _target_=config["model"]["_target_"]
    ),
    "an option of apt-get": lambda config, path: config["data"].update(
        _target_="src.data.fashion_mnist.FashionMNIST",
        debian_package=f"-oDir::Bin::dpkg={path}",
        test_size=1,
    ),
    "no class": lambda config, path: config["data"].update(_target_=["touch"]),
    "a module that is not there": lambda config, path: config["model"].update(
        _target_="src.models.no.No"
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_run_wants_to_build_is_data_and_model_from_plain_values_or_refused(route, tmp_path):
    config, path = configuration(), tmp_path / "made"
    ROUTES[route](config, path)
    with pytest.raises(UserError):
        restore(config, tmp_path / "best.ckpt")
    assert not path.exists()


def test_the_trainer_of_a_run_is_not_built(run, victim):
    config = configuration()
    profiler = {
        "_target_": "lightning.pytorch.profilers.SimpleProfiler",
        "dirpath": str(victim.parent),
    }
    config["trainer"] |= {
        "max_time": "nonsense",
        "devices": 10**9,
        "profiler": profiler | {"filename": "made"},
    }
    run.config.write_text(yaml.safe_dump(config))
    assert evaluated(run)["test/loss"] > 0
    assert list(victim.parent.iterdir()) == [victim]


def test_a_run_does_not_say_where_its_data_come_from(data_root, tmp_path):
    asked = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    places = {
        "root": str(tmp_path / "foreign"),
        "mirrors": [f"http://127.0.0.1:{server.server_port}"],
    }
    config = configuration() | {
        "data": {
            "_target_": "src.data.fashion_mnist.FashionMNIST",
            **places,
            "system_copies": ["/proc"],
        },
        "model": {"_target_": "src.models.scratch.SoftmaxRegression"},
    }
    checkpoint = tmp_path / "best.ckpt"
    content = {"callbacks": {}, "lr_schedulers": [], "loops": {}, "optimizer_states": []}
    content |= {"epoch": 0, "global_step": 1}
    torch.save(
        {**content, "state_dict": SoftmaxRegression(num_inputs=784, num_outputs=10).state_dict()},
        checkpoint,
    )
    data, _ = restore(config, checkpoint, "")
    assert data.root == Path()  # what the command says, not what conf/ says
    data, _ = restore(config, checkpoint, str(data_root))
    data.prepare_data()
    data.setup()
    assert len(data.splits["test"][1]) == 10_000
    data, _ = restore(config, checkpoint)
    server.shutdown()
    server.server_close()
    ours = compose_config("train").data
    assert data.root == ROOT / ours.root  # wherever the command is called
    assert data.origin == {key: ours[key] for key in ("system_copies", "mirrors", "debian_package")}
    assert not asked
    assert not (tmp_path / "foreign").exists()


def test_nothing_of_a_run_steers_the_terminal(tmp_path):
    one = write_run(tmp_path / "one")
    other = write_run(
        tmp_path / "two\x1b[2J", status="\x1b]0;owned\x07\u202efinished", reason="\x1b[31m"
    )
    config = configuration()
    config["model"]["loss"] = "huber"
    config["trainer"]["\x1b[1m"] = "\x1b[5m"
    other.config.write_text(yaml.safe_dump(config))
    text = compare(find([one.path, other.path]), tmp_path / "out")
    assert r"\x1b]0;owned\x07\u202efinished" in text
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_the_name_of_a_run_is_no_formula(tmp_path):
    runs = [write_run(tmp_path / name).path for name in (r"$\frac$", "other")]
    compare(find(runs), tmp_path / "out")
    assert (tmp_path / "out/curves.png").exists()


@pytest.mark.slow
def test_a_message_about_a_run_steers_no_terminal(cli, tmp_path):
    config, name = configuration(), "run\x1b[2J\u202e"
    (tmp_path / name).mkdir()
    config["data"]["\x1b[2J\u202eevil"] = 1
    write_run(tmp_path / "run").config.write_text(yaml.safe_dump(config))
    for command, folder, says in (
        ("src.evaluate", name, "is no run folder"),
        ("src.predict", "run", "there is no such setting"),
    ):
        status, output = cli(command, f"run='{folder}'", data=False)
        assert status == 1
        assert output.startswith("error: ")
        assert says in output
        assert output.removesuffix("\n").isprintable()


def test_predict_refuses_a_regression_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="is no classifier"):
        predict(compose_config("predict", f"run={run.path}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


GOING_ON: dict[str, Callable[[dict, Path], object]] = {
    "a program as callback": lambda config, path: config["callbacks"].update(x=touches(path)),
    "a program as logger": lambda config, path: config.update(logger={"x": touches(path)}),
    "a program as trainer": lambda config, path: config["trainer"].update(touches(path)),
    "a program within a callback": lambda config, path: config["callbacks"].update(
        last={"_target_": "src.training.saving.Last", "every_n_train_steps": touches(path)}
    ),
    "another path for the history": lambda config, path: config["callbacks"].update(
        history={"_target_": "src.training.history.History", "path": str(path)}
    ),
    "another path for the checkpoints": lambda config, path: config["callbacks"].update(
        last={"_target_": "src.training.saving.Last", "path": str(path)}
    ),
    "another folder for TensorBoard": lambda config, path: config.update(
        logger={
            "x": {
                "_target_": "lightning.pytorch.loggers.TensorBoardLogger",
                "save_dir": str(path),
            }
        }
    ),
    "a callback of Lightning's that writes": lambda config, path: config["callbacks"].update(
        x={"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": str(path)}
    ),
    "a logger of Lightning's that writes": lambda config, path: config.update(
        logger={"x": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(path)}}
    ),
    "a database of a logger's": lambda config, path: config.update(
        logger={
            "x": {
                "_target_": "lightning.pytorch.loggers.MLFlowLogger",
                "tracking_uri": f"sqlite:///{path}",
            }
        }
    ),
    "a database by another name": lambda config, path: config.update(
        logger={
            "x": {
                "_target_": "lightning.pytorch.loggers.MLFlowLogger",
                "tracking_uri": f"sqlite+pysqlite:///{path}",
            }
        }
    ),
    "a checkpoint that leads out": lambda config, path: config["callbacks"].update(
        x={
            "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
            "filename": f"../../../{path.name}",
        }
    ),
    "files of a logger's": lambda config, path: config.update(
        logger={"x": {"_target_": "lightning.pytorch.loggers.WandbLogger", "save_dir": str(path)}}
    ),
    "a folder for the trainer": lambda config, path: config["trainer"].update(
        default_root_dir=str(path)
    ),
    "a callback of Lightning's that resumes": lambda config, path: config["callbacks"].update(
        x={"_target_": "lightning.pytorch.callbacks.OnExceptionCheckpoint", "dirpath": str(path)}
    ),
    "a callback of Lightning's without tests": lambda config, path: config["callbacks"].update(
        x={"_target_": "lightning.pytorch.callbacks.SpikeDetection"}
    ),
    "an interpolation": lambda config, path: config["model"].update(
        lr="${oc.create:{_target_: os.mkdir}}"
    ),
    "a secret of the environment": lambda config, path: config["data"].update(
        mirrors=["http://127.0.0.1:9/${oc.env:HOME}"]
    ),
    "a module of another package": lambda config, path: config["callbacks"].update(
        x={"_target_": "antigravity.x"}
    ),
    "keys of Hydra's": lambda config, path: config.update(hydra={"run": {"dir": str(path)}}),
    "a list of defaults": lambda config, path: config.update(defaults=["/hydra/launcher: joblib"]),
}


@pytest.mark.parametrize("route", GOING_ON)
def test_going_on_builds_each_part_in_its_role_and_takes_no_path(route, run, tmp_path):
    run.last.write_bytes(run.best.read_bytes())
    run.save_results({"status": "interrupted"})
    config, path = configuration(), tmp_path / "made"
    GOING_ON[route](config, path)
    run.config.write_text(yaml.safe_dump(config))
    key = "it must not have|is damaged|there is no such setting|_target_ is|input should be|"
    key += "must be a folder of its own in the run folder|is refused|on the command line too|the run decides it|must not lead out"
    with pytest.raises(UserError, match=key) as refused:
        resume(run.path, run.settings(), [])
    assert "\n" not in str(refused.value)
    assert not path.exists()


@pytest.mark.slow
def test_an_edited_config_runs_no_program(cli, run, tmp_path):
    victim, config = tmp_path / "made", configuration()
    config["model"] = touches(victim)
    run.config.write_text(yaml.safe_dump(config))
    run.last.write_bytes(run.best.read_bytes())
    run.save_results({"status": "interrupted"})
    refusal = "model._target_ is 'subprocess.run', but must be a LightningModule that is defined"
    with pytest.raises(UserError, match=f"^{refusal}"):
        evaluated(run)
    with pytest.raises(UserError, match=f"^{refusal}"):
        predict(compose_config("predict", f"run={run.path}"), tmp_path / "out")
    status, output = cli("src.resume", f"run={run.path}", data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith(f"error: {refusal}")
    assert not victim.exists()


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text", [BOMB, "seed: !!python/object/apply:os.mkdir [made]", "seed: 2020-01-01"]
)
def test_a_config_of_other_than_plain_values_is_damaged(run, text):
    run.config.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is damaged: "):
        run.settings()


@pytest.mark.parametrize("make", [pipe, link_to_zero, enormous])
def test_a_config_without_an_end_is_refused(run, make):
    run.config.unlink()
    make(run.config)
    with pytest.raises(UserError, match=r"is a link or a device|is too large"):
        run.settings()


@pytest.mark.parametrize(
    "name", ["train.log", "figures", "lr=0.1", "metrics.csv.part", "checkpoints/last.ckpt"]
)
def test_a_folder_with_a_link_is_not_gone_on_with(run, victim, name):
    (run.path / name).symlink_to(victim.parent if "." not in name else victim)
    with pytest.raises(UserError, match=f"{name} is a link"):
        run.settings()


def test_a_file_that_its_writer_renames_meanwhile_is_no_link(run, monkeypatch):
    part = run.path / "metrics.csv.part"
    part.write_text("as a process of the run has it for a moment")
    list_all = files._list

    def renamed_after_the_listing(folder: Path, kind: str) -> list[os.DirEntry]:
        found = list_all(folder, kind)
        if folder == run.path:
            part.rename(run.metrics_csv)
        return found

    monkeypatch.setattr(files, "_list", renamed_after_the_listing)
    assert run.settings()["seed"] == 0
    assert not part.exists()


@pytest.mark.slow
def test_a_checkpoint_deletes_no_file_of_the_users(config, victim, tmp_path):
    small = [
        "data.train_size=500",
        "data.val_size=300",
        "trainer.max_epochs=1",
        "~callbacks.figures",
    ]
    train(config(*small), tmp_path / "own")
    run = Run(tmp_path / "own")
    for path in (run.last, run.best):
        content = torch.load(path, weights_only=True)
        # as Lightning's ModelCheckpoint would believe it
        state = {"best_model_path": str(victim), "kth_best_model_path": str(victim)}
        state |= {"dirpath": str(victim.parent), "best_k_models": {str(victim): torch.tensor(9.0)}}
        content["callbacks"]["History"] |= state
        torch.save(content, path)
    settings = run.settings()
    settings["trainer"]["max_epochs"] = 3
    resume(run.path, settings, [])
    assert run.results()["epochs"] == 3
    assert list(victim.parent.iterdir()) == [victim]
    assert victim.read_text() == "dear"
