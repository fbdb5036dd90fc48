"""A sweep while it runs: it records its plan, prints a line for each job, and ends in a summary."""

import contextlib
import re
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.experimental.callback import Callback
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from src import terminal
from src.errors import UserError
from src.runs import Run, claim, lock, write
from src.sweeps.folder import SELECTED, Sweep

PATIENCE = 30  # seconds that jobs have to save and end when their sweep is stopped
REFUSED = {  # pattern of the launcher and Hydra's settings, with what is refused as group -> why
    r"^(?!basic\b|joblib\b|submitit_slurm\b)(\S+)": "take hydra/launcher=joblib; on a cluster, submitit_slurm",
    r"(hydra\.launcher\.(?:signal_delay_s|max_num_timeout))": "a job out of time is saved, not started again",
    r"^joblib .*(hydra\.launcher\.(?!n_jobs=-?[1-9])\S+)": "only n_jobs can, and not to 0",
}


class ReportSweep(Callback):
    """Hydra callback: claims the sweep folder, records the plan, and prints a line for each job that ends."""

    # of the process that runs the sweep; jobs in others have a copy of the callback
    held: ClassVar[object] = None  # the lock of the folder
    running: ClassVar["ReportSweep | None"] = None

    def __init__(self, resume: bool = False):
        self.resume, self.sweep = resume, None

    def on_multirun_start(self, config: DictConfig, config_name: str, **kwargs) -> None:
        terminal.call_or_exit(lambda: self.start(config, config_name))

    def start(self, config: DictConfig, config_name: str) -> None:
        """Refuse what a sweep cannot have, claim and lock its folder, and record its plan."""
        hydra, folder = config.hydra, Path(config.hydra.sweep.dir)
        launcher, settings = hydra.runtime.choices["hydra/launcher"], hydra.overrides.hydra
        for pattern, why in REFUSED.items():
            if found := re.search(pattern, " ".join([launcher, *settings])):
                raise UserError(f"{found[1]} cannot be set: {why}")
        if OmegaConf.to_container(hydra.sweep)["subdir"] != "${hydra.job.num}":
            raise UserError("hydra.sweep.subdir cannot be set: jobs are numbered; leave it out")
        if not self.resume:
            plan = planned(config, config_name)
            named = any(text.startswith("hydra.sweep.dir=") for text in settings)
            folder = claim(folder, "hydra.sweep.dir" if named else None)
            (configs,) = (each for each in hydra.runtime.config_sources if each.provider == "main")
            shutil.copytree(configs.path, folder / ".conf")
            write(folder / "sweep.yaml", yaml.safe_dump(plan))
        ReportSweep.held = lock(folder / ".lock", f"sweep {folder}")
        settings.append(f"hydra.sweep.dir={terminal.quoted(folder)}")  # for the jobs
        hydra.sweep.dir = str(folder)
        if launcher == "basic":
            hydra.sweeper.max_batch_size = 1  # Hydra composes a whole batch before its first job
        else:  # the plugin's own gives up at the first job without a result
            *_, name = hydra.launcher["_target_"].split(".")
            hydra.launcher["_target_"] = f"hydra_plugins.cluster.{name}"
        ReportSweep.running, self.sweep, self.started = self, Sweep(folder), time.monotonic()
        self.before = {row["job"] for row in self.sweep.rows() if row["status"] == "finished"}

    def on_job_end(self, config: DictConfig, **kwargs) -> None:
        if self.sweep and config.hydra.job.num not in self.before:  # else a single run, or nothing to do
            self.job_ended(config.hydra.job.num)

    def job_ended(self, number: int) -> None:
        rows = self.sweep.rows()
        row, place = rows[number], self.sweep.place(number)
        ended = {each["job"] for each in rows if each["status"] in ("finished", "failed", "diverged")}
        left = (time.monotonic() - self.started) / max(len(ended - self.before), 1) * (len(rows) - len(ended))
        outcome = f"{SELECTED} {row[SELECTED]:.4f}" if SELECTED in row else f"{row['status']} {row['reason']}"
        parts = [f"{len(ended)}/{len(rows)}", place or row["overrides"], outcome.strip()]
        if scored := [each for each in rows if SELECTED in each]:
            best = min(scored, key=lambda each: each[SELECTED])
            parts.append(f"best {best[SELECTED]:.4f} (job {best['job']})")
        terminal.say("  ".join([*parts, f"{left:.0f} s left"]))

    def lost(self, number: int, fate: str, log: str = "", remedy: str = "") -> None:
        """Record how a job ended that could not do so itself, or could not know why; `log` may say more."""
        row = self.sweep.rows()[number]
        if row["status"] in ("interrupted", "not started"):
            seen = f", see {self.sweep.path}/{log}" if log and row["status"] == "not started" else ""
            run, reason = Run(row["folder"]), f"{fate}{seen}; {self.go_on()}{remedy}"
            with contextlib.suppress(UserError), run.lock():  # else it runs on after all
                run.save_record(run.record() | {"status": "interrupted", "reason": reason})

    def go_on(self) -> str:
        return f"to go on: python -m src.sweeps resume {shlex.quote(terminal.relative(self.sweep.path))}"


def planned(config: DictConfig, config_name: str) -> dict[str, Any]:
    """What is needed to finish a sweep later, besides its configs. Raises Hydra's errors for its jobs."""
    parameters = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    command = list(config.hydra.overrides.task)
    overrides = OverridesParser.create().parse_overrides([*parameters, *command])
    for each in overrides:
        if isinstance(each.value(), Glob) or getattr(each.value(), "shuffle", False):
            raise UserError(f"{each.input_line}: jobs are numbered in their order; leave out shuffle and glob")
    (jobs,) = get_class(config.hydra.sweeper["_target_"]).split_arguments(overrides, max_batch_size=None)
    groups = config.hydra.runtime.choices
    forms = {tuple(text for text in job if text.partition("=")[0] in groups): job for job in jobs}
    for job in forms.values():  # one of each choice of groups: the others differ in values alone
        compose(config_name, overrides=job)
    settings = [text for text in config.hydra.overrides.hydra if not text.startswith("hydra.mode=")]
    return {"command": [*command, *settings], "jobs": jobs}


def summarized(main: Callable[[], None]) -> None:
    """Call an entry point that may sweep; however that ends, summarize the sweep, and fail if a job did."""
    rows = []
    try:
        main()
    finally:
        if ReportSweep.running:
            from src.sweeps.summary import summarize

            rows, text = summarize(ReportSweep.running.sweep.path)
            terminal.say(text)
    if bad := [row for row in rows if row["status"] != "finished"]:
        raise UserError(f"{len(bad)} of {len(rows)} jobs did not finish")
