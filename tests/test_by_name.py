"""Optimizers and schedules of torch by name: what torch does with them, and nothing that is not torch's."""

import pytest
import torch
from torch import optim
from torch.nn import functional as torch_F

from src.cli.arguments import as_hydra_takes_them
from src.errors import UserError
from src.models.by_name import REFUSED
from src.runs import Run
from src.training.experiment import train
from src.training.resuming import resume
from tests.conftest import build
from tests.test_models import fit
from tests.tools.faults import differences

SMALL = ["model=concise", "data.train_size=1000", "data.val_size=200", "data.batch_size=64"]
SMALL += ["trainer.max_epochs=3", "~callbacks.figures"]
ADAMW = ["model.lr=0.01", "++model.optimizer.name=AdamW", "++model.optimizer.weight_decay=0.1"]
COSINE = ["++model.scheduler.name=CosineAnnealingLR", "++model.scheduler.T_max=3"]
WARM_UP = [
    "++model.scheduler.name=SequentialLR",
    "++model.scheduler.schedulers=[{name: LinearLR, total_iters: 10}, {name: CosineAnnealingLR, T_max: 40}]",
    "++model.scheduler.milestones=[10]",
    "++model.scheduler.interval=step",
]


@pytest.fixture
def W() -> torch.Tensor:
    return 0.01 * torch.randn(784, 10, generator=torch.Generator().manual_seed(0))


def plain_loop(
    cfg, W, make_optimizer, make_schedule, per_step: bool
) -> tuple[torch.Tensor, list[float]]:
    """W after the epochs, by torch alone on the same minibatches, and the learning rate of each update."""
    data = build(cfg, "data")
    data.prepare_data()
    data.setup()
    loader = data.train_dataloader()
    W, b = W.clone().requires_grad_(), torch.zeros(10, requires_grad=True)
    optimizer = make_optimizer([W, b])
    schedule, rates = make_schedule(optimizer), []
    for epoch in range(cfg.trainer.max_epochs):
        loader.sampler.set_epoch(epoch)
        for X, y in loader:
            optimizer.zero_grad()
            torch_F.cross_entropy(X.flatten(1).float() / 255 @ W + b, y).backward()
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if per_step:
                schedule.step()
        if not per_step:
            schedule.step()
    return W.detach(), rates


def test_adamw_with_a_cosine_schedule_is_torchs(config, W):
    cfg = config(*SMALL, *ADAMW, *COSINE)
    expected, _ = plain_loop(
        cfg,
        W,
        lambda parameters: optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
        lambda optimizer: optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3),
        per_step=False,
    )
    torch.testing.assert_close(fit(cfg, W).weights()[0], expected, rtol=0, atol=1e-5)


def test_momentum_and_warm_up_step_by_step_are_torchs(config, W):
    momentum = [
        "++model.optimizer.momentum=0.9",
        "++model.optimizer.nesterov=true",
        "model.lr=0.05",
    ]
    cfg = config(*SMALL, *momentum, *WARM_UP)

    def schedule(optimizer: optim.Optimizer) -> optim.lr_scheduler.LRScheduler:
        warm_up = optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
        cosine = optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
        return optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], milestones=[10])

    expected, rates = plain_loop(
        cfg,
        W,
        lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
        schedule,
        per_step=True,
    )
    torch.testing.assert_close(fit(cfg, W).weights()[0], expected, rtol=0, atol=1e-5)
    assert rates[0] == pytest.approx(0.05 / 3)
    assert max(rates) == pytest.approx(0.05)


def test_the_defaults_are_sgd_and_exponential_decay(config):
    model = build(config("model=concise"), "model")
    configured = model.configure_optimizers()
    assert type(configured["optimizer"]) is optim.SGD
    assert type(configured["lr_scheduler"]) is optim.lr_scheduler.ExponentialLR


def test_the_weight_decay_of_the_model_goes_to_the_optimizer(config):
    cfg = config("model=concise", "++model.optimizer.name=AdamW", "model.weight_decay=0.03")
    optimizer = build(cfg, "model").configure_optimizers()["optimizer"]
    assert optimizer.param_groups[0]["weight_decay"] == 0.03


def test_a_schedule_by_the_validation_loss_lowers_the_learning_rate(config, tmp_path):
    plateau = ["++model.scheduler.name=ReduceLROnPlateau", "++model.scheduler.patience=0"]
    # no loss is better by 1000 %, so that each epoch after the first is a bad one
    plateau += ["++model.scheduler.threshold=10.0", "++model.scheduler.threshold_mode=abs"]
    train(config(*SMALL, *plateau), tmp_path / "run")
    assert [row["lr"] for row in Run(tmp_path / "run").epochs()] == pytest.approx([0.1, 0.1, 0.01])


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[*ADAMW, *COSINE], [*ADAMW, *WARM_UP]], ids=["epoch", "step"])
def test_a_run_that_goes_on_is_the_run_that_was_never_interrupted(config, tmp_path, settings):
    train(config(*SMALL, *settings), tmp_path / "whole")
    train(config(*SMALL, *settings, "trainer.max_epochs=2"), tmp_path / "run")
    run = Run(tmp_path / "run")
    recorded = run.settings()
    recorded["trainer"]["max_epochs"] = 3
    resume(run.path, recorded)
    assert differences(run, Run(tmp_path / "whole")) == []


BAD = {
    "++model.optimizer.name=os.system": r"^model\.optimizer\.name=os\.system: there is none; there are ASGD, ",
    "++model.optimizer.name=Optimizer": r"^model\.optimizer\.name=Optimizer: there is none",
    "++model.optimizer.name=lr_scheduler": r"^model\.optimizer\.name=lr_scheduler: there is none",
    "++model.optimizer.name=3": r"^model\.optimizer: .*it needs a name",
    "++model.optimizer.lr=1": r"^model\.optimizer\.lr=1: the learning rate is model\.lr$",
    "++model.optimizer.momentum=abc": r"^model\.optimizer\.momentum: input should be a valid number",
    "++model.optimizer.betas=[1,2]": r"^model\.optimizer\.betas=\[1, 2\]: there is no such setting",
    "++model.optimizer.momentum=-1": r"^model\.optimizer or model\.scheduler: Invalid momentum value",
    "++model.scheduler.name=open": r"^model\.scheduler\.name=open: there is none; there are ChainedScheduler",
    "++model.scheduler.name=StepLR": r"^model\.scheduler\.step_size is missing$",
    "++model.scheduler.name=LambdaLR": r"^model\.scheduler\.lr_lambda is missing$",
    "++model.scheduler.interval=day": r"^model\.scheduler\.interval must be epoch or step, got day$",
    "++model.scheduler.monitor=val/acc": r"^model\.scheduler\.monitor=val/acc: there is no such setting",
    "++model.scheduler.verbose=maybe": r"^model\.scheduler\.verbose=maybe: there is no such setting",
    **{
        f"++model.optimizer.name={name}": rf"^model\.optimizer\.name={name} cannot be taken: "
        for name in REFUSED
    },
}


@pytest.mark.parametrize("override", BAD)
def test_what_torch_does_not_have_is_one_line(config, override):
    with pytest.raises(UserError, match=BAD[override]) as refused:
        build(config("model=concise", override), "model")
    assert "\n" not in str(refused.value)


def test_a_decay_that_no_schedule_reads_is_refused(config):
    with pytest.raises(
        UserError, match=r"^model\.gamma=0\.5 is read by the schedule ExponentialLR alone"
    ):
        build(config("model=concise", *COSINE, "model.gamma=0.5"), "model")


def test_two_values_for_one_weight_decay_are_refused(config):
    with pytest.raises(UserError, match="are two values for one; leave one out"):
        build(config(*SMALL, *ADAMW, "model.weight_decay=0.3"), "model")


@pytest.mark.parametrize("part", ["3", "{}", "{name: 3}", "{name: nope}", "{name: StepLR}"])
def test_a_part_of_a_schedule_that_is_none_is_one_line(config, part):
    parts = f"++model.scheduler.schedulers=[{part}]"
    with pytest.raises(UserError, match=r"^model\.scheduler\.schedulers\.0"):
        build(
            config("model=concise", "++model.scheduler.name=SequentialLR", parts, WARM_UP[2]),
            "model",
        )


@pytest.mark.parametrize("model", ["scratch", "closed_form", "grid", "linear_scratch"])
def test_models_with_updates_of_their_own_take_no_other(config, model):
    with pytest.raises(UserError, match=r"^model\.optimizer=.*: there is no such setting; "):
        build(config(f"model={model}", "++model.optimizer.name=Adam"), "model")


def test_arguments_of_an_optimizer_need_no_plus():
    assert as_hydra_takes_them(["model.optimizer.betas=[0.9,0.99]", "model.lr=1"]) == [
        "++model.optimizer.betas=[0.9,0.99]",
        "model.lr=1",
    ]
