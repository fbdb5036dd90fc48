"""A sweep: its folder, its table, and going on with it.

    python -m src.sweeps DIR           (re)writes summary.csv, summary.md and summary.png from the runs in DIR
    python -m src.sweeps resume DIR    finishes the sweep: ended runs stay, interrupted ones go on

The summary needs nothing but the folder, also while the sweep is running or after it was killed.
"""

import argparse
import contextlib
import gc
import runpy
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rich
import yaml
from filelock import AcquireReturnProxy
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from src import cli, plots
from src.errors import UserError
from src.runs import Run, claim, lock, write, write_csv

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
SHOWN = ("val/loss", "val/acc", "test/loss", "test/acc")  # in this order, where a run has them
Row = dict[str, Any]


class Sweep:
    """The sweep in the folder `path`. Raises UserError if there is none."""

    def __init__(self, path: Path):
        self.path = path
        if not (path / "sweep.yaml").exists():
            raise UserError(f"{path} is no sweep folder (it has no sweep.yaml); try outputs/sweeps/NAME")
        plan = yaml.safe_load((path / "sweep.yaml").read_text())
        self.command: list[str] = plan["command"]
        self.jobs: list[dict[str, str]] = [dict(text.split("=", 1) for text in job) for job in plan["jobs"]]

    @property
    def axes(self) -> list[str]:
        """The keys whose values differ between jobs."""
        keys = dict.fromkeys(key for job in self.jobs for key in job)
        return [key for key in keys if len({job.get(key) for job in self.jobs}) > 1]

    def rows(self) -> list[Row]:
        """One per job, in their order: its place on the axes, final metrics, status, time, folder."""
        rows = []
        for number, job in enumerate(self.jobs):
            run = Run(self.path / str(number))
            record = run.record()
            status = record.get("status", "not started")
            if status == "running" and not run.in_use():
                status = "interrupted"
            row = {"job": number, **{key: job.get(key, "") for key in self.axes}}
            row |= {name: value for name, value in record.items() if "/" in name}
            row |= {name: record.get(name) for name in ("best_epoch", "epochs")}
            row |= {"status": status, "reason": record.get("reason", ""), "seconds": record.get("seconds")}
            rows.append(
                row | {"overrides": " ".join(f"{k}={v}" for k, v in job.items()), "folder": str(run.path)}
            )
        return rows


def groups(rows: list[Row], axes: list[str]) -> list[Row]:
    """The finished rows averaged over seeds, best first: place on the axes, n, and (mean, sd) of each metric.

    sd is that of the sample (n - 1), None for a single run.
    """
    axes = [key for key in axes if key != "seed"]
    places: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["status"] == "finished":
            places.setdefault(tuple(row[key] for key in axes), []).append(row)
    found = []
    for place, members in places.items():
        names = [name for name in members[0] if "/" in name]
        values = {name: [row[name] for row in members] for name in names}
        spread = {
            name: (statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else None)
            for name, each in values.items()
        }
        found.append({**dict(zip(axes, place, strict=True)), "n": len(members), **spread})
    return sorted(found, key=lambda group: group[SELECTED][0]) if found and SELECTED in found[0] else found


def markdown(sweep: Sweep, rows: list[Row], means: list[Row]) -> str:
    """The page summary.md."""
    axes = [key for key in sweep.axes if key != "seed"]
    states = [row["status"] for row in rows]
    count = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = [f"# {sweep.path.name}", "", f"`python -m src.train -m {' '.join(sweep.command)}`", ""]
    lines += [f"{len(rows)} jobs: {count}.", ""]
    if means:
        order = (
            f"best first, by {SELECTED}" if SELECTED in means[0] else "no validation split: nothing is selected"
        )
        lines += [f"Mean ± sd over the n finished runs of each setting; {order}.", ""]
        metrics = [name for name in SHOWN if name in means[0]]
        columns = [*axes, "n", *metrics]
        cells = [
            [group[key] for key in [*axes, "n"]] + [plus_minus(*group[name]) for name in metrics]
            for group in means
        ]
        lines += [cli.markdown(columns, cells), "", "![summary](summary.png)", ""]
    if troubled := [row for row in rows if row["reason"]]:
        lines += ["Not finished:", ""]
        lines += [f"- {row['job']}: `{row['overrides']}`: {row['status']}, {row['reason']}" for row in troubled]
    return "\n".join(lines).rstrip() + "\n"


def plus_minus(mean: float, sd: float | None) -> str:
    return f"{mean:.4f}" if sd is None else f"{mean:.4f} ± {sd:.4f}"


def summarize(path: Path) -> list[Row]:
    """Write summary.csv, summary.md and summary.png into the sweep folder; returns the rows of the first."""
    sweep = Sweep(path)
    rows = sweep.rows()
    means = groups(rows, sweep.axes)
    write_csv(path / "summary.csv", rows)
    write(path / "summary.md", markdown(sweep, rows, means))
    axes = [key for key in sweep.axes if key != "seed"]
    if means and axes:
        metric = next(name for name in ("val/acc", "test/acc", "val/loss", "test/loss") if name in means[0])
        plots.save(plots.sweep(means, axes, metric), path / "summary.png")
    return rows


def table(path: Path, rows: list[Row]) -> str:
    """The summary for the terminal: the best settings and what failed."""
    text = markdown(Sweep(path), rows, groups(rows, Sweep(path).axes))
    return "\n".join(line for line in text.splitlines()[4:] if "![" not in line)


class ReportSweep(Callback):
    """Hydra callback: claims the sweep folder, records the plan, and says a line about each job that ends."""

    held: AcquireReturnProxy | None = None
    folder: Path | None = None  # of the sweep that this process leads

    def __init__(self, resume: bool = False):
        self.resume = resume

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
        named = any(text.startswith("hydra.sweep.dir=") for text in config.hydra.overrides.hydra)
        folder = Path(config.hydra.sweep.dir)
        try:
            if not self.resume:
                folder = claim(folder, named, "hydra.sweep.dir")
            type(self).held = lock(folder / ".lock", f"sweep {folder}")
            if not self.resume:
                record_plan(folder, config)
        except (OSError, UserError) as error:
            sys.exit(f"error: {error}")
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{folder}'")  # each job is composed anew
        OmegaConf.update(config, "hydra.sweep.dir", str(folder))
        type(self).folder = folder
        self.sweep, self.started = Sweep(folder), time.monotonic()
        self.before = {row["job"] for row in self.sweep.rows() if row["status"] == "finished"}
        gc.freeze()  # what has been imported stays; the collections after the jobs need not look at it

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs) -> None:
        if not hasattr(self, "sweep"):  # a single run
            return
        gc.collect()  # the job's data and model refer to each other in circles
        rows = self.sweep.rows()
        number = config.hydra.job.num
        if number in self.before:
            return
        ended = [row for row in rows if row["status"] in ("finished", "failed", "diverged")]
        new = len([row for row in ended if row["job"] not in self.before])
        left = (time.monotonic() - self.started) / max(new, 1) * (len(rows) - len(ended))
        scored = [row for row in rows if row["status"] == "finished" and SELECTED in row]
        row = rows[number]
        outcome = (
            f"{SELECTED} {row[SELECTED]:.4f}" if row in scored else f"{row['status']} {row['reason']}".strip()
        )
        best = min(scored, key=lambda row: row[SELECTED], default=None)
        said = f"{len(ended)}/{len(rows)}  {row['overrides']}  {outcome}"
        if best:
            said += f"  best {best[SELECTED]:.4f} (job {best['job']})"
        rich.get_console().print(f"{said}  {left:.0f} s left", markup=False, highlight=False, soft_wrap=True)


def record_plan(folder: Path, config: DictConfig) -> None:
    """Write what is needed to finish the sweep later: its command, its jobs, and a copy of the configs."""
    parameters = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    command = list(config.hydra.overrides.task)
    overrides = OverridesParser.create().parse_overrides([*parameters, *command])
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    settings = [text for text in config.hydra.overrides.hydra if not text.startswith("hydra.mode=")]
    for source in config.hydra.runtime.config_sources:
        if source.provider == "main":
            shutil.copytree(source.path, folder / ".conf")
    write(folder / "sweep.yaml", yaml.safe_dump({"command": [*command, *settings], "jobs": jobs}))


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Run a block that may be a sweep; however it ends, summarize the sweep, and fail if a job did."""
    try:
        yield
    finally:
        gc.unfreeze()
        if ReportSweep.folder:
            rows = summarize(ReportSweep.folder)
            rich.get_console().print(
                table(ReportSweep.folder, rows), markup=False, highlight=False, soft_wrap=True
            )
            rich.get_console().print(f"written to {cli.shown(ReportSweep.folder)}/: summary.csv .md .png")
    if ReportSweep.folder and (bad := [row for row in rows if row["status"] != "finished"]):
        sys.exit(f"error: {len(bad)} of {len(rows)} jobs did not finish")


def main() -> None:
    parser = argparse.ArgumentParser("python -m src.sweeps", description=__doc__.split("\n")[0])
    parser.add_argument("resume", nargs="?", choices=["resume"], help="finish the sweep")
    parser.add_argument("folder", type=Path, help="of the sweep, outputs/sweeps/NAME")
    arguments = parser.parse_args()
    if arguments.resume is None:
        print(table(arguments.folder, summarize(arguments.folder)))
        return
    sweep = Sweep(arguments.folder)
    command = [text for text in sweep.command if not text.startswith("hydra.sweep.dir=")]
    again = [f"hydra.sweep.dir='{sweep.path}'", "hydra.callbacks.report_sweep.resume=true"]
    sys.argv = [
        "src.train",
        "--multirun",
        f"--config-path={(sweep.path / '.conf').absolute()}",
        *command,
        *again,
    ]
    runpy.run_module("src.train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    cli.run(main)
