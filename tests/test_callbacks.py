"""Callbacks of Lightning's and of one's own: which are promised, accepted and refused."""

import sys
import types

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf

from src.errors import UserError
from src.evaluate.scores import evaluate
from src.runs import Run
from src.training.callbacks import GUARANTEED, REFUSED
from src.training.experiment import train
from src.training.resuming import resume
from tests.conftest import compose_config
from tests.tools.faults import differences

SMALL = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=50",
    "data.val_size=20",
    "trainer.max_epochs=3",
    "~callbacks.figures",
]
OF_LIGHTNING = "lightning.pytorch.callbacks"


def with_callback(cfg, target: str, **settings):
    OmegaConf.update(cfg, "callbacks.x", {"_target_": target, **settings}, force_add=True)
    return cfg


class Stop(L.Callback):
    """An error in the middle of the second epoch."""

    def on_train_batch_start(self, trainer, model, batch, batch_idx) -> None:
        if trainer.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("stopped")


SETTINGS = {
    "EarlyStopping": {"monitor": "val/loss", "min_delta": 100.0, "patience": 1},
    "ModelCheckpoint": {"every_n_epochs": 1, "save_top_k": -1},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", GUARANTEED, ids=lambda kind: kind.__name__)
def test_a_promised_callback_changes_no_bit_of_a_run_that_is_interrupted(config, tmp_path, kind):
    settings = SETTINGS.get(kind.__name__, {})
    cfg = with_callback(config(*SMALL), f"{OF_LIGHTNING}.{kind.__name__}", **settings)
    run, whole = Run(tmp_path / "run"), Run(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, run.path, Stop())
    resume(run.path)
    train(cfg, whole.path)
    assert differences(run, whole) == []
    assert "untested" not in run.results()
    result = evaluate(compose_config("evaluate", f"run={run.path}"))
    assert result["test/loss"] == run.results()["test/loss"]
    if kind.__name__ == "EarlyStopping":
        assert run.results()["ended"].startswith("early stopping at epoch 2: ")
    else:
        plain = train(config(*SMALL), tmp_path / "plain")
        same = [line for line in differences(run, plain) if line not in ("tensorboard",)]
        assert same == [] or kind.__name__ == "LearningRateMonitor"  # which adds a column


def test_further_checkpoints_lie_in_a_folder_of_their_own_and_none_is_written_twice(
    config, tmp_path
):
    settings = {"filename": "{epoch}", "every_n_epochs": 1, "save_top_k": -1, "save_last": True}
    cfg = with_callback(config(*SMALL), f"{OF_LIGHTNING}.ModelCheckpoint", **settings)
    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError, match="stopped"):
        train(cfg, run.path, Stop())
    resume(run.path)
    names = sorted(path.name for path in (run.path / "checkpoints/x").iterdir())
    assert names == ["epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt", "last.ckpt"]
    last = torch.load(run.path / "checkpoints/x/epoch=2.ckpt", weights_only=True)
    for name, tensor in torch.load(run.last, weights_only=True)["state_dict"].items():
        assert torch.equal(last["state_dict"][name], tensor)


@pytest.mark.parametrize(
    "dirpath",
    ["/tmp/elsewhere", "..", "checkpoints", ".", ".hydra", "metrics.csv", "checkpoints/best.ckpt"],
)
def test_further_checkpoints_elsewhere_are_refused(config, tmp_path, dirpath):
    cfg = with_callback(config(*SMALL), f"{OF_LIGHTNING}.ModelCheckpoint", dirpath=dirpath)
    with pytest.raises(UserError, match=r"must be a folder of its own.*dirpath=checkpoints/x$"):
        train(cfg, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filename", "../best"),
        ("filename", "../../../escape"),
        ("filename", "/tmp/x"),
        ("filename", "{epoch:zzz}"),
        ("filename", "{0[}{"),
        ("save_last", "link"),
    ],
)
def test_names_of_further_checkpoints_are_checked(config, tmp_path, name, value):
    cfg = with_callback(config(*SMALL), f"{OF_LIGHTNING}.ModelCheckpoint", **{name: value})
    with pytest.raises(UserError, match=rf"^callbacks\.x\.{name}") as refused:
        train(cfg, tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run/checkpoints").exists()


class HasSet(L.Callback):
    """A state that no checkpoint can hold."""

    def state_dict(self) -> dict:
        return {"seen": {1, 2}}


def test_a_state_that_cannot_be_loaded_ends_the_run_with_its_first_checkpoint(config, tmp_path):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match="not loaded"):
        train(config(*SMALL), run.path, HasSet())
    assert len(run.epochs()) == 1


@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
def test_a_metric_that_is_not_measured_is_refused(config, tmp_path, kind):
    cfg = with_callback(config(*SMALL), f"{OF_LIGHTNING}.{kind}", monitor="val_loss")
    with pytest.raises(UserError, match=r"^callbacks\.x\.monitor=val_loss, but this run measures "):
        train(cfg, tmp_path / "run")


@pytest.mark.parametrize("name", REFUSED)
def test_callbacks_that_a_run_cannot_have_are_refused_with_what_to_take(config, tmp_path, name):
    cfg = with_callback(config(*SMALL), f"{OF_LIGHTNING}.{name}")
    with pytest.raises(UserError) as refused:
        train(cfg, tmp_path / "run")
    text = str(refused.value)
    assert text.startswith(f"callbacks.x._target_={OF_LIGHTNING}.{name} is refused: ")
    assert "\n" not in text


# --- callbacks of one's own -------------------------------------------------------------------------


@pytest.fixture
def own_module(monkeypatch):
    """A module that is not in this project, with a callback that counts epochs."""
    module = types.ModuleType("somebodys")

    class Counts(L.Callback):
        epochs = 0

        def on_train_epoch_end(self, trainer, model) -> None:
            Counts.epochs += 1

    class Stopper(EarlyStopping):
        pass

    Counts.__module__ = Stopper.__module__ = "somebodys"
    module.Stopper = Stopper
    module.Counts, module.NoCallback = Counts, dict
    monkeypatch.setitem(sys.modules, "somebodys", module)
    return module


def test_a_callback_of_ones_own_is_built_said_and_recorded(config, tmp_path, own_module, caplog):
    caplog.set_level("INFO")
    run = train(with_callback(config(*SMALL), "somebodys.Counts"), tmp_path / "run")
    assert own_module.Counts.epochs == 3
    assert run.results()["untested"] == ["callbacks.x"]
    assert "accepted, but not tested with all that a run promises: callbacks.x" in caplog.messages


def test_one_that_a_folder_names_is_built_only_if_the_command_line_names_it(
    config, tmp_path, own_module
):
    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError, match="stopped"):
        train(with_callback(config(*SMALL), "somebodys.Counts"), run.path, Stop())
    own_module.Counts.epochs = 0
    with pytest.raises(UserError, match=r"give callbacks\.x\._target_ on the command line too$"):
        resume(run.path)
    assert own_module.Counts.epochs == 0
    resume(run.path, run.settings(), ["callbacks.x._target_=somebodys.Counts"])
    assert own_module.Counts.epochs == 2
    assert len(run.epochs()) == 3


def test_a_stopper_of_ones_own_ends_a_run_and_with_more_patience_it_goes_on(
    config, tmp_path, own_module
):
    impatient = {"monitor": "val/loss", "min_delta": 100.0, "patience": 1}
    run = train(with_callback(config(*SMALL), "somebodys.Stopper", **impatient), tmp_path / "run")
    assert len(run.epochs()) == 2
    cfg = run.settings()
    cfg["callbacks"]["x"]["patience"] = 9
    resume(run.path, cfg, ["callbacks.x._target_=somebodys.Stopper"])
    assert len(run.epochs()) == 3


@pytest.mark.parametrize("target", ["somebodys.NoCallback", "os.system", "nowhere.X", "X", "a b.C"])
def test_what_is_no_callback_is_one_line(config, tmp_path, own_module, target):
    with pytest.raises(UserError, match=r"^callbacks\.x\._target_ is .*must be a Callback") as no:
        train(with_callback(config(*SMALL), target), tmp_path / "run")
    assert "\n" not in str(no.value)
