"""A sweep: its folder, its table, and going on with it.

    python -m src.sweeps DIR           (re)writes summary.csv, summary.md and summary.png from the runs in DIR
    python -m src.sweeps resume DIR [hydra.launcher.KEY=VALUE ...]    finishes the sweep: ended runs stay

The summary runs nothing of the folder, which may be anybody's. Going on runs the configs that are in it:
a sweep folder is code, so do not resume a stranger's.
"""

import argparse
import contextlib
import itertools
import math
import os
import re
import shlex
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from filelock import AcquireReturnProxy
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from src import terminal
from src.charts import COLOURS, figure, save
from src.errors import UserError, printable
from src.runs import Run, claim, lock, read_yaml, write, write_csv
from src.terminal import quoted

SELECTED = "val/loss"  # the lowest is the best; without a validation split nothing is selected
SHOWN = ("val/loss", "val/acc", "test/loss", "test/acc")  # in this order, where a run has them
# Hydra's own settings that are taken from a sweep folder; others can start a program or write elsewhere.
HARMLESS = re.compile(
    r"hydra/launcher=(basic|joblib|submitit_local|submitit_slurm)|hydra\.sweeper\.max_batch_size=\d+|"
    r"\+{0,2}hydra\.sweeper\.params\.[^$]*|hydra\.sweep\.dir=.*|"
    r"hydra\.launcher\.(n_jobs|timeout_min|cpus_per_task|gpus_per_node|tasks_per_node|nodes|mem_gb|"
    r"partition|qos|account|constraint|array_parallelism|max_num_timeout)=[\w.-]*"
)
Row = dict[str, Any]


class Sweep:
    """The sweep in the folder `path`, read as plain text. Raises UserError if there is none."""

    def __init__(self, path: Path):
        self.path = path
        plan = path / "sweep.yaml"
        if plan.is_symlink():
            raise UserError(f"{plan} is a link; a sweep folder must hold files and folders alone")
        if not plan.exists():
            raise UserError(f"{path} is no sweep folder (it has no sweep.yaml); try outputs/sweeps/NAME")
        content = read_yaml(plan, interpolations=True)
        try:
            self.command = texts(content["command"])
            jobs = [texts(job) for job in content["jobs"]]
            self.jobs = [dict(printable(text).split("=", 1) for text in job) for job in jobs]
        except (ValueError, TypeError, LookupError) as error:
            raise UserError(f"{plan} is damaged: {error}") from error
        keys = dict.fromkeys(key for job in self.jobs for key in job)
        # the keys whose values differ between jobs
        self.axes = [key for key in keys if len({job.get(key) for job in self.jobs}) > 1]

    def rows(self) -> list[Row]:
        """One per job, in their order: its place on the axes, final metrics, status, time, folder."""
        rows = []
        for number, job in enumerate(self.jobs):
            run = Run(self.path / str(number))
            for path in (run.path, run.config.parent, run.config.with_name("lock"), run.metrics_json):
                if path.is_symlink():
                    raise UserError(f"{path} is a link; a sweep folder must hold files and folders alone")
            try:
                record = run.record()
            except UserError as error:
                record = {"status": "damaged", "reason": str(error)}
            status = printable(str(record.get("status", "not started")))
            if status == "running" and not run.in_use():
                status = "interrupted"
            row = {"job": number, **{key: job.get(key, "") for key in self.axes}}
            row |= {printable(name): value for name, value in record.items() if is_metric(name, value)}
            row |= {name: record.get(name) for name in ("best_epoch", "epochs")}
            reason = printable(" ".join(str(record.get("reason", "")).split()))
            row |= {"status": status, "reason": reason, "seconds": record.get("seconds")}
            rows.append(
                row | {"overrides": " ".join(f"{k}={v}" for k, v in job.items()), "folder": str(run.path)}
            )
        return rows


def texts(node: Any) -> list[str]:
    if not isinstance(node, list) or not all(isinstance(text, str) for text in node):
        raise ValueError("command, and each of jobs, must be a list of texts")
    return node


def is_metric(name: str, value: Any) -> bool:
    return "/" in name and isinstance(value, float | int) and math.isfinite(value)


def groups(rows: list[Row], axes: list[str]) -> list[Row]:
    """The finished rows averaged over seeds: place on the axes, n, and (mean, sd) of what all members measured.

    Best first; those without a validation split, which nothing ranks, come last. sd is that of the sample
    (n - 1), None for a single run.
    """
    axes = [key for key in axes if key != "seed"]
    places: dict[tuple, list[Row]] = {}
    for row in rows:
        if row["status"] == "finished":
            places.setdefault(tuple(row[key] for key in axes), []).append(row)
    found = []
    for place, members in places.items():
        names = [name for name in members[0] if all(is_metric(name, row.get(name)) for row in members)]
        values = {name: [row[name] for row in members] for name in names}
        spread = {
            name: (statistics.fmean(each), statistics.stdev(each) if len(each) > 1 else None)
            for name, each in values.items()
        }
        found.append({**dict(zip(axes, place, strict=True)), "n": len(members), **spread})
    return sorted(found, key=lambda group: group.get(SELECTED, (math.inf,))[0])


def markdown(sweep: Sweep, rows: list[Row], means: list[Row], picture: bool) -> str:
    """The page summary.md."""
    axes = [key for key in sweep.axes if key != "seed"]
    states = [row["status"] for row in rows]
    count = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    command = shlex.join(["python", "-m", "src.train", "-m", *sweep.command])
    lines = [f"# {sweep.path.name}", "", f"`{command}`", "", f"{len(rows)} jobs: {count}.", ""]
    if means:
        ranked = sum(SELECTED in group for group in means)
        order = f"best first, by {SELECTED}" if ranked else "no validation split: nothing is selected"
        if 0 < ranked < len(means):
            order += "; the last ones have no validation split and are not ranked"
        lines += [f"Mean ± sd over the n finished runs of each setting; {order}.", ""]
        metrics = [name for name in SHOWN if any(name in group for group in means)]
        cells = [
            {key: group[key] for key in [*axes, "n"]}
            | {name: plus_minus(*group.get(name, ())) for name in metrics}
            for group in means
        ]
        lines += [terminal.table(cells), ""]
        lines += ["![summary](summary.png)", ""] * picture
    if troubled := [row for row in rows if row["reason"]]:
        lines += ["Not finished:", ""]
        lines += [f"- {row['job']}: `{row['overrides']}`: {row['status']}, {row['reason']}" for row in troubled]
    return printable("\n".join(lines).rstrip() + "\n", keep="\n")


def plus_minus(mean: float | None = None, sd: float | None = None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" if sd is None else f"{mean:.4f} ± {sd:.4f}"


def summarize(path: Path) -> tuple[list[Row], str]:
    """Write summary.csv, summary.md and, of one or two axes, summary.png; returns the rows and a text to print.

    The picture shows what the table is ranked by.
    """
    sweep = Sweep(path)
    rows = sweep.rows()
    means = groups(rows, sweep.axes)
    axes = [key for key in sweep.axes if key != "seed"]
    metric = SELECTED if any(SELECTED in group for group in means) else "test/loss"
    drawn = [group for group in means if metric in group] if 1 <= len(axes) <= 2 else []
    page = markdown(sweep, rows, means, bool(drawn))
    write_csv(path / "summary.csv", rows)
    write(path / "summary.md", page)
    if drawn:
        save(chart(drawn, axes, metric), path / "summary.png")
    table = "\n".join(line for line in page.splitlines()[4:] if not line.startswith("!["))
    return (
        rows,
        f"{table.rstrip()}\n\nwritten to {terminal.relative(path)}/: summary.csv .md{' .png' * bool(drawn)}",
    )


class ReportSweep(Callback):
    """Hydra callback: claims the sweep folder, records the plan, and says a line about each job that ends."""

    held: AcquireReturnProxy | None = None
    folder: Path | None = None  # of the sweep that this process leads

    def __init__(self, resume: bool = False):
        self.resume = resume

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        named = any(text.startswith("hydra.sweep.dir=") for text in config.hydra.overrides.hydra)
        folder = Path(config.hydra.sweep.dir)
        try:
            if OmegaConf.to_container(config.hydra.sweep)["subdir"] != "${hydra.job.num}":
                raise UserError("hydra.sweep.subdir cannot be set: jobs are numbered; leave it out")
            plan = None if self.resume else planned(config)
            if plan:
                folder = claim(folder, named, "hydra.sweep.dir")
            type(self).held = lock(folder / ".lock", f"sweep {folder}")
            if plan:
                for source in config.hydra.runtime.config_sources:
                    if source.provider == "main":
                        shutil.copytree(source.path, folder / ".conf")
                write(folder / "sweep.yaml", yaml.safe_dump(plan))
        except (OSError, UserError, HydraException) as error:
            sys.exit(printable(f"error: {terminal.explain(error)}", keep="\n"))
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")  # each job is composed anew
        OmegaConf.update(config, "hydra.sweep.dir", str(folder))
        type(self).folder = folder
        self.sweep, self.started = Sweep(folder), time.monotonic()
        self.before = {row["job"] for row in self.sweep.rows() if row["status"] == "finished"}

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs) -> None:
        if not hasattr(self, "sweep") or config.hydra.job.num in self.before:  # a single run, or nothing to do
            return
        rows = self.sweep.rows()
        ended = [row for row in rows if row["status"] in ("finished", "failed", "diverged")]
        new = len([row for row in ended if row["job"] not in self.before])
        left = (time.monotonic() - self.started) / max(new, 1) * (len(rows) - len(ended))
        scored = [row for row in rows if row["status"] == "finished" and SELECTED in row]
        row = rows[config.hydra.job.num]
        place = " ".join(f"{key}={row[key]}" for key in self.sweep.axes) or row["overrides"]
        outcome = (
            f"{SELECTED} {row[SELECTED]:.4f}" if row in scored else f"{row['status']} {row['reason']}".strip()
        )
        best = min(scored, key=lambda row: row[SELECTED], default=None)
        said = f"{len(ended)}/{len(rows)}  {place}  {outcome}"
        if best:
            said += f"  best {best[SELECTED]:.4f} (job {best['job']})"
        terminal.say(f"{said}  {left:.0f} s left")


def planned(config: DictConfig) -> dict[str, Any]:
    """What is needed to finish a sweep later, besides its configs: its command, and its jobs in order."""
    parameters = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    command = list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    values: dict[str, list[str]] = {}
    for each in parser.parse_overrides([*parameters, *command]):
        if getattr(each.value(), "shuffle", False):
            raise UserError(f"{each.input_line}: jobs are numbered in their order; leave out shuffle")
        several = each.is_sweep_override()
        values[each.get_key_element()] = list(
            each.sweep_string_iterator() if several else [each.get_value_element_as_str()]
        )
    jobs = [
        [f"{key}={value}" for key, value in zip(values, chosen, strict=True)]
        for chosen in itertools.product(*values.values())
    ]
    settings = [text for text in config.hydra.overrides.hydra if not text.startswith("hydra.mode=")]
    return {"command": [*command, *settings], "jobs": jobs}


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Run a block that may be a sweep; however it ends, summarize the sweep, and fail if a job did."""
    try:
        yield
    finally:
        if ReportSweep.folder:
            rows, text = summarize(ReportSweep.folder)
            terminal.say(text)
    if ReportSweep.folder and (bad := [row for row in rows if row["status"] != "finished"]):
        sys.exit(f"error: {len(bad)} of {len(rows)} jobs did not finish")


def resume(path: Path, overrides: list[str], environment: dict[str, str]) -> None:
    """Become the command that finishes the sweep, with its configs. `overrides` are of the launcher."""
    sweep = Sweep(path)
    for text in overrides:
        if not text.startswith(("hydra.launcher.", "hydra/launcher=")) and text not in sweep.command:
            raise UserError(f"{text}: a sweep goes on as it began; only hydra.launcher.KEY=VALUE may be added")
    for text in sweep.command:
        steers = text.startswith("-") or "hydra" in text.partition("=")[0]
        if steers and text not in overrides and not HARMLESS.fullmatch(text):
            raise UserError(
                f"{path}/sweep.yaml sets {text}, which is not taken from a folder; if it is yours, add it: "
                f"python -m src.sweeps resume {shlex.join([str(path), text])}"
            )
    again = [*overrides, f"hydra.sweep.dir={quoted(path)}", "hydra.callbacks.report_sweep.resume=true"]
    keys = {text.partition("=")[0] for text in again}
    command = [text for text in sweep.command if text.partition("=")[0] not in keys]
    configs = f"--config-path={(path / '.conf').absolute()}"
    python = [sys.executable, "-m", "src.train", "--multirun", configs, *command, *again]
    root = str(Path(__file__).parent.parent)
    found = os.pathsep.join([root, *filter(None, [environment.get("PYTHONPATH")])])
    os.execve(python[0], python, {**environment, "PYTHONPATH": found})


def main(environment: dict[str, str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m src.sweeps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("resume", nargs="?", choices=["resume"], help="finish the sweep; runs its configs")
    parser.add_argument("folder", type=Path, help="of the sweep, outputs/sweeps/NAME")
    parser.add_argument("overrides", nargs="*", help="for resume: of the launcher, hydra.launcher.KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.resume:
        resume(arguments.folder, arguments.overrides, environment)
    elif arguments.overrides:
        raise UserError(f"{arguments.overrides[0]}: a summary takes the folder alone")
    else:
        terminal.say(summarize(arguments.folder)[1])


if __name__ == "__main__":
    before = dict(os.environ)  # before it is changed for Hydra
    terminal.run(lambda: main(before))


def chart(means: Sequence[dict[str, Any]], axes: Sequence[str], metric: str) -> Figure:
    """What a metric was at each setting of a sweep: a line for one axis, a heat map for two.

    Args:
        means: `src.sweeps.groups`: for each setting its place on the axes, and (mean, sd) of each metric.
    """
    values = {key: sorted({row[key] for row in means}, key=_by_size) for key in axes}
    places = [[values[key].index(row[key]) for key in axes] for row in means]
    mean = np.array([row[metric][0] for row in means])
    if len(axes) == 2:
        return _sweep_map(axes, values, places, mean, metric)
    sd = np.array([row[metric][1] or 0.0 for row in means])
    panel = _sweep_line(axes[0], values[axes[0]], [place for (place,) in places], mean, sd, metric)
    several = any(row["n"] > 1 for row in means)
    panel.axes[0].set_title("mean and standard deviation over the runs" if several else "one run each")
    return panel


def _by_size(value: str) -> tuple[float, str]:
    """Key that sorts numbers by size, and whatever is none after them."""
    try:
        return float(value), ""
    except ValueError:
        return np.inf, value


def _sweep_line(key: str, values: list[str], places: list[int], mean, sd, metric: str) -> Figure:
    order = np.argsort(places)
    panel = figure(5.6, 3.6)
    ax = panel.subplots()
    x = [_by_size(value)[0] for value in values]
    numeric = np.isfinite(x).all()
    x = np.array(x) if numeric else np.arange(len(values))
    style = {"color": COLOURS["val"], "marker": "o", "capsize": 3}
    ax.errorbar(x[np.sort(places)], mean[order], yerr=sd[order], linestyle="-" if numeric else "none", **style)
    if numeric and x.min() > 0 and x.max() / x.min() >= 10:
        ax.set_xscale("log")
    if not numeric or len(values) < 9:
        ax.set_xticks(x, values)
        ax.minorticks_off()
    ax.set(xlabel=key, ylabel=metric)
    ax.grid(alpha=0.3)
    return panel


def _sweep_map(axes: Sequence[str], values: dict[str, list[str]], places, mean, metric: str) -> Figure:
    (down, across) = axes
    grid = np.full((len(values[down]), len(values[across])), np.nan)
    for (i, j), value in zip(places, mean, strict=True):
        grid[i, j] = value
    panel = figure(2.2 + 0.9 * grid.shape[1], 1.6 + 0.55 * grid.shape[0])
    ax = panel.subplots()
    shown = ax.imshow(grid, cmap="cividis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if value < middle else "black"
            ax.text(j, i, f"{value:.4f}", ha="center", va="center", color=colour, fontsize=9)
    ax.set_xticks(range(len(values[across])), values[across])
    ax.set_yticks(range(len(values[down])), values[down])
    ax.set(xlabel=across, ylabel=down, title=metric)
    panel.colorbar(shown, ax=ax)
    return panel
