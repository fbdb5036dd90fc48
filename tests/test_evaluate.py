"""Evaluating a run: the recorded metrics again, and the table behind them, against plain
counting."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf.errors import OmegaConfBaseException

from src.data.fashion_mnist import CLASSES
from src.errors import UserError
from src.evaluate.scores import classification, evaluate
from src.runs import Run
from src.runs.build import restore
from src.training.experiment import train
from tests.conftest import compose_config

SMALL = ["data.train_size=700", "data.val_size=300", "~callbacks.figures", "~logger"]


@pytest.fixture(scope="module")
def trained(data_root, tmp_path_factory) -> Path:
    # a decay so strong that each step makes W 1.5 times as large (|1 - 0.1 * 25|): the loss grows
    # on any machine
    wild = ["trainer.max_epochs=6", "data.batch_size=32", "model.weight_decay=25", "model.gamma=1"]
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(compose_config("train", *SMALL, *wild, f"data.root={data_root}"), folder)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    return Run(tmp_path / "run")


def evaluated(run: Run, *overrides: str) -> dict:
    evaluate(compose_config("evaluate", f"run={run.path}", *overrides))
    return json.loads((run.path / "evaluation.json").read_text())


@pytest.mark.parametrize("model", ["scratch", "concise", "linear_scratch", "linear_concise"])
def test_the_recorded_test_metrics_are_reproduced_to_the_last_digit(
    config, caplog, model, tmp_path
):
    synthetic = [
        "data=synthetic",
        "data.train_size=500",
        "data.test_size=777",
        "~callbacks.figures",
        "~logger",
    ]
    few = synthetic if "linear" in model else SMALL
    train(config(f"model={model}", "trainer.max_epochs=2", *few), tmp_path / "run")
    run = Run(tmp_path / "run")
    caplog.set_level("INFO")
    result = evaluated(run)
    names = [name for name in run.results() if name.startswith("test/")]
    assert {name: result[name] for name in names} == {name: run.results()[name] for name in names}
    assert names
    assert "the same test metrics as in metrics.json, to the last digit" in caplog.text


def test_a_metric_that_differs_from_the_record_is_said(run, caplog):
    run.save_results(run.results() | {"test/acc": 0.99})
    evaluated(run)
    assert "not the test metrics in metrics.json (" in caplog.text
    assert "test/acc 0.99" in caplog.text


def test_counts_are_those_of_a_plain_loop_over_the_test_images(run):
    result = evaluated(run)
    data, model = restore(run.settings(), run.best)
    data.setup()
    X, y = data.split_examples("test")
    with torch.no_grad():
        y_hat = model(X).argmax(dim=1).tolist()
    pairs = list(zip(y.tolist(), y_hat, strict=True))
    assert len(pairs) == 10_000
    assert result["confusion"] == [[pairs.count((i, j)) for j in range(10)] for i in range(10)]
    for k, name in enumerate(CLASSES):
        true_positives = pairs.count((k, k))
        predicted, actual = y_hat.count(k), y.tolist().count(k)
        precision = true_positives / predicted if predicted else 0
        recall = true_positives / actual
        f1 = 2 * precision * recall / (precision + recall) if true_positives else 0
        expected = {"precision": precision, "recall": recall, "f1": f1}
        assert result["classes"][name] == pytest.approx(expected, abs=1e-6)


def test_calibration_error_is_the_mean_gap_between_confidence_and_accuracy():
    # 4 images at 0.9 of which 2 are right, 4 at 0.6 of which all are: 1/2 |0.9 - 0.5| + 1/2 |0.6 -
    # 1| = 0.4
    p = torch.tensor([[0.9, 0.1]] * 4 + [[0.6, 0.4]] * 4)
    y = torch.tensor([0, 0, 1, 1, 0, 0, 0, 0])
    result = classification(p.log(), y, ["cat", "dog"])
    assert result["calibration_error"] == pytest.approx(0.4, abs=1e-6)
    assert result["confusion"] == [[6, 0], [2, 0]]
    assert result["classes"]["dog"] == {"precision": 0, "recall": 0, "f1": 0}


@pytest.mark.slow
def test_last_and_other_checkpoints_can_be_evaluated(run, tmp_path):
    best, last = evaluated(run), evaluated(run, "checkpoint=last")
    assert (best["epoch"], last["epoch"]) == (run.results()["best_epoch"], 6)
    assert best["epoch"] < 6  # else the test shows nothing
    assert best["test/loss"] != last["test/loss"]
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(run.last.read_bytes())
    by_path = evaluated(run, f"checkpoint={copy}")
    assert by_path == last | {"checkpoint": str(copy)}


@pytest.mark.slow
def test_the_command_prints_tables_and_leaves_no_other_trace(cli, run, tmp_path):
    before = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    status, output = cli("src.evaluate", f"run={run.path}")
    assert status == 0, output
    names, _, values, *lines = [line.strip("|").split("|") for line in output.splitlines() if line]
    assert [name.strip() for name in names[:2]] == ["test/loss", "test/acc"]
    assert [float(value) for value in values[:2]] == [
        pytest.approx(run.results()[name.strip()], rel=1e-3) for name in names[:2]
    ]
    assert [line[0].strip() for line in lines[2:12]] == CLASSES
    assert (
        output.splitlines()[-1] == f"written to {run.path.relative_to(tmp_path)}/: evaluation.json"
    )
    new = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} - before
    output_of_the_command = {path for path in new if path.name.startswith("output")}
    assert new - output_of_the_command == {Path("run/evaluation.json")}


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["run=nowhere"], "nowhere is no run folder"),
        (["checkpoint=worst"], "checkpoint worst does not exist; try checkpoint=best"),
        (["checkpoint=1"], "checkpoint: input should be a valid string, got 1"),
        (
            ["trainer.accelerator=gpu"],
            "trainer.accelerator=gpu trainer.devices=1 cannot be had here",
        ),
        (
            ["trainer.accelerator=tpu"],
            "trainer.accelerator: input should be 'cpu', 'gpu', 'mps' or 'auto'",
        ),
        (["trainer.accelerator=1"], "trainer.accelerator: input should be 'cpu'"),
        (["data.root=1"], "data.root: input should be a valid string, got 1"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated_is_said_in_one_line(run, monkeypatch, overrides, complaint):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError) as error:
        evaluated(run, *overrides)
    assert str(error.value).startswith(complaint)
    assert "\n" not in str(error.value)
    assert not Path("nowhere").exists()
    assert not (run.path / "evaluation.json").exists()


def test_a_run_must_be_named():
    with pytest.raises(OmegaConfBaseException, match="run"):
        evaluate(compose_config("evaluate"))
