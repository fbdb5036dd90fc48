"""A trained model, tested outside of its run."""

from typing import Any, NamedTuple

from torch import Tensor

from src.data.module import SplitDataModule
from src.models.outputs import Outputs
from src.models.regression import Regression
from src.signatures import arguments
from src.training.history import logged
from src.training.trainer import build_trainer


class Tested(NamedTuple):
    """What a test gives."""

    metrics: dict[str, float]  # test/loss, and of a classifier test/acc
    outputs: Tensor  # (n, q)
    targets: Tensor  # labels (n,) or values (n, q)


def test(model: Regression, data: SplitDataModule, accelerator: Any) -> Tested:
    """Let the test split pass through the model, once, on one device.

    Raises UserError for a device that is not there.
    """
    chosen = {"accelerator": accelerator, "enable_progress_bar": False}
    given = arguments("trainer", build_trainer, chosen, ("folder", "callbacks"))
    outputs = Outputs()
    trainer = build_trainer(**given, callbacks=[outputs])
    trainer.test(model, data, verbose=False)
    return Tested(logged(trainer), *outputs.whole(trainer))
