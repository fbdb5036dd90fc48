"""The test metrics of a run once more, and what stands behind them: python -m src.evaluate run=DIR"""

from src import commands

if __name__ == "__main__":
    commands.run("evaluate", "src.evaluate.scores.evaluate")
