"""Runs side by side: python -m src.compare RUN RUN ...

Writes outputs/comparisons/<date>_<time>/: comparison.csv (what differs in settings and results), curves.png,
and of classifiers weights.png. Reads nothing but the run folders.
"""

import argparse
from datetime import datetime
from pathlib import Path

from src import terminal
from src.runs import claim


def main() -> None:
    parser = argparse.ArgumentParser("python -m src.compare", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    paths = parser.parse_args().runs

    from src.compare.comparison import compare, find  # torch: --help needs none

    runs = find(paths)  # before there is a folder
    folder = claim(Path(f"outputs/comparisons/{datetime.now():%Y-%m-%d_%H-%M-%S}"), False, "")
    terminal.say(compare(runs, folder))
    written = " ".join(sorted(path.name for path in folder.iterdir()))
    terminal.say(f"written to {terminal.relative(folder.absolute())}/: {written}")


if __name__ == "__main__":
    terminal.run(main)
