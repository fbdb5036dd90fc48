"""What goes wrong with softmax and log as they are defined: python -m src.stability"""

import argparse

from src import terminal
from src.tables import table


def main() -> None:
    argparse.ArgumentParser("python -m src.stability", description=__doc__.strip()).parse_args()

    from src.stability.outcomes import outcomes  # torch: --help needs none

    terminal.say(table(outcomes()))
    terminal.say("\nlogits ~ N(0, 1) times or plus the number; shares of the examples")


if __name__ == "__main__":
    terminal.run(main)
