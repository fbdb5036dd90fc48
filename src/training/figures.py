"""The pictures in a run's folder: when they are drawn, and of what."""

from typing import Literal

import lightning as L
import rich
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional import confusion_matrix

from src.charts import save
from src.charts.curves import curves
from src.charts.images import confusion, predictions, weights
from src.data.module import SplitDataModule
from src.models.outputs import Outputs
from src.models.regression import Regression
from src.training.history import history, logged, run_of
from src.training.late import Late
from src.training.loggers.callback import Loggers


class Figures(Late):
    """PNG files in figures/: curves.png, and after the test pictures of the tested model.

    In a Jupyter notebook the curves are redrawn in place after every epoch. The loggers get the
    pictures of the tested model too, as tested/NAME. conf/callbacks/default.yaml says what the
    arguments mean.
    """

    def __init__(self, draw: bool | Literal["auto"] = "auto", live: bool = False):
        self.draw, self.live = draw, live
        self.shown = False  # in the notebook
        self.outputs = Outputs()

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # the last one is drawn after the test, with its results
        ended = trainer.current_epoch + 1 == trainer.max_epochs
        live = self.live or rich.get_console().is_jupyter
        if live and self.wanted(trainer) and trainer.is_global_zero and not ended:
            self.draw_curves(trainer, history(trainer).rows)

    def on_test_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.outputs.on_test_start(trainer, model)

    def on_test_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        if self.wanted(trainer) and model.classifies:
            self.outputs.on_test_batch_end(trainer, model, outputs, batch, batch_idx)

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if not self.wanted(trainer):
            return
        drawn = {}
        if model.classifies:
            output, y = self.outputs.whole(trainer)
            if trainer.is_global_zero:
                drawn = pictures(model, trainer.datamodule, output, y)
        if not trainer.is_global_zero:
            return
        rows = []
        for row in history(trainer).rows:
            if row == history(trainer).tested:
                row = row | logged(trainer)
            rows.append(row)
        self.draw_curves(trainer, rows)
        for name, picture in drawn.items():
            path = run_of(trainer).figures / f"{name}.png"
            pixels = save(picture, path)
            for callback in trainer.callbacks:
                if isinstance(callback, Loggers):
                    callback.picture(trainer, path, pixels)

    def wanted(self, trainer: L.Trainer) -> bool:
        """Whether this run has pictures."""
        if self.draw == "auto":
            return not run_of(trainer).in_sweep()
        return self.draw

    def draw_curves(self, trainer: L.Trainer, rows: list[dict[str, float]]) -> None:
        path = run_of(trainer).figures / "curves.png"
        save(curves(rows), path)
        if rich.get_console().is_jupyter:
            from IPython.display import Image as Shown
            from IPython.display import display

            display(Shown(path.read_bytes()), display_id=f"curves {id(self)}", update=self.shown)
            self.shown = True


def pictures(
    model: Regression, data: SplitDataModule, output: Tensor, y: Tensor
) -> dict[str, Figure]:
    """The figures of a trained classifier with its outputs (n, q) for test labels y, by file name.

    They show its weights, if it has them, the confusion matrix, and test images.
    """
    y_hat = output.argmax(dim=1)
    matrix = confusion_matrix(y_hat, y, task="multiclass", num_classes=len(data.classes))
    W = model.weights()
    drawn = {"weights": weights({"": W[0].cpu()}, data.classes)} if W else {}
    drawn["confusion"] = confusion(matrix, data.classes)
    examples = predictions(data, y, y_hat, 18)
    return drawn | {f"predictions_{name}": picture for name, picture in examples.items()}
