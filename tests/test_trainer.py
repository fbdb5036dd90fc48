"""The Trainer of every run: its arguments do what Lightning says, and keep all that a run promises."""

import logging
import re
import time

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback
from omegaconf import OmegaConf
from torch.nn import functional as F

from src.errors import UserError
from src.evaluate.scores import evaluate
from src.runs import Run
from src.runs.build import restore
from src.runs.checkpoint import load_checkpoint
from src.training.arguments import REFUSED
from src.training.experiment import train
from src.training.resuming import resume
from tests.conftest import ROOT, build, compose_config
from tests.tools.faults import differences

SYNTHETIC = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=50",
    "trainer.max_epochs=2",
    "~callbacks.figures",
]
IMAGES = ["data.train_size=1000", "data.val_size=500", "trainer.max_epochs=2", "~callbacks.figures"]


def test_srun_on_the_path_is_no_reason_to_warn_and_changes_nothing(
    config, monkeypatch, srun, tmp_path
):
    cfg = config(*SYNTHETIC)
    train(cfg, tmp_path / "without")
    monkeypatch.setenv("PATH", srun)
    train(cfg, tmp_path / "with")
    assert differences(Run(tmp_path / "with"), Run(tmp_path / "without")) == []


# --- what an argument does, by a plain loop ---------------------------------------------------------


def initial_weights(model: str) -> torch.Tensor:
    """W (d, q) as the models draw it."""
    if model != "concise":
        return 0.01 * torch.randn(10, 784).T
    layer = torch.nn.Linear(784, 10)  # draws weights of its own first
    torch.nn.init.normal_(layer.weight, std=0.01)
    return layer.weight.detach().T


def plain_loop(
    cfg, model, dtype=torch.float32, minibatches=None, accumulate=1, clip=None, autocast=False
):
    """(W (d, q), b (q,)) of softmax regression after the epochs of the config, without Lightning."""
    data = build(cfg, "data")
    data.prepare_data()
    data.setup("fit")
    L.seed_everything(cfg.seed, verbose=False)
    W = initial_weights(model).to(dtype).requires_grad_()
    b = torch.zeros(10, dtype=dtype, requires_grad=True)
    loader = data.train_dataloader()
    for epoch in range(cfg.trainer.max_epochs):
        lr = 0.1 * 0.9**epoch
        loader.sampler.set_epoch(epoch)
        batches = list(loader)[:minibatches]
        for number, (X, y) in enumerate(batches, start=1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = (X.to(dtype) / 255).flatten(1) @ W + b
                loss = F.cross_entropy(logits.to(dtype), y)
            (loss / accumulate).backward()
            if number % accumulate and number != len(batches):
                continue
            if clip is not None:  # the norm of all gradients together
                norm = torch.cat([W.grad.flatten(), b.grad]).norm()
                for p in (W, b):
                    p.grad.mul_(min(1, clip / norm))
            with torch.no_grad():
                for p in (W, b):
                    p -= lr * p.grad
                    p.grad = None
    return W.detach(), b.detach()


def trained_weights(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    _, model = restore(run.settings(), run.last, within=run.path)
    return model.weights()


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["scratch", pytest.param("closed_form", marks=pytest.mark.thorough), "concise"]
)
@pytest.mark.parametrize(
    ("argument", "loop", "tolerance"),
    [
        ("trainer.limit_train_batches=2", {"minibatches": 2}, 1e-6),
        ("trainer.limit_train_batches=0.5", {"minibatches": 2}, 1e-6),
        ("trainer.precision=64-true", {"dtype": torch.float64}, 1e-13),
        ("trainer.precision=bf16-mixed", {"autocast": True}, 2e-4),
        ("trainer.accumulate_grad_batches=3", {"accumulate": 3}, 1e-6),
        ("trainer.gradient_clip_val=0.3", {"clip": 0.3}, 1e-6),
    ],
)
def test_training_equals_a_plain_loop(config, tmp_path, model, argument, loop, tolerance):
    cfg = config(f"model={model}", *IMAGES, argument)
    if model != "concise" and ("accumulate" in argument or "clip" in argument):
        with pytest.raises(UserError, match="takes its steps itself; take model=concise"):
            train(cfg, tmp_path / "run")
        return
    run = train(cfg, tmp_path / "run")
    for mine, other in zip(trained_weights(run), plain_loop(cfg, model, **loop), strict=True):
        assert mine.dtype == other.dtype
        torch.testing.assert_close(mine, other, rtol=0, atol=tolerance)
    assert "untested" not in run.results()
    result = evaluate(compose_config("evaluate", f"run={run.path}"))
    assert result["test/loss"] == run.results()["test/loss"]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "model",
    ["grid", "linear_scratch", pytest.param("linear_concise", marks=pytest.mark.thorough)],
)
def test_every_model_trains_in_every_precision(config, tmp_path, model, precision):
    small = IMAGES if model == "grid" else [*SYNTHETIC[2:], "data=synthetic"]
    run, full = (
        train(config(f"model={model}", *small, f"trainer.precision={name}"), tmp_path / name)
        for name in (precision, "32-true")
    )
    tolerance = 1e-5 if precision == "64-true" else 0.05
    assert run.metrics["val/loss"] == pytest.approx(full.metrics["val/loss"], rel=tolerance)
    assert run.metrics["val/loss"] != full.metrics["val/loss"]
    result = evaluate(compose_config("evaluate", f"run={run.path}"))
    assert result["test/loss"] == run.results()["test/loss"]


def test_metrics_of_mixed_precision_are_summed_in_full(config, tmp_path):
    # in 16 bits, a sum of 500 losses of 2.3 would be a multiple of 8
    run = train(config(*IMAGES, "trainer.precision=bf16-mixed"), tmp_path / "run")
    loss = run.epochs()[-1]["val/loss"] * 500
    assert loss % 8 != 0
    assert loss == pytest.approx(500 * run.metrics["val/loss"])


# --- what a row, a checkpoint and the record say ----------------------------------------------------


def test_speed_counts_the_examples_that_were_seen(config, tmp_path):
    run = train(config(*IMAGES, "trainer.limit_train_batches=1"), tmp_path / "run")
    record = run.results()
    assert record["examples_per_second"] == pytest.approx(2 * 256 / record["seconds"], rel=0.02)


def test_an_epoch_without_validation_has_none_in_its_row_and_is_not_the_best(config, tmp_path):
    args = ["trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5"]
    run = train(config(*IMAGES, *args), tmp_path / "run")
    whole = train(config(*IMAGES, "trainer.max_epochs=5"), tmp_path / "whole")
    for row, other in zip(run.epochs(), whole.epochs(), strict=True):
        if row["epoch"] in (2, 4):
            assert row == other
        else:
            assert row == {name: value for name, value in other.items() if "val/" not in name}
    assert run.results()["best_epoch"] == 4
    assert whole.results()["best_epoch"] == 5


def test_a_run_that_ends_before_its_first_validation_has_its_last_epoch_for_the_best(
    config, tmp_path
):
    run = train(config(*IMAGES, "trainer.check_val_every_n_epoch=3"), tmp_path / "run")
    assert run.results()["best_epoch"] == 2
    assert "val/loss" not in run.metrics


def test_parts_of_the_splits_are_validated_and_tested(config, tmp_path):
    small = [*IMAGES, "data.val_size=3000"]
    limits = ["trainer.limit_val_batches=1", "trainer.limit_test_batches=2"]
    run = train(config(*small, *limits), tmp_path / "run")
    data, model = restore(run.settings(), run.best, within=run.path)
    data.prepare_data()
    data.setup()
    for split, seen, name in (("val", 1000, "val/acc"), ("test", 2000, "test/acc")):
        X, y = data.split_examples(split, slice(seen))
        with torch.inference_mode():
            accuracy = (model(X).argmax(dim=1) == y).double().mean().item()
        assert run.metrics[name] == pytest.approx(accuracy)
    assert evaluate(compose_config("evaluate", f"run={run.path}"))["test/acc"] == accuracy


def test_fast_dev_run_is_an_epoch_of_a_minibatch_with_everything_else(config, tmp_path):
    run = train(config(*IMAGES, "trainer.fast_dev_run=true"), tmp_path / "run")
    record = run.results()
    assert (record["epochs"], record["steps"], record["status"]) == (1, 1, "finished")
    assert evaluate(compose_config("evaluate", f"run={run.path}"))["test/acc"] == record["test/acc"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple", "advanced", "pytorch"])
def test_the_report_of_a_profiler_lies_in_the_run_folder(config, tmp_path, name):
    run = train(config(*SYNTHETIC, f"trainer.profiler={name}"), tmp_path / "run")
    assert (run.path / f"fit-{name}_profile.txt").stat().st_size
    other = train(config(*SYNTHETIC), tmp_path / "other")
    assert differences(run, other) == []


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["deterministic=true", "detect_anomaly=true"])
def test_what_only_watches_changes_no_bit(config, tmp_path, argument):
    run = train(config(*IMAGES, f"trainer.{argument}"), tmp_path / "run")
    assert differences(run, train(config(*IMAGES), tmp_path / "other")) == []


@pytest.mark.slow
def test_max_time_ends_a_run_with_an_epoch_and_a_longer_one_goes_on(config, tmp_path):
    endless = [*SYNTHETIC, "trainer.max_epochs=20000", "trainer.max_time=00:00:00:01"]
    run = train(config(*endless), tmp_path / "run")
    record = run.results()
    epochs = record["epochs"]
    assert record["ended"] == f"max_time at epoch {epochs}"
    assert 1 <= record["seconds"] < 10
    assert load_checkpoint(run.last)["loops"]["fit_loop"]["epoch_progress"]["current"][
        "completed"
    ] in (epochs - 1, epochs)
    cfg = run.settings()
    cfg["trainer"] |= {"max_time": None, "max_epochs": epochs + 2}
    resume(run.path, cfg)
    assert len(run.epochs()) == epochs + 2
    whole = train(config(*SYNTHETIC, f"trainer.max_epochs={epochs + 2}"), tmp_path / "whole")
    assert run.metrics_csv.read_text() == whole.metrics_csv.read_text()


def rarely(*numbers: int) -> list:
    """Parameters that the thorough suite alone tries."""
    return [pytest.param(number, marks=pytest.mark.thorough) for number in numbers]


class StopAt(L.Callback):
    """An error after so many minibatches."""

    def __init__(self, minibatches: int):
        self.left = minibatches

    def on_train_batch_end(self, *_) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("stopped")


def slow_step(*_) -> None:
    time.sleep(1)


@pytest.mark.slow
def test_a_run_whose_time_was_over_when_it_was_stopped_ends_with_an_epoch(config, tmp_path):
    run = Run(tmp_path / "run")
    cfg = config(*IMAGES, "trainer.max_epochs=9", "callbacks.last.every_n_train_steps=1")
    cfg.trainer.max_time = "00:00:00:01"
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, run.path, LambdaCallback(on_train_batch_start=slow_step), StopAt(2))
    resume(run.path)
    assert len(run.epochs()) == 1
    assert run.results()["ended"] == "max_time at epoch 1"


@pytest.mark.slow
@pytest.mark.parametrize("minibatches", [*rarely(1, 2, 3), 4, *rarely(5, 6), 7, *rarely(8)])
def test_no_checkpoint_lies_within_an_accumulation(config, tmp_path, minibatches):
    small = [*IMAGES, "model=concise", "trainer.accumulate_grad_batches=3"]
    cfg = config(*small, "callbacks.last.every_n_train_steps=1", "model.optimizer.name=AdamW")
    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, run.path, StopAt(minibatches))  # of 2 epochs of 4, in steps of 3 and 1
    if not run.last.exists():
        assert minibatches <= 3
        return
    resume(run.path)
    assert differences(run, train(cfg, tmp_path / "whole")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "argument"),
    [
        ("scratch", "precision=64-true"),
        ("grid", "precision=bf16-mixed"),
        ("concise", "check_val_every_n_epoch=2"),
        pytest.param("closed_form", "precision=64-true", marks=pytest.mark.thorough),
        pytest.param("grid", "precision=64-true", marks=pytest.mark.thorough),
        pytest.param("concise", "precision=64-true", marks=pytest.mark.thorough),
        pytest.param("scratch", "precision=bf16-mixed", marks=pytest.mark.thorough),
        pytest.param("scratch", "limit_train_batches=3", marks=pytest.mark.thorough),
        pytest.param("concise", "gradient_clip_val=0.3", marks=pytest.mark.thorough),
    ],
)
def test_an_interrupted_run_equals_one_that_was_not(config, tmp_path, model, argument):
    cfg = config(f"model={model}", *IMAGES, f"trainer.{argument}", "trainer.max_epochs=3")
    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, run.path, StopAt(5))
    resume(run.path)
    assert differences(run, train(cfg, tmp_path / "whole")) == []


def test_resume_refuses_arguments_that_make_another_experiment(config, tmp_path):
    run = train(config(*IMAGES), tmp_path / "run")
    cfg = run.settings()
    cfg["trainer"] |= {"precision": "bf16-mixed", "max_epochs": 3}
    with pytest.raises(UserError, match=r"trainer\.precision=bf16-mixed would make this another"):
        resume(run.path, cfg)


# --- accepted, and refused --------------------------------------------------------------------------


def test_other_arguments_of_lightning_are_accepted_said_and_recorded(config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    cfg = config(*SYNTHETIC, "+trainer.sync_batchnorm=true", "+trainer.min_epochs=1")
    run = train(cfg, tmp_path / "run")
    assert run.results()["untested"] == ["trainer.sync_batchnorm", "trainer.min_epochs"]
    said = "accepted, but not tested with all that a run promises: trainer.sync_batchnorm, "
    assert f"{said}trainer.min_epochs" in caplog.messages
    assert differences(run, train(config(*SYNTHETIC), tmp_path / "other")) == []


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_a_run_cannot_have_are_refused_with_what_to_take(config, tmp_path, name):
    cfg = config(*SYNTHETIC)
    OmegaConf.update(cfg, f"trainer.{name}", 3, force_add=True)
    with pytest.raises(UserError, match=rf"^trainer\.{name}=3 is refused: .*(take|leave it out)"):
        train(cfg, tmp_path / "run")


def test_all_arguments_of_lightnings_trainer_are_ours_accepted_or_refused():
    from inspect import signature

    from src.training.arguments import defaults

    known = {*signature(L.Trainer).parameters}
    assert known >= REFUSED.keys()
    assert known >= defaults().keys() - {"threads"}
    assert not REFUSED.keys() & defaults().keys()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (
            "+trainer.max_stepz=7",
            r"trainer\.max_stepz=7: there is no such setting; there are max_e",
        ),
        ("+trainer.folder=x", r"trainer\.folder=x: there is no such setting"),
        ("+trainer.min_epochs=abc", r"trainer\.min_epochs: input should be a valid integer"),
        ("trainer.limit_train_batches=0", "trainer.limit_train_batches: input should be greater"),
        ("trainer.limit_train_batches=1.5", "input should be a part of all, 0.0 to 1.0, or a numb"),
        ("trainer.limit_val_batches=-1", "input should be a part of all, 0.0 to 1.0, or a number"),
        ("trainer.limit_test_batches=true", "input should be a part of all, 0.0 to 1.0"),
        ("trainer.max_time=5", "trainer.max_time: input should be a valid string"),
        ("trainer.max_time=00:00:00:00", r"trainer\.max_time: input should be DD:HH:MM:SS"),
        ("trainer.max_time=99999999999999999999:00:00:00", "input should be DD:HH:MM:SS"),
        ("trainer.max_time='5 minutes'", r"trainer\.max_time: input should be DD:HH:MM:SS"),
        ("trainer.precision=bf16-true", "trainer.precision: input should be '32-true', '64-true'"),
        ("trainer.precision=16-mixed", "take trainer.precision=bf16-mixed"),
        ("trainer.gradient_clip_val=0", "input should be greater than 0"),
        ("trainer.gradient_clip_val=1", "takes its steps itself; take model=concise"),
        ("trainer.accumulate_grad_batches=0", "input should be greater than 0"),
        ("trainer.check_val_every_n_epoch=0", "input should be greater than 0"),
        ("trainer.profiler=cprofile", "input should be 'simple', 'advanced' or 'pytorch'"),
        ("trainer.limit_train_batches=0.001", "lightning: .*limit_train_batches"),
        ("trainer=mps", r"accelerator=mps .* cannot be had here.*trainer=gpu or trainer=cpu"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line(config, tmp_path, argument, said):
    with pytest.raises(UserError, match=said) as refused:
        train(config(*SYNTHETIC, argument), tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_a_schedule_that_waits_for_a_metric_needs_it_after_every_epoch(config, tmp_path):
    plateau = ["model=concise", "model.scheduler.name=ReduceLROnPlateau"]
    cfg = config(*IMAGES, *plateau, "trainer.check_val_every_n_epoch=2")
    with pytest.raises(UserError, match="ReduceLROnPlateau looks at val/loss after every epoch"):
        train(cfg, tmp_path / "run")


@pytest.mark.parametrize("argument", ["limit_val_batches=0", "check_val_every_n_epoch=2"])
def test_a_grid_needs_its_validation(config, tmp_path, argument):
    with pytest.raises(UserError, match=rf"trainer\.{argument}: model=grid selects by val/loss"):
        train(config("model=grid", *IMAGES, f"trainer.{argument}"), tmp_path / "run")


def test_the_page_has_every_argument_where_it_belongs():
    from inspect import signature

    from src.training.arguments import defaults

    page = (ROOT / "docs/lightning.md").read_text()
    degrees = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[2] in ("guaranteed", "accepted", "refused"):
            for name in re.findall(r"`(\w+)`", cells[1]):
                degrees[name] = cells[2]
    for name in signature(L.Trainer).parameters:
        expected = "accepted"
        if name in REFUSED:
            expected = "refused"
        elif name in defaults():
            expected = "guaranteed"
        assert degrees.pop(name) == expected, name
    assert not degrees
