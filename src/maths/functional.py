"""The mathematics of softmax and linear regression, written out by hand.

Where a function has torch's name it has torch's meaning, so `from src.maths import functional as F`
and `from torch.nn import functional as F` can be read side by side.

    n  examples in the minibatch        o = logits = X W + b            (n, q)
    d  inputs (features)                y  integer labels in [0, q)     (n,)
    q  outputs (classes)                y_hat  predictions of a linear regression, (n, q)

Losses are means over the minibatch; a gradient is the gradient of that mean.
Source of the formulas: Zhang et al., Dive into Deep Learning, chapters 3 and 4.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

EPS = 1e-9  # keeps the textbook's log away from log(0)


# --- softmax --------------------------------------------------------------------------------------


def logsumexp(logits: Float[Tensor, "n q"]) -> Float[Tensor, "n 1"]:
    """log sum_k exp(o_k) of each row, safe for logits of any finite size.

    Subtracting the row maximum c changes nothing, log sum_k exp(o_k) = c + log sum_k exp(o_k - c),
    and leaves every exponent <= 0, so that nothing overflows and the sum is at least 1. As the
    result is the same for any c, its gradient with respect to c is 0, and c is a constant to
    autograd.
    """
    c = logits.detach().amax(dim=1, keepdim=True)  # (n, 1)
    return c + (logits - c).exp().sum(dim=1, keepdim=True).log()  # (n, 1)


def log_softmax(logits: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """log softmax(o)_j = o_j - max(o) - log sum_k exp(o_k - max(o)), without the log of an exp."""
    return logits - logsumexp(logits)


def softmax(logits: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """softmax(o)_i = exp(o_i) / sum_k exp(o_k): rows in [0, 1] of sum 1, for any finite logits.

    exp(o_i - c) / sum_k exp(o_k - c) = exp(o_i) / sum_k exp(o_k): the factor exp(-c) cancels.
    """
    exp = (logits - logits.amax(dim=1, keepdim=True)).exp()  # (n, q), every entry in (0, 1]
    return exp / exp.sum(dim=1, keepdim=True)


def textbook_softmax(logits: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """The definition as it stands: float32 overflows to inf/inf = nan for logits above 88.7."""
    exp = logits.exp()
    return exp / exp.sum(dim=1, keepdim=True)


# --- cross-entropy --------------------------------------------------------------------------------


def cross_entropy(logits: Float[Tensor, "n q"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """-sum_k y_k log y_hat_k = -log y_hat_y = logsumexp(o) - o_y, mean over examples.

    It is in nats, and at least 0.
    """
    o_y = logits.gather(1, y[:, None])  # (n, 1), the logit of the true class
    return (logsumexp(logits) - o_y).mean()


def textbook_cross_entropy(logits: Float[Tensor, "n q"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """-log(y_hat_y + EPS) with the softmax as it is defined, mean over examples.

    It is at most -log(EPS) = 20.7, however wrong the model is.
    """
    y_hat = textbook_softmax(logits)
    return -(y_hat.gather(1, y[:, None]) + EPS).log().mean()


def cross_entropy_grad(logits: Float[Tensor, "n q"], y: Int[Tensor, " n"]) -> Float[Tensor, "n q"]:
    """Gradient of `cross_entropy` with respect to the logits: (softmax(o) - y) / n, y one-hot."""
    return (softmax(logits) - one_hot(y, logits)) / len(logits)


def textbook_cross_entropy_grad(
    logits: Float[Tensor, "n q"], y: Int[Tensor, " n"]
) -> Float[Tensor, "n q"]:
    """Gradient of `textbook_cross_entropy` with respect to the logits.

    The chain rule through the log leaves a factor y_hat_y / (y_hat_y + EPS). It goes to 0 just
    where the model is most wrong: EPS hides the gradient.
    """
    y_hat = textbook_softmax(logits)
    y_hat_y = y_hat.gather(1, y[:, None])  # (n, 1)
    return y_hat_y / (y_hat_y + EPS) * (y_hat - one_hot(y, logits)) / len(logits)


def one_hot(y: Int[Tensor, " n"], like: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """Row i is 1 in column y_i and 0 elsewhere, in the dtype and on the device of `like`."""
    return torch.zeros_like(like).scatter_(1, y[:, None], 1.0)


# --- losses of linear regression, with d = y_hat - y ----------------------------------------------


def squared_loss(y_hat: Float[Tensor, "n q"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
    """1/2 d^2, mean over all entries.

    It carries the 1/2 of the textbook. torch's mse_loss does not, so at the same learning rate
    mse_loss takes steps twice as long.
    """
    return (0.5 * (y_hat - y) ** 2).mean()


def l1_loss(y_hat: Float[Tensor, "n q"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
    """|d|, mean over all entries.

    It is not differentiable at d = 0, where the subgradient 0 is used.
    """
    return (y_hat - y).abs().mean()


def huber_loss(y_hat: Float[Tensor, "n q"], y: Float[Tensor, "n q"]) -> Float[Tensor, ""]:
    """1/2 d^2 where |d| <= 1, |d| - 1/2 beyond, mean over all entries: Huber's loss, delta 1."""
    d = (y_hat - y).abs()
    return torch.where(d <= 1, 0.5 * d**2, d - 0.5).mean()


def squared_loss_grad(y_hat: Float[Tensor, "n q"], y: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """d / (n q): the further from the target, the longer the step."""
    return (y_hat - y) / y.numel()


def l1_loss_grad(y_hat: Float[Tensor, "n q"], y: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """sign(d) / (n q): the same step however near the target is, hence the jitter around it."""
    return (y_hat - y).sign() / y.numel()


def huber_loss_grad(y_hat: Float[Tensor, "n q"], y: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """clip(d, -1, 1) / (n q): bounded far from the target, vanishing at it."""
    return (y_hat - y).clamp(-1, 1) / y.numel()


# --- the linear layer and accuracy ----------------------------------------------------------------


def linear(
    X: Float[Tensor, "n d"], W: Float[Tensor, "d q"], b: Float[Tensor, " q"]
) -> Float[Tensor, "n q"]:
    """X W + b.

    W is (d, q) as in the textbook; torch's linear takes its transpose.
    """
    return X @ W + b


def linear_grad(
    X: Float[Tensor, "n d"], grad: Float[Tensor, "n q"]
) -> tuple[Float[Tensor, "d q"], Float[Tensor, " q"]]:
    """Gradients (dW, db) of a loss whose gradient with respect to X W + b is `grad`.

    dW = X^T grad and db = the column sums of grad.
    For cross-entropy, dW = X^T (softmax(o) - y) / n.
    X^T grad is computed as (grad^T X)^T, several times faster when q is much smaller than d.
    """
    return (grad.T @ X).T, grad.sum(dim=0)


def num_correct(logits: Float[Tensor, "n q"], y: Int[Tensor, " n"]) -> Int[Tensor, ""]:
    """The number of examples with the largest logit at the true class.

    The first of equal logits counts as the largest.
    """
    return (logits.argmax(dim=1) == y).sum()


def accuracy(logits: Float[Tensor, "n q"], y: Int[Tensor, " n"]) -> Float[Tensor, ""]:
    """Share of the examples classified correctly, in [0, 1]."""
    return num_correct(logits, y) / len(y)


def expected_cost(p: Float[Tensor, "n q"], costs: Float[Tensor, "q a"]) -> Float[Tensor, "n a"]:
    """sum_i p_i c_ij: what answer j costs on average if the true class is i with probability p_i.

    The best answer is the cheapest, not the most probable; the two agree if all errors cost the
    same.
    """
    return p @ costs
