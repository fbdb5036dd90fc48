"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("tune", "src.tune.search.main"))
