"""Training and resuming of runs: from a notebook, `train(cfg)` and `resume(folder)`."""

from src.training.experiment import train
from src.training.resuming import resume

__all__ = ["resume", "train"]
