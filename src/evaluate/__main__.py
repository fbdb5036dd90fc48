"""The test metrics of a run once more, and what stands behind them: python -m src.evaluate run=DIR"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("evaluate", "src.evaluate.scores.evaluate"))
