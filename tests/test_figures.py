"""Which pictures a run draws, and when."""

import pytest
import torch
from matplotlib.figure import Figure

from src.training import figures
from src.training.experiment import train
from src.training.figures import fit


def test_fit_draws_the_true_and_the_fitted_line_of_each_feature():
    X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    W, b = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0])
    truth = torch.tensor([[1.5], [2.0]]), torch.tensor([3.0])
    first, _ = fit(X, X @ W + b, W, b, truth).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in first.get_lines()}
    assert drawn["examples"] == [3.0, 4.0, 5.0]  # y - 2 x1 = x0 + 3
    assert drawn["fitted"] == [3.0, 5.0]
    assert drawn["true"] == [3.0, 6.0]


@pytest.mark.parametrize(("live", "pictures"), [("true", 4), ("false", 1)])
def test_curves_are_redrawn_after_every_epoch_or_at_the_end(config, monkeypatch, live, pictures, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "curves", lambda rows, scale: drawn.append(len(rows)) or Figure())
    few = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=4"]
    train(config(*few, f"callbacks.figures.live={live}"), tmp_path / "run")
    assert len(drawn) == pictures
    assert drawn[-1] == 4
