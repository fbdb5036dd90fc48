"""Which pictures a run draws, and when."""

import pytest
from matplotlib.figure import Figure

from src.training import figures
from src.training.experiment import train


@pytest.mark.parametrize(("live", "pictures"), [("true", 4), ("false", 1)])
def test_curves_are_redrawn_after_every_epoch_or_at_the_end(config, monkeypatch, live, pictures, tmp_path):
    drawn = []
    monkeypatch.setattr(figures, "curves", lambda rows: drawn.append(len(rows)) or Figure())
    few = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=4"]
    train(config(*few, f"callbacks.figures.live={live}"), tmp_path / "run")
    assert len(drawn) == pictures
    assert drawn[-1] == 4
