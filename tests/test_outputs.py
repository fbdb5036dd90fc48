"""What a model gives for the test split, in one pass."""

import pytest
import torch

from src.evaluate.scores import evaluate
from src.models import scratch
from src.runs.build import restore
from src.training.experiment import train
from src.training.testing import measure
from tests.conftest import compose_config

SMALL = ["data.train_size=500", "data.val_size=100", "trainer.max_epochs=2"]


def test_each_split_passes_through_the_model_once(config, tmp_path, monkeypatch):
    forward, passed = scratch.SoftmaxRegression.forward, []

    def counted(self, X):
        passed.append(len(X))
        return forward(self, X)

    monkeypatch.setattr(scratch.SoftmaxRegression, "forward", counted)
    run = train(config(*SMALL), tmp_path / "run")
    assert (run.path / "figures/confusion.png").exists()
    assert sum(passed) == 2 * (500 + 100) + 10_000
    passed.clear()
    evaluate(compose_config("evaluate", f"run={run.path}"))
    assert sum(passed) == 10_000


@pytest.mark.parametrize("model", ["scratch", "grid"])
def test_outputs_and_targets_are_those_of_the_split_in_its_order(config, tmp_path, model):
    run = train(config(f"model={model}", *SMALL, "~callbacks.figures"), tmp_path / "run")
    data, model = restore(run.settings(), run.best, within=run.path)
    metrics, outputs, targets = measure(model, data, run.settings())
    X, y = data.split_examples("test")
    with torch.inference_mode():
        torch.testing.assert_close(outputs, model(X), rtol=0, atol=1e-6)
    assert torch.equal(targets, y)
    assert metrics == {name: run.results()[name] for name in ("test/acc", "test/loss")}
