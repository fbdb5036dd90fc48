"""The sweeper and the launchers of this project, in the folder where Hydra looks for plugins.

Hydra imports this file at every start, so slow modules are imported where they are used.
"""

import contextlib
import signal
from collections.abc import Sequence

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

LAUNCHERS = {
    "basic": "LocalLauncher",
    "joblib": "JoblibLauncher",
    "submitit_slurm": "SlurmLauncher",
}


class ProductSweeper(Sweeper):
    """hydra/sweeper=product: runs all combinations of the values.

    The jobs are composed from configs that are copied first. Whatever happens to it, the sweep ends
    with its summary. Raises UserError if a job did not finish.
    """

    def __init__(self, params: dict[str, str], max_batch_size: int | None, resume: bool):
        self.max_batch_size, self.resume = max_batch_size, resume

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from src.cli.console import quoted
        from src.files import expanded
        from src.runs import lock
        from src.sweeps import plan
        from src.sweeps.report import Report
        from src.sweeps.sweep import Sweep

        plan.check(config)
        folder = expanded(config.hydra.sweep.dir)
        if not self.resume:
            folder = plan.make(config, hydra_context.config_loader)
        self.lock = lock(folder / ".lock", f"sweep {folder}")
        sweep = Sweep(folder)
        loader = plan.copied(hydra_context.config_loader, sweep.configs)
        if self.resume:
            plan.check_jobs(config, loader, sweep.plan.jobs)
        plan.settle(config, folder, quoted(folder.absolute()))
        launcher = config.hydra.runtime.choices["hydra/launcher"]
        config.hydra.launcher["_target_"] = f"{__name__}.{LAUNCHERS[launcher]}"
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=loader, callbacks=hydra_context.callbacks),
            task_function=task_function,
            config=config,
        )
        self.report = self.launcher.report = Report(sweep)

    def sweep(self, arguments: list[str]) -> None:
        from src.sweeps.run import run

        run(self.launcher, self.report, self.max_batch_size)


class LocalLauncher(Launcher):
    """hydra/launcher=basic: one job after the other, in this process."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> tuple[()]:
        from src.sweeps import local

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        local.launch(self, dict(enumerate(job_overrides, initial_job_idx)))
        return ()  # each job has been reported already


with contextlib.suppress(ImportError):  # without the extra `launchers` there are none
    from hydra_plugins.hydra_joblib_launcher import joblib_launcher
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher

    class JoblibLauncher(joblib_launcher.JoblibLauncher):
        """hydra/launcher=joblib: jobs side by side on this machine."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> tuple[()]:
            from joblib import effective_n_jobs

            from src.sweeps import local

            jobs = dict(enumerate(job_overrides, initial_job_idx))
            local.launch_side_by_side(self, jobs, effective_n_jobs(self.joblib["n_jobs"]))
            return ()

    class SlurmLauncher(submitit_launcher.SlurmLauncher):
        """hydra/launcher=submitit_slurm: jobs on a cluster."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> tuple[()]:
            from src.sweeps import slurm

            slurm.launch(self, dict(enumerate(job_overrides, initial_job_idx)))
            return ()

        def __call__(self, number: int, overrides: list[str], singletons: dict) -> None:
            """The job, in its own process: SIGTERM saves and stops it, as a run at a terminal."""
            import submitit

            from src import signals
            from src.sweeps import local

            signal.signal(signal.SIGTERM, signals.stop)
            # SIGUSR2 says that time will be up; SIGTERM follows when it is.
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            Singleton.set_state(singletons)
            setup_globals()
            local.run(self, number, overrides, submitit.JobEnvironment().job_id)
