"""The callbacks of a run: which ones it promises, accepts and refuses, and how they are built."""

import importlib.util
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch import callbacks as of_lightning
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer

from src.errors import UserError
from src.runs import Run
from src.runs.build import build, check
from src.training.foreign import Foreign, check_named, targets
from src.training.history import History

# Lightning's callbacks that are tested with all that a run promises.
GUARANTEED = (
    of_lightning.DeviceStatsMonitor,
    of_lightning.EarlyStopping,
    of_lightning.LearningRateMonitor,
    of_lightning.ModelCheckpoint,
    of_lightning.ModelSummary,
    of_lightning.RichModelSummary,
)
OWN_BAR = "a run has a bar of its own; take trainer.enable_progress_bar"
CHANGES_SETTINGS = "it changes a setting that the run has recorded; take a sweep over"
TWO_MODELS = "a row would be of two models, the averaged one and the one that trains; leave it out"
# Those that a run cannot have: why, and what to take instead.
REFUSED = {
    "BatchSizeFinder": f"{CHANGES_SETTINGS} data.batch_size",
    "EMAWeightAveraging": TWO_MODELS,
    "LambdaCallback": "a config has no functions; in Python: train(cfg, None, LambdaCallback(...))",
    "LearningRateFinder": f"{CHANGES_SETTINGS} model.lr",
    "OnExceptionCheckpoint": "it resumes later runs unasked; a run saves last.ckpt already",
    "ProgressBar": OWN_BAR,
    "RichProgressBar": OWN_BAR,
    "StochasticWeightAveraging": "its weights come after the last epoch, in no row and checkpoint; "
    "leave it out",
    "TQDMProgressBar": OWN_BAR,
    "WeightAveraging": TWO_MODELS,
    "Timer": "a run has one already; take trainer.max_time=DD:HH:MM:SS",
}


def check_kinds(settings: dict[str, Any], foreign: Foreign = None) -> dict[str, type]:
    """The class of each callback. Builds none.

    Raises UserError for a callback that is refused, or whose settings do not fit.
    """
    kinds = {}
    for name, values in settings["callbacks"].items():
        named = values.get("_target_") if isinstance(values, dict) else None
        target = f"callbacks.{name}._target_={named}"
        package, _, kind_name = target.rpartition(".")
        if "=lightning." in package and kind_name in REFUSED:
            raise UserError(f"{target} is refused: {REFUSED[kind_name]}")
        kind, _ = check(f"callbacks.{name}", values, foreign=targets(settings, foreign))
        if kind is of_lightning.DeviceStatsMonitor and importlib.util.find_spec("psutil") is None:
            raise UserError(f"{target} needs psutil: pip install psutil")
        if is_untested(kind):
            check_named(f"callbacks.{name}", values["_target_"], targets(settings, foreign))
        kinds[name] = kind
    return kinds


def is_untested(kind: type) -> bool:
    return not kind.__module__.startswith("src.") and kind not in GUARANTEED


def untested_callbacks(settings: dict[str, Any], foreign: Foreign = None) -> list[str]:
    """The callbacks that no test has tried with all that a run promises."""
    names = []
    for name, kind in check_kinds(settings, foreign).items():
        if is_untested(kind):
            names.append(f"callbacks.{name}")
    return names


def build_callbacks(
    settings: dict[str, Any], run: Run, foreign: Foreign = None
) -> dict[str, L.Callback]:
    """The callbacks of the settings, by name."""
    built = {}
    for name, kind in check_kinds(settings, foreign).items():
        values = settings["callbacks"][name]
        if issubclass(kind, ModelCheckpoint):
            values = within_run(f"callbacks.{name}", values, run, name)
        built[name] = build(f"callbacks.{name}", values, targets(settings, foreign))
    return built


def within_run(key: str, settings: dict[str, Any], run: Run, name: str) -> dict[str, Any]:
    """The settings of further checkpoints, in a folder of their own in the run's.

    A run that goes on writes a file again that it has written before, not one beside it. Raises
    UserError for another folder.
    """
    folder = run.path.resolve()
    asked = settings.get("dirpath") or f"checkpoints/{name}"
    path = Path(folder, asked).resolve()
    if folder / "checkpoints" not in path.parents or path.suffix == ".ckpt":
        raise UserError(
            f"{key}.dirpath={asked} must be a folder of its own in the run folder; "
            f"try {key}.dirpath=checkpoints/{name}"
        )
    return {"enable_version_counter": False, **settings, "dirpath": str(path)}


def check_callbacks(callbacks: dict[str, L.Callback], measured: list[str]) -> None:
    """Raises UserError for callbacks that a run cannot have.

    A callback must not wait for a metric that is not measured, and no two may have the same state.
    """
    keys = {}
    for own in (History(), Timer()):
        keys[own.state_key] = f"the {type(own).__name__} of every run"
    for name, callback in callbacks.items():
        waiting = isinstance(callback, EarlyStopping | ModelCheckpoint) and callback.monitor
        if waiting and callback.monitor not in measured:
            advice = ""
            if isinstance(callback, EarlyStopping):
                advice = "; early stopping needs a validation split (data.val_size)"
            raise UserError(
                f"callbacks.{name}.monitor={callback.monitor}, but this run measures "
                f"{', '.join(measured)}{advice}"
            )
        if type(callback).state_dict is L.Callback.state_dict:  # it has no state
            continue
        other = keys.setdefault(callback.state_key, f"callbacks.{name}")
        if other != f"callbacks.{name}":
            raise UserError(
                f"callbacks.{name} is the same as {other}: a checkpoint can hold the state of one"
            )
