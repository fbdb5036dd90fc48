"""What must hold between a model and its data; checked once, before a run trains or tests."""

import math

import lightning as L
from torch import Tensor

from src.errors import UserError


def check_data(model: L.LightningModule, data: L.LightningDataModule) -> None:
    """Raises UserError unless the examples of every split are such as the model takes and predicts."""
    d, q = model.hparams.num_inputs, model.hparams.num_outputs
    if model.classifies and data.classes is not None and len(data.classes) != q:
        raise UserError(
            f"model.num_outputs is {q}, but the data has {len(data.classes)} classes; "
            f"set model.num_outputs={len(data.classes)}"
        )
    for name, (examples, indices) in data.splits.items():
        if len(indices) == 0:  # no validation split
            continue
        X, _ = data.split_examples(name, slice(1))
        if (features := math.prod(X.shape[1:])) != d:
            raise UserError(
                f"model.num_inputs is {d}, but each example of the data has {features} features; "
                f"set model.num_inputs={features} or change the data (data.resize)"
            )
        check_targets(examples.y[indices], model.classifies, q)
    if model.classifies and data.classes is None:
        raise UserError(
            f"the model predicts classes, but {type(data).__name__} names none; "
            "give the data module `classes`, the names of its labels"
        )


def check_targets(y: Tensor, classifies: bool, num_outputs: int) -> None:
    """Targets are labels in [0, q) or values (n, q): (n, 1) minus (n,) would broadcast to (n, n) unnoticed."""
    if y.is_floating_point() == classifies:
        predicted, given = ("labels", "values") if classifies else ("values", "labels")
        raise UserError(
            f"the model predicts {predicted}, but the targets of the data are {given}; "
            "use a linear model (model=linear_scratch) for values, another (model=scratch) for labels"
        )
    if classifies and not 0 <= y.min() <= y.max() < num_outputs:
        raise UserError(
            f"the labels of the data lie between {y.min()} and {y.max()}, "
            f"but model.num_outputs={num_outputs} knows labels from 0 to {num_outputs - 1}"
        )
    if not classifies and y.shape[1:] != (num_outputs,):
        raise UserError(
            f"each target has shape {tuple(y.shape[1:])}, each prediction {(num_outputs,)}; "
            "give the data one column per output of the model (model.num_outputs)"
        )
