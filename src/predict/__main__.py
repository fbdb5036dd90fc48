"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("predict", "src.predict.prediction.main"))
