"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]"""

from src import commands

if __name__ == "__main__":
    commands.run("tune", "src.tune.search.main")
