"""Every recipe of the notes, run and checked against its yardstick: python -m src.reproduce"""

from src import commands

if __name__ == "__main__":
    commands.run("reproduce", "src.reproduce.checks.main")
