"""The Trainer of every run, whatever the machine has besides."""

from src.runs import Run
from src.training.experiment import train
from tests.tools.faults import differences

SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=2"]


def test_srun_on_the_path_is_no_reason_to_warn_and_changes_nothing(
    config, monkeypatch, srun, tmp_path
):
    cfg = config(*SMALL, "~callbacks.figures")
    train(cfg, tmp_path / "without")
    monkeypatch.setenv("PATH", srun)
    train(cfg, tmp_path / "with")
    assert differences(Run(tmp_path / "with"), Run(tmp_path / "without")) == []
