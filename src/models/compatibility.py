"""The check that a model and its data fit, before a run trains or tests."""

from typing import Any, Protocol

from torch import Tensor

from src.errors import UserError


class Data(Protocol):
    """The side of a data module that a model sees.

    src.data.module has the class that our data modules derive from.
    """

    num_inputs: int
    num_outputs: int
    classes: list[str] | None
    truth: tuple[Tensor, Tensor] | None
    validates_on: str
    splits: dict[str, tuple[Any, Tensor]]  # name -> (examples X and y, indices of the split)

    def split_examples(
        self, split: str, which: Tensor | slice = slice(None)
    ) -> tuple[Tensor, Tensor]: ...


def check_data(data: Data, num_inputs: int, num_outputs: int, classifies: bool) -> None:
    """Raises UserError unless the examples of every split are such as the model takes and predicts.

    The model has `num_inputs` features and `num_outputs` outputs; it predicts labels if it
    `classifies`, else values.
    """
    for name, (examples, indices) in data.splits.items():
        if len(indices) == 0:  # no validation split
            continue
        first, _ = data.split_examples(name, slice(1))
        if first.numel() != num_inputs:
            features = f"each example of the data has {first.numel()} features"
            raise UserError(f"model.num_inputs is {num_inputs}, but {features}")
        y = examples.y[indices]
        if y.is_floating_point() and classifies:
            advice = "use model=linear_scratch for values"
            raise UserError(f"the model predicts labels, but the targets are values; {advice}")
        if not y.is_floating_point() and not classifies:
            advice = "use model=scratch for labels"
            raise UserError(f"the model predicts values, but the targets are labels; {advice}")
        if classifies:
            _check_labels(y, num_outputs, data)
        elif y.shape[1:] != (num_outputs,):  # (n, 1) minus (n,) would broadcast to (n, n)
            shape = f"each target has shape {tuple(y.shape[1:])}"
            raise UserError(f"{shape}, each prediction {(num_outputs,)}")


def _check_labels(y: Tensor, num_outputs: int, data: Data) -> None:
    known = len(data.classes or ())
    if known != num_outputs:
        need = f"{type(data).__name__}.classes must name one for each output"
        raise UserError(
            f"model.num_outputs is {num_outputs}, but the data has {known} classes; {need}"
        )
    if y.min() < 0 or y.max() >= num_outputs:
        labels = f"the labels lie between {y.min()} and {y.max()}"
        raise UserError(f"{labels}, but model.num_outputs={num_outputs}")
