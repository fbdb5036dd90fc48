"""The Trainer of every run, whatever the machine has besides."""

import os
from pathlib import Path

import pytest

from src.runs import Run
from src.training.experiment import train
from tests.faults import differences

SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=2"]


@pytest.fixture
def srun(tmp_path: Path) -> str:
    """A search path as on the login node of a cluster, with an srun that nobody should call."""
    program = tmp_path / "bin/srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def test_srun_on_the_path_is_no_reason_to_warn(config, monkeypatch, srun, tmp_path):
    monkeypatch.setenv("PATH", srun)
    cfg = config(*SMALL, "~callbacks.figures")
    train(cfg, tmp_path / "run")
    assert Run(tmp_path / "run").record()["status"] == "finished"


@pytest.mark.slow
def test_a_command_that_finds_srun_runs_as_it_does_without(cli, tmp_path, srun):
    outputs = []
    for name, env in {"without": {}, "with": {"PATH": srun}}.items():
        status, output = cli("src.train", *SMALL, f"hydra.run.dir={name}", data=False, env=env)
        assert status == 0, output
        outputs.append([line for line in output.splitlines() if not line.endswith("examples/s")])
    assert [line.replace("with/", "without/") for line in outputs[1]] == outputs[0]
    assert differences(Run(tmp_path / "with"), Run(tmp_path / "without")) == []
