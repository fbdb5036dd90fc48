"""A trained model, tested outside of its run."""

from typing import Any, NamedTuple

from torch import Tensor

from src.data.module import SplitDataModule
from src.models.outputs import Outputs
from src.models.regression import Regression
from src.training.arguments import trainer_arguments
from src.training.history import logged
from src.training.trainer import build_trainer

# Settings of a run's trainer that a test has in common with the run's.
OF_THE_RUN = ("accelerator", "precision", "limit_test_batches", "fast_dev_run")


class Tested(NamedTuple):
    """What a test gives."""

    metrics: dict[str, float]  # test/loss, and of a classifier test/acc
    outputs: Tensor  # (n, q)
    targets: Tensor  # labels (n,) or values (n, q)


def measure(
    model: Regression, data: SplitDataModule, settings: dict[str, Any], accelerator: Any = None
) -> Tested:
    """Let the test split pass through the model, once, on one device.

    The precision, and how much is tested, are those of the run's settings; and so is the kind of
    device, unless another is given. Raises UserError for a device that is not there.
    """
    chosen = {"enable_progress_bar": False}
    for name in OF_THE_RUN:
        if name in settings["trainer"]:
            chosen[name] = settings["trainer"][name]
    if accelerator is not None:
        chosen["accelerator"] = accelerator
    outputs = Outputs()
    trainer = build_trainer(trainer_arguments({"trainer": chosen}), callbacks=[outputs])
    trainer.test(model, data, verbose=False)
    return Tested(logged(trainer), *outputs.whole(trainer))
