"""Measurements, as medians and ratios: python -m src.benchmark [suite=all|epoch|classes]"""

from src.cli import command

if __name__ == "__main__":
    command.run("benchmark", "src.benchmark.suites.main")
