"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]

Of the test images, or of one's own pictures; decision.costs=FILE adds the answer of least expected cost.
"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("predict", "src.predict.prediction.main"))
