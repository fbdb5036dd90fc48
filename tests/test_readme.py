"""What README and the manual say works: every command, made small, and the files that they give."""

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from src.cli.arguments import as_hydra_takes_them
from src.runs import Run
from src.training.experiment import train
from tests.conftest import ROOT, Command, compose_config, own_parts
from tests.tools.pages import COMMANDS, files

OWN = [text for text in COMMANDS if re.search("svm|stripes|patient", text)]  # need files first
# A sweep that is resumed starts an interpreter; tests/test_sweeps.py runs the same command.
PYTHON = [
    text
    for text in COMMANDS
    if text.startswith("python -m src") and text not in OWN and "src.sweeps resume" not in text
]
# Commands that differ in the names of folders alone are one.
PYTHON = [*{re.sub(r"outputs/\S+", "", text): text for text in reversed(PYTHON)}.values()][::-1]
# What makes a command small, by module; of a sweep, its first seed.
SMALL = {
    "src.train": ["trainer.max_epochs=1", "data.train_size=300", "data.val_size=200", "seed=0"],
    "src.tune": ["trainer.max_epochs=1", "data.train_size=300", "data.val_size=200", "n_trials=2"],
    "src.benchmark": ["classes=[10]", "repeats=1", "epoch.rounds=1", "epoch.epochs=1"],
    "src.resume": ["trainer.max_epochs=8"],
    "src.sweeps": [],
    "src.compare": [],
    "src.evaluate": [],
    "src.predict": [],
    "src.oscillation": [],
    "src.stability": [],
}
# Launchers of further processes: what they launch is tested with the sweeps, and with several
# devices.
LAUNCHERS = ("hydra/launcher", "trainer=ddp")


def small(text: str, data_root: Path) -> list[str]:
    """Module and arguments of the command, made small."""
    _, _, module, *arguments = shlex.split(text)
    keys = {"hydra.run.dir", *(override.partition("=")[0] for override in SMALL[module])}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in keys]
    if module in ("src.train", "src.tune") and "linear" not in text:
        kept.append(f"data.root={data_root}")
    return [module, *kept, *SMALL[module]]


def boot() -> Image.Image:
    picture = Image.new("L", (60, 60), "white")
    picture.paste(40, (20, 10, 35, 50))
    picture.paste(40, (20, 38, 50, 50))
    return picture


@pytest.fixture(scope="module")
def folder(config, data_root: Path, tmp_path_factory) -> Path:
    """A folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "conf", folder / "conf")
    for place in ("", "photos", "photos/more"):
        (folder / place).mkdir(exist_ok=True)
        for name in ("boot.jpg", "boot (1).jpg", "boot.png"):
            boot().save(folder / place / name)
    few = ["data.train_size=300", "data.val_size=200"]
    runs = folder / "outputs/runs"
    train(config(*few, "trainer.max_epochs=1", "~callbacks.figures"), runs / "NAME")
    movement = "+callbacks.loss_movement._target_=src.training.loss_movement.LossMovement"
    sweep = [
        "-m",
        "seed=0,1",
        "trainer.max_epochs=6",
        movement,
        "hydra.sweep.dir=outputs/sweeps/NAME",
    ]
    command = Command(
        "src.train", [*sweep, *few, f"data.root={data_root}"], folder, folder / "made.txt"
    )
    assert command.wait() == 0, command.output()
    named = set(re.findall(r"outputs/(?:runs|sweeps/NAME)/\w+", " ".join(PYTHON)))
    for other in named - {"outputs/runs/NAME"}:
        shutil.copytree(runs / "NAME", folder / other)
    return folder


def kind(text: str) -> tuple[str, bool]:
    """What is run once of several commands: the module, and whether it is a sweep."""
    return text.split()[2], " -m " in text.removeprefix("python -m") or "sweep=" in text


# The first command of each kind, and those whose arguments are no settings that Hydra composes.
ALONE = [text for text in PYTHON if not any(mark in text for mark in LAUNCHERS)]
RUN = [
    text for k, text in enumerate(ALONE) if kind(text) not in [kind(other) for other in ALONE[:k]]
]
RUN += [
    text
    for text in PYTHON
    if text not in RUN and re.search(r"src\.(sweeps|compare|predict)|--help", text)
]


@pytest.mark.parametrize("text", [text for text in PYTHON if text not in RUN])
def test_command_composes(text):
    _, _, module, *arguments = shlex.split(text)
    if "-m" in arguments:  # of a sweep, the first job
        arguments = [re.sub(r",.*", "", each) for each in arguments if each != "-m"]
    if module == "src.resume":  # with the recorded config of src.train
        module, (_, *arguments) = "src.train", arguments
    compose_config(module.removeprefix("src."), *as_hydra_takes_them(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("text", RUN)
def test_command_works(text, folder, data_root):
    module, *arguments = small(text, data_root)
    command = Command(module, arguments, folder, folder / "output.txt")
    assert command.wait() == 0, command.output()
    assert command.output().strip()


@pytest.mark.parametrize(
    "text", [text for text in COMMANDS if not text.startswith("python -m src")]
)
def test_other_command_is_right(text):
    program, *arguments = shlex.split(text)
    if text.startswith("python -m tests."):  # tests/test_resume.py makes a small campaign
        assert importlib.util.find_spec(arguments[1])
        return
    makefile = (ROOT / "Makefile").read_text()
    if program in ("make", "sdiff"):
        trial = ["-n"] if program == "make" else []
        done = subprocess.run([program, *trial, *arguments], cwd=ROOT, capture_output=True)
        assert done.returncode == (program == "sdiff")  # which says that the files differ
        assert program == "sdiff" or re.search(rf"^{arguments[0]}: .*## ", makefile, re.MULTILINE)
        return
    # what it does is tested by whoever runs these tests
    for name, value in {
        "$(PYTHON)": "python3",
        "$(VENV)": ".venv",
        " --quiet": "",
        "$@": "",
    }.items():
        makefile = makefile.replace(name, value)
    assert f"\t{text}" in makefile


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "data", "experiment"])
def test_own_parts_take_three_steps(kind, data_root, cli, tmp_path):
    added = {
        path: text
        for path, text in files("docs/extending.md").items()
        if f"/{kind}" in path or f"conf/{kind}" in path
    }
    assert 1 <= len(added) <= 2
    assert not any((ROOT / path).exists() for path in added)
    parts = {"data": False, "before": own_parts(tmp_path / "own", added)}
    (command,) = (text for text in OWN if "src.train" in text and f"{kind}=" in text)
    few = ["trainer.max_epochs=3", "~callbacks.figures"]
    few += [] if kind == "data" else [f"data.root={data_root}", "data.train_size=5000"]
    _, _, module, *arguments = shlex.split(command)
    status, output = cli(
        module, "--config-dir=own/conf", *arguments, *few, "hydra.run.dir=run", **parts
    )
    assert status == 0, output
    record = Run(tmp_path / "run").results()
    assert record["status"] == "finished"
    assert record["test/acc"] > 0.6
    status, output = cli("src.evaluate", "run=run", **parts)
    assert status == 0, output
    assert f"{record['test/acc']:.4g}" in output
