"""softmax-lab: python -m src.NAME runs a command; README.md lists them."""

import sys

from src import signals

__version__ = "0.2.0"

if sys.argv[:1] == ["-m"]:  # Python is about to import a command: nothing can be lost yet
    signals.handle(signals.leave)
