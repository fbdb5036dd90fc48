"""Reading a run that anyone may have made: it starts nothing, writes nowhere else, and never hangs."""

import http.server
import json
import os
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from src.compare import compare, find
from src.errors import UserError
from src.evaluate import evaluate
from src.models.scratch import LinearRegression
from src.predict import predict
from src.rebuild import rebuild
from src.runs import Run
from tests.conftest import compose_config

SECONDS = 120  # far more than any of this takes, on a busy machine too


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    def stop(*args):
        raise TimeoutError(f"it hung for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def configuration() -> dict:
    return {
        "seed": 0,
        "data": {"_target_": "src.data.synthetic.SyntheticRegression", "test_size": 50, "val_size": 20},
        "model": {"_target_": "src.models.scratch.LinearRegression", "num_inputs": 2, "num_outputs": 1},
        "trainer": {"_target_": "src.trainer.build_trainer", "accelerator": "cpu"},
        "callbacks": {},
    }


def write_run(folder: Path, **record) -> Run:
    """A run folder made by hand."""
    run = Run(folder)
    for part in (run.config.parent, run.best.parent):
        part.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(configuration()))
    content = dict.fromkeys(["callbacks", "lr_schedulers", "loops", "optimizer_states"])
    state = LinearRegression(num_inputs=2, num_outputs=1).state_dict()
    torch.save({**content, "epoch": 0, "global_step": 1, "state_dict": state}, run.best)
    run.metrics_json.write_text(json.dumps({"status": "finished", "test/loss": 1.0, "epochs": 1, **record}))
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
    assert evaluated(run)["rmse"] > 0


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
        run.rows() if name == "metrics.csv" else evaluated(run)


def test_a_checkpoint_that_would_unpack_to_a_thousand_times_its_size_is_refused(run):
    with zipfile.ZipFile(run.best) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(run.best, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("archive/data/9", bytes(1 << 28))
    assert run.best.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="it is compressed"):
        evaluated(run)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"val/loss": "\x1b[2J"}', '{"test/loss": [1]}', "\xff"])
def test_a_record_that_is_none_is_refused(run, text):
    run.metrics_json.write_text(text, "latin-1")
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        run.record()


@pytest.mark.parametrize("text", ["val/loss\nabc\n", "a,b\n1\n", "a\n1,2\n", 'a\n"' + "x" * 200_000])
def test_rows_that_are_none_are_refused(run, text):
    run.metrics_csv.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        run.rows()


@pytest.mark.parametrize("name", ["evaluation.json.part", "figures/evaluation_residuals.png.part"])
def test_evaluate_writes_through_no_link_to_a_file(run, victim, name):
    (run.path / "figures").mkdir()
    (run.path / name).symlink_to(victim)
    evaluated(run)
    assert victim.read_text() == "dear"
    assert not (run.path / name.removesuffix(".part")).is_symlink()


def test_evaluate_writes_through_no_link_to_a_folder(run, victim):
    (run.path / "figures").symlink_to(victim.parent)
    with pytest.raises(UserError, match="figures is a link"):
        evaluated(run)
    assert list(victim.parent.iterdir()) == [victim]


def touches(path: Path) -> dict:
    return {"_target_": "subprocess.run", "args": [["touch", str(path)]]}


POPEN = {"_target_": "src.data.sources.subprocess.Popen"}
ROUTES: dict[str, Callable[[dict, Path], object]] = {
    "a program as data": lambda config, path: config["data"].update(POPEN, args=["touch", str(path)]),
    "a program as model": lambda config, path: config["model"].update(POPEN, args=["touch", str(path)]),
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
    "a model as data": lambda config, path: config["data"].update(_target_=config["model"]["_target_"]),
    "an option of apt-get": lambda config, path: config["data"].update(
        _target_="src.data.fashion_mnist.FashionMNIST", debian_package=f"-oDir::Bin::dpkg={path}", test_size=1
    ),
    "no class": lambda config, path: config["data"].update(_target_=["touch"]),
    "a module that is not there": lambda config, path: config["model"].update(_target_="src.models.no.No"),
}


@pytest.mark.parametrize("route", ROUTES)
def test_what_a_run_wants_to_build_is_data_and_model_from_plain_values_or_refused(route, tmp_path):
    config, path = configuration(), tmp_path / "made"
    ROUTES[route](config, path)
    with pytest.raises(UserError):
        rebuild(config)
    assert not path.exists()


def test_the_trainer_of_a_run_is_not_built(run, victim):
    config = configuration()
    profiler = {"_target_": "lightning.pytorch.profilers.SimpleProfiler", "dirpath": str(victim.parent)}
    config["trainer"] |= {"max_time": "nonsense", "devices": 10**9, "profiler": profiler | {"filename": "made"}}
    run.config.write_text(yaml.safe_dump(config))
    assert evaluated(run)["rmse"] > 0
    assert list(victim.parent.iterdir()) == [victim]


def test_a_run_does_not_say_where_its_data_come_from(data_root, tmp_path):
    asked = []

    class Listening(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

    server = http.server.HTTPServer(("127.0.0.1", 0), Listening)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    places = {"root": str(tmp_path / "foreign"), "mirrors": [f"http://127.0.0.1:{server.server_port}"]}
    config = configuration() | {
        "data": {"_target_": "src.data.fashion_mnist.FashionMNIST", **places, "system_copies": ["/proc"]},
        "model": {"_target_": "src.models.scratch.SoftmaxRegression"},
    }
    data, _ = rebuild(config, {"root": str(data_root)})
    data.prepare_data()
    data.setup()
    assert len(data.splits["test"][1]) == 10_000
    data, _ = rebuild(config)
    server.shutdown()
    server.server_close()
    ours = compose_config("train").data
    assert str(data.root) == ours.root == "data"
    assert data.origin == {key: ours[key] for key in ("system_copies", "mirrors", "debian_package")}
    assert not asked
    assert not (tmp_path / "foreign").exists()


def test_nothing_of_a_run_steers_the_terminal(tmp_path):
    one = write_run(tmp_path / "one")
    other = write_run(tmp_path / "two\x1b[2J", status="\x1b]0;owned\x07\u202efinished", best_epoch="\x1b[31m")
    config = configuration()
    config["model"]["loss"] = "huber"
    config["trainer"]["\x1b[1m"] = "\x1b[5m"
    other.config.write_text(yaml.safe_dump(config))
    text = compare(find([one.path, other.path]), tmp_path / "out")
    written = (tmp_path / "out/comparison.md").read_text()
    for shown in (text, written):
        assert r"\x1b]0;owned\x07\u202efinished" in shown
        assert all(character.isprintable() for character in shown.replace("\n", ""))


def test_the_name_of_a_run_is_no_formula(tmp_path):
    runs = [write_run(tmp_path / name).path for name in (r"$\frac$", "other")]
    compare(find(runs), tmp_path / "out")
    assert (tmp_path / "out/curves.png").exists()


def test_a_message_about_a_run_steers_no_terminal(cli, tmp_path):
    write_run(tmp_path / "run").config.write_text('seed: 0\ndata: {_target_: "\\e[2Jevil"}\n')
    (tmp_path / "run\x1b[2J\u202e").mkdir()
    for folder in ("run", "run\x1b[2J\u202e"):
        for command in ("src.evaluate", "src.predict"):
            status, output = cli(command, f"run='{folder}'", data=False)
            assert status == 1
            assert output.startswith("error: ")
            assert output.removesuffix("\n").isprintable()


def test_predict_refuses_a_regression_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="is no classifier"):
        predict(compose_config("predict", f"run={run.path}"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
