"""The pictures in a run's folder: when they are drawn, and of what."""

from typing import Literal

import lightning as L
import rich
import torch
from lightning.pytorch.callbacks import Checkpoint
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.functional import confusion_matrix

from src.charts import save
from src.charts.curves import curves
from src.charts.images import confusion, predictions, weights
from src.training.history import history, logged, run_of
from src.training.tensorboard import TensorBoard


class Figures(Checkpoint):
    """PNG files in figures/: curves.png, and after the test pictures of the tested model.

    In a Jupyter notebook the curves are redrawn in place after every epoch. TensorBoard shows the
    pictures of the tested model too, as tested/NAME. conf/callbacks/default.yaml says what the
    arguments mean.
    """

    def __init__(self, draw: bool | Literal["auto"] = "auto", live: bool = False):
        self.draw, self.live = draw, live
        self.shown = False  # in the notebook

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        # the last one is drawn after the test, with its results
        ended = trainer.current_epoch + 1 == trainer.max_epochs
        if (self.live or rich.get_console().is_jupyter) and self.draws(trainer) and not ended:
            self.draw_curves(trainer, history(trainer).rows)

    def on_test_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        if not self.draws(trainer):
            return
        rows, tested = history(trainer).rows, history(trainer).tested
        self.draw_curves(trainer, [row | logged(trainer) if row == tested else row for row in rows])
        for name, picture in (
            pictures(model, trainer.datamodule).items() if model.classifies else ()
        ):
            pixels = save(picture, run_of(trainer).figures / f"{name}.png")
            for tensorboard in (
                each for each in trainer.callbacks if isinstance(each, TensorBoard)
            ):
                tensorboard.writer.add_image(
                    f"tested/{name}", pixels, rows[-1]["epoch"], dataformats="HWC"
                )

    def draws(self, trainer: L.Trainer) -> bool:
        wanted = not run_of(trainer).in_sweep() if self.draw == "auto" else self.draw
        return wanted and trainer.is_global_zero

    def draw_curves(self, trainer: L.Trainer, rows: list[dict[str, float]]) -> None:
        path = run_of(trainer).figures / "curves.png"
        save(curves(rows), path)
        if rich.get_console().is_jupyter:
            from IPython.display import Image as Shown
            from IPython.display import display

            display(Shown(path.read_bytes()), display_id=f"curves {id(self)}", update=self.shown)
            self.shown = True


@torch.inference_mode()
def outputs(model: L.LightningModule, data: L.LightningDataModule) -> tuple[Tensor, Tensor]:
    """What the model makes of the test split (n, q), and its targets, both on the CPU."""
    # A part at a time: to allocate the whole split as float32 can take longer than to compute with
    # it. The results have their place from the start: small ones that are kept, between large ones
    # that are freed, would keep the allocator from using their memory again.
    places = torch.arange(len(data.splits["test"][1]))
    output = y = torch.empty(0)
    for part in places.split(data.eval_batch_size):
        inputs, targets = data.split_examples("test", part)
        predicted = model(inputs.to(model.device)).cpu()
        if part[0] == 0:
            output = predicted.new_empty(len(places), *predicted.shape[1:])
            y = targets.new_empty(len(places), *targets.shape[1:])
        output[part], y[part] = predicted, targets
    return output, y


def pictures(model: L.LightningModule, data: L.LightningDataModule) -> dict[str, Figure]:
    """The figures of a trained classifier, by file name.

    They show its weights, if it has them, the confusion matrix, and test images.
    """
    output, y = outputs(model, data)
    y_hat = output.argmax(dim=1)
    matrix = confusion_matrix(y_hat, y, task="multiclass", num_classes=len(data.classes))
    W = model.weights()
    drawn = {"weights": weights({"": W[0].cpu()}, data.classes)} if W else {}
    drawn["confusion"] = confusion(matrix, data.classes)
    examples = predictions(data, y, y_hat, 18)
    return drawn | {f"predictions_{name}": picture for name, picture in examples.items()}
