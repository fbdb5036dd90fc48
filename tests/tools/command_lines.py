"""Mutated command lines of every command: each is right, or refused in one line.

    python -m tests.tools.command_lines [COUNT] [SEED]

A command line that works is drawn, and one to three of its words are changed as people change them: another
value, a key misspelt or doubled, quotes and brackets, a flag, a path that is not there. It passes if it ends
with status 0, or with status 1 and one line that says why; never with a traceback, never by a time limit.
"""

import multiprocessing
import random
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT, Command, TooLong

LIMIT = 120  # seconds of a command
SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=60", "data.val_size=20"]
SMALL += ["trainer.max_epochs=2", "~callbacks.figures"]
IMAGES = ["data.train_size=300", "data.val_size=200", "trainer.max_epochs=1", "~callbacks.figures"]
LINES = [
    ["src.train", *SMALL, "seed=1"],
    ["src.train", *IMAGES, "model=scratch", "model.numerics=textbook", "model.lr=0.1"],
    ["src.train", *IMAGES, "model=grid", "model.lr=[0.1,0.2]", "model.gamma=0.9"],
    ["src.train", *IMAGES, "model=concise", "data.batch_size=32", "data.resize=14"],
    ["src.train", "experiment=linear_huber", *SMALL[2:], "data.noise=0.5", "hydra.run.dir=runs/x"],
    ["src.train", "-m", *SMALL, "model.lr=0.01,0.02", "seed=0,1"],
    ["src.train", "-m", *SMALL, "hydra/launcher=joblib", "seed=range(2)"],
    ["src.train", "--cfg", "job", "debug=fast"],
    ["src.resume", "run=run", "trainer.max_epochs=3"],
    ["src.evaluate", "run=run", "checkpoint=last"],
    ["src.predict", "run=images", "inputs=photos", "first=2"],
    ["src.predict", "run=images", "decision.costs=costs.csv"],
    ["src.compare", "run", "other"],
    ["src.sweeps", "sweep"],
    ["src.oscillation", "sweep"],
    ["src.stability"],
    ["src.tune", *SMALL, "n_trials=2", "folder=study", "space.model.lr='interval(0.01, 0.03)'"],
    ["src.benchmark", "suite=classes", "classes=[10]", "repeats=1", "num_examples=4"],
    ["src.reproduce", "experiments=[linear_scratch]", 'overrides=["trainer.max_epochs=1"]'],
]
VALUES = [
    "abc",
    "-1",
    "0",
    "1.5",
    "null",
    "true",
    "nan",
    "inf",
    "[]",
    "[1]",
    "{a: 1}",
    "1e308",
    "''",
]
VALUES += [
    "10",
    "'3'",
    "a b",
    "a=b",
    "${seed}",
    "${nowhere}",
    "${oc.env:HOME}",
    "1,2",
    "../up",
    "~/x",
]
VALUES += [
    "実験",
    "\N{SNOWMAN}",
    "\x1b[2J",
    "[1,",
    "'",
    '"',
    "\\",
    "a\nb",
    "x" * 3000,
    "range(1,3)",
]
VALUES += [
    "interval(0,1)",
    "glob(*)",
    "int(3)",
    "0x10",
    "1_000",
    "+1",
    "???",
    "=",
    "$HOME",
    "*",
    "-",
]
WORDS = [
    "--help",
    "--hydra-help",
    "-m",
    "--cfg",
    "--info",
    "--verbose",
    "-x",
    "--",
    "seed",
    "=",
    "lr=1",
]
WORDS += ["+seed=1", "++model.lr=0.2", "+model.lr=0.2", "~seed", "~model", "~callbacks", "+a.b.c=1"]
WORDS += [
    "model.lrr=1",
    "modle=scratch",
    "hydra.job.chdir=true",
    "hydra/launcher=nope",
    "+trainer=gpu",
]
WORDS += [
    "hydra.verbose=true",
    "hydra.run.dir=.",
    "hydra.run.dir=/",
    "hydra.sweep.dir=run",
    "data=nope",
]
WORDS += [
    "trainer.devices=2",
    "trainer.accelerator=gpu",
    "callbacks.last=3",
    "logger=null",
    "seed=0,1",
]
WORDS += [
    "experiment=best,overfit",
    "sweep=lr",
    "debug=overfit",
    "hydra.output_subdir=x",
    "nowhere",
]


class Failure(NamedTuple):
    number: int
    line: str
    why: str
    output: str


def mutate(chance: random.Random, line: list[str]) -> list[str]:
    """The command line with one to three changes."""
    module, *words = line
    for _ in range(chance.choice([1, 1, 2, 3])):
        change = chance.choice(["value", "value", "value", "key", "word", "word", "drop", "double"])
        at = chance.randrange(len(words) + 1)
        keyed = [k for k, word in enumerate(words) if "=" in word]
        if change == "value" and keyed:
            k = chance.choice(keyed)
            words[k] = f"{words[k].partition('=')[0]}={chance.choice(VALUES)}"
        elif change == "key" and keyed:
            k = chance.choice(keyed)
            key, _, value = words[k].partition("=")
            cut = chance.randrange(len(key) + 1)
            words[k] = (
                f"{key[:cut]}{chance.choice(['', 'x', '.', '/', '@'])}{key[cut + 1 :]}={value}"
            )
        elif change == "drop" and words:
            words.pop(chance.randrange(len(words)))
        elif change == "double" and words:
            words.insert(at, chance.choice(words))
        else:
            words.insert(at, chance.choice(WORDS))
    return [module, *(word for word in words if "\0" not in word)]


def prepare(folder: Path, data_root: Path) -> None:
    """What the command lines name: runs, a sweep, pictures, costs."""
    from PIL import Image

    images = [*IMAGES, f"data.root={data_root}"]
    sweep = ["-m", *SMALL, "trainer.max_epochs=6", "seed=0,1", "hydra.sweep.dir=sweep"]
    movement = "+callbacks.loss_movement._target_=src.training.loss_movement.LossMovement"
    for arguments in (
        [*SMALL, "hydra.run.dir=run"],
        [*SMALL, "hydra.run.dir=other", "model.lr=0.02"],
        [*images, "hydra.run.dir=images"],
        [*sweep, movement],
    ):
        command = Command("src.train", arguments, folder, folder / "made.txt")
        assert command.wait() == 0, command.output()
        command.end()
    (folder / "photos").mkdir()
    for name in ("a.png", "b.jpg"):
        picture = Image.new("L", (60, 60), "white")
        picture.paste(40, (20, 10, 40, 50))
        picture.save(folder / "photos" / name)
    (folder / "costs.csv").write_text((ROOT / "conf/costs/missed_shirt.csv").read_text())


def judge(status: int, output: str, arguments: list[str]) -> str:
    """Why this is no right end of a command; nothing if it is."""
    if "Traceback" in output:
        return "a traceback"
    if status == 0:
        return ""
    if status != 1:
        return f"status {status}"
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    if len(errors) != 1:
        return f"{len(errors)} lines that begin with error:"
    if any(not (character.isprintable() or character in "\n\t") for character in output):
        return "something that steers a terminal"
    return ""


def attempt(number: int, line: list[str], folder: Path, data_root: Path) -> Failure | None:
    """Run the command line in a copy of the folder."""
    module, *arguments = line
    on_images = module in ("src.train", "src.predict") and "synthetic" not in str(line)
    if on_images and "data.root" not in str(line):
        arguments.append(f"data.root={data_root}")
    several = "trainer.devices" in str(line)  # Lightning starts the others by the command line
    output_file = folder.parent / f"output{number}.txt"
    command = Command(module, arguments, folder, output_file, fresh=several)
    try:
        status, output = command.wait(LIMIT), command.output()
        why = judge(status, output, arguments)
    except TooLong as error:
        why, output = "too long", str(error)
    finally:
        command.end()
    return Failure(number, shlex.join(line), why, output) if why else None


def campaign(
    count: int,
    seed: int,
    folder: Path,
    data_root: Path,
    say: Callable[[str], None] = lambda line: None,
) -> list[Failure]:
    """Run `count` command lines, all in one folder, where the runs of the earlier ones are in their way."""
    here = folder / "here"
    here.mkdir()
    prepare(here, data_root)
    failures, kinds = [], Counter()
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        line = mutate(chance, list(chance.choice(LINES)))
        kinds[line[0]] += 1
        if failure := attempt(number, line, here, data_root):
            failures.append(failure)
            say(f"{number}: {failure.why}: {failure.line}\n{failure.output[-3000:]}\n")
    say(f"{count - len(failures)} of {count} right or one line; {dict(kinds)}")
    return failures


if __name__ == "__main__":
    count, seed = [int(text) for text in sys.argv[1:]] + [300, 0][len(sys.argv) - 1 :]
    multiprocessing.current_process().name = "campaign"
    with tempfile.TemporaryDirectory() as scratch:
        failed = campaign(
            count, seed, Path(scratch), ROOT / "data", lambda line: print(line, flush=True)
        )
    sys.exit(bool(failed))
