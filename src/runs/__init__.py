"""The run folder: what is where in it, and how it is read and written safely."""

from src.files import write, write_csv
from src.runs.config import identity, leaves
from src.runs.run import ALL_EPOCHS, Run, check_free, check_version, claim, lock

__all__ = [
    "ALL_EPOCHS",
    "Run",
    "check_free",
    "check_version",
    "claim",
    "identity",
    "leaves",
    "lock",
    "write",
    "write_csv",
]
