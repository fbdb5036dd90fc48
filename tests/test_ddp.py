"""Several processes train one model: as one process with the whole minibatch would."""

import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from src.evaluate.scores import evaluate
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.training.experiment import train
from tests.conftest import Command, Finished, compose_config

pytestmark = pytest.mark.slow  # real processes

# 1,999 examples: one is left out of each epoch by two processes, none by a batch of twice the size;
# 501 and 10,000 to evaluate, of which nothing may be left out or counted twice
SMALL = ["data.val_size=501", "trainer.max_epochs=2", "data.train_size=2000"]


@pytest.fixture
def both(pair) -> Callable[..., Finished]:
    """both(module, ..., run=NAME) is how two processes ended that were started as Lightning starts
    them.

    They are forked, which spares the imports; that Lightning starts them so by itself is tested
    once, below.
    """

    def call(module: str, *arguments: str, **options) -> Finished:
        main, other = pair(module, *arguments, **options)
        status, other_status = main.wait(), other.wait()
        output = main.output() + other.output()
        assert other_status == status, output
        return Finished(status, output)

    return call


@pytest.fixture
def pair(start, tmp_path) -> Callable[..., tuple[Command, Command]]:
    """pair(module, ..., run=NAME) starts two processes, the main one first."""

    def call(module: str, *arguments: str, run: str, **options) -> tuple[Command, Command]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
        main = start(module, *arguments, env=env | {"LOCAL_RANK": "0"}, **options)
        main.until(Run(tmp_path / run).config.exists)
        second = ["hydra.output_subdir=null", "hydra.job.name=train_ddp_process_1"]
        other = start(module, *arguments, *second, env=env | {"LOCAL_RANK": "1"}, **options)
        return main, other

    return call


def logs(run: Run) -> list[str]:
    return [path.name for path in run.path.glob("*.log") if path.stat().st_size]


def folders(place: Path) -> list[str]:
    return [path.name for path in place.iterdir() if path.is_dir()]


@pytest.mark.parametrize("model", ["scratch", "closed_form", "concise", "grid"])
def test_two_processes_equal_one_with_the_doubled_batch(config, both, tmp_path, model):
    figures = [] if model == "scratch" else ["~callbacks.figures"]
    model = [f"model={model}", *["model.lr=[0.05,0.1]"] * (model == "grid"), *figures]
    ddp = ["trainer=ddp", "trainer.devices=2", "data.batch_size=128", "hydra.run.dir=two"]
    status, output = both("src.train", *SMALL, *model, *ddp, run="two")
    assert status == 0, output
    train(config(*SMALL, *model, "data.batch_size=256"), tmp_path / "run")
    two, one = Run(tmp_path / "two"), Run(tmp_path / "run")
    for name in ("best", "last"):
        mine, other = (load_checkpoint(getattr(run, name))["state_dict"] for run in (two, one))
        for key in other:
            torch.testing.assert_close(mine[key], other[key], rtol=0, atol=1e-6)
    for mine, other in zip(two.epochs(), one.epochs(), strict=True):
        assert mine == pytest.approx(other, abs=1e-5)
        assert float(mine["val/acc"]) * 501 == pytest.approx(round(mine["val/acc"] * 501), abs=1e-9)
    assert two.results()["test/acc"] * 10_000 == pytest.approx(
        round(two.results()["test/acc"] * 10_000), abs=1e-8
    )
    assert "outputs" not in folders(tmp_path)  # one run folder
    assert output.splitlines()[0].startswith("epoch 1/2  lr 0.1000  train/acc ")  # and no warnings
    assert output.count("epoch 2/2") == 1
    assert logs(two) == ["train.log"]
    for path in (one.path / "figures").glob("[!c]*.png"):  # of the tested model
        assert path.read_bytes() == (two.path / "figures" / path.name).read_bytes()
    result = evaluate(compose_config("evaluate", f"run={two.path}"))
    assert result["test/acc"] == pytest.approx(two.results()["test/acc"], abs=1e-12)


LONG = [*SMALL, "~callbacks.figures", "trainer=ddp", "data.batch_size=128", "trainer.max_epochs=20"]


def test_a_run_of_two_processes_that_is_interrupted_twice_goes_on(start, pair, both, tmp_path):
    status, output = both("src.train", *LONG, "hydra.run.dir=whole", run="whole")
    assert status == 0, output
    # new interpreters, as Lightning starts the other process by the same command line
    cut, run = start("src.train", *LONG, "hydra.run.dir=cut", fresh=True), Run(tmp_path / "cut")
    cut.until(run.last.exists)
    cut.kill(signal.SIGTERM)
    assert cut.wait() == 143, cut.output()
    assert (
        cut.output().splitlines()[0].startswith("epoch 1/20  lr 0.1000  train/acc ")
    )  # and no warnings
    assert "outputs" not in folders(tmp_path)  # the other process has made no run folder
    assert logs(run) == ["train.log"]
    again, other = pair("src.resume", "run=cut", run="cut", data=False)
    again.until("resumed after")
    again.until("epoch ")
    again.kill(signal.SIGKILL)
    assert again.wait() == -signal.SIGKILL
    assert other.wait(limit=20) != 0  # it notices, and ends
    status, output = both("src.resume", "run=cut", run="cut", data=False)
    assert status == 0, output
    assert "resumed after" in output
    whole = Run(tmp_path / "whole")
    assert len(run.epochs()) == 20
    expected = load_checkpoint(whole.last)["state_dict"]
    for name, tensor in load_checkpoint(run.last)["state_dict"].items():
        assert torch.equal(tensor, expected[name])
    assert run.metrics_csv.read_text() == whole.metrics_csv.read_text()


def test_a_sweep_on_several_devices_is_refused_with_the_way_to_do_it(cli, tmp_path):
    status, _ = cli(
        "src.train",
        "-m",
        *SMALL,
        "~callbacks.figures",
        "trainer=ddp",
        "model.lr=0.1,0.2",
        "hydra.sweep.dir=sweep",
    )
    assert status == 1
    reason = Run(tmp_path / "sweep/0").results()["reason"]
    assert "trainer.devices=2 in a sweep: " in reason
    assert "for lr in 0.1 0.3; do python -m src.train trainer=ddp model.lr=$lr; done" in reason


def test_a_mistake_that_both_processes_meet_is_one_line(both):
    arguments = ["data=synthetic", "model=concise", "trainer=ddp", "hydra.run.dir=run"]
    status, output = both("src.train", *arguments, run="run", data=False)
    assert status == 1
    assert len(output.splitlines()) == 1, output
    (line,) = output.splitlines()
    assert line.startswith("error: the model predicts labels, but the targets are values")
