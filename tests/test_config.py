"""Every config composes and can be built, later entries win over earlier ones, and keys mean what
they say."""

from itertools import product

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf

from src.errors import UserError
from src.models.concise import SoftmaxRegression
from src.runs import Run
from src.runs.build import check
from src.training.experiment import assemble, plain, train
from tests.conftest import ROOT, build, made


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


ALTERNATIVES = [
    [f"{group}={option}"]
    for group in ("data", "model", "trainer", "callbacks", "logger", "experiment", "debug", "sweep")
    for option in options(group)
]


@pytest.mark.parametrize("overrides", [[], *ALTERNATIVES], ids=str)
def test_every_config_composes_and_instantiates(config, tmp_path, overrides):
    cfg = config(*overrides)
    if overrides in (["trainer=gpu"], ["trainer=mps"]):  # test_trainer has their refusals
        cfg.trainer.accelerator = "cpu"
    if overrides == ["logger=mlflow"]:
        cfg.logger.mlflow.tracking_uri = "http://127.0.0.1:9"  # test_loggers has real ones
    trainer, model, data = assemble(plain(cfg), Run(tmp_path))
    assert isinstance(data, L.LightningDataModule)
    assert isinstance(model, L.LightningModule)
    assert trainer.max_epochs == cfg.trainer.max_epochs


PAIRS = [
    pytest.param(experiment, debug, marks=[] if debug == "fast" else pytest.mark.slow)
    for experiment, debug in product(options("experiment"), options("debug"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "debug"), PAIRS)
def test_every_experiment_can_be_debugged(config, experiment, debug):
    assert config(f"experiment={experiment}", f"debug={debug}").trainer.max_epochs in (1, 100)


def test_experiment_wins_over_defaults_and_the_command_line_over_both(config):
    assert config("experiment=scratch_constant").model.gamma == 1.0
    assert config("experiment=scratch_constant", "model.gamma=0.5").model.gamma == 0.5


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        (
            "scratch_decay",
            {"model.gamma": 0.9, "trainer.max_epochs": 20, "model.numerics": "textbook"},
        ),
        (
            "scratch_constant",
            {"model.gamma": 1.0, "trainer.max_epochs": 10, "model.numerics": "textbook"},
        ),
        ("concise", {"model.gamma": 1.0, "trainer.max_epochs": 10}),
    ],
)
def test_experiments_are_those_of_the_notes(config, experiment, expected):
    cfg = config(f"experiment={experiment}")
    common = {"model.lr": 0.1, "model.sigma": 0.01, "data.batch_size": 256, "data.val_size": 0}
    for key, value in (common | expected).items():
        assert OmegaConf.select(cfg, key) == value


def test_seed_reaches_the_order_of_the_minibatches(config):
    assert build(config("seed=5"), "data").seed == 5


def test_a_refused_value_names_key_value_and_default(config):
    with pytest.raises(
        UserError, match=r"^model\.lr: .* greater than 0, got -1; try model\.lr=0\.1$"
    ):
        build(config("model.lr=-1"), "model")
    with pytest.raises(
        UserError, match=r"^trainer\.max_epochs: .* got 'abc'; try trainer\.max_epochs=20$"
    ):
        build(config("trainer.max_epochs=abc"), "trainer")


@pytest.mark.parametrize("threads", [2, 1])
def test_threads_are_those_of_torch(config, threads):
    build(config(f"trainer.threads={threads}"), "trainer")
    assert torch.get_num_threads() == threads


def test_a_model_without_a_constructor_of_its_own_has_the_settings_of_all():
    width = {"num_inputs": 784, "num_outputs": 10}
    assert made("model", SoftmaxRegression, {"lr": 0.5}, **width).hparams.lr == 0.5
    message = r"^model\.lrr=1: there is no such setting; there are lr, gamma, weight_decay, sigma, "
    with pytest.raises(UserError, match=message):
        made("model", SoftmaxRegression, {"lrr": 1}, **width)


@pytest.mark.parametrize("target", ["regression.Regression", "scratch.Scratch", "concise.Concise"])
def test_a_class_that_is_no_whole_model_is_refused(target):
    settings = {"_target_": f"src.models.{target}"}
    with pytest.raises(UserError, match=r"^model\._target_ is 'src\.models\."):
        check("model", settings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~model"], "model must be a group of settings, got None"),
        (["~trainer"], "trainer must be a group of settings, got None"),
        (["seed=[1]"], r"seed: input should be a valid integer, got \[1\]"),
        (["seed=-1"], "seed: input should be greater than or equal to 0, got -1"),
        (["data.seed=[1]"], r"data\.seed: input should be a valid integer, got \[1\]"),
        (
            ["trainer.threads=100000"],
            r"trainer\.threads: input should be less than or .*, got 100000",
        ),
        (
            ["trainer.devices=1000000"],
            r"trainer\.accelerator=cpu trainer\.devices=1000000 cannot be had here",
        ),
        (
            ["model._target_=src.models.scratch.Nothing"],
            r"model\._target_ is 'src\.models\.scratch\.Nothing'",
        ),
        (["model._target_=3"], "model must be a group of settings with a _target_"),
        (
            ["+callbacks.extra=3"],
            r"callbacks\.extra must be a group of settings with a _target_, got 3",
        ),
        (
            ["callbacks.last=3"],
            r"callbacks\.last must be a group of settings with a _target_, got 3",
        ),
        (
            ["experiment=overfit_fixed", "data.val_size=0"],
            r"callbacks\.early_stopping\.monitor=val/loss",
        ),
        (
            ["experiment=overfit_fixed", "callbacks.early_stopping.monitor=val/los"],
            r"callbacks\.early_stopping\.monitor=val/los, but this run measures train/loss, ",
        ),
    ],
    ids=str,
)
def test_values_of_the_wrong_type_are_refused_in_one_line(config, tmp_path, overrides, message):
    with pytest.raises(UserError, match=f"^{message}") as refused:
        train(config(*overrides), tmp_path / "run")
    assert "\n" not in str(refused.value)
