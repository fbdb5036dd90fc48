"""Which pictures a run draws, when, and of what."""

from collections import Counter

import pytest
from matplotlib.figure import Figure

from src.data.fashion_mnist import FashionMNIST
from src.models.scratch import SoftmaxRegression
from src.training import figures
from src.training.experiment import train


@pytest.mark.parametrize(("live", "pictures"), [("true", 4), ("false", 1)])
def test_curves_are_redrawn_after_every_epoch_or_at_the_end(
    config, monkeypatch, live, pictures, tmp_path
):
    drawn = []
    monkeypatch.setattr(figures, "curves", lambda rows: drawn.append(len(rows)) or Figure())
    few = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=4"]
    train(config(*few, f"callbacks.figures.live={live}"), tmp_path / "run")
    assert len(drawn) == pictures
    assert drawn[-1] == 4


def test_the_confusion_matrix_of_a_run_has_the_true_classes_in_its_rows(data_root):
    data, model = FashionMNIST(str(data_root)), SoftmaxRegression(num_inputs=784, num_outputs=10)
    data.setup()
    X, y = data.split_examples("test")
    logits = (X.flatten(1) @ model.W + model.b).detach()  # of a model that has learnt nothing
    guesses = logits.argmax(dim=1)
    expected = Counter(zip(y.tolist(), guesses.tolist(), strict=True))
    (ax,) = figures.pictures(model, data, logits, y)["confusion"].axes
    shown = [(*map(round, each.get_position()), each.get_text()) for each in ax.texts]
    assert {(i, j): text for j, i, text in shown} == {cell: str(n) for cell, n in expected.items()}
