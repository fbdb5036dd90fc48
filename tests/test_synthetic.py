"""Synthetic linear data: what the generator draws, and that both linear models find what made
it."""

import functools

import pytest
import torch

from src.data.synthetic import SyntheticRegression
from src.errors import UserError
from src.models import concise, scratch
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.training.experiment import train
from tests.conftest import build, compose_config, made


def examples(split: str = "train", **arguments) -> tuple[torch.Tensor, torch.Tensor]:
    data = SyntheticRegression(**arguments)
    data.setup()
    drawn, _ = data.splits[split]
    return drawn.X, drawn.y


def test_without_noise_the_targets_are_exactly_linear():
    X, y = examples(w=[1.0, -2.0, 0.5], b=3.0, noise=0.0)
    assert X.shape == (10_000, 3)
    torch.testing.assert_close(y[:, 0], X[:, 0] - 2 * X[:, 1] + 0.5 * X[:, 2] + 3)


def test_noise_and_features_have_the_given_spread():
    X, y = examples(noise=0.1)
    noise = y[:, 0] - X @ torch.tensor([2.0, -3.4]) - 4.2
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)  # 10,000 draws: standard error 0.7 %
    assert noise.mean().item() == pytest.approx(0, abs=0.004)
    assert X.std(dim=0).tolist() == pytest.approx([1, 1], rel=0.03)


def test_splits_and_seeds_are_drawn_independently():
    train_X, _ = examples()
    assert torch.equal(train_X, examples()[0])
    assert not torch.equal(train_X[:1000], examples("test")[0])
    assert not torch.equal(examples("val")[0], examples("test")[0])
    assert not torch.equal(train_X, examples(seed=1)[0])


def test_the_same_examples_come_back_every_epoch_in_another_order():
    data = SyntheticRegression(train_size=50)
    data.setup()
    loader = data.train_dataloader()
    seen = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        seen.append(torch.cat([y for _, y in loader]))
    assert not torch.equal(*seen)
    assert torch.equal(*(y.sort(dim=0).values for y in seen))


@pytest.mark.parametrize(
    "bad",
    [
        {"w": []},
        {"noise": -1},
        {"train_size": 0},
        {"val_size": -1},
        {"batch_size": 0},
        {"w": "abc"},
        {"test_size": 10**12},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(bad):
    (name,) = bad
    with pytest.raises(UserError, match=rf"^data\.{name}: "):
        made("data", SyntheticRegression, bad)


def test_examples_that_do_not_fit_into_memory_are_refused():
    with pytest.raises(
        UserError,
        match=r"^data\.train_size=10000000 .* are 210,042,000 numbers; at most 100,000,000$",
    ):
        made("data", SyntheticRegression, {"w": [1.0] * 21, "train_size": 10_000_000})


LINEAR = ["data=synthetic", "data.train_size=500", "data.batch_size=32", "trainer.max_epochs=3"]


@functools.cache
def fitted(form: str, *overrides: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters after a fit from zero."""
    cfg = compose_config("train", f"model=linear_{form}", "model.sigma=0", *LINEAR, *overrides)
    model = build(cfg, "model")
    build(cfg, "trainer").fit(model, build(cfg, "data"))
    return model.weights()


def test_concise_takes_the_steps_of_scratch_at_half_the_learning_rate_for_its_loss_lacks_the_half():
    by_hand = fitted("scratch", "model.loss=l2", "model.lr=0.1")
    by_torch = fitted("concise", "model.loss=l2", "model.lr=0.05")
    for ours, theirs in zip(by_hand, by_torch, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["l1", "huber"])
def test_the_other_losses_agree_at_the_same_learning_rate(loss):
    by_hand, by_torch = (
        fitted(form, f"model.loss={loss}", "model.lr=0.1") for form in ("scratch", "concise")
    )
    for ours, theirs in zip(by_hand, by_torch, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_any_number_of_features_sets_the_width_of_the_model():
    w, _ = fitted("scratch", "data.w=[1,2,3,4,5]", "data.train_size=2000", "model.lr=0.1")
    torch.testing.assert_close(w[:, 0], torch.arange(1.0, 6.0), rtol=0, atol=0.02)


@pytest.mark.slow
def test_run_reports_the_error_of_the_estimates_every_epoch_and_draws_the_fit(config, tmp_path):
    cfg = config(
        "model=linear_scratch", "data=synthetic", "data.train_size=1000", "trainer.max_epochs=2"
    )
    train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    record = run.results()
    w, b = (load_checkpoint(run.best)["state_dict"][name] for name in "Wb")
    assert record["error/w"] == pytest.approx(
        (w[:, 0] - torch.tensor([2.0, -3.4])).abs().max().item(), abs=1e-6
    )
    assert record["error/b"] == pytest.approx(abs(b.item() - 4.2), abs=1e-6)
    assert record["error/w"] < 0.02
    assert run.metrics_csv.read_text().startswith(
        "epoch,step,error/b,error/w,lr,train/loss,val/loss"
    )
    assert {path.name for path in (run.path / "figures").iterdir()} == {"curves.png"}


LABELS = "predicts labels, but the targets are values"
VALUES = "predicts values, but the targets are labels"
MISFITS = {  # model -> targets, made from those of the data (n, 1) -> complaint
    "no column": ("LinearRegression", 1, lambda y: y[:, 0], r"shape \(\), each prediction \(1,\)"),
    "a column too few": (
        "LinearRegression",
        3,
        lambda y: y.expand(-1, 2),
        r"shape \(2,\), .* \(3,\)",
    ),
    "labels": ("LinearRegression", 1, lambda y: (y > 0).long(), VALUES),
    "values": ("SoftmaxRegression", 2, lambda y: y, LABELS),
    "labels 1, 2": (
        "SoftmaxRegression",
        2,
        lambda y: 1 + (y[:, 0] > 0).long(),
        "between 1 and 2, but .*=2",
    ),
    "labels -1, 0": (
        "SoftmaxRegression",
        2,
        lambda y: -(y[:, 0] > 0).long(),
        "between -1 and 0, but .*=2",
    ),
}


@pytest.mark.parametrize(("form", "loop"), [(scratch, "fit"), (scratch, "test"), (concise, "fit")])
@pytest.mark.parametrize("misfit", MISFITS)
def test_targets_that_the_model_does_not_predict_are_refused_before_the_first_minibatch(
    config, monkeypatch, misfit, form, loop
):
    kind, outputs, targets, complaint = MISFITS[misfit]
    model = getattr(form, kind)(num_inputs=2, num_outputs=outputs)
    data = SyntheticRegression(train_size=20, val_size=10, test_size=10)
    data.classes = ["no", "yes"]
    data.setup()
    for split, _ in data.splits.values():
        split.y = targets(split.y)
    monkeypatch.setattr(type(model), "count", None)
    trainer = build(config("data=synthetic"), "trainer")
    with pytest.raises(UserError, match=complaint):
        getattr(trainer, loop)(model, data)


@pytest.mark.parametrize("model", [scratch.LinearRegression, concise.LinearRegression])
def test_unknown_losses_are_refused(model):
    with pytest.raises(
        UserError, match=r"^model\.loss: .*'l2', 'l1' or 'huber', got 'l3'; try model\.loss=l2"
    ):
        made("model", model, {"loss": "l3"}, num_inputs=2, num_outputs=1)


def test_a_data_module_needs_no_train_size(config, monkeypatch, tmp_path):
    def forgetful(data: SyntheticRegression):
        vars(data).pop("train_size", None)
        return loader(data)

    loader = SyntheticRegression.train_dataloader
    monkeypatch.setattr(SyntheticRegression, "train_dataloader", forgetful)
    few = ["data.train_size=500", "trainer.max_epochs=1", "~callbacks.figures"]
    train(config("data=synthetic", "model=linear_scratch", *few), tmp_path / "run")
    record = Run(tmp_path / "run").results()
    # seconds are rounded to 0.001, which may be 2 % of them
    assert record["examples_per_second"] == pytest.approx(500 / record["seconds"], rel=0.05)
