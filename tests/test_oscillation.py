"""What the loss does between minibatches, and what of it is noise."""

import csv
import itertools
import statistics
import sys
from pathlib import Path

import pytest
import torch
import yaml

from src.errors import UserError
from src.maths import functional as F
from src.models.scratch import SoftmaxRegression
from src.oscillation import __main__ as oscillation
from src.runs import Run
from src.runs.build import restore
from src.runs.checkpoint import load_checkpoint
from src.sweeps.sweep import Sweep
from src.training.experiment import train
from tests.conftest import compose_config

SMALL = ["data.train_size=1000", "data.val_size=300", "~callbacks.figures", "~logger"]
SWING = "sweep=lr_gamma"


def write_sweep(folder: Path, data_root: Path, jobs: list[list[str]], *overrides: str) -> Sweep:
    """A sweep whose jobs are trained in this process."""
    for number, job in enumerate(jobs):
        cfg = compose_config("train", *SMALL, f"data.root={data_root}", *overrides, *job)
        train(cfg, folder / str(number))
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"command": [], "jobs": jobs}))
    return Sweep(folder)


@pytest.fixture(scope="module")
def sweep(data_root, tmp_path_factory) -> Sweep:
    # a step of 1e-6 moves nothing: all that is left within an epoch is noise
    jobs = [[f"model.lr={lr}", f"seed={seed}"] for lr in (1e-6, 0.5) for seed in (0, 1)]
    folder = tmp_path_factory.mktemp("sweep")
    return write_sweep(folder, data_root, jobs, SWING, "trainer.max_epochs=6", "model.gamma=1.0")


def minibatch_losses(data, model, epoch: int) -> list[float]:
    """The loss of each minibatch of the epoch with the weights of the model."""
    X, y = data.split_examples("train")
    place = {index: k for k, index in enumerate(data.splits["train"][1].tolist())}
    losses = []
    sampler = data.loader("train", 256, shuffle=True).sampler
    sampler.set_epoch(epoch)
    for indices in sampler:
        rows = [place[i] for i in indices.tolist()]
        losses.append(F.cross_entropy(model(X[rows]), y[rows]).item())
    return losses


def mean_change(values: list[float]) -> float:
    return sum(abs(b - a) for a, b in itertools.pairwise(values)) / (len(values) - 1)


def test_swing_is_the_mean_change_from_minibatch_to_minibatch(config, monkeypatch, tmp_path):
    losses: list[float] = []

    def kept(model, logits, y):
        value = loss(model, logits, y)
        if value.requires_grad:
            losses.append(value.item())
        return value

    loss = SoftmaxRegression.loss
    monkeypatch.setattr(SoftmaxRegression, "loss", kept)
    cfg = config(*SMALL, SWING, "trainer.max_epochs=2")
    train(cfg, tmp_path / "run")
    rows = Run(tmp_path / "run").epochs()
    assert len(losses) == 8
    assert rows[0]["train/swing"] == pytest.approx(mean_change(losses[:4]), abs=1e-6)
    assert rows[1]["train/swing"] == pytest.approx(mean_change(losses[4:]), abs=1e-6)


class Normalized(SoftmaxRegression):
    """Softmax regression of normalized inputs: the layer changes with all that it sees in
    training."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.normalize = torch.nn.BatchNorm1d(784)

    def forward(self, X):
        return super().forward(self.normalize(X.flatten(1)))


def test_a_run_that_is_watched_is_the_run_that_is_not(config, monkeypatch, tmp_path):
    monkeypatch.setattr(Normalized, "__module__", "src.models.normalized")
    monkeypatch.setitem(sys.modules, "src.models.normalized", sys.modules[__name__])
    own = ["model._target_=src.models.normalized.Normalized", "trainer.max_epochs=2"]
    for name, watching in (("alone", []), ("watched", [SWING])):
        train(config(*SMALL, *own, *watching), tmp_path / name)
    alone, watched = (
        load_checkpoint(Run(tmp_path / name).last)["state_dict"] for name in ("alone", "watched")
    )
    assert all(torch.equal(alone[name], watched[name]) for name in alone)
    rows, seen = (Run(tmp_path / name).epochs() for name in ("alone", "watched"))
    assert seen == [
        row | {name: each[name] for name in ("train/swing", "train/rest")}
        for row, each in zip(rows, seen, strict=True)
    ]


@pytest.mark.slow
def test_at_rest_the_weights_do_not_move(sweep):
    run = Run(sweep.path / "2")
    data, model = restore(run.settings(), run.last)
    data.setup()
    with torch.no_grad():
        expected = mean_change(minibatch_losses(data, model, 5))
    assert run.epochs()[-1]["train/rest"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_the_command_tells_the_causes_apart(cli, sweep, tmp_path):
    (tmp_path / "sweep").symlink_to(sweep.path)
    status, output = cli("src.oscillation", "sweep", data=False)
    assert status == 0, output
    with open(tmp_path / "sweep/oscillation.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert [run["model.lr"] for run in runs] == ["1e-06", "1e-06", "0.5", "0.5"]
    still, moving = (
        {name: float(run[name]) for name in oscillation.MEASURED} for run in (runs[0], runs[2])
    )
    assert still["within an epoch"] == pytest.approx(still["at rest"], rel=1e-3)
    assert still["between epochs"] < 1e-4
    assert moving["within an epoch"] > 1.1 * moving["at rest"]
    names, _, *lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines()[:4]
    ]
    assert names == ["model.lr", "n", *oscillation.MEASURED]
    for line, members in zip(lines, (runs[:2], runs[2:]), strict=True):
        swings = [float(run["within an epoch"]) for run in members]
        spread = f"{statistics.mean(swings):.4f} ± {statistics.stdev(swings):.4f}"
        assert line[:3] == [members[0]["model.lr"], "2", spread]
    assert (tmp_path / "sweep/oscillation.png").stat().st_size > 10_000


def test_a_sweep_that_does_not_tell_is_refused(data_root, tmp_path):
    sweep = write_sweep(tmp_path, data_root, [["seed=0"]], "trainer.max_epochs=1")
    with pytest.raises(
        UserError,
        match=r"/0 lacks train/loss, train/swing, train/rest, val/acc or 6 epochs; run sweep=lr_gamma$",
    ):
        oscillation.measure(sweep)


@pytest.mark.parametrize(
    "kept", [["epoch"], ["epoch", "train/loss", "train/rest", "val/acc"], ["epoch", "val/acc"]]
)
@pytest.mark.parametrize("epochs", [0, 6])
def test_a_record_that_lacks_a_column_or_all_rows_is_refused(tmp_path, kept, epochs):
    folder = tmp_path / "0"
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"command": [], "jobs": [["seed=0"]]}))
    folder.mkdir()
    (folder / "metrics.json").write_text('{"status": "finished", "val/loss": 0.5}')
    lines = [",".join(kept), *[",".join("1" for _ in kept)] * epochs]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match="/0 lacks train/loss, train/swing, train/rest, val/acc or 6 epochs"
    ):
        oscillation.measure(Sweep(tmp_path))
