"""What a run leaves behind, on the real data."""

import csv
import functools
import math
import os
import subprocess

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.errors import UserError
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.training.experiment import train
from src.training.history import provenance
from tests.conftest import ROOT

# Small enough to take a second.
SMALL = ["data.train_size=2000", "data.val_size=500", "trainer.max_epochs=3", "~callbacks.figures"]


@pytest.fixture
def finished(config, tmp_path):
    """finished(*overrides) trains and returns the run."""

    def run(*overrides: str) -> Run:
        train(config(*SMALL, *overrides), tmp_path / "run")
        return Run(tmp_path / "run")

    return run


@pytest.fixture(scope="module")
def shared(config, tmp_path_factory) -> tuple[Run, float]:
    """A run that is only read, and what its training returned."""
    run = Run(tmp_path_factory.mktemp("shared") / "run")
    return run, train(config(*SMALL), run.path)


def rows(run: Run) -> list[dict[str, str]]:
    with open(run.metrics_csv, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("form", ["scratch", "concise"])
def test_run_folder_holds_what_the_contract_says(finished, shared, form):
    run = shared[0] if form == "scratch" else finished(f"model={form}")
    record = run.results()
    assert record["status"] == "finished"
    for name in ("train/loss", "train/acc", "val/loss", "val/acc", "test/loss", "test/acc"):
        assert math.isfinite(record[name])
    assert record["test/acc"] > 0.5
    assert record["steps"] == 3 * 8  # updates: 2000 examples in minibatches of 256, three times
    assert (record["epochs"], record["seed"], record["device"], record["threads"]) == (
        3,
        0,
        "cpu",
        1,
    )
    assert record["versions"]["torch"] == torch.__version__
    assert record["data_sha256"]["t10k-labels-idx1-ubyte"].startswith("0402a96d")
    for path in (run.best, run.last):
        checkpoint = load_checkpoint(path)
        assert checkpoint["global_step"] == 24
        assert checkpoint["hyper_parameters"]["lr"] == 0.1
    scalars = EventAccumulator(str(run.path)).Reload()
    names = {
        "loss/train",
        "acc/train",
        "loss/val",
        "acc/val",
        "tested/test_loss",
        "tested/test_acc",
        "lr",
    }
    assert names <= set(scalars.Tags()["scalars"])
    assert [(event.step, event.value) for event in scalars.Scalars("step")] == [
        (1, 8),
        (2, 16),
        (3, 24),
    ]
    assert [event.value for event in scalars.Scalars("lr")] == pytest.approx([0.1, 0.09, 0.081])
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    assert [row["step"] for row in rows(run)] == ["8", "16", "24"]
    assert [float(row["lr"]) for row in rows(run)] == pytest.approx([0.1, 0.09, 0.081], rel=1e-12)
    assert float(rows(run)[-1]["val/loss"]) == record["val/loss"]


def test_means_are_exact_over_uneven_minibatches(finished):
    # 500 validation images; accuracy must be a whole number of them, whatever the minibatches
    for row in rows(finished("data.batch_size=300")):
        assert float(row["val/acc"]) * 500 == pytest.approx(
            round(float(row["val/acc"]) * 500), abs=1e-9
        )
        assert float(row["train/acc"]) * 2000 == pytest.approx(
            round(float(row["train/acc"]) * 2000), abs=1e-9
        )


def test_best_checkpoint_is_the_epoch_of_lowest_validation_loss_and_the_one_tested(finished):
    # a weight decay so strong that each step makes W 1.5 times as large (|1 - 0.1 * 25|): the loss
    # grows
    run = finished(
        "data.train_size=700", "model.weight_decay=25", "model.gamma=1", "trainer.max_epochs=6"
    )
    losses = [float(row["val/loss"]) for row in rows(run)]
    record = run.results()
    best = losses.index(min(losses))
    assert best < 5  # else the test shows nothing
    assert record["best_epoch"] == best + 1
    assert record["val/loss"] == losses[best]
    assert load_checkpoint(run.best)["epoch"] == best
    assert load_checkpoint(run.last)["epoch"] == 5


def test_without_validation_split_the_test_set_is_watched_and_the_last_epoch_kept(finished):
    run = finished("data.val_size=0")
    metrics = {"train/loss", "train/acc", "test/loss", "test/acc"}
    assert set(rows(run)[0]) - {"epoch", "step", "lr"} == metrics | {"norm/W", "norm/b"}
    assert load_checkpoint(run.best)["epoch"] == 2
    record = run.results()
    assert record["test/acc"] == float(rows(run)[-1]["test/acc"])
    assert "val/loss" not in record


def test_train_returns_the_run_with_its_metrics_model_and_data(shared):
    run, returned = shared
    assert returned.path == run.path
    record = run.results()
    assert returned.metrics == {name: value for name, value in record.items() if "/" in name}
    assert torch.equal(returned.model.W, load_checkpoint(run.best)["state_dict"]["W"])
    X, y = returned.data.split_examples("test")
    assert (returned.model(X).argmax(dim=1) == y).double().mean() == record["test/acc"]
    shown = returned._repr_markdown_().splitlines()
    assert shown[2].split()[1] == "train"
    assert f"{record['test/acc']:.4f}" in shown[4]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(config, shared, tmp_path):
    W = {"shared": load_checkpoint(shared[0].last)["state_dict"]["W"]}
    for name, seed in {"same": 0, "other": 1}.items():
        train(config(*SMALL, f"seed={seed}"), tmp_path / name)
        run = Run(tmp_path / name)
        W[name] = load_checkpoint(run.last)["state_dict"]["W"]
    assert torch.equal(W["same"], W["shared"])
    assert not torch.equal(W["other"], W["shared"])


def test_an_existing_run_is_never_written_into(config, shared):
    run, _ = shared
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"holds a run already.*choose another"):
        train(config(*SMALL, "seed=1"), run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_provenance_is_that_of_git_and_unknown_without_it(monkeypatch):
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert provenance()["git_commit"] == commit.stdout.strip()
    assert provenance()["git_dirty"] in (True, False)
    provenance.cache_clear()
    monkeypatch.setenv("PATH", "/nowhere")
    assert (provenance()["git_commit"], provenance()["git_dirty"]) == (None, None)
    provenance.cache_clear()


def test_to_ask_git_writes_nothing_in_the_repository(monkeypatch, tmp_path):
    """A kill in the middle of it would leave .git/index.lock, with which git refuses to work."""
    file, index = tmp_path / "history.py", tmp_path / ".git" / "index"
    git = functools.partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    file.write_text("committed")
    git(["git", "init"])
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a", "commit", "--message=a"])
    os.utime(file, (1, 1))  # git would note that it is as it was all the same
    before = index.read_bytes()
    monkeypatch.setattr("src.training.history.__file__", str(file))
    assert provenance.__wrapped__()["git_dirty"] is False
    assert index.read_bytes() == before
    git(["git", "status"])
    assert index.read_bytes() != before  # else the line above would show nothing


def test_without_a_logger_the_files_are_written_all_the_same(finished):
    run = finished("~logger")
    assert not run.events()
    assert len(rows(run)) == 3


@pytest.mark.slow
def test_debug_fast_takes_a_few_minibatches_of_everything_and_draws_the_tested_model(
    config, tmp_path
):
    cfg = config("debug=fast")
    train(cfg, tmp_path / "run")
    assert rows(Run(tmp_path / "run"))[-1]["step"] == "4"
    drawn = {path.stem: Image.open(path) for path in ((tmp_path / "run") / "figures").iterdir()}
    assert set(drawn) == {
        "curves",
        "weights",
        "confusion",
        "predictions_first",
        "predictions_misclassified",
    }
    for picture in drawn.values():
        assert picture.width > 600
        assert len(picture.convert("L").getcolors()) > 20  # not an empty sheet


@pytest.mark.slow
def test_debug_overfit_brings_a_few_examples_to_nearly_zero_loss(config, tmp_path):
    cfg = config("debug=overfit")
    train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert float(rows(run)[-1]["train/loss"]) < 0.01
    assert float(rows(run)[-1]["train/acc"]) == 1.0


def test_a_failed_run_records_its_reason(config, tmp_path):
    cfg = config(*SMALL, "data.train_size=60001")
    with pytest.raises(UserError, match="train_size must be at most 59500"):
        train(cfg, tmp_path / "run")
    record = Run(tmp_path / "run").results()
    assert record["status"] == "failed"
    assert "train_size must be at most" in record["reason"]
