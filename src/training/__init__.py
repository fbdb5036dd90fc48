"""Training and resuming of runs: from a notebook, `train(cfg)` and `resume(folder)`."""

from src.training.experiment import resume, train

__all__ = ["resume", "train"]
