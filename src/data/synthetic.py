"""Synthetic linear data with known parameters: y = X w + b + noise."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field, PositiveInt

from src.data.batches import Examples, generator
from src.data.module import SplitDataModule
from src.errors import UserError

Size = Annotated[int, Field(ge=0, le=10_000_000)]  # examples
Positive = Annotated[Size, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
MOST_NUMBERS = 100_000_000  # examples times features, of all splits: 400 MB


class SyntheticRegression(SplitDataModule):
    """Minibatches (X, y): X ~ N(0, 1) float32 (n, d), y = X w + b + N(0, noise^2) float32 (n, 1).

    conf/data/synthetic.yaml says what the arguments mean.
    """

    num_outputs = 1

    def __init__(
        self,
        w: Annotated[Sequence[Finite], Field(min_length=1, max_length=10_000)] = (2.0, -3.4),
        b: Finite = 4.2,
        noise: Annotated[Finite, Field(ge=0)] = 0.1,
        train_size: Positive = 10_000,
        val_size: Size = 1_000,
        test_size: Positive = 1_000,
        batch_size: PositiveInt = 10,
        seed: Annotated[int, Field(ge=0)] = 0,
    ):
        super().__init__(batch_size, val_size, seed)
        self.num_inputs = len(w)
        self.w, self.b, self.noise = torch.tensor(w)[:, None], torch.tensor([b]), noise
        self.truth = self.w, self.b  # (d, 1), (1,)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        numbers = sum(self.sizes.values()) * self.num_inputs
        if numbers > MOST_NUMBERS:
            sizes = " ".join(f"data.{name}_size={size}" for name, size in self.sizes.items())
            raise UserError(
                f"{sizes} with {self.num_inputs:,} features are {numbers:,} numbers; "
                f"at most {MOST_NUMBERS:,}"
            )

    def setup(self, stage: str | None = None) -> None:
        for stream, (name, n) in enumerate(self.sizes.items()):
            if name not in self.needed(stage):
                continue
            random = generator(self.seed, stream)
            X = torch.randn(n, len(self.w), generator=random)
            y = X @ self.w + self.b + self.noise * torch.randn(n, 1, generator=random)
            self.splits[name] = Examples(X, y), torch.arange(n)
