"""How fast ours is beside the plain loops of src.peers: what `python -m src.benchmark` measures and expects.

Contestants take turns, round after round, so that whatever else the machine does meets all of them; each
ratio is taken within a round, and its median over the rounds is held against the target.
"""

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import lightning as L
import rich
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from src import peers
from src.data import fashion_mnist
from src.errors import UserError
from src.runs import Run
from src.training.experiment import assemble, plain

ROOT = Path(__file__).parent.parent


class Series(NamedTuple):
    """What was measured of one contestant: a value for each round, in `unit`."""

    unit: str
    values: list[float]


Measured = dict[str, Series]


class Target(NamedTuple):
    """Bounds on `of`, as a multiple of `base` ("/"), as what it is beyond that ("-"), or by itself ("")."""

    of: str
    relation: str
    base: str
    low: float = -math.inf
    high: float = math.inf

    def judge(self, measured: Measured) -> dict[str, str | float | bool]:
        """A row of the table: median over the rounds, lowest and highest, the bounds, whether they are kept."""
        values = measured[self.of].values
        if self.relation:
            pairs = zip(values, measured[self.base].values, strict=True)
            values = [a / b if self.relation == "/" else a - b for a, b in pairs]
        median = statistics.median(values)
        return {
            "figure": f"{self.of} {self.relation} {self.base}".strip(),
            "unit": "" if self.relation == "/" else measured[self.of].unit,
            "median": median,
            "lowest": min(values),
            "highest": max(values),
            "target": " and ".join(
                f"{words} {bound:g}"
                for words, bound in {"at least": self.low, "at most": self.high}.items()
                if math.isfinite(bound)
            ),
            "met": self.low <= median <= self.high,
        }


# On two CPU cores, with the default callbacks, loggers and progress bar, validation included.
TARGETS = {
    "epoch": [
        # of scratch, 1.1 times the bare loop is arithmetic, 0.2 validation and files, 0.7 Lightning's own loop
        Target("scratch", "/", "bare", high=2.2),
        Target("closed_form", "/", "bare", high=2.0),
        Target("textbook", "/", "scratch", low=9),
        Target("concise", "/", "scratch", low=0.9, high=1.1),
    ],
    "command": [
        Target("train", "/", "textbook script", high=0.25),
        Target("first step", "/", "imports", high=1.3),
        Target("train, peak", "-", "imports, peak", high=250),
    ],
    "sweep": [
        Target("one process", "/", "separate commands", high=1),
        Target("resize=64", "", "", high=10),
        Target("resize=64 again", "/", "resize=64", high=0.1),
    ],
}


# --- an epoch, in this process ----------------------------------------------------------------------------

FORMS = {
    "scratch": ["model=scratch"],
    "closed_form": ["model=closed_form"],
    "concise": ["model=concise"],
}


class Clock(L.Callback):
    """Notes when each epoch starts, and when the last one has ended, checkpoints and all."""

    def __init__(self):
        self.times: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.times.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        self.times.append(time.perf_counter())


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """What is printed meanwhile goes to a terminal that nobody sees: the progress bar is drawn all the same."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        rich.reconfigure(file=nowhere, force_terminal=True)
        try:
            yield
        finally:
            rich.reconfigure()


def ours(overrides: Sequence[str], root: Path, epochs: int, folder: Path) -> list[float]:
    """Seconds of each epoch of a run as src.train makes it, in a new folder within `folder`."""
    run = tempfile.mkdtemp(dir=folder)
    clock = "+callbacks.clock._target_=src.speed.Clock"
    settings = [f"data.root='{root}'", f"trainer.max_epochs={epochs}", clock]
    GlobalHydra.instance().clear()  # that of the command we are in, which has its config
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides=[*overrides, *settings])
    trainer, model, data = assemble(plain(cfg), Run(run))
    trainer.fit(model, data)
    (clock,) = (callback for callback in trainer.callbacks if isinstance(callback, Clock))
    return [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]


def epoch(root: Path, folder: Path, rounds: int, epochs: int) -> Measured:
    """Seconds of an epoch: the median of `epochs` in each round, after one to warm up.

    Ours and the textbook loop validate after each epoch; the bare loop does nothing but train. The plain loops
    use all cores, ours the threads of its config. If there is a GPU, ours and the bare loop run there too.
    """
    contestants: dict[str, Callable[[int], list[float]]] = {
        "textbook": lambda count: [done.seconds for done in peers.textbook(str(root), count)],
        "bare": lambda count: [done.seconds for done in peers.bare(str(root), count)],
        **{name: lambda count, form=form: ours(form, root, count, folder) for name, form in FORMS.items()},
    }
    if torch.cuda.is_available():
        contestants["bare, GPU"] = lambda count: [done.seconds for done in peers.bare(str(root), count, "cuda")]
        for name, form in FORMS.items():
            on_gpu = [*form, "trainer=gpu"]
            contestants[f"{name}, GPU"] = lambda count, form=on_gpu: ours(form, root, count, folder)
    measured = {name: Series("s", []) for name in contestants}
    threads = torch.get_num_threads()
    for _ in range(rounds):
        for name, contestant in contestants.items():
            torch.set_num_threads(threads)  # ours takes as many as its config says
            with terminal():
                seconds = contestant(1 + epochs)
            measured[name].values.append(statistics.median(seconds[1:]))
    return measured


# --- a command, in a process of its own -------------------------------------------------------------------

IMPORTS = "import torch, torchvision, lightning, hydra"
# A process is charged the memory of the one that starts it until it runs its own program: ours are started
# by this small one.
LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - started
print(json.dumps([status, seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]))
"""


class FirstStep(L.Callback):
    """Ends the process, with status 0, as soon as the first minibatch is done."""

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx) -> None:
        os._exit(0)


def command(*arguments: str) -> tuple[float, float]:
    """(seconds, peak memory in MB) of `python arguments`, which believes that it has a terminal.

    Raises UserError if the command fails.
    """
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FORCE_COLOR": "1",  # rich then takes the output for a terminal
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    launched = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, *arguments]
    done = subprocess.run(launched, env=env, capture_output=True, text=True, check=True)
    status, seconds, peak = json.loads(done.stdout)
    if status != 0:
        raise UserError(f"python {' '.join(arguments)} ended with status {status}: {done.stderr.strip()}")
    return seconds, peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def train(root: Path, run: Path, epochs: int, *overrides: str) -> tuple[float, float]:
    settings = [f"data.root='{root}'", f"hydra.run.dir='{run}'", f"trainer.max_epochs={epochs}"]
    return command("-m", "src.train", *settings, *overrides)


def commands(root: Path, folder: Path, rounds: int, epochs: int) -> Measured:
    """Whole commands: a run of `epochs` beside the textbook loop as a script, and its start-up and peak
    memory beside the bare imports of what it needs.
    """
    measured = {name: Series("s", []) for name in ("textbook script", "train", "first step", "imports")}
    measured |= {f"{name}, peak": Series("MB", []) for name in ("train", "imports")}
    for k in range(rounds):
        seconds, peak = {}, {}
        first_step = "+callbacks.first_step._target_=src.speed.FirstStep"
        # up to the same moment in both: the end of an interpreter takes time, and 120 MB
        seconds["imports"], _ = command("-c", f"{IMPORTS}, os; os._exit(0)")
        _, peak["imports"] = command("-c", IMPORTS)
        seconds["first step"], _ = train(root, folder / f"start{k}", epochs, "model=scratch", first_step)
        seconds["train"], peak["train"] = train(root, folder / f"train{k}", epochs, "model=scratch")
        seconds["textbook script"], _ = command("-m", "src.peers", str(root), str(epochs))
        for name, value in {**seconds, **{f"{name}, peak": value for name, value in peak.items()}}.items():
            measured[name].values.append(value)
    return measured


# --- a sweep ----------------------------------------------------------------------------------------------


def sweep(root: Path, folder: Path, rounds: int, jobs: int, epochs: int) -> Measured:
    """A sweep over `jobs` seeds in one process beside the same runs as separate commands, in seconds; and the
    preparation of images of 64 x 64 pixels by the first job of a process and by those after it.
    """
    names = ("one process", "separate commands", "resize=64", "resize=64 again")
    measured = {name: Series("s", []) for name in names}
    for k in range(rounds):
        seeds = ",".join(str(seed) for seed in range(jobs))
        settings = [
            f"data.root='{root}'",
            f"trainer.max_epochs={epochs}",
            f"hydra.sweep.dir='{folder / str(k)}'",
        ]
        seconds, _ = command("-m", "src.train", "-m", f"seed={seeds}", *settings)
        measured["one process"].values.append(seconds)
        separate = [train(root, folder / f"{k}_{seed}", epochs, f"seed={seed}") for seed in range(jobs)]
        measured["separate commands"].values.append(sum(seconds for seconds, _ in separate))

        fashion_mnist.load.cache_clear()
        for name in ("resize=64", "resize=64 again"):
            started = time.perf_counter()
            fashion_mnist.FashionMNIST(str(root), resize=64).setup()
            measured[name].values.append(time.perf_counter() - started)
    return measured
