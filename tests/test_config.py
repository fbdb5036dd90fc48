"""Every config composes and can be built, later entries win over earlier ones, and keys mean what they say."""

from itertools import product

import lightning as L
import pytest
import torch
from lightning.pytorch.profilers import SimpleProfiler
from omegaconf import OmegaConf

from src.config import build
from src.errors import UserError
from tests.conftest import ROOT


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


ALTERNATIVES = [
    [f"{group}={option}"]
    for group in ("data", "model", "trainer", "callbacks", "logger", "experiment", "debug", "sweep")
    for option in options(group)
]


@pytest.mark.parametrize("overrides", [[], *ALTERNATIVES], ids=str)
def test_every_config_composes_and_instantiates(config, overrides):
    cfg = config(*overrides)
    assert isinstance(build(cfg, "data"), L.LightningDataModule)
    assert isinstance(build(cfg, "model"), L.LightningModule)
    assert all(isinstance(build(cfg, f"callbacks.{name}"), L.Callback) for name in cfg.callbacks)
    if overrides != ["trainer=gpu"]:  # needs one; its refusal without is tested with the command line
        assert build(cfg, "trainer", logger=False).max_epochs == cfg.trainer.max_epochs


@pytest.mark.parametrize(("experiment", "debug"), list(product(options("experiment"), options("debug"))))
def test_every_experiment_can_be_debugged(config, experiment, debug):
    assert config(f"experiment={experiment}", f"debug={debug}").trainer.max_epochs in (1, 100)


def test_lightnings_profilers_can_be_had(config):
    assert type(build(config("+trainer.profiler=simple"), "trainer", logger=False).profiler) is SimpleProfiler


def test_experiment_wins_over_defaults_and_the_command_line_over_both(config):
    assert config("experiment=scratch_constant").model.gamma == 1.0
    assert config("experiment=scratch_constant", "model.gamma=0.5").model.gamma == 0.5


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [
        ("scratch_decay", {"model.gamma": 0.9, "trainer.max_epochs": 20, "model.numerics": "textbook"}),
        ("scratch_constant", {"model.gamma": 1.0, "trainer.max_epochs": 10, "model.numerics": "textbook"}),
        ("concise", {"model.gamma": 1.0, "trainer.max_epochs": 10}),
    ],
)
def test_presets_are_the_recipes_of_the_notes(config, experiment, expected):
    cfg = config(f"experiment={experiment}")
    common = {"model.lr": 0.1, "model.sigma": 0.01, "data.batch_size": 256, "data.val_size": 0}
    for key, value in (common | expected).items():
        assert OmegaConf.select(cfg, key) == value


def test_seed_reaches_the_order_of_the_minibatches(config):
    assert build(config("seed=5"), "data").seed == 5


def test_without_a_validation_split_nothing_is_selected(config):
    best = config("data.val_size=0").callbacks.best
    assert (best.monitor, best.mode) == ("epoch", "max")
    best = config().callbacks.best
    assert (best.monitor, best.mode) == ("val/loss", "min")


def test_a_refused_value_names_key_value_and_default(config):
    with pytest.raises(UserError, match=r"^model\.lr: .* greater than 0, got -1; try model\.lr=0\.1$"):
        build(config("model.lr=-1"), "model")
    with pytest.raises(UserError, match=r"^trainer\.max_epochs: .* got 'abc'; try trainer\.max_epochs=20$"):
        build(config("trainer.max_epochs=abc"), "trainer")


@pytest.mark.parametrize("threads", [2, 1])
def test_threads_are_those_of_torch(config, threads):
    build(config(f"trainer.threads={threads}"), "trainer", logger=False)
    assert torch.get_num_threads() == threads


def test_trainer_takes_further_arguments_of_lightning(config):
    assert build(config("+trainer.max_steps=7"), "trainer", logger=False).max_steps == 7
    with pytest.raises(UserError, match=r"trainer: .*max_stepz"):
        build(config("+trainer.max_stepz=7"), "trainer", logger=False)
