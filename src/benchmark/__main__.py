"""Measurements, as medians and ratios: python -m src.benchmark [suite=all|epoch|classes]"""

from src import terminal

if __name__ == "__main__":
    terminal.run(terminal.command("benchmark", "src.benchmark.suites.main"))
