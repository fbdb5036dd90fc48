"""The test metrics of a run once more: python -m src.evaluate run=DIR"""

from src.cli import command

if __name__ == "__main__":
    command.run("evaluate", "src.evaluate.scores.evaluate", new=False)
