"""What must hold between a model and its data; checked once, before a run trains or tests."""

import lightning as L

from src.errors import UserError


def check_data(model: L.LightningModule, data: L.LightningDataModule) -> None:
    """Raises UserError unless the examples of every split are such as the model takes and
    predicts."""
    d, q = model.hparams.num_inputs, model.hparams.num_outputs
    for name, (examples, indices) in data.splits.items():
        if len(indices) == 0:  # no validation split
            continue
        y = examples.y[indices]
        features = data.split_examples(name, slice(1))[0].numel()  # of the first example
        if features != d:
            raise UserError(
                f"model.num_inputs is {d}, but each example of the data has {features} features"
            )
        if y.is_floating_point() == model.classifies:
            predicted, given = ("labels", "values") if model.classifies else ("values", "labels")
            advice = "use model=linear_scratch for values, model=scratch for labels"
            raise UserError(
                f"the model predicts {predicted}, but the targets are {given}; {advice}"
            )
        if not model.classifies and y.shape[1:] != (
            q,
        ):  # (n, 1) minus (n,) would broadcast to (n, n)
            raise UserError(f"each target has shape {tuple(y.shape[1:])}, each prediction {(q,)}")
        if model.classifies and (known := len(data.classes or ())) != q:
            need = f"{type(data).__name__}.classes must name one for each output"
            raise UserError(f"model.num_outputs is {q}, but the data has {known} classes; {need}")
        if model.classifies and not 0 <= y.min() <= y.max() < q:
            raise UserError(
                f"the labels lie between {y.min()} and {y.max()}, but model.num_outputs={q}"
            )
