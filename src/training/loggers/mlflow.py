"""MLflow: one run at the server for a run here, however often it is gone on with."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger

from src.errors import UserError
from src.training.loggers.destination import Destination, Origin

IDENTITY, SWEEP = "softmax_lab.run", "softmax_lab.sweep"  # tags
PARENT = "mlflow.parentRunId"  # MLflow's own
SQLITE = "sqlite:///"


def prepare_database(address: str, database: Path) -> None:
    """Make a new database, of which two runs that begin at once would make a ruin."""
    from mlflow.tracking import MlflowClient

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        MlflowClient(address)


class MLflow(Destination):
    """A run at the server is found again by a tag; its rows say how far it is."""

    remote = True
    decided = ("run_id", "save_dir")
    logger: MLFlowLogger

    @classmethod
    def arguments(cls, settings: dict[str, Any], origin: Origin) -> dict[str, Any]:
        # A server that does not answer is noticed within seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)
        # MLflow's own use of what its database library is about to take away.
        warnings.filterwarnings("ignore", message=".*loader strategy is deprecated.*")
        given: dict[str, Any] = {}
        address = settings.get("tracking_uri") or ""
        if address.startswith(SQLITE):
            file = address.removeprefix(SQLITE)
            if not file or ":memory:" in file:
                raise UserError(
                    f"logger.mlflow.tracking_uri={address} names no file; try sqlite:///mlflow.db"
                )
            database = Path(file).absolute()
            prepare_database(address, database)
            if not settings.get("artifact_location"):
                given["artifact_location"] = str(database.parent / "mlflow_artifacts")
        if not settings.get("run_name"):
            given["run_name"] = origin.job or origin.run.path.name
        tags = {**(settings.get("tags") or {}), IDENTITY: origin.identity}
        return {**given, "tags": tags}

    def open(self) -> int:
        earlier = self.found(IDENTITY, self.origin.identity)
        if earlier:
            self.logger._run_id = earlier.info.run_id
            self.tested_epoch = self.last_epoch("tested/test_loss")
            return self.last_epoch("train/loss")
        if self.origin.run.in_sweep():
            self.logger.tags[PARENT] = self.parent()
        self.logger.log_hyperparams(self.origin.settings)
        return 0

    def found(self, tag: str, value: str) -> Any:
        """The run of the experiment at the server that has the tag, or None."""
        client = self.logger._mlflow_client
        experiment = client.get_experiment_by_name(self.logger._experiment_name)
        if experiment is None:
            return None
        text = f"tags.`{tag}` = '{value}'"
        runs = client.search_runs([experiment.experiment_id], text, max_results=1)
        return runs[0] if runs else None

    def last_epoch(self, metric: str) -> int:
        """The last epoch with which the server has the metric."""
        history = self.logger.experiment.get_metric_history(self.logger.run_id, metric)
        return max((entry.step for entry in history), default=0)

    def parent(self) -> str:
        """The id of the sweep's run at the server; the first job that asks makes it."""
        folder = self.origin.run.path.parent
        identity = str(folder.absolute())
        with FileLock(folder / ".mlflow.lock"):
            earlier = self.found(SWEEP, identity)
            if earlier:
                return earlier.info.run_id
            arguments = {
                "experiment_name": self.logger._experiment_name,
                "tracking_uri": self.logger._tracking_uri,
                "artifact_location": self.logger._artifact_location,
            }
            sweep = MLFlowLogger(run_name=folder.name, tags={SWEEP: identity}, **arguments)
            identity = sweep.run_id
            sweep.finalize("success")
            return identity

    def log_picture(self, path: Path, pixels: np.ndarray, epoch: int) -> None:
        self.logger.experiment.log_artifact(self.logger.run_id, str(path), "figures")

    def address(self) -> str:
        return self.logger._tracking_uri

    def close(self, finished: bool) -> None:
        self.logger.finalize("success" if finished else "failed")
