"""Why does the loss oscillate in spite of a decaying learning rate? python -m src.oscillation SWEEP

How much the training loss moves in the runs of a sweep (sweep=lr_gamma): between the last epochs, between the
minibatches of the last one (train/swing), and between those at rest, with the weights held still: noise alone.
"""

import argparse
from pathlib import Path

from src import terminal


def main() -> None:
    parser = argparse.ArgumentParser("python -m src.oscillation", description=__doc__.split("\n")[0])
    parser.add_argument("sweep", type=Path, help="folder of a sweep, outputs/sweeps/NAME")
    parser.add_argument("--data-root", help="folder of the data; without it, that of conf/data")
    arguments = parser.parse_args()

    from src.oscillation.swing import answer  # torch: --help needs none

    answer(arguments.sweep, arguments.data_root)


if __name__ == "__main__":
    terminal.run(main)
