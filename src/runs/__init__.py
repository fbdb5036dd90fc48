"""The run folder: what is where in it, and how it is read and written safely."""

# ruff: noqa: F401
from src.files import read_yaml, replace, write, write_csv
from src.runs.checkpoint import load_checkpoint
from src.runs.config import build, restore
from src.runs.folder import Run, claim, lock, main_process
