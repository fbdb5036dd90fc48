"""src.maths.optim against torch.optim, step by step, and its state through a checkpoint."""

import pytest
import torch

from src.maths import optim


def minimize(optimizer_class, scheduler_class, weight_decay: float) -> list[torch.Tensor]:
    """The parameter after each of six steps on |p - target|^2, the lr decaying every second
    step."""
    p = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    unused = torch.zeros(2, requires_grad=True)  # has no gradient
    optimizer = optimizer_class([p, unused], lr=0.1, weight_decay=weight_decay)
    scheduler = scheduler_class(optimizer, gamma=0.5)
    path = []
    for step in range(6):
        optimizer.zero_grad()
        ((p - torch.tensor([0.0, 1.0, 2.0])) ** 2).sum().backward()
        optimizer.step()
        if step % 2:
            scheduler.step()
        path.append(p.detach().clone())
    return path


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_sgd_with_decay_takes_the_steps_of_torch(weight_decay):
    ours = minimize(optim.SGD, optim.ExponentialLR, weight_decay)
    torchs = minimize(torch.optim.SGD, torch.optim.lr_scheduler.ExponentialLR, weight_decay)
    torch.testing.assert_close(ours, torchs)


def test_sgd_by_hand():
    p = torch.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1, weight_decay=0.5)
    (3 * p).sum().backward()
    optimizer.step()
    assert p.item() == pytest.approx(2.0 - 0.1 * (3.0 + 0.5 * 2.0))


def test_zero_grad_forgets_every_gradient():
    parameters = [torch.ones(2, requires_grad=True) for _ in range(2)]
    optimizer = optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:]}], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        assert [p.grad for p in parameters] == [None, None]
        sum((3 * p).sum() for p in parameters).backward()
        assert all(p.grad.tolist() == [3.0, 3.0] for p in parameters)  # not 6 the second time


def test_step_calls_a_closure_with_gradients_enabled():
    p = torch.tensor([2.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)

    def closure():
        loss = (p**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert p.item() == pytest.approx(2.0 - 0.1 * 4.0)


def test_exponential_lr_is_a_geometric_sequence_and_survives_its_state_dict():
    optimizer = optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    scheduler = optim.ExponentialLR(optimizer, gamma=0.9)
    for epoch in range(5):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**epoch)
        optimizer.step()
        scheduler.step()
    again = optim.SGD([torch.zeros(1, requires_grad=True)], lr=123.0)
    scheduler_again = optim.ExponentialLR(again, gamma=0.9)
    again.load_state_dict(optimizer.state_dict())
    scheduler_again.load_state_dict(scheduler.state_dict())
    again.step()
    scheduler_again.step()
    assert again.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**6)
