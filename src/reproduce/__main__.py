"""Every recipe of the notes, run and checked against its yardstick: python -m src.reproduce"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("reproduce", "src.reproduce.checks.main"))
