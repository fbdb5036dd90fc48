"""What the README says works: every command, made small; the files for one's own model, data, experiment."""

import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from src.runs import Run
from tests.conftest import LIMIT, ROOT, Command

PAGES = ["README.md", "README.zh-CN.md"]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """Its commands, without comments, each on one line."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in lines]


def files(page: str) -> dict[str, str]:
    """The files it gives, by the path in their first line."""
    given = [
        block for language in ("python", "yaml") for block in blocks(page, language) if block.startswith("# ")
    ]
    return {block.split("\n", 1)[0][2:]: block.split("\n", 1)[1] for block in given}


OWN = [text for text in commands("README.md") if re.search("svm|stripes|patient", text)]  # need files first
PYTHON = [text for text in commands("README.md") if text.startswith("python -m src") and text not in OWN]
# What makes a command small, by module; of a sweep, its first seed.
SMALL = {
    "src.train": ["trainer.max_epochs=1", "data.train_size=300", "data.val_size=200", "seed=0"],
    "src.tune": ["trainer.max_epochs=1", "data.train_size=300", "data.val_size=200", "n_trials=2"],
    "src.benchmark": ["classes=[10]", "repeats=1"],
    "src.resume": ["trainer.max_epochs=8"],
    "src.sweeps": [],
    "src.compare": [],
    "src.evaluate": [],
    "src.predict": [],
    "src.oscillation": [],
    "src.stability": [],
}
OF_PROCESSES = ("hydra/launcher", "trainer=ddp")  # these start some that outlive a forked one


def small(text: str, data_root: Path) -> list[str]:
    """Module and arguments of the command, made small."""
    _, _, module, *arguments = shlex.split(text)
    keys = {override.partition("=")[0] for override in SMALL[module]}
    kept = [argument for argument in arguments if argument.partition("=")[0] not in keys]
    if module in ("src.train", "src.tune") and "linear" not in text:
        kept.append(f"data.root={data_root}")
    if "submitit_slurm" in text:  # composed: there is no cluster
        return [module, "--cfg", "hydra", *(argument for argument in kept if argument.startswith("hydra"))]
    return [module, *kept, *SMALL[module]]


def boot() -> Image.Image:
    picture = Image.new("L", (60, 60), "white")
    picture.paste(40, (20, 10, 35, 50))
    picture.paste(40, (20, 38, 50, 50))
    return picture


@pytest.fixture(scope="module")
def folder(data_root: Path, tmp_path_factory) -> Path:
    """A folder with all that the commands name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "conf", folder / "conf")
    for place in ("", "photos", "photos/more"):
        (folder / place).mkdir(exist_ok=True)
        for name in ("boot.jpg", "boot (1).jpg", "boot.png"):
            boot().save(folder / place / name)
    (folder / "data").symlink_to(data_root)
    few = [f"data.root={data_root}", "data.train_size=300", "data.val_size=200"]
    runs = [[f"hydra.run.dir=outputs/runs/{name}", "trainer.max_epochs=1"] for name in ("NAME", "ONE", "OTHER")]
    swing = "+callbacks.swing._target_=src.oscillation.Swing"
    sweep = ["-m", "seed=0,1", "trainer.max_epochs=6", swing, "hydra.sweep.dir=outputs/sweeps/NAME"]
    for number, arguments in enumerate([*runs, sweep]):
        command = Command("src.train", [*arguments, *few], folder, folder / f"made{number}.txt")
        assert command.wait() == 0, command.output()
    return folder


def kind(text: str) -> tuple[str, bool, str]:
    """What is run once of several commands: the module, whether it is a sweep, how its processes start."""
    sweeps = " -m " in text.removeprefix("python -m") or "sweep=" in text
    return text.split()[2], sweeps, next((mark for mark in OF_PROCESSES if mark in text), "")


# The first command of each kind, and those whose arguments are no settings that Hydra composes.
RUN = [text for k, text in enumerate(PYTHON) if kind(text) not in [kind(other) for other in PYTHON[:k]]]
RUN += [text for text in PYTHON if text not in RUN and re.search(r"src\.(sweeps|compare|predict)", text)]


@pytest.mark.slow
@pytest.mark.parametrize("text", [text for text in PYTHON if text not in RUN])
def test_command_composes(text, folder, data_root):
    module, *arguments = small(text, data_root)
    if "-m" in arguments:  # of a sweep, the first job
        arguments = [re.sub(r",.*", "", argument) for argument in arguments if argument != "-m"]
    command = Command(module, [*arguments, "--cfg", "job"], folder, folder / "output.txt")
    assert command.wait() == 0, command.output()


@pytest.mark.slow
@pytest.mark.parametrize("text", RUN)
def test_command_works(text, folder, data_root):
    module, *arguments = small(text, data_root)
    if any(mark in text for mark in OF_PROCESSES):
        places = [f"hydra.run.dir={folder}/run", f"hydra.sweep.dir={folder}/sweep"]
        command = Command(module, [*arguments, *places], ROOT, folder / "output.txt", fresh=True)
        assert command.wait() == 0, command.output()
        return
    command = Command(module, arguments, folder, folder / "output.txt")
    assert command.wait() == 0, command.output()
    assert command.output().strip()


@pytest.mark.parametrize("text", [text for text in commands("README.md") if not text.startswith("python -m")])
def test_other_command_is_right(text):
    program, *arguments = shlex.split(text)
    if program in ("make", "sdiff"):
        trial = ["-n"] if program == "make" else []
        done = subprocess.run([program, *trial, *arguments], cwd=ROOT, capture_output=True)
        assert done.returncode == (program == "sdiff")  # which says that the files differ
        return
    makefile = (ROOT / "Makefile").read_text()  # what it does is tested by whoever runs these tests
    for name, value in {"$(PYTHON)": "python3", "$(VENV)": ".venv", " --quiet": "", "$@": ""}.items():
        makefile = makefile.replace(name, value)
    assert f"\t{text}" in makefile


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "data", "experiment"])
def test_own_parts_take_three_steps(kind, data_root, tmp_path):
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "data").symlink_to(data_root)
    added = {
        path: text for path, text in files("README.md").items() if f"/{kind}" in path or f"conf/{kind}" in path
    }
    assert 1 <= len(added) <= 2
    for path, text in added.items():
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(text)
    (command,) = (text for text in OWN if "src.train" in text and f"{kind}=" in text)
    few = ["trainer.max_epochs=3", "hydra.run.dir=run"]
    few += [] if kind == "data" else [f"data.root={data_root}", "data.train_size=5000"]
    arguments = [*shlex.split(command)[1:], *few]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = Run(tmp_path / "run").record()
    assert record["status"] == "finished"
    assert record["test/acc"] > 0.6
    evaluate = [sys.executable, "-m", "src.evaluate", "run=run"]
    done = subprocess.run(evaluate, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{record['test/acc']:.4g}" in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_the_code_it_quotes_is_that_of_the_source(page):
    quoted = blocks(page, "py")
    assert len(quoted) == 2
    for block, form in zip(quoted, ("scratch", "concise"), strict=True):
        assert textwrap.indent(block, "    ") in (ROOT / f"src/models/{form}.py").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_pictures_and_files_that_a_page_names_are_there(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", text)
    assert links
    named = re.findall(r"`((?:src|conf|tests)/[\w./]+)`", text)
    for path in [*links, *named]:
        assert (ROOT / path).exists(), path


def test_both_pages_have_the_same_commands_files_pictures_and_tables():
    first, second = PAGES
    assert commands(second) == commands(first)
    assert files(second) == files(first)
    assert len(commands(first)) > 40
    tables = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
        figures = [re.findall(r"\d+\.\d+", line) for line in text.splitlines() if line.startswith("| ")]
        tables.append((pictures, figures, text.count("\n## ")))
    assert tables[0] == tables[1]
