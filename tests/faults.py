"""Kill runs at random moments, resume them, and compare them to the bit: python -m tests.faults [N] [SEED]

Each fault is a real signal to a real process. Half of the runs save within epochs; a third of the kills wait
until a checkpoint is being written. The resumed process is a target too: it is killed again every other time.
"""

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.runs import Run
from tests.conftest import ROOT, Command

SIGNALS = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT]
# Small enough to take a second or two, with much of the time in validation.
IMAGES = ["data.train_size=2000", "data.val_size=20000", "trainer.max_epochs=4"]
SYNTHETIC = ["data=synthetic", "data.train_size=300", "data.val_size=20000", "trainer.max_epochs=4"]
RUNS = {
    "scratch": ["model=scratch", *IMAGES],
    "concise": ["model=concise", *IMAGES],
    "linear_scratch": ["model=linear_scratch", *SYNTHETIC, "data.resample=true"],
    "linear_concise": ["model=linear_concise", *SYNTHETIC],
}
OTHERS = ["~callbacks.figures"]


def flat(value: object, name: str = "") -> dict[str, object]:
    """The leaves of nested dicts and lists by their path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {name: value}
    return {path: leaf for key, part in items for path, leaf in flat(part, f"{name}/{key}").items()}


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: curve -> [(step, value)]."""
    events = EventAccumulator(str(run.tensorboard)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def differences(run: Run, reference: Run) -> list[str]:
    """In what the run differs from the reference: weights, optimizers, metrics, curves."""
    found = []
    for name in ("best", "last"):
        mine, other = (run.load(getattr(each, name)) for each in (run, reference))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            a, b = flat({part: mine[part]}), flat({part: other[part]})
            same = {
                k: torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else a[k] == b[k]
                for k in a.keys() & b.keys()
            }
            found += [
                f"{name}{key}" for key in (a.keys() ^ b.keys()) | {k for k, equal in same.items() if not equal}
            ]
    if run.metrics_csv.read_text() != reference.metrics_csv.read_text():
        found.append("metrics.csv")
    mine, other = ({k: v for k, v in each.record().items() if "/" in k} for each in (run, reference))
    if mine != other or run.record()["status"] != "finished":
        found.append("metrics.json")
    if curves(run) != curves(reference):
        found.append("tensorboard")
    return found


class Outcome(NamedTuple):
    kills: Counter
    resumes: int
    mismatches: dict[str, list[str]]


def campaign(count: int, seed: int, folder: Path, data_root: Path, say=lambda line: None) -> Outcome:
    """Kill `count` runs under `folder`, finish them by src.resume, and compare each with one left alone."""
    draw = random.Random(seed)
    place = f"data.root={data_root}"

    def start(module: str, *arguments: str) -> Command:
        return Command(module, arguments, folder, folder / "output.txt")

    seconds = {}
    for name, arguments in RUNS.items():
        started = time.monotonic()
        root = [place] if name in ("scratch", "concise") else []
        command = start("src.train", *arguments, *OTHERS, *root, f"hydra.run.dir={folder / name}")
        status = command.wait()
        assert status == 0, command.output()
        seconds[name] = time.monotonic() - started

    kills, resumes, mismatches = Counter(), 0, {}
    for i in range(count):
        name = draw.choice(list(RUNS))
        run = Run(folder / f"{i}_{name}")
        root = [place] if name in ("scratch", "concise") else []
        within = [f"callbacks.last.every_n_train_steps={draw.choice([1, 3])}"] if draw.random() < 0.5 else []
        first = ["src.train", *RUNS[name], *OTHERS, *root, *within, f"hydra.run.dir={run.path}"]
        command, told = start(*first), []
        most = draw.choice([1, 2])  # kills of this run
        while True:
            if len(told) < most:
                signum = draw.choice(SIGNALS)
                moment = draw.uniform(0, seconds[name])
                written = draw.random() < 1 / 3
                if wait_for(command, moment, run if written else None):
                    command.kill(signum)
                    told.append(f"{signum.name} after {moment:.2f} s{' in a checkpoint' * written}")
                    kills[signum.name] += 1
            status = command.wait()
            if status == 0:
                break
            assert status in (-signal.SIGKILL, -signal.SIGTERM, 143, 130, 1), command.output()
            if run.config.exists():
                resumes += 1
                command = start("src.resume", f"run={run.path}")
            else:  # killed before there was a run
                command = start(*first)
        found = differences(run, Run(folder / name))
        if found:
            mismatches[f"{i} {name}: {', '.join(told)}"] = found
        say(f"{i + 1}/{count} {name:15} {', '.join(told) or 'was faster'}: {found or 'identical'}")
    return Outcome(kills, resumes, mismatches)


def wait_for(command: Command, moment: float, run: Run | None) -> bool:
    """Wait for the moment, then, given a run, until it is writing a checkpoint. False if the command ended."""
    end = time.monotonic() + moment
    while time.monotonic() < end and command.alive():
        time.sleep(0.001)
    parts = [path.with_name(f"{path.name}.part") for path in (run.best, run.last)] if run else []
    while parts and command.alive() and not any(part.exists() for part in parts):
        pass
    return command.alive()


if __name__ == "__main__":
    count, seed = (int(text) for text in (sys.argv[1:] + ["50", "0"][len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        outcome = campaign(count, seed, Path(folder), ROOT / "data", print)
    kills = ", ".join(f"{number} {name}" for name, number in sorted(outcome.kills.items()))
    print(f"{sum(outcome.kills.values())} kills ({kills}), {outcome.resumes} resumes")
    print(f"{count - len(outcome.mismatches)} of {count} runs bit-identical to their reference")
    for told, found in outcome.mismatches.items():
        print(f"  {told}: {', '.join(found)}")
    sys.exit(1 if outcome.mismatches else 0)
