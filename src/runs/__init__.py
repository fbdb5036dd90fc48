"""The run folder: what is where in it, and how it is read and written safely."""

from src.files import write, write_csv
from src.runs.folder import ALL_EPOCHS, Run, check_free, check_version, claim, lock
from src.runs.settings import experiment, leaves

__all__ = [
    "ALL_EPOCHS",
    "Run",
    "check_free",
    "check_version",
    "claim",
    "experiment",
    "leaves",
    "lock",
    "write",
    "write_csv",
]
