"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]"""

from src.cli import command

if __name__ == "__main__":
    command.run("tune", "src.tune.search.main", new=False)
