"""The run folder: a new one for every run, what is where in it, and how it is read and written safely."""

import contextlib
import csv
import errno
import functools
import io
import json
import os
import pickle
import platform
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchvision
import yaml
from filelock import AcquireReturnProxy, FileLock, Timeout
from hydra.experimental.callback import Callback
from lightning.fabric.plugins import TorchCheckpointIO
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from src.config import check_targets
from src.errors import UserError
from src.files import open_regular, read
from src.rebuild import rebuild

RECORD_BYTES = 1 << 26  # of metrics.json and metrics.csv, at most
CHECKPOINT_BYTES = 1 << 32


class Run:
    """Paths and records of the run folder `path`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / ".hydra" / "config.yaml"
        self.best = self.path / "checkpoints" / "best.ckpt"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.metrics_csv = self.path / "metrics.csv"
        self.metrics_json = self.path / "metrics.json"
        self.tensorboard = self.path / "tensorboard"

    def lock(self) -> contextlib.AbstractContextManager:
        """Keep every other process out of this run: `with run.lock(): ...`.

        Raises UserError at once if one is in it. The other processes of a run rely on the leading one's lock.
        """
        if not leads():
            return contextlib.nullcontext()
        return lock(self.config.with_name("lock"), f"run {self.path}")

    def in_use(self) -> bool:
        """Whether another process is in this run."""
        try:
            with FileLock(self.config.with_name("lock"), is_singleton=True).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # nothing there, or nothing to be written
            return False

    def save_config(self, cfg: DictConfig, overrides: Sequence[str] = ()) -> None:
        """Record the config, and the overrides that made it what it is."""
        path = self.config.with_name("overrides.yaml")
        earlier = OmegaConf.to_object(OmegaConf.load(path)) if path.exists() else []
        write(path, yaml.safe_dump([*earlier, *overrides]))
        write(self.config, OmegaConf.to_yaml(cfg))

    def recorded(self) -> DictConfig:
        """The config of the run, writing to where the run is now.

        Raises UserError if this is no run folder, or its config is damaged or would build what no run needs.
        """
        if not self.config.exists():
            raise UserError(
                f"{self.path} is no run folder (it has no .hydra/config.yaml); try outputs/runs/NAME"
            )
        try:
            cfg = OmegaConf.load(self.config)
            keys = cfg.keys() if OmegaConf.is_dict(cfg) else set()
            # those that must be there, and those by which it would steer Hydra itself
            if lacking := {"seed", "data", "model", "trainer", "callbacks"} - keys:
                raise UserError(f"it lacks {', '.join(sorted(lacking))}")
            if foreign := {"hydra", "defaults"} & keys:
                raise UserError(f"it must not have {', '.join(sorted(foreign))}")
            cfg.run_dir = str(self.path)
        except (yaml.YAMLError, UserError, ValueError, OmegaConfBaseException) as error:
            raise UserError(f"{self.config} is damaged: {' '.join(str(error).split())}") from error
        check_targets(cfg, self.config)
        return cfg

    def restore(
        self, checkpoint: Path, cfg: DictConfig | None = None, places: dict[str, Any] | None = None
    ) -> tuple[L.LightningDataModule, L.LightningModule]:
        """The data of the run, not yet loaded, and its model as it was at the checkpoint.

        `cfg` is the config, if it is not the recorded one; for `places` see `rebuild`. Raises UserError for a
        folder or a checkpoint that cannot be used.
        """
        data, model = rebuild(OmegaConf.to_container(cfg or self.recorded(), resolve=True), places)
        found = self.load(checkpoint)["state_dict"]
        expected = model.state_dict()
        if shapes(found) != shapes(expected):
            raise UserError(
                f"{checkpoint} is of another model: it has {shapes(found)}, "
                f"the model of this run {shapes(expected)}"
            )
        model.load_state_dict(found)
        return data, model.eval()

    def save_record(self, record: dict[str, Any]) -> None:
        """Write metrics.json: the status of the run, its results, and what they depend on."""
        write(self.metrics_json, json.dumps(record, indent=2) + "\n")

    def record(self) -> dict[str, Any]:
        """What metrics.json says; nothing if the run has none yet."""
        try:
            record = json.loads(read(self.metrics_json, RECORD_BYTES, links=False))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.metrics_json} is damaged: {error}") from error
        metrics = [record[key] for key in record if "/" in key] if isinstance(record, dict) else [None]
        if not all(isinstance(value, float | int) for value in metrics):
            raise UserError(f"{self.metrics_json} is damaged: a metric is no number")
        return record

    def rows(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one per epoch."""
        try:
            lines = read(self.metrics_csv, RECORD_BYTES, links=False).decode().splitlines()
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
        except (ValueError, TypeError, csv.Error) as error:
            raise UserError(f"{self.metrics_csv} is damaged: {error}") from error

    def written(self) -> dict[Path, list[str]]:
        """What is in the folder and in those of checkpoints and figures: folder -> sorted names."""
        folders = [self.path, self.best.parent, self.path / "figures"]
        return {folder: sorted(path.name for path in folder.glob("*")) for folder in folders if folder.exists()}

    def load(self, checkpoint: Path) -> dict[str, Any]:
        """Content of a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(checkpoint)


def lock(path: Path, subject: str) -> AcquireReturnProxy:
    """Hold the lock file `path` until the `with` block ends, what is returned is dropped, or the process ends.

    A process that holds it may take it again. Raises UserError if another one does; `subject` is for the
    message.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path, is_singleton=True).acquire(timeout=0)
    except Timeout:
        raise UserError(f"{subject} is in use by another process; wait until that one ends") from None
    except OSError as error:
        raise _cannot_write(subject, error) from error


def leads() -> bool:
    """Whether this is the process that a user started, not one that a run on several devices started."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, whole and harmless: only tensors and plain values are ever unpickled.

    Raises UserError if the file is missing, damaged (it carries a checksum of every tensor), no checkpoint
    of Lightning's, or holds anything else, which a pickle could use to run a program.
    """
    try:
        with open_regular(path, CHECKPOINT_BYTES) as file:
            with zipfile.ZipFile(file) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise zipfile.BadZipFile("it is compressed, and could be of any size")
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; try checkpoint=best") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"checkpoint {path} holds objects other than tensors and plain values; it was not loaded, "
            "as loading it could run a program"
        ) from error
    except (zipfile.BadZipFile, EOFError, LookupError, RuntimeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"checkpoint {path} is damaged or no checkpoint: {reason}") from error
    needed = {"state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers"}
    if not isinstance(content, dict) or not needed <= content.keys():
        raise UserError(f"{path} is no checkpoint of a run")
    return content


class CheckpointIO(TorchCheckpointIO):
    """How Lightning reads and writes checkpoints here: checked, and in one step."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        replace(Path(path), content.getbuffer())

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict:
        return load_checkpoint(Path(path))


def replace(path: Path, content: bytes | memoryview) -> None:
    """Replace the file in one step: whoever reads it meanwhile, or after a crash, sees the old or the new.

    Raises OSError, with the old file as it was, if it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        with open(part, "xb") as file:  # a new file: never through a link that stands there
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def _cannot_write(what: object, error: OSError) -> OSError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = f"disk full ({error.strerror})" if full else error.strerror
    return OSError(f"cannot write {what}: {reason}; what was there is kept")


def write(path: Path, text: str) -> None:
    replace(path, text.encode())


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """One line per row, one column per key of any row."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    write(path, text.getvalue())


def provenance() -> dict[str, Any]:
    """What a result depends on besides its config: versions, git commit, machine; null is unknown."""
    changes = _git("status", "--porcelain")
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "lightning": L.__version__,
        },
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if changes is None else changes != "",
    }


@functools.cache  # the jobs of a sweep run the code that this process has loaded
def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or a copy without history
        return None


class ClaimFolder(Callback):
    """Hydra callback: makes the run folder before anything is written, so that no two runs share one."""

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        if not leads():
            return
        named = any(override.startswith("hydra.run.dir=") for override in config.hydra.overrides.hydra)
        try:
            folder = claim(Path(config.hydra.run.dir), named, "hydra.run.dir")
        except (OSError, UserError) as error:
            sys.exit(f"error: {error}")
        with read_write(config):
            config.hydra.run.dir = str(folder)


def claim(wanted: Path, named: bool, key: str) -> Path:
    """Make a folder that is nobody else's.

    A folder `named` by the user, as `key`, must be new or empty: else UserError. Another, named by the time,
    gets a number behind it if somebody took the name first. Raises OSError if it cannot be made.
    """
    folder, number = wanted, 1
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not named:
                number += 1
                folder = wanted.with_name(f"{wanted.name}_{number}")
            elif folder.is_dir() and not any(folder.iterdir()):
                return folder
            else:
                raise UserError(f"folder {folder} is not empty; choose another with {key}=DIR") from None
        except OSError as error:
            raise OSError(f"cannot make the folder {folder}: {error.strerror}") from error
