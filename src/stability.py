"""What goes wrong with softmax and log as they are defined: python -m src.stability

A table on the terminal and stability.png, from the functions of src.maths.functional on the same random logits:
scaled until float32 overflows, and shifted, which must not change anything.
"""

import logging
from pathlib import Path
from typing import Annotated

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
# Shares of the examples: with inf or nan among their probabilities; whose true class gets probability 0, which
# only the textbook takes the log of; whose gradient is below 1 % of the true one although P(true class) < 1/2.
SHARES = ("inf or nan", "P(true class) = 0", "gradient lost")
Row = dict[str, str | float]


class Demonstration(Options):
    scales: Annotated[list[FiniteFloat], Field(min_length=1, max_length=20)]
    shift: FiniteFloat
    num_examples: Annotated[int, Field(ge=1, le=100_000)]
    num_outputs: Annotated[int, Field(ge=2, le=1000)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


def outcomes(scales: list[float], shift: float, num_examples: int, num_outputs: int, seed: int) -> list[Row]:
    """What both kinds of numerics make of N(0, 1) logits times each scale, and of those plus `shift`."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_examples, num_outputs, generator=random)
    y = torch.randint(num_outputs, (num_examples,), generator=random)
    cases = {f"x {scale:g}": scale * logits for scale in scales} | {f"+ {shift:g}": logits + shift}
    return [
        {"logits": name, "numerics": kind, **outcome(kind, case, y)}
        for name, case in cases.items()
        for kind in KINDS
    ]


def outcome(kind: str, logits: Tensor, y: Tensor) -> dict[str, float]:
    """The shares of the examples, see SHARES, the mean loss (nats) and its error against float64."""
    softmax, cross_entropy, cross_entropy_grad = KINDS[kind]
    p = softmax(logits)  # (n, q)
    grad = cross_entropy_grad(logits, y) * len(y)  # (n, q), of each example's own loss
    exact = F.cross_entropy_grad(logits.double(), y) * len(y)
    wrong = exact.gather(1, y[:, None])[:, 0] < -0.5  # P(true class) < 1/2
    faint = ~(grad.norm(dim=1) >= 0.01 * exact.norm(dim=1))  # nan counts as none
    found = (~p.isfinite()).any(dim=1), p.gather(1, y[:, None]) == 0, wrong & faint
    shares = {name: each.double().mean().item() for name, each in zip(SHARES, found, strict=True)}
    loss = cross_entropy(logits, y).item()
    return shares | {"loss": loss, "error of the loss": abs(loss - F.cross_entropy(logits.double(), y).item())}


def chart(rows: list[Row]) -> Figure:
    panel = figure(10.5, 3.2)
    axes = panel.subplots(1, len(SHARES), sharey=True)
    for ax, name in zip(axes, SHARES, strict=True):
        for kind, colour, shift in ("textbook", COLOURS["wrong"], -0.2), ("stable", COLOURS["train"], 0.2):
            of_kind = [row for row in rows if row["numerics"] == kind]
            places = np.arange(len(of_kind)) + shift
            bars = ax.bar(places, [row[name] for row in of_kind], 0.38, color=colour, label=kind)
            ax.bar_label(bars, fmt="{:.0%}", padding=2, fontsize=8, color=colour)
        ax.set_xticks(range(len(of_kind)), [row["logits"] for row in of_kind])
        ax.set(title=name, xlabel="logits ~ N(0, 1)", ylim=(0, 1.15))
    axes[0].set_ylabel("share of the examples")
    axes[0].legend(frameon=False, loc="upper left")
    return panel


@hydra.main(version_base="1.3", config_path="../conf", config_name="stability")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    rows = outcomes(**checked(Demonstration, cfg).model_dump())
    picture = Path(HydraConfig.get().runtime.output_dir) / "stability.png"
    save(chart(rows), picture)
    log.info("%s\n\nlogits ~ N(0, 1) times or plus the number; shares of the examples", terminal.table(rows))
    log.info("%s", terminal.relative(picture))


if __name__ == "__main__":
    terminal.run(main)
