"""src.maths.functional against torch, against hand arithmetic, and where floating point ends."""

import math

import pytest
import torch
from torch.nn import functional as torch_F

from src.maths import functional as F


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def y() -> torch.Tensor:
    return torch.randint(10, (64,), generator=torch.Generator().manual_seed(1))


def test_softmax_by_hand():
    # exp(0) : exp(ln 2) : exp(ln 5) = 1 : 2 : 5, sum 8
    logits = torch.tensor([[0.0, math.log(2), math.log(5)]])
    expected = torch.tensor([[1 / 8, 2 / 8, 5 / 8]])
    torch.testing.assert_close(F.softmax(logits), expected)
    torch.testing.assert_close(F.textbook_softmax(logits), expected)
    torch.testing.assert_close(F.logsumexp(logits), torch.tensor([[math.log(8)]]))


def test_cross_entropy_by_hand():
    # rows: P(true class) = 5/8 and 1/2, so the mean of -log is (ln 1.6 + ln 2) / 2
    logits = torch.tensor([[0.0, math.log(2), math.log(5)], [0.0, 0.0, -math.inf]])
    logits[1, 2] = -1e4  # finite: exp(-1e4) = 0
    expected = (math.log(1.6) + math.log(2)) / 2
    y = torch.tensor([2, 0])
    assert F.cross_entropy(logits, y).item() == pytest.approx(expected, rel=1e-6)
    assert F.textbook_cross_entropy(logits, y).item() == pytest.approx(expected, rel=1e-6)


def test_softmax_family_equals_torch(logits, y):
    torch.testing.assert_close(F.softmax(logits), torch_F.softmax(logits, dim=1))
    torch.testing.assert_close(F.log_softmax(logits), torch_F.log_softmax(logits, dim=1))
    torch.testing.assert_close(F.logsumexp(logits), torch.logsumexp(logits, dim=1, keepdim=True))
    torch.testing.assert_close(F.cross_entropy(logits, y), torch_F.cross_entropy(logits, y))


@pytest.mark.parametrize("scale", [1, 10, 100, 1000, 1e30])
def test_stable_functions_survive_logits_of_any_size(logits, y, scale):
    big = logits.double() * scale
    torch.testing.assert_close(
        F.cross_entropy(big.float(), y).double(),
        torch_F.cross_entropy(big, y),
        rtol=1e-5,
        atol=1e-5,
    )
    torch.testing.assert_close(F.softmax(big.float()).sum(1), torch.ones(64))


def test_adding_a_hundred_to_every_logit_changes_nothing_where_the_numerics_are_stable(logits, y):
    torch.testing.assert_close(F.softmax(logits + 100), F.softmax(logits), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        F.cross_entropy(logits + 100, y), F.cross_entropy(logits, y), rtol=1e-5, atol=1e-5
    )
    assert F.textbook_softmax(logits + 100).isnan().any()  # exp(100) overflows float32


def test_textbook_loss_is_capped_by_its_epsilon():
    wrong = torch.tensor([[0.0, 60.0]])
    assert F.cross_entropy(wrong, torch.tensor([0])).item() == pytest.approx(60)
    assert F.textbook_cross_entropy(wrong, torch.tensor([0])).item() == pytest.approx(
        -math.log(1e-9), rel=1e-4
    )


def test_epsilon_hides_the_gradient_where_the_model_is_most_wrong():
    wrong = torch.tensor([[0.0, 60.0]])
    y = torch.tensor([0])
    torch.testing.assert_close(F.cross_entropy_grad(wrong, y), torch.tensor([[-1.0, 1.0]]))
    # the factor y_hat_y / (y_hat_y + 1e-9) with y_hat_y = exp(-60) = 8.8e-27
    assert F.textbook_cross_entropy_grad(wrong, y).abs().max().item() == pytest.approx(
        8.76e-18, rel=1e-2
    )


@pytest.mark.parametrize(
    ("loss", "grad"),
    [
        (F.cross_entropy, F.cross_entropy_grad),
        (F.textbook_cross_entropy, F.textbook_cross_entropy_grad),
    ],
)
def test_gradients_of_cross_entropy_equal_autograd(logits, y, loss, grad):
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(loss(logits, y), logits)
    torch.testing.assert_close(grad(logits.detach(), y), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("loss", "grad", "reference"),
    [
        (F.squared_loss, F.squared_loss_grad, lambda y_hat, y: torch_F.mse_loss(y_hat, y) / 2),
        (F.l1_loss, F.l1_loss_grad, torch_F.l1_loss),
        (F.huber_loss, F.huber_loss_grad, torch_F.huber_loss),
    ],
)
def test_regression_losses_and_their_gradients_equal_torch(loss, grad, reference):
    y_hat = torch.tensor([[-3.0], [-1.0], [-0.25], [0.0], [0.5], [1.0], [4.0]], requires_grad=True)
    y = torch.zeros(7, 1)
    expected = reference(y_hat, y)
    torch.testing.assert_close(loss(y_hat, y), expected)
    (expected_grad,) = torch.autograd.grad(expected, y_hat)
    torch.testing.assert_close(grad(y_hat.detach(), y), expected_grad)


def test_regression_losses_by_hand():
    # d = 3 and -1/2
    y_hat, y = torch.tensor([[3.0], [0.5]]), torch.tensor([[0.0], [1.0]])
    assert F.squared_loss(y_hat, y).item() == pytest.approx((9 / 2 + 1 / 8) / 2)
    assert F.l1_loss(y_hat, y).item() == pytest.approx((3 + 1 / 2) / 2)
    assert F.huber_loss(y_hat, y).item() == pytest.approx((2.5 + 1 / 8) / 2)


def test_linear_layer_and_its_gradient_equal_torch(y):
    generator = torch.Generator().manual_seed(2)
    X, W, b = (torch.randn(*shape, generator=generator) for shape in [(64, 7), (7, 10), (10,)])
    W.requires_grad_()
    b.requires_grad_()
    output = F.linear(X, W, b)
    torch.testing.assert_close(output, torch_F.linear(X, W.T, b))
    dW, db = torch.autograd.grad(torch_F.cross_entropy(output, y), (W, b))
    our_dW, our_db = F.linear_grad(X, F.cross_entropy_grad(output.detach(), y))
    torch.testing.assert_close(our_dW, dW)
    torch.testing.assert_close(our_db, db)


def test_accuracy_by_hand():
    logits = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    y = torch.tensor([1, 0, 0, 0])
    assert F.num_correct(logits, y).item() == 3
    assert F.accuracy(logits, y).item() == 0.75


def test_shapes_are_checked_in_the_tests():
    with pytest.raises(Exception, match="Type-check error"):
        F.squared_loss(torch.zeros(3, 1), torch.zeros(3))  # would broadcast to (3, 3) unnoticed
