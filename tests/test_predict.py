"""Predictions from a finished run, and decisions under costs."""

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

from src import functional as F
from src.data.fashion_mnist import CLASSES
from src.experiment import train
from src.predict import read_costs
from src.runs import Run
from tests.conftest import ROOT


def test_the_likeliest_class_is_not_always_the_best_answer():
    # healthy with 0.9, ill with 0.1; to miss the illness costs 100, a false alarm 1:
    # "healthy" costs 0.1 * 100 = 10 on average, "ill" 0.9 * 1 = 0.9
    p = torch.tensor([[0.9, 0.1], [0.999, 0.001]])
    costs = torch.tensor([[0.0, 1.0], [100.0, 0.0]])
    expected = torch.tensor([[10.0, 0.9], [0.1, 0.999]])
    torch.testing.assert_close(F.expected_cost(p, costs), expected)
    assert F.expected_cost(p, costs).argmin(dim=1).tolist() == [1, 0]


def test_equal_costs_of_all_errors_choose_the_likeliest_class():
    p = torch.randn(100, 10, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    assert torch.equal(F.expected_cost(p, 1 - torch.eye(10)).argmin(dim=1), p.argmax(dim=1))


def test_costs_are_read_by_name_whatever_their_order(tmp_path):
    path = tmp_path / "costs.csv"
    path.write_text("true,cat,dog,ask\ndog,5,0,1\ncat,0,2,1\n")
    costs, answers = read_costs(path, ["cat", "dog"])
    assert answers == ["cat", "dog", "ask"]
    assert costs.tolist() == [[0, 2, 1], [5, 0, 1]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("true,cat\ncat,0\n", "has no row for dog"),
        ("true,cat,dog\ncat,0,x\ndog,1,0\n", "a cost is not a number"),
        ("true,cat,dog\ncat,0\ndog,1,0\n", "a cost is not a number"),
        ("true,cat,dog\ncat,0,inf\ndog,1,0\n", "finite number"),
        ("", "has no row for cat, dog"),
    ],
)
def test_costs_that_make_no_sense_are_refused(tmp_path, text, complaint):
    path = tmp_path / "costs.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_costs(path, ["cat", "dog"])


@pytest.fixture
def run(config) -> Run:
    cfg = config("data.train_size=5000", "trainer.max_epochs=2", "~callbacks.figures")
    train(cfg)
    return Run(cfg.run_dir)


@pytest.mark.slow
def test_predictions_of_a_run_are_those_of_its_best_checkpoint(cli, run, tmp_path):
    costs = ROOT / "conf/costs/missed_shirt.csv"
    arguments = [f"run={run.path}", f"decision.costs={costs}", "hydra.run.dir=out", "first=9"]
    status, output = cli("src.predict", *arguments, data=False)
    assert status == 0, output
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines()))
    assert len(rows) == 10_000
    share = sum(row["true"] == row["predicted"] for row in rows) / 10_000
    assert share == run.record()["test/acc"]
    assert output.startswith(f"accuracy {share:.4f} on 10000 test images\n")
    for row in rows[:100]:
        p = {name: float(row[name]) for name in CLASSES}
        assert max(p, key=p.get) == row["predicted"]
        assert sum(p.values()) == pytest.approx(1, abs=1e-5)
    lines = output.splitlines()
    likeliest, cheapest = (float(line.split(" costs ")[1].split()[0]) for line in lines[1:3])
    assert cheapest < likeliest
    assert "the likeliest class is" in lines[4]
    for name in ("first", "misclassified", "decisions"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 900


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run=nowhere"], "nowhere is no run folder"),
        ([], "run"),
        (["run={run}", "decision.costs=nowhere.csv"], "No such file"),
        (["run={run}", "first=0"], "first must be >= 1, got 0"),
        (["run={run}", "checkpoint=nope"], "checkpoint must be best or last, got nope"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(cli, run, arguments, complaint):
    status, output = cli("src.predict", *(text.format(run=run.path) for text in arguments), data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    assert complaint in line


def test_a_run_of_a_linear_regression_has_no_classes_to_predict(config, cli):
    cfg = config("model=linear_scratch", "data=synthetic", "data.train_size=50", "trainer.max_epochs=1")
    train(cfg)
    status, output = cli("src.predict", f"run={Path(cfg.run_dir)}", data=False)
    assert status == 1
    assert "is no classifier" in output
