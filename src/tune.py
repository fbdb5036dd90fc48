"""Search for good hyperparameters with Optuna: python -m src.tune n_trials=50 [KEY=VALUE ...]

Every trial is a run folder below the study's. The validation loss decides; the test set decides nothing.
"""

import contextlib
import logging
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import optuna
import rich
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, RangeSweep
from hydra.errors import HydraException
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState

from src import cli, plots
from src.errors import UserError
from src.runs import Run, write, write_csv
from src.training.experiment import resume, train

OBJECTIVE = "val/loss"
STUDY = "study"  # its name in the storage; there is one in each folder
OWN = ("folder=", "n_trials=", "space", "storage=", "pruner")  # overrides that src.train does not know
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


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


def distributions(space: dict[str, Any], prefix: str = "") -> dict[str, BaseDistribution]:
    """Key -> what it is drawn from, of a search space written in the words of Hydra's sweeps.

    Raises UserError if it cannot be read.
    """
    found = {}
    for name, text in space.items():
        key = f"{prefix}{name}"
        if isinstance(text, dict):
            found |= distributions(text, f"{key}.")
            continue
        try:
            found[key] = distribution(OverridesParser.create().parse_override(f"{key}={text}").value())
        except (HydraException, UserError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"space.{key}={text} is no search space ({reason}); try interval(0.01, 1)"
            ) from error
    if not found and not prefix:
        raise UserError("space is empty: nothing to search; try +space.model.lr='interval(0.01, 1)'")
    return found


def distribution(sweep: Any) -> BaseDistribution:
    """Optuna's counterpart of what Hydra has parsed."""
    match sweep:
        case IntervalSweep(tags=tags, start=low, end=high):
            kind = IntDistribution if isinstance(low, int) and isinstance(high, int) else FloatDistribution
            return kind(low, high, log="log" in tags)
        case RangeSweep(start=low, stop=high, step=step):
            return IntDistribution(low, low + (high - 1 - low) // step * step, step=step)
        case ChoiceSweep(list=values):
            return CategoricalDistribution(values)
    raise UserError("neither interval, range nor choice")


def tune(cfg: DictConfig, overrides: Sequence[str] = ()) -> optuna.Study:
    """Make trials until the study has cfg.n_trials.

    `overrides`, those that made cfg, belong to the command that is said at the end. Raises UserError if cfg
    cannot be tuned.
    """
    if cfg.n_trials < 1:
        raise UserError(f"n_trials must be >= 1, got {cfg.n_trials}; try n_trials=50")
    if cfg.data.val_size == 0:
        raise UserError("data.val_size=0: tuning needs a validation split; try data.val_size=5000")
    space = distributions(OmegaConf.to_container(cfg.space, resolve=True))
    for key in space:
        parent, _, name = key.rpartition(".")
        if name not in (OmegaConf.select(cfg, parent) or {}):
            raise UserError(f"space.{key}: there is no key {key}; ~space.{key} leaves it out")
    folder = Path(cfg.folder)
    study = join(cfg, folder, {key: str(each) for key, each in space.items()})
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
    return study


def join(cfg: DictConfig, folder: Path, space: dict[str, str]) -> optuna.Study:
    """The study in the storage, made if it is not there. Raises UserError if it searches another space."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    pruner = hydra.utils.instantiate(cfg.pruner) or optuna.pruners.NopPruner()
    with FileLock(folder / ".lock"):
        study = optuna.create_study(
            study_name=STUDY, storage=cfg.storage, pruner=pruner, direction="minimize", load_if_exists=True
        )
        known = study.user_attrs.get("space")
        if known is None:
            study.set_user_attr("space", space)
            write(folder / "tune.yaml", OmegaConf.to_yaml(cfg))
        elif known != space:
            raise UserError(f"the study in {folder} searches {known}, not {space}; choose another folder")
    return study


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
    study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + 1_000_003 * len(trials))
    trial = study.ask(space)
    return trial.number, trial.params, trial


def trial_config(cfg: DictConfig, parameters: dict[str, Any]) -> DictConfig:
    """The config of a run with the parameters of a trial."""
    cfg = cfg.copy()
    with open_dict(cfg):
        for key in ("folder", "n_trials", "space", "storage", "pruner"):
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
        except Exception as error:
            logging.getLogger(__name__).exception("trial failed")
            outcome, said = {"state": TrialState.FAIL}, f"failed: {cli.explain(error)}"
    study.tell(number, **outcome)
    trials = study.get_trials(deepcopy=False)
    if any(each.state == TrialState.COMPLETE for each in trials):
        said += f"  best {study.best_value:.4f} (trial {study.best_trial.number})"
    parameters = " ".join(f"{key}={shown(value)}" for key, value in trials[number].params.items())
    ended = sum(each.state in ENDED for each in trials)
    say(f"{ended}/{total}  trial {number}  {parameters}  {said}")


def say(line: str) -> None:
    rich.get_console().print(line, markup=False, highlight=False, soft_wrap=True)


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
    finished = [(each.number, each.value) for each in trials if each.state == TrialState.COMPLETE]
    if not finished:
        raise UserError(f"no trial of {folder} finished; {folder}/trials.csv and the logs in it say why")
    plots.save(plots.search_history(finished), folder / "history.png")
    if len(finished) >= 4 and len(study.best_params) > 1:
        plots.save(plots.importance(optuna.importance.get_param_importances(study)), folder / "importance.png")
    best = [f"{key}={value}" for key, value in study.best_params.items()]
    command = " ".join(["python -m src.train", *(shlex.quote(text) for text in [*overrides, *best])])
    write(folder / "best.txt", command + "\n")
    states = [row["status"] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(f"\n{len(rows)} trials: {counts}")
    say(f"best: trial {study.best_trial.number}, {OBJECTIVE} {study.best_value:.4f}\n  {command}")
    written = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".txt", ".png"))
    say(f"written to {cli.shown(folder)}/: {' '.join(written)}")


@hydra.main(version_base="1.3", config_path="../conf", config_name="tune")
@cli.reporting
def main(cfg: DictConfig) -> None:
    tune(cfg, HydraConfig.get().overrides.task)


if __name__ == "__main__":
    cli.run(main)
