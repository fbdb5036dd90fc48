"""Runs side by side: the folders alone say what differs in settings, results and weights."""

import csv
from pathlib import Path

import pytest
import torch

from src.charts import png
from src.charts.images import weights
from src.data.fashion_mnist import CLASSES
from src.runs import Run

pytestmark = pytest.mark.slow  # real commands

SMALL = ["trainer.max_epochs=2", "data.train_size=600", "data.val_size=300", "~logger"]
LINEAR = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=200",
    "trainer.max_epochs=1",
    "~logger",
]


@pytest.fixture
def trained(cli, tmp_path):
    """trained(name, *overrides) is the folder of a finished run."""

    def call(name: str, *overrides: str) -> Path:
        data = "data=synthetic" not in overrides
        finished = cli(
            "src.train", f"hydra.run.dir={name}", "callbacks.figures.draw=false", *overrides, data=data
        )
        assert finished.status == 0, finished.output
        return tmp_path / name

    return call


def comparison(folder: Path) -> Path:
    """The one folder that comparisons have made."""
    (made,) = (folder / "outputs/comparisons").iterdir()
    return made


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "comparison.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_two_classifiers_are_compared_in_what_differs_in_results_and_in_weights(cli, trained, tmp_path):
    runs = [Run(trained("one", *SMALL)), Run(trained("two", *SMALL, "model=concise", "model.lr=0.3"))]
    finished = cli("src.compare", "one", "two", data=False)
    assert finished.status == 0, finished.output
    made = comparison(tmp_path)
    assert sorted(path.name for path in made.iterdir()) == [
        "comparison.csv",
        "comparison.md",
        "curves.png",
        "weights.png",
    ]
    rows = table(made)
    assert [(row["run"], row["model"], row["model.lr"]) for row in rows] == [
        ("A", "scratch.SoftmaxRegression", "0.1"),
        ("B", "concise.SoftmaxRegression", "0.3"),
    ]
    assert not {"seed", "data.batch_size", "data.root", "model.gamma", "trainer.max_epochs"} & rows[0].keys()
    for row, run in zip(rows, runs, strict=True):
        record = run.record()
        for metric in ("val/loss", "val/acc", "test/loss", "test/acc"):
            assert float(row[metric]) == record[metric]
            assert f" {record[metric]:.4f} " in finished.output
            assert f" {record[metric]:.4f} " in (made / "comparison.md").read_text()
    states = [torch.load(run.best, weights_only=True)["state_dict"] for run in runs]
    W = {"A: scratch, lr 0.1": states[0]["W"], "B: concise, lr 0.3": states[1]["linear.weight"].T}
    assert (made / "weights.png").read_bytes() == png(weights(W, CLASSES))


def test_of_a_sweep_the_best_finished_jobs_are_compared(cli, tmp_path):
    sizes = ",".join(str(10 * k) for k in range(1, 11))
    grid = ["-m", *LINEAR, f"data.batch_size={sizes},-1", "hydra.sweep.dir=sweep"]
    assert cli("src.train", *grid, data=False).status == 1  # the last job cannot work
    finished = cli("src.compare", "sweep", data=False)
    assert finished.status == 0, finished.output
    losses = {str(k): Run(tmp_path / "sweep" / str(k)).record()["val/loss"] for k in range(10)}
    best = sorted(losses, key=losses.get)[:8]
    rows = table(comparison(tmp_path))
    assert [Path(row["folder"]).name for row in rows] == sorted(best, key=int)
    assert [float(row["data.batch_size"]) for row in rows] == [
        10 * (int(job) + 1) for job in sorted(best, key=int)
    ]
    assert not (comparison(tmp_path) / "weights.png").exists()  # two weights are no image
    assert "error/w" in rows[0]


def test_what_cannot_be_compared_is_said_in_one_line(cli, trained, tmp_path):
    trained("linear", *LINEAR)
    trained("classifier", *SMALL)
    (tmp_path / "begun/.hydra").mkdir(parents=True)
    for name in ("config.yaml", "overrides.yaml"):
        (tmp_path / "begun/.hydra" / name).write_bytes((tmp_path / "linear/.hydra" / name).read_bytes())
    (tmp_path / "empty").mkdir()
    for arguments, reason in {
        ("linear",): "linear alone cannot be compared",
        ("linear", "linear"): "linear alone cannot be compared",
        ("linear", "nowhere"): "nowhere is no run folder",
        ("linear", "empty"): "empty is no run folder",
        ("linear", "begun"): "begun has no epoch to compare yet",
        ("linear", "classifier"): "they have no measure in common",
    }.items():
        status, output = cli("src.compare", *arguments, data=False)
        assert (status, output.count("\n")) == (1, 1), output
        assert output.startswith("error: ")
        assert reason in output
    assert not (tmp_path / "outputs").exists()
