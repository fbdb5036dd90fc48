"""What an earlier version has finished can be read; what it has not is refused, with its version."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

import src
from src.compare import compare, find
from src.errors import UserError
from src.evaluate.scores import evaluate
from src.predict.prediction import predict
from src.runs import Run
from src.sweeps.__main__ import resume as resume_sweep
from src.sweeps.summary import summarize
from src.sweeps.sweep import Sweep
from src.training.resuming import resume
from tests.conftest import ROOT, compose_config


@pytest.fixture
def old(tmp_path) -> Path:
    """A run on images and a sweep of two jobs, as version 0.1.0 has left them."""
    return shutil.copytree(ROOT / "tests/fixtures/version_0_1", tmp_path / "old")


def test_a_finished_run_can_be_evaluated(old, data_root):
    recorded = Run(old / "images").results()
    result = evaluate(compose_config("evaluate", f"run={old}/images", f"data.root={data_root}"))
    for name in ("test/loss", "test/acc"):
        assert result[name] == pytest.approx(recorded[name], abs=1e-6)


def test_a_finished_run_predicts(old, data_root, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "out").mkdir()
    predict(
        compose_config("predict", f"run={old}/images", f"data.root={data_root}"), tmp_path / "out"
    )
    assert f"accuracy {Run(old / 'images').results()['test/acc']:.4f}" in caplog.text


def test_finished_runs_are_compared_and_summed_up(old, tmp_path):
    table = compare(find([old / "sweep/0", old / "sweep/1"]), tmp_path / "out")
    assert "| A   | 0.01" in table
    _, text = summarize(old / "sweep")
    assert "2 jobs: 2 finished." in text
    assert [row["val/loss"] for row in Sweep(old / "sweep").rows()] == [
        Run(old / f"sweep/{number}").results()["val/loss"] for number in range(2)
    ]


def test_an_unfinished_run_is_refused_with_the_version_that_began_it(old):
    run = Run(old / "images")
    record = json.loads(run.metrics_json.read_text()) | {"status": "running"}
    run.metrics_json.write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=r"images was begun by version 0\.1\.0, and this is \d+\.\d+"
    ):
        resume(run.path)


def test_an_unfinished_sweep_is_refused_with_the_version_that_began_it(old):
    shutil.rmtree(old / "sweep/1")
    with pytest.raises(
        UserError, match=r"sweep was begun by version 0\.1\.0, and this is \d+\.\d+"
    ):
        resume_sweep(old / "sweep", [])


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == src.__version__
    assert f"\n## {src.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {src.__version__}\n" in (ROOT / "CITATION.cff").read_text()
