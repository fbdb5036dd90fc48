"""Measurements, as medians and ratios: python -m src.benchmark [suite=all|epoch|classes]"""

from src import commands

if __name__ == "__main__":
    commands.run("benchmark", "src.benchmark.suites.main")
