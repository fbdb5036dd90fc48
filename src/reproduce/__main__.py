"""Every recipe of the notes, run and checked against its yardstick: python -m src.reproduce, or make reproduce

Writes results.md: preset, recipe, our figure, the yardstick, pass or fail. The exit status is 0 only if
everything passes.
"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("reproduce", "src.reproduce.checks.main"))
