"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]

Every trial is a run folder below the study's. The validation loss decides; the test set decides nothing.
"""

import contextlib
import logging
import math
import shlex
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import numpy as np
import optuna
import yaml
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException
from lightning.pytorch.callbacks import Checkpoint
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from src import terminal
from src.charts import COLOURS, figure, save
from src.errors import UserError
from src.runs import Run, write, write_csv
from src.terminal import quoted
from src.training.experiment import PLACES, resume, train

OBJECTIVE = "val/loss"
OWN = ("folder", "n_trials", "space", "storage", "pruner")  # keys that src.train does not know
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
DATABASE = (SQLAlchemyError, StorageInternalError)  # errors of the storage, whoever meets them
# Keys that may change from one start of a study to the next: they do not make another experiment.
FREE = (
    *("folder", "n_trials", "storage", "logger"),
    *(f"trainer.{name}" for name in ("accelerator", "threads", "enable_progress_bar")),
    *(f"data.{name}" for name in PLACES),
)


class Pruned(optuna.TrialPruned):
    """A trial that is not worth finishing."""

    status = "pruned"  # of the run, in its record


class Prune(Checkpoint):
    """Tells the trial the objective after each epoch, and ends the run if it is poor beside the others.

    Lightning calls callbacks of this class last: the epoch is recorded before.
    """

    def __init__(self, trial: optuna.Trial):
        self.trial = trial

    def on_train_epoch_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.trial.report(trainer.callback_metrics[OBJECTIVE].item(), trainer.current_epoch + 1)
        if self.trial.should_prune():
            raise Pruned(f"pruned after epoch {trainer.current_epoch + 1}")


def leaves(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of nested dicts."""
    found = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        found |= leaves(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return found


def distributions(space: Any) -> dict[str, BaseDistribution]:
    """Key -> what it is drawn from, of a search space written in the words of Hydra's sweeps.

    Raises UserError if it cannot be read.
    """
    if not space or not isinstance(space, dict):
        raise UserError("space is empty: nothing to search; try +space.model.lr='interval(0.01, 1)'")
    found = {}
    for key, text in leaves(space).items():
        try:
            found[key] = distribution(OverridesParser.create().parse_override(f"{key}={text}").value())
        except (HydraException, UserError, ValueError, ArithmeticError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"space.{key}={text} is no search space ({reason}); try interval(0.01, 1)"
            ) from error
    return found


def distribution(sweep: Any) -> BaseDistribution:
    """Optuna's counterpart of what Hydra has parsed. The end of a range is not in it."""
    if tags := getattr(sweep, "tags", set()) - ({"log"} if isinstance(sweep, IntervalSweep) else set()):
        raise UserError(f"the tag {', '.join(sorted(tags))} has no meaning here")
    match sweep:
        case IntervalSweep(tags=tags, start=low, end=high) if math.isfinite(low) and math.isfinite(high):
            kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
            return kind(low, high, log="log" in tags)
        case RangeSweep(start=start, stop=stop, step=step):
            whole = all(isinstance(number, int) for number in (start, stop, step))
            kind, number = (IntDistribution, int) if whole else (FloatDistribution, float)
            start, stop, step = (Decimal(str(number)) for number in (start, stop, step))  # 0.1 is one tenth
            count = math.ceil((stop - start) / step) if step else 0
            if count < 1:
                raise UserError("there is no value in it")
            low, high = sorted((start, start + (count - 1) * step))
            return kind(number(low), number(high), step=number(abs(step)))
        case ChoiceSweep(list=values) if not any(isinstance(value, list | dict) for value in values):
            return CategoricalDistribution([getattr(value, "text", value) for value in values])
    raise UserError("neither interval, range nor choice of plain values")


def tune(cfg: DictConfig, overrides: Sequence[str] = ()) -> list[FrozenTrial]:
    """Make trials until the study has cfg.n_trials; returns them all.

    `overrides`, those that made cfg, belong to the command that is said at the end. Raises UserError if cfg
    cannot be tuned.
    """
    space = check(cfg)
    folder = Path(cfg.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with joined(cfg, folder) as study:
        while True:
            with contextlib.ExitStack() as held:
                with FileLock(folder / ".lock"):  # one process chooses at a time
                    chosen = next_trial(study, cfg, space, folder)
                    if chosen is None:
                        break
                    number, parameters, trial = chosen
                    run = Run(folder / str(number))
                    held.enter_context(run.lock())
                attempt(study, trial_config(cfg, parameters), run, number, trial, cfg.n_trials)
        report(study, folder, [text for text in overrides if not text.lstrip("+~").startswith(OWN)])
        return study.get_trials()


def check(cfg: DictConfig) -> dict[str, BaseDistribution]:
    """The search space. Raises UserError if cfg cannot be tuned."""
    for key, lowest, instead in (("n_trials", 1, 50), ("seed", 0, 0)):
        if type(cfg[key]) is not int or cfg[key] < lowest:
            raise UserError(f"{key} must be an integer >= {lowest}, got {cfg[key]}; try {key}={instead}")
    if not isinstance(cfg.folder, str) or not cfg.folder:
        raise UserError(f"folder must be a path, got {cfg.folder}; try folder=outputs/tune/NAME")
    if cfg.trainer.get("devices", 1) != 1 or cfg.trainer.get("strategy", "auto") != "auto":
        raise UserError(
            "a search trains on one device: leave out trainer=ddp and trainer.devices; to use several, start "
            f"the same command again with folder={cfg.folder}"
        )
    if cfg.data.get("val_size") == 0:
        raise UserError("data.val_size=0: tuning needs a validation split; try data.val_size=5000")
    space = distributions(OmegaConf.to_container(cfg, resolve=True)["space"])
    for key in space:
        parent, _, name = key.rpartition(".")
        if name not in (OmegaConf.select(cfg, parent) or {} if parent else cfg):
            raise UserError(f"space.{key}: there is no key {key}; ~space.{key} leaves it out")
    return space


@contextlib.contextmanager
def joined(cfg: DictConfig, folder: Path) -> Iterator[optuna.Study]:
    """The study of the folder, made if there is none, its database open until the block ends.

    Raises UserError if the folder is another experiment's, or the database fails, now or within the block.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the errors below say it
    pruner = optuna.pruners.NopPruner() if cfg.pruner is None else cfg.pruner
    if isinstance(pruner, DictConfig):
        pruner = hydra.utils.instantiate(pruner)
    if not isinstance(pruner, optuna.pruners.BasePruner):
        raise UserError(f"pruner must be one of optuna.pruners, got {cfg.pruner}; try pruner=null")
    database = address(cfg.storage) or f"{folder}/study.db"
    own = {"creator": lambda: sqlite3.connect(folder / "study.db")}  # an URL would not take any name
    with contextlib.ExitStack() as opened:
        try:
            with FileLock(folder / ".lock"):
                storage = optuna.storages.RDBStorage(
                    cfg.storage or "sqlite:///study.db", engine_kwargs=None if cfg.storage else own
                )
                opened.callback(storage.engine.dispose)
                opened.callback(storage.remove_session)
                study = optuna.create_study(
                    study_name=study_name(cfg, folder), storage=storage, pruner=pruner, load_if_exists=True
                )
            yield study
        except ImportError as error:
            if "DB access module" not in str(error):
                raise
            driver = getattr(error.__cause__, "name", None)
            raise UserError(f"{database} needs the driver {driver}; try pip install {driver}") from error
        except DATABASE as error:
            cause = error if isinstance(error, SQLAlchemyError) else error.__cause__ or error
            reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
            raise UserError(
                f"the database {database} fails: {reason}; when it can be used again, the same command goes on"
            ) from error


def address(url: str | None) -> str | None:
    """The address of a database without what is secret in it. Raises UserError if it is none."""
    if url is None:
        return None
    try:
        return make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError, AttributeError):
        raise UserError(
            f"storage={str(url).rpartition('@')[2]} is no address of a database; "
            "try sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None


def study_name(cfg: DictConfig, folder: Path) -> str:
    """What the database calls the study of this folder and this experiment: nobody else's name.

    It is recorded in tune.yaml of the folder, with the experiment: whoever shares the folder shares the study.
    Raises UserError if the experiment there is another one.
    """
    path = folder / "tune.yaml"
    settings = OmegaConf.to_container(cfg, resolve=False)
    experiment = {"storage": address(settings["storage"])}
    for key, value in leaves(settings).items():
        if not f"{key}.".startswith(tuple(f"{free}." for free in FREE)):
            experiment[key] = value
    if not path.exists():
        write(path, yaml.safe_dump({"study": uuid.uuid4().hex, "experiment": experiment}, sort_keys=False))
    try:
        recorded = yaml.safe_load(path.read_text())
        name, known = recorded["study"], dict(recorded["experiment"])
    except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged, or of an earlier version; choose another folder") from error
    differing = [key for key in {**known, **experiment} if known.get(key) != experiment.get(key)]
    if differing:
        said = ", ".join(f"{key}={experiment.get(key)} (there {known.get(key)})" for key in differing)
        raise UserError(f"the study in {folder} is another experiment than {said}; choose another folder")
    return name


def next_trial(
    study: optuna.Study, cfg: DictConfig, space: dict[str, BaseDistribution], folder: Path
) -> tuple[int, dict[str, Any], optuna.Trial | None] | None:
    """A trial that was left by a killed process, else a new one; None if there are enough.

    What a new one tries is a function of the seed, its number and the trials before it.
    """
    begun = [each.number for each in study.get_trials(deepcopy=False) if each.state == TrialState.RUNNING]
    idle = [number for number in begun if not Run(folder / str(number)).in_use()]
    trials = study.get_trials(deepcopy=False)  # again: one that is idle may just have ended
    for left in (trials[number] for number in idle):
        if left.state == TrialState.RUNNING:
            if left.params.keys() == space.keys():
                return left.number, left.params, None
            study.tell(left.number, state=TrialState.FAIL)  # killed while its parameters were drawn
    if len(trials) >= cfg.n_trials:
        return None
    seed = np.random.SeedSequence([cfg.seed, len(trials)]).generate_state(1)[0]
    study.sampler = optuna.samplers.TPESampler(seed=int(seed))
    trial = study.ask(space)
    return trial.number, trial.params, trial


def trial_config(cfg: DictConfig, parameters: dict[str, Any]) -> DictConfig:
    """The config of a run with the parameters of a trial."""
    cfg = cfg.copy()
    with open_dict(cfg):
        for key in OWN:
            del cfg[key]
    for key, value in parameters.items():
        OmegaConf.update(cfg, key, value)
    return cfg


def attempt(
    study: optuna.Study, cfg: DictConfig, run: Run, number: int, trial: optuna.Trial | None, total: int
) -> None:
    """Train or, without a `trial` to tell, finish what was begun, and tell the study how it went."""
    outcome: dict[str, Any]
    with logged(run):
        try:
            prune = [Prune(trial)] if trial else []
            value = resume(cfg, run.path, []) if run.begun() else train(cfg, run.path, *prune)
            outcome, said = {"values": value}, f"{OBJECTIVE} {value:.4f}"
        except optuna.TrialPruned as error:
            outcome, said = {"state": TrialState.PRUNED}, str(error)
        except DATABASE:  # not the trial's fault: it stays as it is, for the next start
            raise
        except Exception as error:
            logging.getLogger(__name__).exception("trial failed")
            reason = terminal.explain(error)
            if not isinstance(error, terminal.USER_ERRORS):
                reason = f"{type(error).__name__}: {reason}; see {terminal.relative(run.path)}/train.log"
            outcome, said = {"state": TrialState.FAIL}, f"failed: {reason}"
    study.tell(number, **outcome)
    trials = study.get_trials(deepcopy=False)
    if any(each.state == TrialState.COMPLETE for each in trials):
        said += f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    parameters = " ".join(f"{key}={shown(value)}" for key, value in trials[number].params.items())
    ended = sum(each.state in ENDED for each in trials)
    terminal.say(f"{ended}/{total}  trial {number}  {parameters}  {said}")


@contextlib.contextmanager
def logged(run: Run) -> Iterator[None]:
    """Write train.log of the run as src.train does."""
    run.path.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(run.path / "train.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def shown(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def report(study: optuna.Study, folder: Path, overrides: list[str]) -> None:
    """Write trials.csv, history.png and importance.png, and say the best overrides as a command."""
    trials = study.get_trials(deepcopy=False)
    states = {TrialState.COMPLETE: "finished", TrialState.FAIL: "failed"}
    rows = [
        {
            "trial": each.number,
            "status": states.get(each.state, each.state.name.lower()),
            OBJECTIVE: each.value,
            **each.params,
            "folder": str(folder / str(each.number)),
        }
        for each in trials
    ]
    write_csv(folder / "trials.csv", rows)
    if "finished" not in {row["status"] for row in rows}:
        raise UserError(f"no trial of {folder} finished; {folder}/trials.csv and the logs in it say why")
    save(search_history(trials), folder / "history.png")
    if [row["status"] for row in rows].count("finished") >= 4 and len(study.best_params) > 1:
        save(importance(optuna.importance.get_param_importances(study)), folder / "importance.png")
    best = [f"{key}={quoted(value)}" for key, value in study.best_params.items()]
    command = " ".join(["python -m src.train", *(shlex.quote(text) for text in [*overrides, *best])])
    write(folder / "best.txt", command + "\n")
    states = [row["status"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    terminal.say(f"\n{len(rows)} trials: {counts}")
    terminal.say(f"best: trial {study.best_trial.number}, {OBJECTIVE} {study.best_value:.4f}\n  {command}")
    written = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".txt", ".png"))
    terminal.say(f"written to {terminal.relative(folder)}/: {' '.join(written)}")


def search_history(trials: Sequence[FrozenTrial]) -> Figure:
    """The value of each trial of a search, the last one of a pruned trial, and the lowest so far."""
    finished = [(each.number, each.value) for each in trials if each.state.name == "COMPLETE"]
    pruned = [(each.number, each.value) for each in trials if each.state.name == "PRUNED" and each.value]
    numbers, found = zip(*finished, strict=True)
    panel = figure(6.4, 3.4)
    ax = panel.subplots()
    ax.plot(numbers, found, ".", color=COLOURS["lr"], markersize=8, label="finished")
    if pruned:
        ax.plot(*zip(*pruned, strict=True), "x", color=COLOURS["wrong"], markersize=4, label="pruned")
    ax.step(numbers, np.minimum.accumulate(found), where="post", color=COLOURS["train"], label="best so far")
    ax.set(xlabel="trial", ylabel="val/loss", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3, which="both")
    ax.legend(frameon=False)
    return panel


def importance(shares: dict[str, float]) -> Figure:
    """How much of the differences between trials each parameter explains: shares that sum to 1."""
    panel = figure(6.4, 1 + 0.4 * len(shares))
    ax = panel.subplots()
    names = sorted(shares, key=shares.get)
    bars = ax.barh(names, [shares[name] for name in names], color=COLOURS["train"])
    ax.bar_label(bars, [f"{shares[name]:.2f}" for name in names], padding=3)
    ax.set(xlabel="importance", xlim=(0, 1.12 * max(shares.values())))
    ax.spines[["top", "right"]].set_visible(False)
    return panel


@hydra.main(version_base="1.3", config_path="../conf", config_name="tune")
@terminal.reporting
def main(cfg: DictConfig) -> None:
    tune(cfg, HydraConfig.get().overrides.task)


if __name__ == "__main__":
    terminal.run(main)
