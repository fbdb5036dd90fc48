"""Summarize a sweep, or go on with it.

    python -m src.sweeps DIR           writes summary.csv, summary.md and summary.png from the runs
    python -m src.sweeps resume DIR    finishes the sweep: ended runs stay; hydra.launcher.KEY=VALUE
                                       may be added

The summary runs nothing of the folder, which may be anybody's. Going on runs the configs that are
in it: a sweep folder is code, so do not resume a stranger's.
"""

import os
import re
import sys
from pathlib import Path

from src import signals
from src.cli import exit
from src.cli.console import command_line, quoted, say
from src.cli.options import Parser
from src.errors import UserError
from src.runs import check_version
from src.sweeps.sweep import Sweep

DESCRIPTION = __doc__ or ""

# These settings of Hydra are taken from a sweep folder; others can start a program or write
# elsewhere.
HARMLESS = re.compile(
    r"hydra/launcher=(basic|joblib|submitit_slurm)|hydra\.sweeper\.max_batch_size=\d+|"
    r"\+{0,2}hydra\.sweeper\.params\.[^$]*|hydra\.sweep\.dir=.*|"
    r"hydra\.launcher\.(n_jobs|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|nodes|mem_gb|"
    r"partition|qos|account|constraint|array_parallelism)=[\w.-]*"
)


def resume(path: Path, overrides: list[str]) -> None:
    """Become the command that finishes the sweep, with its configs.

    The `overrides` are those of the launcher. Raises UserError for others, and for a command in the
    folder that could do harm.
    """
    sweep = Sweep(path)
    check_version(sweep.plan.version, f"sweep {path}")
    for override in overrides:
        launcher = override.startswith(("hydra.launcher.", "hydra/launcher="))
        if not launcher and override not in sweep.command:
            raise UserError(
                f"{override}: a sweep goes on as it began; "
                "only hydra.launcher.KEY=VALUE may be added"
            )
    for override in sweep.command:
        steers = override.startswith("-") or "hydra" in key_of(override)
        if steers and override not in overrides and not HARMLESS.fullmatch(override):
            command = command_line("src.sweeps", "resume", str(path), override)
            raise UserError(
                f"{path}/sweep.yaml sets {override}, which is not taken from a folder; "
                f"if it is yours, add it: {command}"
            )
    if not re.fullmatch(r"\w[\w.-]*", sweep.plan.config):
        raise UserError(f"{path}/sweep.yaml is damaged: {sweep.plan.config} is no name of a config")

    added = [*overrides, f"hydra.sweep.dir={quoted(path)}", "hydra.sweeper.resume=true"]
    keys = set(map(key_of, added))
    kept = [override for override in sweep.command if key_of(override) not in keys]
    configs = sweep.configs.absolute()
    python = [sys.executable, "-m", "src.train", "--multirun"]
    python += [f"--config-path={configs}", f"--config-name={sweep.plan.config}", *kept, *added]
    os.environ["HYDRA_FULL_ERROR"] = str(int(exit.tracebacks))  # it has been changed for Hydra
    os.execv(python[0], python)


def key_of(override: str) -> str:
    return override.partition("=")[0]


def main() -> None:
    parser = Parser("python -m src.sweeps", description=DESCRIPTION)
    parser.add_argument(
        "resume", nargs="?", choices=["resume"], help="finish the sweep; runs its configs"
    )
    parser.add_argument("folder", type=Path, help="of the sweep, outputs/sweeps/NAME")
    parser.add_argument(
        "overrides", nargs="*", help="for resume: of the launcher, hydra.launcher.KEY=VALUE"
    )
    arguments = parser.parse_args()
    if arguments.resume:
        resume(arguments.folder, arguments.overrides)
    else:
        with signals.held():
            from src.sweeps.summary import summarize  # matplotlib: --help needs none

        say(summarize(arguments.folder)[1])


if __name__ == "__main__":
    exit.run(main)
