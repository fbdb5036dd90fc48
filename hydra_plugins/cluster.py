"""Where Hydra looks for plugins: the launchers as src.sweeps uses them. Its beside and cluster say how."""

import contextlib
import signal

with contextlib.suppress(ImportError):  # without the extra `launchers` there are none
    from hydra_plugins.hydra_joblib_launcher import joblib_launcher
    from hydra_plugins.hydra_submitit_launcher import submitit_launcher

    class JoblibLauncher(joblib_launcher.JoblibLauncher):
        def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> tuple[()]:
            from src.sweeps import beside  # Hydra looks for plugins at every start

            beside.launch(self, dict(enumerate(job_overrides, initial_job_idx)))
            return ()  # the jobs have said how they ended

    class SlurmLauncher(submitit_launcher.SlurmLauncher):
        def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> tuple[()]:
            from src.sweeps import cluster

            cluster.launch(self, dict(enumerate(job_overrides, initial_job_idx)))
            return ()

        def __call__(self, number: int, overrides: list[str], singletons: dict) -> object:
            """The job, in its own process. It ends as a run at a terminal does: SIGTERM saves, and stops it."""
            from src import terminal

            signal.signal(signal.SIGTERM, terminal.stop)
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # time will be up; SIGTERM follows when it is
            return super().__call__(overrides, "hydra.sweep.dir", number, "", singletons)
