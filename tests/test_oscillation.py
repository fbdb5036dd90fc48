"""What the loss does between minibatches, and what of it is noise."""

import itertools

import pytest
import torch

from src.maths import functional as F
from src.models.scratch import SoftmaxRegression
from src.oscillation import at_rest
from src.runs import Run, restore
from src.training.experiment import train

SMALL = ["data.train_size=1000", "data.val_size=300", "trainer.max_epochs=2", "~callbacks.figures"]
SWING = "+callbacks.swing._target_=src.oscillation.Swing"


def minibatch_losses(data, model, epoch: int) -> list[float]:
    """The loss of each minibatch of the epoch with the weights of the model."""
    X, y = data.whole("train")
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
        if model.trainer.training:
            losses.append(value.item())
        return value

    loss = SoftmaxRegression.loss
    monkeypatch.setattr(SoftmaxRegression, "loss", kept)
    cfg = config(*SMALL, SWING)
    train(cfg, tmp_path / "run")
    rows = Run(tmp_path / "run").rows()
    assert len(losses) == 8
    assert rows[0]["train/swing"] == pytest.approx(mean_change(losses[:4]), abs=1e-6)
    assert rows[1]["train/swing"] == pytest.approx(mean_change(losses[4:]), abs=1e-6)


def test_at_rest_the_weights_do_not_move(config, tmp_path):
    cfg = config(*SMALL, SWING)
    train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    data, model = restore(run.recorded(), run.last)
    data.setup()
    with torch.no_grad():
        expected = mean_change(minibatch_losses(data, model, 1))
    assert at_rest(run) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_the_command_tells_the_causes_apart(cli, data_root, tmp_path):
    # a step of 1e-6 moves nothing: all that is left within an epoch is noise
    sweep = [
        *SMALL,
        "sweep=lr_gamma",
        "trainer.max_epochs=6",
        "seed=0,1",
        "model.gamma=1.0",
        "model.lr=1e-6,0.5",
    ]
    finished = cli("src.train", *sweep, "hydra.sweep.dir=sweep")
    assert finished.status == 0, finished.output
    status, output = cli("src.oscillation", "sweep", "--data-root", str(data_root), data=False)
    assert status == 0, output
    names = [name.strip() for name in output.splitlines()[0].split("  ") if name.strip()]
    rows = [dict(zip(names, map(float, line.split()), strict=True)) for line in output.splitlines()[1:3]]
    still, moving = rows
    assert (still["lr"], moving["lr"], still["n"]) == (1e-6, 0.5, 2)
    assert still["within an epoch"] == pytest.approx(still["at rest"], rel=1e-3)
    assert still["between epochs"] < 1e-4
    assert moving["within an epoch"] > 1.1 * moving["at rest"]
    assert (tmp_path / "sweep/oscillation.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_sweep_that_does_not_tell_is_refused(cli):
    cli("src.train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")
    status, output = cli("src.oscillation", "sweep", data=False)
    assert status == 1
    assert output.startswith("error: sweep/0 has no train/swing, or at most 5 epochs; run sweep=lr_gamma")
