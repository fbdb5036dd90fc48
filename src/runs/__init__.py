"""The run folder: what is where in it, and how it is read and written safely."""

from src.files import read_yaml, replace, write, write_csv
from src.runs.checkpoint import load_checkpoint
from src.runs.config import build, restore
from src.runs.folder import Run, claim, experiment, lock, main_process

__all__ = [
    "Run",
    "build",
    "claim",
    "experiment",
    "load_checkpoint",
    "lock",
    "main_process",
    "read_yaml",
    "replace",
    "restore",
    "write",
    "write_csv",
]
