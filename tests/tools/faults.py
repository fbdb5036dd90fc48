"""Kill runs, finish them, and compare them to the bit: python -m tests.tools.faults [N] [SEED] [early]

Each fault is a real signal to a real process or to its process group: at a random moment, in the
first seconds, while a checkpoint is written, or in the test; in the run, and in what finishes it.
What has a checkpoint is finished by src.resume, what has none by the same command again. With
`early`, every run is killed within its first three seconds, once.
"""

import contextlib
import functools
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.errors import UserError
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.training.loggers.state import read_state
from tests.conftest import ROOT, Command, TooLong, processes
from tests.tools.mlflow_server import MLflowServer

KILLS = {  # what is sent
    "SIGKILL": [signal.SIGKILL],
    "SIGTERM": [signal.SIGTERM],
    "SIGINT": [signal.SIGINT],
    "SIGINT twice": [signal.SIGINT, signal.SIGINT],
    "SIGHUP": [signal.SIGHUP],
}
# Small enough to take a second or two, with much of the time in validation.
IMAGES = ["data.train_size=2000", "data.val_size=20000"]
SYNTHETIC = ["data=synthetic", "data.train_size=300", "data.val_size=20000"]
MODELS = {
    "scratch": ["model=scratch", *IMAGES],
    "closed_form": ["model=closed_form", "model.weight_decay=0.01", *IMAGES],
    "grid": ["model=grid", "model.lr=[0.1,0.5]", "model.gamma=[0.9,1.0]", *IMAGES],
    "concise": ["model=concise", *IMAGES],
    "linear_scratch": ["model=linear_scratch", *SYNTHETIC],
    "linear_concise": ["model=linear_concise", *SYNTHETIC],
}
EPOCHS = 4
ADDRESS = "mlflow_address"  # a file in the folder of the campaign
EARLY = "+callbacks.early_stopping"
SETTINGS = {
    "": [],
    "early_stopping": [  # no loss falls by 10: it stops after epoch 3
        f"{EARLY}._target_=lightning.pytorch.callbacks.EarlyStopping",
        *(f"{EARLY}.monitor=val/loss", f"{EARLY}.min_delta=10", f"{EARLY}.patience=2"),
    ],
    "no_validation": ["data.val_size=0"],
    "bf16": ["trainer.precision=bf16-mixed"],
    "64 bit": ["trainer.precision=64-true"],
    "limits": ["trainer.limit_train_batches=0.6", "trainer.limit_val_batches=5"],
    "validation every 2": ["trainer.check_val_every_n_epoch=2"],
    "max_time": ["trainer.max_time=00:01:00:00"],
    "accumulation": ["trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.5"],
    "AdamW": [
        *("model.optimizer.name=AdamW", "model.lr=0.01"),
        *("model.scheduler.name=CosineAnnealingLR", f"model.scheduler.T_max={EPOCHS}"),
    ],
    "loggers": ["logger=[tensorboard,csv,mlflow]"],
}
# Models that take a setting; the others take all models.
TAKE = {
    "no_validation": [name for name in MODELS if name != "grid"],
    "validation every 2": [name for name in MODELS if name != "grid"],
    "accumulation": ["concise", "linear_concise"],
    "AdamW": ["concise", "linear_concise"],
}
OTHERS = ["~callbacks.figures", f"trainer.max_epochs={EPOCHS}"]

IN_USE = "in use by another process"
REFUSALS = [
    IN_USE,
    "is not empty",
    "holds a run already",
    "is no run folder",
    "has not begun",
    "never began",
]
STARTS = 12  # of commands for one run; what needs more is stuck


def flat(value: object, name: str = "") -> dict[str, object]:
    """The leaves of nested dicts and lists by their path."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        return {name: value}
    return {path: leaf for key, part in items for path, leaf in flat(part, f"{name}/{key}").items()}


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: curve -> [(step, value)]."""
    events = EventAccumulator(str(run.path)).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def differences(run: Run, reference: Run) -> list[str]:
    """In what the run differs from the reference: weights, optimizers, metrics, curves."""
    found = []
    for name in ("best", "last"):
        mine, other = (load_checkpoint(getattr(each, name)) for each in (run, reference))
        for part in (
            "state_dict",
            "optimizer_states",
            "lr_schedulers",
            "members",
            "epoch",
            "global_step",
        ):
            a, b = flat({part: mine.get(part)}), flat({part: other.get(part)})
            same = {
                k: torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k]
                for k in a.keys() & b.keys()
            }
            found += [
                f"{name}{key}"
                for key in (a.keys() ^ b.keys()) | {k for k, equal in same.items() if not equal}
            ]
    for name in ("metrics.csv", "grid.csv", "csv/metrics.csv"):
        mine, other = (each.path / name for each in (run, reference))
        if mine.exists() != other.exists() or (
            mine.exists() and mine.read_text() != other.read_text()
        ):
            found.append(name)
    mine, other = (
        {k: v for k, v in each.results().items() if "/" in k} for each in (run, reference)
    )
    if mine != other or run.results()["status"] != "finished":
        found.append("metrics.json")
    if curves(run) != curves(reference):
        found.append("tensorboard")
    if at_mlflow(run) != at_mlflow(reference):
        found.append("mlflow")
    return found


def at_mlflow(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What the MLflow server has of the run: metric -> (step, value), each as often as it is there."""
    settings = run.settings()["logger"]
    if "mlflow" not in settings:
        return {}
    from mlflow.tracking import MlflowClient

    client = MlflowClient(settings["mlflow"]["tracking_uri"])
    experiment = client.get_experiment_by_name(settings["mlflow"]["experiment_name"])
    tag = f"tags.`softmax_lab.run` = '{read_state(run)['identity']}'"
    (found,) = client.search_runs([experiment.experiment_id], tag)
    rows = {}
    for name in found.data.metrics:
        history = client.get_metric_history(found.info.run_id, name)
        rows[name] = sorted((entry.step, entry.value) for entry in history)
    return rows


class Kill(NamedTuple):
    """A signal, or two: what is sent, to whom, and when."""

    kind: str  # a key of KILLS
    target: str  # process | group
    moment: str  # any | first second | first 3 seconds | checkpoint | test
    fraction: (
        float  # of the run, of these seconds, or of a short time after the beginning of the test
    )
    apart: float  # seconds between two signals

    def __str__(self) -> str:
        return f"{self.kind} to the {self.target}, {self.moment} ({self.fraction:.2f})"


class Plan(NamedTuple):
    """A run, and what will be done to it."""

    name: str
    model: str
    setting: str
    options: list[str]  # that change nothing in the result
    kills: list[Kill]
    moved: bool  # before it is resumed
    twice: bool  # it is resumed by two processes at once

    def __str__(self) -> str:
        more = [*self.options, *["moved"] * self.moved, *["resumed twice at once"] * self.twice]
        return f"{self.name}: {', '.join(filter(None, [self.model, self.setting, *more, *map(str, self.kills)]))}"


class Outcome(NamedTuple):
    """What happened to a run, or to all."""

    counts: Counter  # of (what, which, ...)
    stuck: dict[str, str]  # plan -> output
    mismatches: dict[str, list[str]]  # plan -> what differs


class Stuck(AssertionError):
    """A run does not end however often it is gone on with."""


class Unknown(AssertionError):
    """A command ended as none may."""


def draw(count: int, seed: int, early: bool) -> list[Plan]:
    chance = random.Random(seed)
    plans = []
    for number in range(count):
        model, setting = chance.choice(list(MODELS)), chance.choice(["", *SETTINGS])
        if model not in TAKE.get(setting, MODELS):  # it would refuse
            model = chance.choice(TAKE[setting])
        every = chance.choice(
            ["callbacks.last.every_n_train_steps=1", "callbacks.last.every_n_train_steps=3"]
        )
        options = [every] if chance.random() < 0.5 else []
        if chance.random() < 0.4 and "linear" not in model:  # a synthetic data set has no workers
            options.append("data.num_workers=2")
        moments = [
            "any",
            "any",
            "first second",
            "first 3 seconds",
            "checkpoint",
            "checkpoint",
            "test",
        ]
        if early:
            moments = ["first second", "first 3 seconds"]
        kills = [
            Kill(
                chance.choice(list(KILLS)),
                chance.choice(["process", "group"]),
                chance.choice(moments),
                chance.random(),
                chance.uniform(0, 0.3),
            )
            for _ in range(1 if early else chance.choice([1, 2, 3]))
        ]
        moved, twice = chance.random() < 0.2, chance.random() < 0.2
        plans.append(Plan(str(number), model, setting, options, kills, moved, twice))
    return plans


class Patient:
    """A run, in a folder within `folder`, from the first command to the last."""

    def __init__(self, plan: Plan, folder: Path, data_root: Path):
        self.plan, self.folder = plan, folder / str(plan.name)
        self.folder.mkdir()
        self.run, self.counts = Run(self.folder / "run"), Counter()
        self.started: list[Command] = []
        self.seconds = 0.0  # of the last command
        place = [] if "linear" in plan.model else [f"data.root={data_root}"]
        if plan.setting == "loggers":
            place.append(f"logger.mlflow.tracking_uri={(folder / ADDRESS).read_text()}")
        self.first = [
            *(*MODELS[plan.model], *OTHERS, *SETTINGS[plan.setting], *plan.options, *place),
            f"hydra.run.dir={self.run.path}",
        ]

    def start(self, module: str, *arguments: str) -> Command:
        if len(self.started) >= STARTS:
            raise Stuck(
                f"not finished by {STARTS} commands; the last:\n{self.started[-1].output()}"
            )
        self.counts["starts", module] += 1
        output = self.folder / f"output{len(self.started)}.txt"
        self.started.append(Command(module, arguments, self.folder, output))
        return self.started[-1]

    def ended(self, command: Command, kill: Kill | None = None) -> int:
        """Its status, if that is one that it may end with after this kill."""
        status = command.wait()
        self.seconds = time.monotonic() - command.began
        signum = KILLS[kill.kind][0] if kill else 0
        self.counts[
            "status", kill.kind if kill else "no signal", kill.target if kill else "", status
        ] += 1
        lines = command.output().splitlines() or [""]
        refused = next(
            (text for text in REFUSALS if status == len(lines) == 1 and text in lines[0]), None
        )
        if refused:
            self.counts["refusals", refused] += 1
            if refused == IN_USE:
                time.sleep(1)
        elif status not in {0, -signum, 128 + signum}:
            raise Unknown(
                f"status {status} of {self.plan}, after {kill or 'no signal'}:\n{command.output()}"
            )
        return status

    def strike(self, command: Command, kill: Kill, seconds: float) -> bool:
        """Wait for the moment of the kill, and kill. False if the command ended before."""
        lengths = {
            "first second": min(1, seconds),
            "first 3 seconds": min(3, seconds),
            "any": seconds,
            "checkpoint": 0.7 * seconds,
            "test": 0,
        }
        end = time.monotonic() + kill.fraction * lengths[kill.moment]
        ended = lambda: not command.alive()  # noqa: E731
        if kill.moment == "test":
            last_epoch = EPOCHS - (self.plan.setting == "early_stopping")
            last = f"epoch {last_epoch}/"
            command.until(lambda: ended() or last in command.output())
            end = time.monotonic() + 0.3 * kill.fraction
        command.until(lambda: ended() or time.monotonic() >= end)
        if kill.moment == "checkpoint":
            command.until(lambda: ended() or any(self.run.last.parent.glob("*.part")))
        if ended():
            return False
        group = kill.target == "group"
        self.counts["moments", kill.moment] += 1
        self.counts["kills", kill.kind, kill.target] += 1
        with contextlib.suppress(ProcessLookupError):  # it has ended by the first
            for signum in KILLS[kill.kind]:
                command.kill(signum, group)
                time.sleep(kill.apart if len(KILLS[kill.kind]) > 1 else 0)
        return True

    def finish(self, seconds: float) -> None:
        """Run, kill, and go on, until all is done."""
        kills = list(self.plan.kills)
        moved, twice = self.plan.moved, self.plan.twice
        command = self.start("src.train", *self.first)
        while True:
            kill = kills.pop(0) if kills else None
            struck = kill is not None and self.strike(command, kill, seconds)
            status = self.ended(command, kill if struck else None)
            if status == 0:
                return
            refused = status == 1
            begun, resumable = self.run.last.exists(), any(self.run.last.parent.glob("*.ckpt"))
            if refused and IN_USE not in command.output():  # the other way, then
                resumable = command.module == "src.train"
            if not resumable:
                command = self.start("src.train", *self.first)
                continue
            if moved and begun:
                moved, path = False, self.folder / "elsewhere/moved"
                path.parent.mkdir()
                self.run = Run(self.run.path.rename(path))
                self.counts["moved", ""] += 1
            if twice and begun and not kills:
                twice = False
                self.counts["resumed twice at once", ""] += 1
                both = [self.start("src.resume", f"run={self.run.path}") for _ in range(2)]
                statuses = [self.ended(each) for each in both]
                if statuses == [0, 0] and not any(
                    "nothing is left" in each.output() for each in both
                ):
                    raise Unknown(
                        f"two resumes at once of {self.plan}:\n{both[0].output()}{both[1].output()}"
                    )
                if 0 in statuses:
                    return
            command = self.start("src.resume", f"run={self.run.path}")

    def end(self) -> None:
        for command in self.started:
            command.end()


def reference(plan: Plan) -> Plan:
    """The same run, left alone; with workers and saves within epochs or without, it is the same."""
    return Plan(f"{plan.model}_{plan.setting}", plan.model, plan.setting, [], [], False, False)


def leave_alone(plan: Plan, folder: Path, data_root: Path) -> float:
    """Seconds that the run takes."""
    patient = Patient(plan, folder, data_root)
    try:
        patient.finish(0)
    finally:
        patient.end()
    if "early_stopping" in plan.setting:
        assert patient.run.results()["epochs"] < EPOCHS
    return patient.seconds


def torment(plan: Plan, folder: Path, data_root: Path, seconds: float) -> Outcome:
    """Do to a run what is planned. Raises Unknown if a command ends as none may."""
    patient, stuck, mismatches = Patient(plan, folder, data_root), {}, {}
    try:
        patient.finish(seconds)
        other = Run(folder / reference(plan).name / "run")
        mismatches = {str(plan): found} if (found := differences(patient.run, other)) else {}
    except UserError as error:  # a file that cannot be read
        mismatches = {str(plan): [str(error)]}
    except (Stuck, TooLong) as error:
        stuck = {str(plan): str(error)}
    finally:
        patient.end()
    return Outcome(patient.counts, stuck, mismatches)


def campaign(
    count: int,
    seed: int,
    folder: Path,
    data_root: Path,
    early: bool = False,
    jobs: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Torment `count` runs under `folder`, `jobs` at a time, and compare each with one left
    alone."""
    plans, counts, stuck, mismatches = draw(count, seed, early), Counter(), {}, {}
    logs = any(plan.setting == "loggers" for plan in plans)
    with (
        mlflow_server(folder) if logs else contextlib.nullcontext(),
        ProcessPoolExecutor(jobs, mp_context=processes)
        if jobs > 1
        else contextlib.nullcontext() as pool,
    ):
        each = pool.map if pool else map
        alone = {reference(plan).name: reference(plan) for plan in plans}
        took = each(leave_alone, alone.values(), repeat(folder), repeat(data_root))
        seconds = dict(zip(alone, took, strict=True))
        lengths = [seconds[reference(plan).name] for plan in plans]
        outcomes = each(torment, plans, repeat(folder), repeat(data_root), lengths)
        for plan, outcome in zip(plans, outcomes, strict=True):
            counts += outcome.counts
            stuck |= outcome.stuck
            mismatches |= outcome.mismatches
            found = "STUCK" if outcome.stuck else outcome.mismatches.get(str(plan), "identical")
            say(f"{plan}: {found}")
    return Outcome(counts, stuck, mismatches)


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[None]:
    """A server for the runs of the campaign in the folder, which has its address in a file."""
    (folder / "mlflow").mkdir()
    server = MLflowServer(folder / "mlflow")
    (folder / ADDRESS).write_text(server.address)
    server.start()
    try:
        yield
    finally:
        server.kill()


def report(outcome: Outcome, count: int) -> str:
    lines = [
        f"{' '.join(str(part) for part in what if part != ''):60}{number:5}"
        for what, number in sorted(outcome.counts.items(), key=str)
    ]
    lines += [f"STUCK {plan}: {output}" for plan, output in outcome.stuck.items()]
    lines += [f"DIFFERENT {plan}: {', '.join(found)}" for plan, found in outcome.mismatches.items()]
    identical = count - len(outcome.stuck) - len(outcome.mismatches)
    kills = sum(number for (what, *_), number in outcome.counts.items() if what == "kills")
    lines.append(f"{kills} kills, {len(outcome.stuck)} of {count} runs stuck")
    return "\n".join([*lines, f"{identical} of {count} runs bit-identical to their reference"])


if __name__ == "__main__":
    early = "early" in sys.argv
    numbers = [int(text) for text in sys.argv[1:] if text != "early"]
    count, seed = numbers + [50, 0][len(numbers) :]
    with tempfile.TemporaryDirectory() as folder:
        outcome = campaign(
            count, seed, Path(folder), ROOT / "data", early, 2, functools.partial(print, flush=True)
        )
    print(report(outcome, count))
    sys.exit(1 if outcome.stuck or outcome.mismatches else 0)
