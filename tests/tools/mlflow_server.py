"""An MLflow server on this machine, with a SQLite file, that can be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


class MLflowServer:
    """The application of `mlflow server` in a folder, at `address`.

    It is served by a process that we start: the command takes twice as long to begin.
    """

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.address = folder, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, __file__, str(self.folder), str(self.port)]
        with open(self.folder / "server.log", "a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self) -> None:
        """Kill it and its workers, as kill -9 does."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None

    def runs(self, experiment: str = "softmax-lab") -> list:
        """The runs of the experiment, the latest first."""
        client = self.client()
        known = client.get_experiment_by_name(experiment)
        return client.search_runs([known.experiment_id]) if known else []

    def client(self):
        from mlflow.tracking import MlflowClient

        return MlflowClient(self.address)

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric, in the order of the steps."""
        history = self.client().get_metric_history(run_id, metric)
        return sorted((entry.step, entry.value) for entry in history)


def serve(folder: str, port: int) -> None:
    """Serve the application until the process is killed."""
    settings = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder}/mlflow.db",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": f"{folder}/artifacts",
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    os.environ.update(settings)
    from mlflow.server import app
    from werkzeug.serving import run_simple

    run_simple("127.0.0.1", port, app, threaded=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
