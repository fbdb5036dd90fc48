"""Which pictures a run draws, and when."""

import pydantic
import pytest
import torch
from matplotlib.figure import Figure

from src.training import figures
from src.training.experiment import train
from src.training.figures import Figures, fit


def test_fit_draws_the_true_and_the_fitted_line_of_each_feature():
    X = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    W, b = torch.tensor([[1.0], [2.0]]), torch.tensor([3.0])
    truth = torch.tensor([[1.5], [2.0]]), torch.tensor([3.0])
    first, _ = fit(X, X @ W + b, W, b, truth).axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in first.get_lines()}
    assert drawn["examples"] == [3.0, 4.0, 5.0]  # y - 2 x1 = x0 + 3
    assert drawn["fitted"] == [3.0, 5.0]
    assert drawn["true"] == [3.0, 6.0]


@pytest.mark.parametrize(("share", "pictures"), [(1, 4), (0, 1)])
def test_curves_are_redrawn_as_often_as_their_share_of_the_time_allows(
    config, monkeypatch, share, pictures, tmp_path
):
    drawn = []
    monkeypatch.setattr(figures, "curves", lambda rows, scale: drawn.append(len(rows)) or Figure())
    train(
        config(
            *("data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=4"),
            f"callbacks.figures.share={share}",
        ),
        tmp_path / "run",
    )
    assert len(drawn) == pictures
    assert drawn[-1] == 4


def test_share_of_the_time_must_be_one():
    with pytest.raises(pydantic.ValidationError, match="share"):
        Figures(share=1.5)
