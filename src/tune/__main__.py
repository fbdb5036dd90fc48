"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]

Every trial is a run folder below the study's. The validation loss decides; the test set decides nothing.
"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("tune", "src.tune.search.main"))
