"""Classes and probabilities from a finished run: python -m src.predict run=DIR [inputs=PATH]"""

from src import commands

if __name__ == "__main__":
    commands.run("predict", "src.predict.prediction.main")
