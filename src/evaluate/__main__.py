"""The test metrics of a run once more, and what stands behind them: python -m src.evaluate run=DIR

Writes evaluation.json and figures/evaluation_confusion.png into the run folder: of a classifier, scores of each
class, the confusions and the calibration error.
"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("evaluate", "src.evaluate.scores.evaluate"))
