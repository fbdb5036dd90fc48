"""A search: its space, in the words of Hydra's sweeps, and its trials, one after the other."""

import contextlib
import logging
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from pydantic import Field, NonNegativeInt

from src import signals
from src.cli.console import LogFile, pasteable, quoted, say
from src.cli.explain import USER_ERRORS, explain
from src.cli.options import Options, checked
from src.errors import UserError
from src.files import expanded
from src.runs import Run, leaves
from src.runs.config import Seed, plain
from src.training.arguments import trainer_arguments
from src.training.experiment import check_settings, train
from src.training.resuming import resume
from src.tune.pruning import Prune
from src.tune.study import DATABASE, STATUS, claim_study, conclude, joined


class Search(Options, extra="ignore"):
    """The settings of a search; those of src.train stand beside them, and are ignored here."""

    folder: Annotated[str, Field(min_length=1)]
    n_trials: Annotated[int, Field(ge=1)]
    space: dict[str, Any]
    # src.tune.study checks the storage: a complaint of pydantic's would show the password.
    storage: Any
    pruner: dict[Literal["n_startup_trials", "n_warmup_steps"], NonNegativeInt] | None
    seed: Seed


OWN = tuple(Search.model_fields.keys() - {"seed"})  # keys that src.train does not know
# The end of a trial: its value, if there is one, its state, and both in words.
Ending = tuple[float | None, TrialState, str]


def tune(cfg: DictConfig, overrides: Sequence[str] = ()) -> list[FrozenTrial]:
    """Make trials until the study has cfg.n_trials; returns them all.

    The command that trains the best again repeats the `overrides`. Raises UserError if cfg cannot
    be tuned, or no trial finishes.
    """
    search = checked(Search, cfg)
    space = distributions(search.space)
    folder = expanded(search.folder)
    for key in space:
        if OmegaConf.select(cfg, key, default=...) is ...:
            raise UserError(f"space.{key}: there is no key {key}; ~space.{key} leaves it out")
    settings = OmegaConf.masked_copy(cfg, [key for key in cfg if key not in OWN])
    check_search(settings, space, folder)
    claim_study(folder)
    # One process at a time chooses a trial or records how one ended.
    lock = FileLock(folder / ".lock")
    with joined(cfg, settings, folder) as study:
        while True:
            with lock:
                trial = next_trial(study, search, folder, space)
                if trial is None:
                    break
                run = Run(folder / str(trial.number))
                run_lock = run.lock()
            with run_lock:
                for key, value in trial.params.items():
                    OmegaConf.update(settings, key, value)
                value, state, outcome = attempt(settings, run, trial)
                with lock:
                    study.tell(trial.number, value, state)
            show_trial(study, trial, outcome, search.n_trials)
        repeated = [text for text in overrides if not text.lstrip("+~").startswith(OWN)]
        conclude(study, folder, repeated)
        return study.get_trials()


def check_search(cfg: DictConfig, space: dict[str, BaseDistribution], folder: Path) -> None:
    """Raises UserError if no trial can be made with the settings, or at an end of the space."""
    check_trial(cfg, folder)
    for key, distribution in space.items():
        for value in ends(distribution):
            trial = cfg.copy()
            OmegaConf.update(trial, key, value)
            check_trial(trial, folder)


def check_trial(cfg: DictConfig, folder: Path) -> None:
    settings = plain(cfg)
    check_settings(settings)
    trainer = settings["trainer"]
    if trainer.get("devices", 1) != 1 or trainer.get("strategy", "auto") != "auto":
        advice = f"to use several, start the same command again with folder={folder}"
        raise UserError(
            f"a search trains on one device: leave out trainer=ddp and trainer.devices; {advice}"
        )
    if settings["data"].get("val_size") == 0:
        raise UserError("data.val_size=0: tuning needs a validation split; try data.val_size=5000")
    chosen = trainer_arguments(settings)
    if chosen["limit_val_batches"] == 0:
        raise UserError("trainer.limit_val_batches=0: tuning selects by val/loss; leave it out")
    if chosen["check_val_every_n_epoch"] > chosen["max_epochs"]:
        raise UserError(
            f"trainer.check_val_every_n_epoch={chosen['check_val_every_n_epoch']}: tuning selects "
            "by val/loss, and no epoch would have it; try trainer.check_val_every_n_epoch=1"
        )


def ends(distribution: BaseDistribution) -> list[Any]:
    """The lowest and the highest value, or all that can be chosen."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def distributions(space: dict[str, Any]) -> dict[str, BaseDistribution]:
    """The distribution of each dotted key.

    Raises UserError if there is none, or one cannot be read.
    """
    texts = leaves(space)
    if not texts:
        raise UserError(
            "space is empty: nothing to search; try +space.model.lr='interval(0.01, 1)'"
        )
    return {key: distribution(key, text) for key, text in texts.items()}


def distribution(key: str, text: str) -> BaseDistribution:
    """Optuna's counterpart of a sweep of Hydra's. Raises UserError if it has none."""
    reason = "it must be an interval, which may have the tag log, or a choice of plain values"
    try:
        sweep = OverridesParser.create().parse_override(f"{key}={text}").value()
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start, sweep.end
            if sweep.tags <= {"log"} and math.isfinite(high - low):
                kind = IntDistribution if isinstance(low + high, int) else FloatDistribution
                return kind(low, high, log="log" in sweep.tags)
        if isinstance(sweep, ChoiceSweep):
            # A value in quotes is an object with a text, other plain values are themselves.
            values = [getattr(value, "text", value) for value in sweep.list]
            if not any(isinstance(value, list | dict) for value in values):
                return CategoricalDistribution(values)
    except (HydraException, ValueError, ArithmeticError) as error:
        reason = str(error).splitlines()[0]
    raise UserError(f"space.{key}={text} is no search space ({reason}); try interval(0.01, 1)")


def next_trial(
    study: optuna.Study, search: Search, folder: Path, space: dict[str, BaseDistribution]
) -> BaseTrial | None:
    """A trial that a killed process left, else a new one; None if there are enough."""
    for left in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if Run(folder / str(left.number)).in_use():
            continue
        if left.params.keys() == space.keys():
            return left
        study.tell(left.number, state=TrialState.FAIL)  # killed while its parameters were drawn
    number = len(study.get_trials(deepcopy=False))
    if number >= search.n_trials:
        return None
    # The values of a trial depend on the seed, its number and the trials before it alone.
    seed = random.Random(f"{search.seed} {number}").getrandbits(32)
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    return study.ask(space)


def attempt(cfg: DictConfig, run: Run, trial: BaseTrial) -> Ending:
    """Train the trial, or finish it if it was begun.

    Raises an error of the database, or that of a signal: the next start of the search finishes the
    trial then.
    """
    log = LogFile(run.path / "train.log")
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(log)
    try:
        trained = resume(run.path, cfg) if run.begun() else train(cfg, run.path, Prune(trial))
        value = trained.metrics["val/loss"]
        return value, TrialState.COMPLETE, f"val/loss {value:.4f}"
    except optuna.TrialPruned as error:
        return None, TrialState.PRUNED, str(error)
    except Exception as error:
        if signals.received() or isinstance(error, DATABASE):  # the next start finishes the trial
            raise
        reason = explain(error)
        # The log has the traceback of a bug, not of a mistake that the user can put right.
        bug = None
        if not isinstance(error, USER_ERRORS):
            bug = (type(error), error, error.__traceback__)
        text = f"error: {reason}"
        # The record goes into the log of the trial alone: the terminal has a line per trial.
        log.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, text, None, bug))
        return None, TrialState.FAIL, f"failed: {reason}; see {pasteable(run.path / 'train.log')}"
    finally:
        logging.getLogger().removeHandler(log)
        log.close()


def show_trial(study: optuna.Study, trial: BaseTrial, outcome: str, total: int) -> None:
    """Print the values of the trial, how it ended, and the best so far, if a trial has finished."""
    with contextlib.suppress(ValueError):
        outcome += f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    texts = []
    for key, value in trial.params.items():
        text = f"{value:.5g}" if isinstance(value, float) else quoted(value)
        texts.append(f"{key}={text}")
    parameters = " ".join(texts)
    ended = study.get_trials(deepcopy=False, states=tuple(STATUS))
    say(f"{len(ended)}/{total}  trial {trial.number}  {parameters}  {outcome}")


def main(cfg: DictConfig) -> None:
    tune(cfg, HydraConfig.get().overrides.task)
