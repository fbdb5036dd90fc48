"""Several processes train one model: as one process with the whole minibatch would."""

import signal
import time

import pytest
import torch

from src.evaluate import evaluate
from src.runs import Run
from src.training.experiment import train
from tests.conftest import Command, compose_config

pytestmark = pytest.mark.slow  # real processes, each of which imports everything

# 1,999 examples: one is left out of each epoch by two processes, none by a batch of twice the size; 501 and
# 10,000 to evaluate, of which nothing may be left out or counted twice
SMALL = ["data.val_size=501", "trainer.max_epochs=2", "~callbacks.figures", "data.train_size=2000"]


@pytest.mark.parametrize("model", [["model=scratch"], ["model=closed_form"], ["model=concise"]])
def test_two_processes_equal_one_with_the_doubled_batch(config, cli, tmp_path, model):
    both = ["trainer=ddp", "trainer.devices=2", "data.batch_size=128", "hydra.run.dir=two"]
    status, output = cli("src.train", *SMALL, *model, *both, fresh=True)
    assert status == 0, output
    train(config(*SMALL, *model, "data.batch_size=256"), tmp_path / "run")
    two, one = Run(tmp_path / "two"), Run(tmp_path / "run")
    for name in ("best", "last"):
        mine, other = (run.load(getattr(run, name))["state_dict"] for run in (two, one))
        for key in other:
            torch.testing.assert_close(mine[key], other[key], rtol=0, atol=1e-6)
    for mine, other in zip(two.rows(), one.rows(), strict=True):
        assert mine == pytest.approx(other, abs=1e-5)
        assert float(mine["val/acc"]) * 501 == pytest.approx(round(mine["val/acc"] * 501), abs=1e-9)
    assert two.record()["test/acc"] * 10_000 == pytest.approx(
        round(two.record()["test/acc"] * 10_000), abs=1e-8
    )
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()].count("outputs") == 0  # one run folder
    assert output.splitlines()[0].startswith("epoch 1/2  lr 0.1000  train/acc ")  # and no warnings
    assert output.count("epoch 2/2") == 1
    logs = [path.name for path in two.path.glob("*.log") if path.stat().st_size]
    assert logs == ["train.log"]
    result = evaluate(compose_config("evaluate", f"run={two.path}"))
    assert result["test/acc"] == pytest.approx(two.record()["test/acc"], abs=1e-12)


LONG = [*SMALL, "trainer=ddp", "data.batch_size=128", "trainer.max_epochs=20"]


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory) -> Run:
    """A run of two processes that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = [*LONG, "hydra.run.dir=run", f"data.root={data_root}"]
    command = Command("src.train", arguments, folder, folder / "output.txt", fresh=True)
    assert command.wait() == 0, command.output()
    return Run(folder / "run")


def test_a_run_of_two_processes_that_is_interrupted_twice_goes_on(whole, start, cli, tmp_path):
    # a new interpreter, as Lightning starts the other process by the same command line
    cut, run = start("src.train", *LONG, "hydra.run.dir=cut", fresh=True), Run(tmp_path / "cut")
    cut.until(run.last.exists)
    cut.kill(signal.SIGTERM)
    assert cut.wait() == 143, cut.output()
    again = start("src.resume", "run=cut", data=False, fresh=True)
    again.until("resumed after")
    again.until("epoch ")
    again.kill(signal.SIGKILL)
    assert again.wait() == -signal.SIGKILL
    time.sleep(2)  # the other process of a killed one notices, and ends
    ended, output = cli("src.resume", "run=cut", data=False, fresh=True)
    assert ended == 0, output
    assert "resumed after" in output
    assert len(run.rows()) == 20
    expected = whole.load(whole.last)["state_dict"]
    for name, tensor in run.load(run.last)["state_dict"].items():
        assert torch.equal(tensor, expected[name])
    assert run.metrics_csv.read_text() == whole.metrics_csv.read_text()


def test_a_sweep_on_several_devices_is_refused_with_the_way_to_do_it(cli, tmp_path):
    status, _ = cli("src.train", "-m", *SMALL, "trainer=ddp", "model.lr=0.1,0.2", "hydra.sweep.dir=sweep")
    assert status == 1
    reason = Run(tmp_path / "sweep/0").record()["reason"]
    assert "trainer.devices=2 in a sweep: " in reason
    assert "for lr in 0.1 0.3; do python -m src.train trainer=ddp model.lr=$lr; done" in reason


def test_a_mistake_that_both_processes_meet_is_one_line(cli, tmp_path):
    arguments = ["data=synthetic", "model=concise", "trainer=ddp", "hydra.run.dir=run"]
    status, output = cli("src.train", *arguments, data=False, fresh=True)
    assert status == 1
    assert len(output.splitlines()) == 1, output
    (line,) = output.splitlines()
    assert line.startswith("error: the model predicts labels, but the targets of the data are values")
