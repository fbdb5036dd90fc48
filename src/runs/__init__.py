"""The run folder: what is where in it, and how it is read and written safely."""

from src.files import write, write_csv
from src.runs.folder import Run, claim, lock, main_process
from src.runs.settings import experiment, leaves

__all__ = ["Run", "claim", "experiment", "leaves", "lock", "main_process", "write", "write_csv"]
