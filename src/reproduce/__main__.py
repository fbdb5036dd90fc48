"""Every experiment of the notes, run and checked against its yardstick: python -m src.reproduce"""

from src.cli import command

if __name__ == "__main__":
    command.run("reproduce", "src.reproduce.experiments.main")
