"""The run folder: the files in it, and how they are read and written safely."""

from src.files import write
from src.formats import write_csv
from src.runs.claims import check_free, check_version, claim
from src.runs.config import identity, leaves
from src.runs.locks import lock
from src.runs.run import ALL_EPOCHS, Run

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
