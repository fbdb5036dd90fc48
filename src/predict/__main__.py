"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]"""

from src.cli import command

if __name__ == "__main__":
    command.run("predict", "src.predict.prediction.main")
