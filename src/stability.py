"""What goes wrong with softmax and log as they are defined: python -m src.stability

A table, from the functions of src.maths.functional on the same random logits of 1,000 examples,
N(0, 1): multiplied until float32 overflows, and shifted, which must not change anything. The
columns:

    inf or nan          share of the examples with one among their probabilities
    P(true class) = 0   share of the examples; only the textbook takes the log of it
    gradient lost       share whose gradient is below 1 % of the true one, or nan, although
                        P(true class) < 1/2
    loss                mean, in nats; and how far it is from what float64 gives
"""

from collections.abc import Iterator

from src import signals
from src.cli import exit
from src.cli.console import say
from src.cli.options import Parser
from src.tables import table


def outcomes() -> Iterator[dict[str, str | float]]:
    """The rows of the table."""
    with signals.held():
        import torch  # --help needs none

        from src.maths import functional as F

    kinds = {
        "textbook": (F.textbook_softmax, F.textbook_cross_entropy, F.textbook_cross_entropy_grad),
        "stable": (F.softmax, F.cross_entropy, F.cross_entropy_grad),
    }
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 10, generator=random)
    y = torch.randint(10, (1000,), generator=random)
    cases = {f"x {scale}": scale * logits for scale in (1, 10, 100, 1000)} | {"+ 100": logits + 100}
    for name, case in cases.items():
        exact = case.double()
        improbable = F.softmax(exact).gather(1, y[:, None])[:, 0] < 0.5
        true_size = F.cross_entropy_grad(exact, y).norm(dim=1)  # (n,), of each example's gradient
        for kind, (softmax, cross_entropy, cross_entropy_grad) in kinds.items():
            p, loss = softmax(case), cross_entropy(case, y)
            lost = improbable & ~(cross_entropy_grad(case, y).norm(dim=1) >= 0.01 * true_size)
            yield {
                "logits": name,
                "numerics": kind,
                "inf or nan": (~p.isfinite()).any(dim=1).float().mean().item(),
                "P(true class) = 0": (p.gather(1, y[:, None]) == 0).float().mean().item(),
                "gradient lost": lost.float().mean().item(),
                "loss": loss.item(),
                "error of the loss": (loss - F.cross_entropy(exact, y)).abs().item(),
            }


def main() -> None:
    Parser("python -m src.stability", __doc__ or "").parse_args()
    say(table(outcomes()))
    say("\nlogits ~ N(0, 1) times or plus the number; shares of the examples")


if __name__ == "__main__":
    exit.run(main)
