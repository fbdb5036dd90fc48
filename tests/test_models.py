"""Scratch and concise against each other and against a plain loop that knows nothing of this
project."""

import lightning as L
import pytest
import torch
from torch.nn import functional as torch_F

from src.errors import UserError
from src.models import concise, scratch
from src.runs import Run, leaves
from src.runs.checkpoint import load_checkpoint
from tests.conftest import build, made, own_parts

FORMS = {"scratch": scratch.SoftmaxRegression, "concise": concise.SoftmaxRegression}
SIZES = {"num_inputs": 784, "num_outputs": 10}


def set_weights(model: L.LightningModule, W: torch.Tensor, b: torch.Tensor) -> None:
    for target, value in zip(model.weights(), (W, b), strict=True):
        target.copy_(value)


def fit(cfg, W: torch.Tensor) -> L.LightningModule:
    """Fit the configured model from (W, 0), and nothing else: no callbacks, no logger."""
    model, data = build(cfg, "model"), build(cfg, "data")
    set_weights(model, W, torch.zeros(10))
    trainer = build(cfg, "trainer")
    trainer.fit(model, data)
    assert trainer.global_step == trainer.num_training_batches * cfg.trainer.max_epochs
    return model


def plain_loop(cfg, W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Minibatch SGD by torch alone, on the same minibatches."""
    data = build(cfg, "data")
    data.prepare_data()
    data.setup()
    loader = data.train_dataloader()
    W, b = W.clone().requires_grad_(), torch.zeros(10, requires_grad=True)
    for epoch in range(cfg.trainer.max_epochs):
        loader.sampler.set_epoch(epoch)
        lr = cfg.model.lr * cfg.model.gamma**epoch
        for images, y in loader:
            logits = images.flatten(1).to(torch.float32) / 255 @ W + b
            if cfg.model.get("numerics") == "textbook":
                y_hat = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
                loss = -(y_hat[torch.arange(len(y)), y] + 1e-9).log().mean()
            else:
                loss = torch_F.cross_entropy(logits, y)
            loss = loss + cfg.model.weight_decay / 2 * ((W**2).sum() + (b**2).sum())
            dW, db = torch.autograd.grad(loss, (W, b))
            with torch.no_grad():
                W -= lr * dW
                b -= lr * db
    return W.detach(), b.detach()


@pytest.fixture
def W() -> torch.Tensor:
    return 0.01 * torch.randn(784, 10, generator=torch.Generator().manual_seed(0))


SCRATCH = [
    [f"model={form}", f"model.numerics={numerics}"]
    for numerics in ("stable", "textbook")
    for form in ("scratch", "closed_form")
]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [*SCRATCH, ["model=concise"]], ids=str)
def test_an_epoch_of_real_data_equals_an_independent_plain_loop(config, W, overrides):
    cfg = config(*overrides, "trainer.max_epochs=1", "data.train_size=20000")
    for ours, expected in zip(fit(cfg, W).weights(), plain_loop(cfg, W), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [SCRATCH[0], SCRATCH[1], ["model=concise"]], ids=str)
def test_lr_decay_weight_decay_and_uneven_minibatches_equal_the_plain_loop(config, W, overrides):
    small = ["data.train_size=1000", "data.batch_size=64"]  # the last minibatch has 40
    recipe = ["model.lr=0.3", "model.gamma=0.5", "model.weight_decay=0.01", "trainer.max_epochs=4"]
    cfg = config(*overrides, *small, *recipe)
    for ours, expected in zip(fit(cfg, W).weights(), plain_loop(cfg, W), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_scratch_and_concise_reach_the_same_weights_from_the_same_start(config, W):
    recipe = ["data.train_size=5000", "trainer.max_epochs=3", "model.weight_decay=0.001"]
    by_hand, by_torch = (fit(config(f"model={form}", *recipe), W) for form in FORMS)
    for ours, theirs in zip(by_hand.weights(), by_torch.weights(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS.values())
def test_initial_weights_have_the_given_spread_and_zero_bias(form):
    L.seed_everything(0, verbose=False)
    W, b = form(**SIZES, sigma=0.02).weights()
    assert W.shape == (784, 10)
    assert W.std().item() == pytest.approx(0.02, rel=0.03)  # 7840 draws: standard error 0.8 %
    assert torch.equal(b, torch.zeros(10))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1},
        {"lr": 0},
        {"lr": float("inf")},
        {"lr": "abc"},
        {"gamma": 0},
        {"gamma": 1.01},
        {"weight_decay": -0.1},
        {"sigma": -1},
        {"num_inputs": 100},
        {"lrr": 0.1},
    ],
    ids=str,
)
def test_hyperparameters_out_of_range_are_refused(form, bad):
    (name,) = bad
    with pytest.raises(UserError, match=rf"^model\.{name}"):
        made("model", FORMS[form], bad, **SIZES)


def test_unknown_numerics_are_refused():
    with pytest.raises(UserError, match=r"^model\.numerics: .* 'stable' or 'textbook', got 'fast'"):
        made("model", scratch.SoftmaxRegression, {"numerics": "fast"}, **SIZES)


@pytest.mark.parametrize("form", FORMS)
def test_a_width_that_does_not_fit_the_data_names_both_numbers(config, form):
    cfg = config(f"model={form}", "data.resize=14", "data.train_size=10")
    trainer = build(cfg, "trainer")
    with pytest.raises(UserError, match=r"model\.num_inputs is 784, .* 196 features"):
        trainer.fit(FORMS[form](**SIZES), build(cfg, "data"))


@pytest.mark.parametrize("form", FORMS)
def test_a_resize_changes_the_width_of_the_model(config, form):
    assert build(config(f"model={form}", "data.resize=10"), "model").hparams.num_inputs == 100


@pytest.mark.parametrize("form", FORMS)
def test_hyperparameters_are_plain_values_that_a_checkpoint_can_hold(config, form):
    hparams = dict(build(config(f"model={form}"), "model").hparams)
    assert {type(value) for value in leaves(hparams).values()} <= {int, float, str}
    assert hparams["lr"] == 0.1


def test_a_model_of_ones_own_may_use_the_hooks_that_ours_do_not(config, W):
    class Counting(concise.SoftmaxRegression):
        batches = 0

        def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
            self.batches += 1

    cfg = config("debug=fast", "model=concise")
    model, data = Counting(**SIZES), build(cfg, "data")
    trainer = build(cfg, "trainer")
    trainer.fit(model, data)
    assert model.batches == trainer.global_step > 0


HIDDEN_LAYER = '''
"""A perceptron with a hidden layer: all that is its own."""

from pydantic import PositiveInt
from torch import nn

from src.models.concise import SoftmaxRegression


class Perceptron(SoftmaxRegression):
    def __init__(self, num_hidden: PositiveInt = 32, **shared):
        super().__init__(**shared)
        d, q = self.hparams.num_inputs, self.hparams.num_outputs
        self.linear = nn.Sequential(nn.Linear(d, num_hidden), nn.ReLU(), nn.Linear(num_hidden, q))

    def weights(self) -> None:
        return None
'''
HIDDEN_LAYER_CONFIG = """
defaults: [concise, _self_]
_target_: src.models.perceptron.Perceptron
num_hidden: 16
"""


@pytest.mark.slow
def test_a_model_of_ones_own_with_a_hidden_layer_is_trained_resumed_evaluated_compared_and_predicts(
    data_root, tmp_path, cli
):
    added = {
        "src/models/perceptron.py": HIDDEN_LAYER,
        "conf/model/perceptron.yaml": HIDDEN_LAYER_CONFIG,
    }

    def command(module: str, *arguments: str) -> str:
        status, output = cli(
            module, *arguments, data=False, before=own_parts(tmp_path / "own", added)
        )
        assert status == 0, output
        return output

    few = [
        "--config-dir=own/conf",
        "model=perceptron",
        f"data.root={data_root}",
        "data.train_size=5000",
    ]
    whole, resumed = Run(tmp_path / "whole"), Run(tmp_path / "resumed")
    command("src.train", *few, "hydra.run.dir=whole", "trainer.max_epochs=3")
    command(
        "src.train", *few, "hydra.run.dir=resumed", "trainer.max_epochs=2", "~callbacks.figures"
    )
    command("src.resume", "run=resumed", "trainer.max_epochs=3")
    assert resumed.metrics_csv.read_text() == whole.metrics_csv.read_text()
    accuracy = whole.results()["test/acc"]
    assert accuracy > 0.6
    layers = {"linear.0.weight": (16, 784), "linear.0.bias": (16,), "linear.2.weight": (10, 16)}
    state = load_checkpoint(whole.best)["state_dict"]
    assert {name: tuple(state[name].shape) for name in layers} == layers
    pictures = {path.name for path in (whole.path / "figures").iterdir()}
    assert "confusion.png" in pictures
    assert "weights.png" not in pictures
    assert "the same test metrics as in metrics.json, to the last digit" in command(
        "src.evaluate", "run=whole"
    )
    assert f"accuracy {accuracy:.4f}" in command("src.predict", "run=whole")
    assert "| resumed " in command("src.compare", "whole", "resumed")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outputs", [9, 11])
def test_as_many_outputs_as_the_data_has_classes_are_asked_for_before_training(
    config, form, outputs
):
    cfg = config(f"model={form}", "data.train_size=10")
    trainer = build(cfg, "trainer")
    with pytest.raises(
        UserError, match=rf"model\.num_outputs is {outputs}, but the data has 10 classes"
    ):
        trainer.fit(FORMS[form](num_inputs=784, num_outputs=outputs), build(cfg, "data"))
    assert trainer.global_step == 0
