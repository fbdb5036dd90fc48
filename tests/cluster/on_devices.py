"""Several processes of one run, as srun, torchrun and Lightning start them."""

import os
import shlex
import subprocess
import sys

import pytest
import torch

from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from tests.conftest import ROOT, Finished

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SMALL = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=2000",
    "data.val_size=101",
    "~callbacks.figures",
]
SMALL += ["trainer.max_epochs=3", "~logger"]
ONE = [*SMALL, "data.batch_size=20"]
TWO = [*SMALL, "data.batch_size=10", "trainer=ddp"]
SRUN = ["srun", "--ntasks-per-node=2", "--nodes=1", "--partition=cpu"]


@pytest.fixture
def call(slurm, tmp_path):
    """call(program, ..., arguments) runs python -m ... under the program, in the folder of the
    test."""

    def run(*command: str) -> Finished:
        env = os.environ | slurm.env | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )
        return Finished(done.returncode, done.stdout + done.stderr)

    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run.last)["state_dict"]


@pytest.fixture
def one(cli, tmp_path) -> Run:
    status, output = cli("src.train", *ONE, "hydra.run.dir=one", data=False)
    assert status == 0, output
    return Run(tmp_path / "one")


@pytest.mark.parametrize(
    "launcher",
    [
        [*SRUN, sys.executable],
        ["salloc", "--ntasks-per-node=2", "--nodes=1", "--partition=cpu", "srun", sys.executable],
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"],
        [sys.executable],
    ],
    ids=["srun", "salloc", "torchrun", "lightning"],
)
def test_two_processes_are_one_with_the_doubled_batch(call, one, tmp_path, launcher):
    status, output = call(*launcher, "-m", "src.train", *TWO, "hydra.run.dir=two")
    assert status == 0, output
    two = Run(tmp_path / "two")
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(two)[name], expected, rtol=0, atol=1e-6)
    assert output.count("epoch 3/3") == 1  # one process speaks
    assert [
        path.name
        for path in tmp_path.iterdir()
        if path.is_dir() and path.name not in ("one", "two")
    ] == []
    assert two.results()["status"] == "finished"


def test_resume_under_srun_keeps_the_effective_batch(call, cli, one, tmp_path):
    status, output = call(
        *SRUN, sys.executable, "-m", "src.train", *TWO, "trainer.max_epochs=1", "hydra.run.dir=two"
    )
    assert status == 0, output
    status, output = cli(
        "src.resume", "run=two", "trainer.max_epochs=3", "trainer.devices=1", data=False
    )
    assert status == 1
    assert "trainer.devices=1 would make this another experiment" in output
    alone = ["srun", "--ntasks=1", "--partition=cpu", sys.executable]
    status, output = call(*alone, "-m", "src.resume", "run=two", "trainer.max_epochs=3")
    assert status != 0
    assert "trainer.devices=2 asks for as many processes" in output
    status, output = call(
        *SRUN, sys.executable, "-m", "src.resume", "run=two", "trainer.max_epochs=3"
    )
    assert status == 0, output
    for name, expected in weights(one).items():
        torch.testing.assert_close(
            weights(Run(tmp_path / "two"))[name], expected, rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    "launcher",
    [
        SRUN,
        ["srun", "--ntasks=2", "--nodes=2", "--partition=cpu"],
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"],
    ],
    ids=["tasks", "nodes", "torchrun"],
)
def test_two_processes_of_a_run_of_one_device_are_refused(call, tmp_path, launcher):
    program = [sys.executable] if launcher[0] == "srun" else []
    status, output = call(*launcher, *program, "-m", "src.train", *ONE, "hydra.run.dir=one")
    assert status != 0
    assert "trainer.devices=1 asks for as many processes" in output
    assert output.count("Traceback") == 0 or "torch.distributed.run" in launcher
    assert Run(tmp_path / "one").results().get("status") != "finished"


@pytest.mark.parametrize(
    "tasks", [["--ntasks=1"], ["--ntasks=2", "--nodes=2"], ["--ntasks=3", "-O", "--nodes=1"]]
)
def test_other_tasks_than_devices_are_refused(call, tmp_path, tasks):
    status, output = call(
        "srun",
        *tasks,
        "--partition=cpu",
        sys.executable,
        "-m",
        "src.train",
        *TWO,
        "hydra.run.dir=two",
    )
    assert status != 0
    assert "trainer.devices=2 asks for as many processes" in output
    assert "Traceback" not in output
    assert Run(tmp_path / "two").results().get("status") != "finished"


def test_several_devices_in_a_batch_script_without_srun_are_refused(call, tmp_path):
    command = shlex.join([sys.executable, "-m", "src.train", *TWO, "hydra.run.dir=two"])
    options = ["--wait", "--ntasks-per-node=2", "--nodes=1", "--partition=cpu", "--output=log.txt"]
    status, _ = call("sbatch", *options, f"--wrap={command}")
    assert status != 0
    (line,) = (tmp_path / "log.txt").read_text().splitlines()
    assert line.startswith("error: trainer.devices=2 asks for as many processes")
    assert "srun" in line
