"""What goes wrong with softmax and log as they are defined: python -m src.stability

A table on the terminal and stability.png, from the functions of src.maths.functional on the same random logits:
scaled until float32 overflows, and shifted, which must not change anything.
"""

import logging
from pathlib import Path
from typing import Annotated, NamedTuple

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig
from pydantic import Field, FiniteFloat
from torch import Tensor

from src import terminal
from src.charts import COLOURS, figure, save
from src.maths import functional as F
from src.runs.config import Options, checked

log = logging.getLogger(__name__)

KINDS = {  # softmax, cross-entropy, its gradient
    "textbook": (F.textbook_softmax, F.textbook_cross_entropy, F.textbook_cross_entropy_grad),
    "stable": (F.softmax, F.cross_entropy, F.cross_entropy_grad),
}


class Demonstration(Options):
    """The options of the command; conf/stability.yaml says what they mean."""

    scales: Annotated[list[FiniteFloat], Field(min_length=1, max_length=20)]
    shift: FiniteFloat
    num_examples: Annotated[int, Field(ge=1, le=100_000)]
    num_outputs: Annotated[int, Field(ge=2, le=1000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class Outcome(NamedTuple):
    """What one kind of numerics makes of one set of logits."""

    logits: str
    numerics: str
    not_finite: float  # share of the examples with inf or nan among their probabilities
    underflow: float  # share whose true class gets probability 0, the log of which only the textbook takes
    no_gradient: (
        float  # share whose gradient is below 1 % of the true one although the model is wrong by > 50 %
    )
    loss: float  # mean, nats
    error: float  # of the loss, against float64


def outcomes(
    scales: list[float], shift: float, num_examples: int, num_outputs: int, seed: int
) -> list[Outcome]:
    """Both kinds of numerics on N(0, 1) logits times each scale, and on those plus `shift`."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_examples, num_outputs, generator=random)
    y = torch.randint(num_outputs, (num_examples,), generator=random)
    cases = {f"x {scale:g}": scale * logits for scale in scales} | {f"+ {shift:g}": logits + shift}
    return [judge(name, kind, case, y) for name, case in cases.items() for kind in KINDS]


def judge(name: str, kind: str, logits: Tensor, y: Tensor) -> Outcome:
    softmax, cross_entropy, cross_entropy_grad = KINDS[kind]
    p = softmax(logits)  # (n, q)
    grad = cross_entropy_grad(logits, y) * len(y)  # (n, q), of each example's own loss
    exact = F.cross_entropy_grad(logits.double(), y) * len(y)
    wrong = exact.gather(1, y[:, None])[:, 0] < -0.5  # P(true class) < 1/2
    faint = ~(grad.norm(dim=1) >= 0.01 * exact.norm(dim=1))  # nan counts as none
    loss = cross_entropy(logits, y).item()
    return Outcome(
        logits=name,
        numerics=kind,
        not_finite=(~p.isfinite()).any(dim=1).double().mean().item(),
        underflow=(p.gather(1, y[:, None]) == 0).double().mean().item(),
        no_gradient=(wrong & faint).double().mean().item(),
        loss=loss,
        error=abs(loss - F.cross_entropy(logits.double(), y).item()),
    )


def table(rows: list[Outcome]) -> str:
    lines = [
        "logits     numerics   inf/nan  P(true)=0   gradient lost   mean loss   its error",
        *(
            f"{row.logits:10} {row.numerics:9}{row.not_finite:9.1%}{row.underflow:11.1%}{row.no_gradient:16.1%}"
            f"{row.loss:12.4g}{row.error:12.2g}"
            for row in rows
        ),
    ]
    return "\n".join(lines)


def chart(rows: list[Outcome]) -> Figure:
    """Share of the examples with inf or nan, probability 0, or a lost gradient, by logits and numerics."""
    names = list(dict.fromkeys(row.logits for row in rows))
    panels = {"not_finite": "inf or nan", "underflow": "P(true class) = 0", "no_gradient": "gradient lost"}
    panel = figure(10.5, 3.2)
    axes = panel.subplots(1, len(panels), sharey=True)
    for ax, (field, title) in zip(axes, panels.items(), strict=True):
        for k, (kind, colour) in enumerate({"textbook": COLOURS["wrong"], "stable": COLOURS["train"]}.items()):
            shares = [getattr(row, field) for row in rows if row.numerics == kind]
            places = np.arange(len(names)) + 0.4 * (k - 0.5)
            ax.bar(places, shares, 0.38, color=colour, label=kind)
            for place, share in zip(places, shares, strict=True):
                ax.text(place, share + 0.02, f"{share:.0%}", ha="center", fontsize=8, color=colour)
        ax.set_xticks(range(len(names)), names)
        ax.set(title=title, xlabel="logits ~ N(0, 1)", ylim=(0, 1.15))
    axes[0].set_ylabel("share of the examples")
    axes[0].legend(frameon=False, loc="upper left")
    return panel


@hydra.main(version_base="1.3", config_path="../conf", config_name="stability")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    rows = outcomes(**checked(Demonstration, cfg).model_dump())
    picture = Path(HydraConfig.get().runtime.output_dir) / "stability.png"
    save(chart(rows), picture)
    log.info(
        "%s\n\nlogits ~ N(0, 1) times or plus the number in the first column; shares of examples.", table(rows)
    )
    log.info("%s", terminal.relative(picture))


if __name__ == "__main__":
    terminal.run(main)
