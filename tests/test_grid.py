"""A grid of softmax regressions in one run: each member is the run of its own, and the best is the
model."""

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from src.errors import UserError
from src.evaluate.scores import evaluate
from src.models import closed_form, grid
from src.models.regression import Diverged
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.training.experiment import train
from src.training.resuming import resume
from tests.conftest import build, compose_config, made
from tests.tools.faults import differences

SIZES = {"num_inputs": 784, "num_outputs": 10}
SMALL = ["data.train_size=2000", "data.val_size=500", "~callbacks.figures", "trainer.max_epochs=2"]
AXES = ("lr", "gamma", "weight_decay")
TWO = ["model=grid", "model.lr=[0.05,0.1]", "model.gamma=0.9", *SMALL]
# few examples, so that the loss jumps and now one member is the best, now the other
JUMPING = ["model.lr=0.1", "data.train_size=100", "data.batch_size=50", "trainer.max_epochs=12"]
GAMMAS = (0.95, 1.0)


def members(run: Run) -> list[dict[str, float | str | None]]:
    """The rows of grid.csv; an empty cell is None."""
    rows = csv.DictReader((run.path / "grid.csv").read_text().splitlines())
    texts = ("status", "reason")
    return [
        {
            name: None if not text else text if name in texts else float(text)
            for name, text in row.items()
        }
        for row in rows
    ]


def weights(run: Run, member: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """(W (d, q), b (q,)) after the last epoch: of a member, or of the model."""
    state = load_checkpoint(run.last)["state_dict"]
    if member is None:
        return state["W"], state["b"]
    return state["Ws"][:, member], state["bs"][member]


@pytest.mark.slow
@pytest.mark.parametrize(
    "numerics", ["stable", pytest.param("textbook", marks=pytest.mark.thorough)]
)
def test_each_member_equals_the_run_of_its_own(config, tmp_path, numerics):
    # steps of 0.3 would make the rounding of different products differences of 0.01, as between
    # scratch and closed_form: the loss then jumps from epoch to epoch
    axes = ["model.lr=[0.03,0.1]", "model.gamma=[0.5,1.0]", "model.weight_decay=[0,0.01]"]
    same = [
        "data.train_size=20000",
        "trainer.max_epochs=4",
        "~callbacks.figures",
        f"model.numerics={numerics}",
    ]
    run = Run(tmp_path / "grid")
    train(config("model=grid", *axes, *same), run.path)
    rows = members(run)
    assert [tuple(row[name] for name in AXES) for row in rows] == [
        (lr, gamma, decay) for lr in (0.03, 0.1) for gamma in (0.5, 1.0) for decay in (0, 0.01)
    ]  # in the order of a sweep
    for k, row in enumerate(rows):
        own = Run(tmp_path / str(k))
        train(
            config("model=closed_form", *(f"model.{name}={row[name]}" for name in AXES), *same),
            own.path,
        )
        for mine, other in zip(weights(run, k), weights(own), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)
        record = own.results()
        assert row["best_epoch"] == record["best_epoch"]
        for name in ("train/loss", "val/loss"):
            assert row[name] == pytest.approx(record[name], abs=1e-5)
        for name in ("train/acc", "val/acc"):  # an example may lie on the border of two classes
            assert row[name] == pytest.approx(record[name], abs=1 / 5000 + 1e-9)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory) -> Run:
    """A finished run whose best member is not always the same."""
    run = Run(tmp_path_factory.mktemp("grid") / "run")
    train(config("model=grid", *SMALL, *JUMPING, f"model.gamma={list(GAMMAS)}"), run.path)
    return run


@pytest.mark.slow
def test_the_model_is_the_best_member_of_the_epoch_and_its_checkpoint_that_of_all_epochs(
    config, run
):
    alone = [Run(run.path.with_name(f"alone{k}")) for k in range(2)]
    for own, gamma in zip(alone, GAMMAS, strict=True):
        train(config("model=closed_form", *SMALL, *JUMPING, f"model.gamma={gamma}"), own.path)
    best = []  # member of each epoch
    for row, *others in zip(run.epochs(), *(own.epochs() for own in alone), strict=True):
        best.append(min(range(2), key=lambda k, others=others: others[k]["val/loss"]))
        # losses, accuracies, learning rate, norms of the weights
        assert row == pytest.approx(others[best[-1]], abs=1e-5)
    assert 0 in best[:10]
    losses = [row["val/loss"] for row in run.epochs()]
    lowest = losses.index(min(losses))
    assert best[lowest] == 1 != best[-1]  # else a wrong choice would not show
    record, checkpoint = run.results(), load_checkpoint(run.best)
    assert record["best_epoch"] == lowest + 1 == checkpoint["epoch"] + 1
    state = checkpoint["state_dict"]
    assert torch.equal(state["W"], state["Ws"][:, 1])
    assert torch.equal(state["b"], state["bs"][1])
    expected = alone[1].results()
    measures = [name for name in record if "/" in name]
    assert {name: record[name] for name in measures} == pytest.approx(
        {name: expected[name] for name in measures}, abs=1e-5
    )
    for row, own in zip(members(run), alone, strict=True):
        record = own.results()
        assert row["best_epoch"] == record["best_epoch"]
        assert row["val/loss"] == pytest.approx(record["val/loss"], abs=1e-5)
    assert "test/loss" not in members(run)[0]


def test_evaluate_reproduces_the_test_metrics_to_the_last_digit(run):
    result = evaluate(compose_config("evaluate", f"run={run.path}"))
    assert {name: result[name] for name in ("test/loss", "test/acc")} == {
        name: run.results()[name] for name in ("test/loss", "test/acc")
    }


@pytest.mark.slow
def test_it_is_compared_and_predicts(config, cli, run, tmp_path):
    train(config(*SMALL, "model=closed_form"), tmp_path / "other")
    status, output = cli("src.compare", str(run.path), str(tmp_path / "other"), data=False)
    assert status == 0, output
    status, output = cli("src.predict", f"run={run.path}")
    assert status == 0, output
    assert f"accuracy {run.results()['test/acc']:.4f}" in output


def test_a_member_that_diverges_is_left_behind_and_harms_no_other(config, tmp_path):
    # 1e38 times a gradient of 0.01 makes logits that float32 does not hold
    train(config(*TWO, "model.lr=[1e38,0.05,1e38]"), tmp_path / "grid")
    run, own = Run(tmp_path / "grid"), Run(tmp_path / "own")
    train(config(*TWO, "model=closed_form", "model.lr=0.05"), own.path)
    first, good, last = members(run)
    assert first["status"] == last["status"] == "diverged"
    assert first["reason"] == "in epoch 1"
    assert first["best_epoch"] is first["val/loss"] is good["status"] is None
    for mine, other in zip(run.epochs(), own.epochs(), strict=True):
        assert mine == pytest.approx(other, abs=1e-4)
        assert all(map(math.isfinite, mine.values()))
    for mine, other in zip(weights(run, 1), weights(own), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)
    assert run.results()["status"] == "finished"


def test_a_member_whose_loss_was_infinite_once_stays_behind():
    model = grid.SoftmaxRegression(**SIZES, lr=[0.1, 0.2], gamma=[1.0], weight_decay=[0.0])
    for epoch, losses in enumerate(([math.inf, 2.0], [1.0, 2.0])):
        model.trainer = SimpleNamespace(current_epoch=epoch)
        with torch.no_grad():
            model.select(losses)
        assert (model.best, model.epoch_lr) == (1, 0.2)
    assert model.members()[0]["reason"] == "in epoch 1"
    assert "best_epoch" not in model.members()[0]


def test_if_all_diverge_the_run_ends(config, tmp_path):
    with pytest.raises(
        Diverged,
        match=r"val loss became nan in epoch 1, step 8; lower the values of model.lr \(they are ",
    ):
        train(config(*TWO, "model.lr=[1e38,2e38]"), tmp_path)
    assert Run(tmp_path).results()["status"] == "diverged"


@pytest.mark.parametrize("name", AXES)
def test_values_out_of_range_are_refused(name):
    good = {"lr": [0.1], "gamma": [0.9], "weight_decay": [0]}
    for bad in ([], [0.5, -1], -1, [0.5, "abc"], [0.5, math.inf], [[0.5]]):
        with pytest.raises(UserError, match=rf"^model\.{name}"):
            made("model", grid.SoftmaxRegression, good | {name: bad}, **SIZES)


def test_a_grid_that_does_not_fit_into_memory_is_refused():
    many = [0.001 * (k + 1) for k in range(300)]
    for settings in (
        {"lr": many, "gamma": [0.9], "weight_decay": many},
        {"lr": many, "gamma": 50 * [1.0], "weight_decay": [0.0]},
    ):
        with pytest.raises(
            UserError, match=r"^model=grid has [\d,]+ members of 784 x 10 weights; at most 10,000, "
        ):
            made("model", grid.SoftmaxRegression, settings, **SIZES)


def test_a_setting_that_the_base_class_alone_knows_is_refused(config, monkeypatch):
    """As of a warm-up that somebody adds to the other models."""

    def with_warm_up(self, warm_up: int = 0, **shared):
        self.warm_up = warm_up
        constructor(self, **shared)

    constructor = closed_form.SoftmaxRegression.__init__
    monkeypatch.setattr(closed_form.SoftmaxRegression, "__init__", with_warm_up)
    assert build(config("model=closed_form", "+model.warm_up=3"), "model").warm_up == 3
    with pytest.raises(UserError, match=r"^model\.warm_up=3: there is no such setting; "):
        build(config("model=grid", "+model.warm_up=3"), "model")


def test_what_is_wrong_is_said_in_one_line(config):
    with pytest.raises(UserError, match=r"^model\.lr\.1: input should be greater than 0, got -1$"):
        build(config("model=grid", "model.lr=[0.1,-1]"), "model")
    with pytest.raises(
        UserError, match=r"^model\.gamma: value should have at least 1 item .*, got \[\]$"
    ):
        build(config("model=grid", "model.gamma=[]"), "model")


def test_without_a_validation_split_nothing_can_be_selected(config, tmp_path):
    with pytest.raises(UserError, match=r"model=grid selects by val/loss, but data\.val_size=0"):
        train(config(*TWO, "data.val_size=0"), tmp_path)


def test_early_stopping_watches_the_best_member(config, tmp_path):
    early = "+callbacks.early_stopping"
    stop = [
        f"{early}._target_=lightning.pytorch.callbacks.EarlyStopping",
        f"{early}.monitor=val/loss",
    ]
    train(
        config(*TWO, *stop, f"{early}.min_delta=10", f"{early}.patience=1"), tmp_path
    )  # no loss falls by 10
    assert Run(tmp_path).results()["epochs"] == 2


@pytest.mark.slow
def test_more_epochs_continue_a_run_as_if_it_had_been_asked_for_them_at_first(
    config, run, tmp_path
):
    cfg = config(
        "model=grid", *SMALL, *JUMPING, f"model.gamma={list(GAMMAS)}", "trainer.max_epochs=5"
    )
    train(cfg, tmp_path)
    cfg.trainer.max_epochs = 12
    resume(tmp_path, cfg)
    assert differences(Run(tmp_path), run) == []


def test_the_loss_of_minibatches_is_of_one_model_alone(config, tmp_path):
    with pytest.raises(UserError, match="model=grid has a loss of each member"):
        train(
            config(
                *TWO, "+callbacks.loss_movement._target_=src.training.loss_movement.LossMovement"
            ),
            tmp_path,
        )


@pytest.mark.slow
def test_two_threads_make_the_same_run(config, tmp_path):
    train(config(*TWO, "trainer.threads=2"), tmp_path / "two")
    train(config(*TWO), tmp_path / "one")
    for mine, other in zip(
        members(Run(tmp_path / "two")), members(Run(tmp_path / "one")), strict=True
    ):
        assert mine == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
def test_it_ends_with_the_table_and_the_picture_of_a_sweep(cli, tmp_path):
    status, output = cli(
        "src.train", *TWO, "model.lr=[0.05,1e38,0.1]", "model.gamma=[0.9,1]", "hydra.run.dir=run"
    )
    assert status == 0, output
    run = Run(tmp_path / "run")
    rows = members(run)
    assert "6 jobs: 4 finished, 2 diverged." in output
    assert (
        "- 2: model.lr=1e+38 model.gamma=0.9 model.weight_decay=0.0: diverged, in epoch 1" in output
    )
    assert [row["status"] for row in rows] == [None, None, "diverged", "diverged", None, None]
    losses = sorted(row["val/loss"] for row in rows if not row["status"])
    table = [
        line.split("|") for line in output.splitlines() if line.startswith(("| 0.05", "| 0.1"))
    ]
    assert [cells[4].strip() for cells in table] == [
        f"{loss:.4f}" for loss in losses
    ]  # lr, gamma, n, val/loss
    with Image.open(run.figures / "grid.png") as picture:
        assert picture.size == (660, 360)


@pytest.mark.slow
def test_three_settings_have_no_picture(cli, tmp_path):
    axes = ["model.gamma=[0.9,1]", "model.weight_decay=[0,0.01]"]
    status, output = cli("src.train", *TWO, *axes, "trainer.max_epochs=1", "hydra.run.dir=run")
    assert status == 0, output
    assert "8 jobs: 8 finished." in output
    assert not (tmp_path / "run/figures/grid.png").exists()
