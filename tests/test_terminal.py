"""The command line as a user meets it: real processes, their output, exit status and files."""

import contextlib
import functools
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException

from src.cli.exit import run as run_command
from src.cli.explain import USER_ERRORS, explain
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.tables import table
from src.training.experiment import train
from tests.conftest import PYTHON, ROOT

QUICK = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=1"]
ENDLESS = [*QUICK, "trainer.max_epochs=20000", "~callbacks.figures"]


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "outputs/runs").glob("*"))


@pytest.mark.slow
def test_a_run_prints_a_line_per_epoch_and_a_table_and_nothing_else(cli, tmp_path, srun):
    few = ["trainer.max_epochs=2", "data.train_size=2000", "data.val_size=500", "model.gamma=0.5"]
    status, output = cli("src.train", *few, env={"PATH": srun})
    assert status == 0, output
    (run,) = runs(tmp_path)
    shown = run.relative_to(tmp_path)
    lines = output.splitlines()
    assert lines[0].startswith("epoch 1/2  lr 0.1000  train/acc 0.")
    assert lines[1].startswith("epoch 2/2  lr 0.0500  train/acc 0.")
    assert lines[2] == ""
    assert lines[3].split() == ["|", "|", "acc", "|", "loss", "|"]
    assert [line.split()[1] for line in lines[5:8]] == ["train", "val", "test"]
    assert lines[8] == ""
    assert lines[9].startswith("epoch 2 of 2 is the best; ")
    tensorboard = (
        [PYTHON, "-m", "tensorboard.main"] if sys.executable == PYTHON else ["tensorboard"]
    )
    look = shlex.join([*tensorboard, "--logdir", str(shown.parent)])
    assert lines[10:] == ["ended by all epochs", f"written to {shown}/", f"look at it: {look}"]
    (events,) = Run(run).events()
    files = {
        ".hydra",
        "checkpoints",
        events.name,
        "figures",
        "metrics.csv",
        "metrics.json",
        "train.log",
    }
    assert {path.name for path in run.iterdir()} == files
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    pictures = {"confusion", "curves", "predictions_first", "predictions_misclassified", "weights"}
    assert {path.name for path in (run / "figures").iterdir()} == {
        f"{name}.png" for name in pictures
    }
    log = (run / "train.log").read_text()
    assert all(line in log for line in lines)
    assert yaml.safe_load((run / ".hydra/config.yaml").read_text())["model"]["gamma"] == 0.5
    assert "model.gamma=0.5" in yaml.safe_load((run / ".hydra/overrides.yaml").read_text())


BAD = {
    "model=nope": ["Could not find 'model/nope'", "scratch"],
    "model.lrr=1": ["Could not override 'model.lrr'. Did you mean model.lr?"],
    "lr=1": ["Could not override 'lr'. Did you mean model.lr?"],
    "modell=scratch": ["Could not override 'modell'. Did you mean model?"],
    "seed.x=1": ["Could not override 'seed.x'. seed is a value, not a group of settings."],
    "trainer.q=1": ["trainer has max_epochs, max_time, accelerator, "],
    "model=scrach": ["Available options in 'model': closed_form concise "],
    "model.lr=-1": ["model.lr: input should be greater than 0, got -1; try model.lr=0.1"],
    "model.lr=abc": ["model.lr: input should be a valid number", "got 'abc'; try model.lr=0.1"],
    "model.gamma=0": ["model.gamma: input should be greater than 0, got 0; try model.gamma=0.9"],
    "model.numerics=fast": ["model.numerics: input should be 'stable' or 'textbook', got 'fast'"],
    "trainer.max_epochs=abc": ["trainer.max_epochs: input should be a valid integer", "got 'abc'"],
    "trainer.max_epochs=1.5": ["trainer.max_epochs: input should be a valid integer", "got 1.5"],
    "trainer.max_epochs=-3": ["trainer.max_epochs: input should be greater than 0, got -3"],
    "trainer.devices=0": ["trainer.devices: input should be greater than 0, got 0"],
    "callbacks.figures.live=often": [
        "callbacks.figures.live: input should be a valid boolean",
        "got 'often'",
    ],
    "trainer.accelerator=tpv": ["trainer.accelerator: input should be 'cpu', ", "got 'tpv'"],
    "data.batch_size=0": [
        "data.batch_size: input should be greater than 0, got 0; try data.batch_size=256"
    ],
    "data.val_size=60000": ["data.val_size: input should be less than 60000, got 60000"],
    "data.train_size=55001": [
        "data.train_size must be at most 55000 beside data.val_size=5000, got 55001"
    ],
    "model.num_inputs=100": ["Could not override 'model.num_inputs'"],
    "seed=-1": ["seed: input should be greater than or equal to 0, got -1"],
    "trainer.max_epochs=": ["trainer.max_epochs"],
    "run_dir=foo": ["Could not override 'run_dir'"],
    "~trainer": ["trainer must be a group of settings, got None; see conf/trainer"],
}


@pytest.mark.parametrize("argument", ["trainer.max_steps=9", "callbacks.lr._target_=x"])
def test_what_a_group_takes_beside_its_config_is_added_with_a_plus(config, monkeypatch, argument):
    monkeypatch.setattr("sys.argv", ["src.train", argument])
    with pytest.raises(USER_ERRORS) as refused:
        config(argument)
    assert explain(refused.value).endswith(f"To add what is not there: +{argument}")


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_one_clear_line(config, tmp_path, argument):
    with pytest.raises(USER_ERRORS) as refused:
        train(config(argument), tmp_path / "run")
    line = explain(refused.value)
    assert "\n" not in line
    for part in BAD[argument]:
        assert part in line


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["model=nope", "~trainer", "data.train_size=55001"])
def test_bad_input_ends_the_command_with_one_line_and_1(cli, argument):
    # refused by Hydra, before anything is built, and when the data are there
    status, output = cli("src.train", argument, "hydra.run.dir=run")
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    for part in BAD[argument]:
        assert part in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (
            ["model=null"],
            "a group of settings cannot be null: choose one of the files in its folder of conf/",
        ),
        (["-m", "model=null,scratch"], "a group of settings cannot be null: "),
        (["data=synthetic", "data.w.x=1"], "a list has numbers as keys, as in data.w.0"),
        (["data=synthetic", "data.w.x.y=1"], "a list has numbers as keys, as in data.w.0"),
        (
            ["-m", "data=synthetic", "data.w.x=1,2"],
            "a list has numbers as keys, as in data.w.0",
        ),
    ],
    ids=str,
)
def test_an_override_that_hydra_does_not_foresee_is_one_line(cli, tmp_path, arguments, what):
    status, output = cli("src.train", *arguments, data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: a")
    assert what in line
    assert {path.name for path in tmp_path.iterdir()} == {"output0.txt"}


@pytest.mark.slow
def test_an_error_is_one_line_that_reaches_the_log_and_the_record_of_the_run(cli, tmp_path):
    status, output = cli("src.train", "model.lr=-1")
    assert status == 1
    line = "error: model.lr: input should be greater than 0, got -1; try model.lr=0.1"
    assert output.splitlines() == [line]
    (run,) = runs(tmp_path)
    assert line in (run / "train.log").read_text()
    assert Run(run).results()["status"] == "failed"
    assert not (run / "checkpoints").exists()


@pytest.mark.slow
def test_gpu_without_a_gpu_is_refused(cli, config):
    assert config("trainer=gpu").trainer.accelerator == "gpu"
    status, output = cli("src.train", "trainer.accelerator=gpu", env={"CUDA_VISIBLE_DEVICES": ""})
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: trainer.accelerator=gpu trainer.devices=1 cannot be had here")
    assert "; try trainer.accelerator=cpu trainer.devices=1" in line


@pytest.mark.slow
def test_a_signal_ends_the_run_with_its_status_and_the_last_checkpoint(cli, tmp_path):
    ended, output = cli("src.train", *ENDLESS, interrupt=signal.SIGTERM, data=False)
    assert ended == 143
    assert "Traceback" not in output
    (folder,) = runs(tmp_path)
    run = Run(folder)
    assert run.results()["status"] == "interrupted"
    again = f"to go on: {PYTHON} -m src.resume run={folder.relative_to(tmp_path)}"
    assert output.splitlines()[-1] == f"interrupted by SIGTERM; {again}"
    assert load_checkpoint(run.last)["global_step"] >= 2 * 5


@pytest.mark.slow
def test_full_error_shows_the_traceback(cli):
    for argument in ("model.lr=-1", "model=nope"):
        status, output = cli("src.train", argument, env={"HYDRA_FULL_ERROR": "1"})
        assert status == 1
        assert "Traceback (most recent call last)" in output


@pytest.mark.slow
def test_a_damaged_data_file_is_named_and_left_alone(cli, data_root, tmp_path):
    folder = tmp_path / "data/FashionMNIST/raw"
    folder.mkdir(parents=True)
    for path in (data_root / "FashionMNIST/raw").glob("*-ubyte"):
        shutil.copyfile(path, folder / path.name)
    labels = folder / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[5000] ^= 1
    labels.write_bytes(content)
    status, output = cli("src.train", "data.root=data")
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith(f"error: data file {labels} is damaged")
    assert labels.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=20m", "No space left on device"), ("ro", "Read-only file system")],
)
def test_a_full_or_read_only_disk_is_said_in_one_line(cli, data_root, options, reason):
    origin = f"data.system_copies=[{data_root}/FashionMNIST/raw]"
    status, output = cli("src.train", "data.root=disk/data", origin, disk=options)
    assert status == 1
    *fetching, line = output.splitlines()
    assert all(each.startswith("fetching FashionMNIST from system copy") for each in fetching)
    assert line.startswith("error: cannot write ")
    assert "disk/data" in line
    assert reason in line
    assert "data.root=DIR" in line


@pytest.mark.slow
def test_no_data_from_anywhere_lists_the_sources_and_what_to_do(cli):
    nothing = [
        "data.root=empty",
        "data.system_copies=[]",
        "data.mirrors=[]",
        "data.debian_package=null",
    ]
    status, output = cli("src.train", *nothing)
    assert status == 1
    assert output.startswith("error: FashionMNIST cannot be had from any source:\n  - data folder ")
    assert output.count("\n") == 3


@pytest.mark.slow
def test_runs_started_at_the_same_moment_get_folders_of_their_own(cli, tmp_path):
    with ThreadPoolExecutor() as pool:
        finished = list(pool.map(lambda _: cli("src.train", *QUICK, data=False), range(3)))
    assert [status for status, _ in finished] == [0, 0, 0]
    assert len(runs(tmp_path)) == 3
    assert all((run / "checkpoints/last.ckpt").exists() for run in runs(tmp_path))


@pytest.mark.slow
def test_a_run_folder_that_cannot_be_made_is_said(cli, tmp_path):
    (tmp_path / "file").touch()
    status, output = cli("src.train", *QUICK, "hydra.run.dir=file/run", data=False)
    assert status == 1
    assert output.splitlines() == ["error: cannot make the folder file/run: Not a directory"]


@pytest.mark.slow
def test_help_lists_groups_and_keys(cli):
    status, output = cli("src.train", "--help")
    assert status == 0
    for expected in ("data: fashion_mnist, synthetic", "scratch_constant", "max_epochs: 20"):
        assert expected in output


@pytest.mark.slow
def test_cfg_job_shows_the_config_with_references_filled_in(cli):
    status, output = cli("src.train", "--cfg", "job", "--resolve", "data.resize=64")
    assert status == 0
    assert yaml.safe_load(output)["data"]["resize"] == 64
    assert yaml.safe_load(output)["data"]["seed"] == 0


def print_to(terminal: str) -> None:
    for name in ("stdout", "stderr"):
        setattr(sys, name, os.fdopen(os.open(terminal, os.O_WRONLY | os.O_NOCTTY), "w", 1))


@pytest.mark.slow
def test_a_terminal_shows_a_progress_bar_with_time_left(start, tmp_path):
    primary, secondary = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": "120"}
    here = functools.partial(print_to, os.ttyname(secondary))
    command = start(
        "src.train", "trainer.max_epochs=2", "hydra.run.dir=run", env=environment, before=here
    )
    command.until((tmp_path / "run").exists)  # by then it has opened the terminal
    os.close(secondary)
    screen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(primary, 4096):
            screen += chunk
    os.close(primary)
    assert command.wait() == 0
    text = screen.decode()
    assert re.search(
        r"epoch 2/2 [^\n]*\d+/430 ", re.sub(r"\x1b\[[\d;?]*\w", "", text)
    )  # of 2 x 215 minibatches
    assert "0:00:0" in text  # time left
    assert "0.8" in next(line for line in text.splitlines() if line.startswith("| test"))


@pytest.mark.slow
@pytest.mark.parametrize("module", ["src.resume", "src.evaluate", "src.predict", "src.tune"])
def test_commands_that_do_one_thing_refuse_several(cli, module):
    several = "seed=0,1" if module == "src.tune" else "run=a,b"
    status, output = cli(module, "-m", several, data=False)
    assert status == 1
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith(
        ("error: only src.train", "error: src.resume goes on with one run")
    )


@pytest.mark.slow
@pytest.mark.parametrize("module", ["src.resume", "src.evaluate", "src.predict"])
@pytest.mark.parametrize("run", ["run=null", "run=[a]", "run=1", "run="])
def test_a_run_that_is_no_folder_is_one_line(cli, module, run):
    status, output = cli(module, run, data=False)
    assert status == 1
    assert len(output.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "env",
    [
        {"LOCAL_RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_PROCID": "1",
            "SLURM_JOB_NAME": "x",
            "SLURM_LOCALID": "1",
            "SLURM_NODEID": "0",
        },
    ],
    ids=str,
)
def test_a_rank_that_another_program_left_behind_is_refused(cli, tmp_path, env):
    # else this run would believe that another process keeps its record
    status, output = cli("src.train", *QUICK, "hydra.run.dir=run", data=False, env=env)
    assert status == 1
    assert "trainer.devices=1 asks for as many processes, but the environment says" in output
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_fewer_tasks_of_slurm_than_devices_are_refused(cli, tmp_path):
    slurm = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "x", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_NODEID": "0", "SLURM_JOB_ID": "1", "SLURM_NODELIST": "localhost"}
    status, output = cli(
        "src.train", *QUICK, "trainer=ddp", "hydra.run.dir=run", data=False, env=slurm
    )
    assert status == 1
    assert output.splitlines()[-1].startswith(
        "error: trainer.devices=2 asks for as many processes, but the environment"
    )
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.slow
def test_the_command_to_go_on_with_can_be_pasted_whatever_the_folder_is_called(cli, tmp_path):
    name = "it's a=b, (c)"
    here = f'hydra.run.dir="{name}"'
    status, output = cli("src.train", *ENDLESS, here, interrupt=signal.SIGINT, data=False)
    assert status == 130
    shown, _, command = output.splitlines()[-1].partition("; to go on: ")
    assert shown == "interrupted by SIGINT"
    python, flag, module, *arguments = shlex.split(command)
    assert (python, flag, module) == (PYTHON, "-m", "src.resume")
    status, output = cli(module, *arguments, "trainer.max_epochs=1", data=False)
    assert status == 1  # and not: no run folder
    assert output.splitlines()[-1].startswith("error: trainer.max_epochs=1, but ")


# the config, TensorBoard, the metrics, last.ckpt or a figure meets it; best.ckpt does in
# tests/test_runs.py
@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 20, 24, 90, 160])
def test_a_full_disk_is_one_line_wherever_it_fills(cli, size):
    small = ["data.train_size=500", "data.val_size=300", "trainer.max_epochs=3"]
    status, output = cli("src.train", *small, "hydra.run.dir=disk/run", disk=f"size={size}k")
    assert status == 1, output
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if not line.startswith("epoch ")]
    assert len(lines) <= 2, output  # the error, and that the log ends
    assert all("No space left on device" in line and "disk/run" in line for line in lines)
    assert sum(line.startswith("error: ") for line in lines) == 1, output


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_meets_no_traceback():
    command = f"{sys.executable} -m src.train --cfg job | true"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert (done.stdout, done.stderr) == ("", "")


def misunderstand() -> None:
    """What Hydra makes of a signal that comes while it composes: an error of its own."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        raise HydraException("no attribute") from None


@pytest.mark.slow
def test_a_signal_ends_the_command_whatever_was_made_of_it(start):
    command = start("src.train", before=functools.partial(run_command, misunderstand))
    assert (command.wait(), command.output()) == (143, "")


def test_a_table_is_markdown_that_can_be_read_as_text_and_steers_no_terminal():
    rows = [{"lr": 0.1, "form": "a|b"}, {"lr": None, "n": 3, "loss": 0.123456, "form": "\x1b[2J"}]
    assert table(rows).splitlines() == [
        r"| lr  | form    | n | loss   |",
        r"|-----|---------|---|--------|",
        r"| 0.1 | a\|b    |   |        |",
        r"|     | \x1b[2J | 3 | 0.1235 |",
    ]


ANSWERED = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print("imported", [name for name in ("torch", "lightning", "matplotlib") if name in sys.modules])
"""


@pytest.mark.slow
def test_help_and_misspelt_arguments_are_answered_without_torch():
    modules = ["train", "resume", "evaluate", "predict", "compare", "tune", "sweeps"]
    modules += ["reproduce", "stability", "oscillation", "benchmark"]
    asked = [(f"src.{module}", "--help") for module in modules]
    asked += [
        ("src.train", "--cfg", "job"),
        ("src.train", "model.lrr=1"),
        ("src.evaluate", "modl=x"),
    ]
    asked += [("src.tune", "model=nope")]

    def answer(arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", ANSWERED, *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)

    with ThreadPoolExecutor(2) as pool:
        for arguments, done in zip(asked, pool.map(answer, asked), strict=True):
            assert done.returncode == (0 if arguments[1].startswith("--") else 1), done.stderr
            assert done.stdout.splitlines()[-1] == "imported []", arguments


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "status", "last"),
    [("pass", 0, ""), ("sys.exit(7)", 7, ""), ("1 / 0", 1, "ZeroDivisionError: division by zero")],
)
def test_the_end_of_a_command_loses_nothing(tmp_path, end, status, last):
    lines = [
        "import atexit, logging, os, signal, sys",
        "from src.cli import exit",
        "from src.cli.console import LogFile",
        "def main():",
        "    atexit.register(print, 'closed')",
        "    atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # when there is nothing left to stop",
        "    logging.getLogger().addHandler(logging.handlers.MemoryHandler(9, target=LogFile('log')))",
        "    logging.warning('written')",
        "    print(100000 * 'x')",
        f"    {end}",
        "import logging.handlers",
        "exit.run(main)",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == status
    assert done.stdout == 100000 * "x" + "\nclosed\n"
    assert (tmp_path / "log").read_text() == "written\n"
    assert "".join(done.stderr.splitlines()[-1:]) == last
