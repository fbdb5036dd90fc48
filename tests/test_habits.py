"""What people type, and where: quotes, flags, folders, streams, environments. One line, or it is right."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from src.cli.arguments import as_hydra_takes_them
from src.cli.console import command_line, pasteable, quoted
from src.cli.explain import USER_ERRORS, explain
from src.errors import UserError, printable
from src.runs import Run, check_free, claim
from src.training.devices import launched
from src.training.experiment import train
from src.training.loggers.tensorboard import order_events, second
from src.training.resuming import resume
from tests.conftest import ROOT
from tests.tools.faults import curves

QUICK = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=1"]
QUICK += ["~callbacks.figures"]
ENDLESS = [*QUICK, "trainer.max_epochs=20000"]


def error_line(output: str) -> str:
    """The only line of the output."""
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    return line


def as_user(
    *arguments: str, cwd: Path, env: dict[str, str] | None = None, **options
) -> subprocess.CompletedProcess:
    """`python -m ...` in an interpreter of its own, as typed in that folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
    command = [sys.executable, *arguments]
    options = {"capture_output": True, "text": True, "timeout": 200, **options}
    return subprocess.run(command, cwd=cwd, env=environment, **options)


# --- arguments --------------------------------------------------------------------------------------


def test_flags_may_stand_anywhere_and_their_values_with_them():
    typed = ["a=1", "--config-dir", "own", "b=2", "-m", "--cfg", "job", "--config-name=x", "c=3"]
    flags = ["--config-dir=own", "-m", "--cfg=job", "--config-name=x"]
    assert as_hydra_takes_them(typed) == [*flags, "a=1", "b=2", "c=3"]


@pytest.mark.parametrize("flag", ["--experimental-rerun", "--epochs", "-x", "--lr=3"])
def test_a_flag_that_there_is_not_is_refused(flag):
    with pytest.raises(
        UserError, match=r"^there is no flag -\S+ here; --help shows what there is$"
    ):
        as_hydra_takes_them(["seed=1", flag, "job.pickle"])


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("run=outputs/runs/实验一", "run='outputs/runs/实验一'"),
        ("run=a=b", "run='a=b'"),
        ("run=it's (c)", r"run='it\'s (c)'"),
        ("hydra.run.dir=a[1]", "hydra.run.dir='a[1]'"),
        ("run=plain/name", "run=plain/name"),
        ("run=a,b", "run=a,b"),  # two of them, as Hydra has it
        ("run='quoted a=b'", "run='quoted a=b'"),
        ("model.lr=a=b", "model.lr=a=b"),  # no path: what is meant is not clear
        ("logger=null", "~logger"),
        ("callbacks=null", "~callbacks"),
    ],
)
def test_a_path_needs_no_quotes_of_hydras(typed, taken):
    assert as_hydra_takes_them([typed]) == [taken]


@pytest.mark.parametrize(
    "value", ["a=b", "it's", 'a "b"', "back\\", "实验", "a b", "${x}", "", "[1]"]
)
def test_a_quoted_value_is_the_value_to_hydra(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"key={quoted(value)}"])
    assert override.value() == value


def test_values_of_python_are_written_as_hydra_has_them():
    assert [quoted(value) for value in (None, True, False, 0.5)] == ["null", "true", "false", "0.5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "part"),
    [
        ("model.lr=a=b", "'model.lr=\"a=b\"'"),
        ("model.lr=f(3)", "Unknown function 'f'"),
        ("seed", "arguments are KEY=VALUE"),
    ],
)
def test_an_argument_that_hydra_cannot_read_is_named_with_its_quotes(cli, argument, part):
    status, output = cli("src.train", argument, data=False)
    assert status == 1
    line = error_line(output)
    assert argument in line
    assert part in line


@pytest.mark.slow
def test_a_key_of_one_swept_model_is_explained(cli):
    models = ["-m", "model=linear_scratch,linear_concise", "model.loss=huber"]
    few = [text for text in QUICK if not text.startswith("model")]
    status, output = cli("src.train", *few, *models, data=False)
    assert status == 1
    assert error_line(output).endswith("has it, write ++model.loss=VALUE.")
    status, output = cli("src.train", *few, *models[:2], "++model.loss=huber", data=False)
    assert status == 0, output


BROKEN = {
    "a wrong indent": (
        "lr: 0.1\n  gamma: 1",
        "line 2, column 8: mapping values are not allowed here",
    ),
    "a tab": ("model:\n\tlr: 1", "line 2, column 1: found character '\\t'"),
    "a doubled key": ("lr: 1\nlr: 2", "line 2, column 1: found duplicate key lr"),
    "half of it": ("model: {lr: 1", "line 1, column 14: expected ',' or '}'"),
    "a list": ("- 1\n- 2", ""),
    "no text": ("\x00", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("flaw", BROKEN)
@pytest.mark.parametrize("module", ["src.train", "src.train -m", "src.tune"])
def test_a_slip_in_a_config_of_ones_own_is_one_line_with_its_place(cli, tmp_path, flaw, module):
    text, place = BROKEN[flaw]
    own = tmp_path / "own/experiment/mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(f"# @package _global_\n{text}")
    module, *more = module.split()
    status, output = cli(module, *more, "--config-dir=own", *QUICK, "experiment=mine", data=False)
    assert status == 1
    line = error_line(output)
    line_number = re.search(r"line (\d+)", place)
    expected = place.replace(line_number[0], f"line {int(line_number[1]) + 1}") if place else ""
    assert expected in line
    assert "mine" in line


# --- folders ----------------------------------------------------------------------------------------


@pytest.fixture
def thesis(tmp_path) -> Path:
    """A folder with somebody's work in it."""
    folder = tmp_path / "mine"
    (folder / "checkpoints").mkdir(parents=True)
    for name in (
        "thesis.tex",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "events.out.tfevents.1.x.1.0",
    ):
        (folder / name).write_text("precious")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(errors="replace")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ["src.train"],
        ["src.train", "hydra=existing"],
        ["src.train", "~hydra.callbacks.claim_folder"],
        ["src.train", "hydra.callbacks.claim_folder=null"],
        ["src.train", "hydra.callbacks.claim_folder.new=false"],
        ["src.reproduce", "hydra=existing"],
        ["src.tune", "hydra.run.dir=other", "folder=mine", "n_trials=1"],
    ],
    ids=" ".join,
)
def test_nobodys_files_are_written_over(cli, thesis, how):
    before = contents(thesis)
    module, *settings = how
    quick = QUICK if module != "src.reproduce" else ["experiments=[linear_scratch]"]
    status, output = cli(module, *quick, "hydra.run.dir=mine", *settings, data=False)
    assert status == 1
    *_, line = output.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in output
    assert contents(thesis) == before


def test_nor_from_a_notebook(config, thesis):
    before = contents(thesis)
    with pytest.raises(UserError, match=r"mine is not empty; choose another with folder=DIR$"):
        train(config(*QUICK), thesis)
    assert contents(thesis) == before
    (thesis.parent / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file is not empty; choose another"):
        train(config(*QUICK), thesis.parent / "file")
    assert (thesis.parent / "file").read_text() == "mine"


def test_a_new_and_an_empty_folder_are_free(config, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        train(config(*QUICK), tmp_path / name)
        assert Run(tmp_path / name).results()["status"] == "finished"
        with pytest.raises(UserError, match=r"holds a run already; choose another with key=DIR"):
            check_free(tmp_path / name, "key")


@pytest.mark.slow
def test_a_path_that_begins_with_a_tilde_is_in_the_home_folder(cli, tmp_path):
    env = {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    home = tmp_path / "home"
    few = ["n_trials=1", "space={model: {lr: 'interval(0.01, 0.02)'}}"]
    for module, *arguments in (
        ("src.train", *QUICK, "hydra.run.dir='~/run'"),
        ("src.resume", "run='~/run'", "trainer.max_epochs=2"),
        ("src.evaluate", "run='~/run'"),
        ("src.tune", *QUICK, *few[:1], "folder='~/study'"),
        ("src.train", "-m", *QUICK, "seed=0,1", "hydra.sweep.dir='~/sweep'"),
        ("src.sweeps", "~/sweep"),
        ("src.compare", "~/run", "~/sweep/0"),
    ):
        status, output = cli(module, *arguments, data=False, env=env)
        assert status == 0, output
    assert {path.name for path in home.iterdir()} == {"run", "study", "sweep"}
    assert not (tmp_path / "~").exists()
    assert len(Run(home / "run").epochs()) == 2


def test_claim_takes_the_home_folder_for_what_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run("~/x").path == tmp_path / "x"
    assert claim(Path("~/y").expanduser()) == tmp_path / "y"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("hydra.job.chdir=true", "hydra.job.chdir=true cannot be set"),
        ("hydra.job.name=../x", "hydra.job.name=../x is no name of a log file"),
        ("hydra.output_subdir=..", "hydra.output_subdir cannot be set"),
        (
            "hydra.job_logging.handlers.file.class=nope",
            "Unable to configure handler 'file'|2 of 2 jobs",
        ),
        ("hydra.job_logging=null", ""),
        ("hydra.callbacks=3", ""),
        ("hydra/launcher=nope", "Could not find 'hydra/launcher/nope'"),
    ],
)
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]], ids=["run", "sweep"])
def test_settings_of_hydra_that_lead_elsewhere_are_one_line(cli, tmp_path, setting, said, sweep):
    (tmp_path / "in").mkdir()
    here = ["hydra.run.dir=in/run", "hydra.sweep.dir=in/sweep"]
    status, output = cli("src.train", *sweep, *QUICK, *here, setting, data=False)
    assert "Traceback" not in output
    if not (said or status):  # it changes nothing
        return
    assert status == 1
    assert re.search(said, output.splitlines()[-1])
    assert {path.name for path in tmp_path.iterdir()} <= {"in", "output0.txt"}


@pytest.mark.slow
def test_a_job_of_another_name_says_how_to_go_on(cli, tmp_path):
    status, output = cli(
        "src.train",
        *ENDLESS,
        "hydra.job.name=mine",
        "hydra.run.dir=run",
        interrupt=signal.SIGINT,
        data=False,
    )
    assert status == 130
    assert output.splitlines()[-1].startswith("interrupted by SIGINT; to go on: ")
    assert "epoch 1/" in (tmp_path / "run/mine.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["grid.csv", "figures", "checkpoints", ".hydra", "train.log", "a/b", ".."]
)
def test_a_logger_is_not_called_like_something_else_in_the_folder(cli, name):
    status, output = cli("src.train", *QUICK, f"logger.tensorboard.name={name}", data=False)
    assert status == 1
    assert "logger.tensorboard.name" in error_line(output)


@pytest.mark.slow
def test_a_command_of_an_existing_run_makes_no_new_folder(cli, config, tmp_path):
    train(config(*QUICK), tmp_path / "run")
    status, output = cli("src.evaluate", "run=run", "hydra=default", data=False)
    assert status == 1
    assert "src.evaluate needs hydra=existing" in error_line(output)


@pytest.mark.slow
def test_two_evaluations_at_once_both_end(start, config, tmp_path):
    train(config(*QUICK), tmp_path / "run")
    commands = [start("src.evaluate", "run=run", data=False) for _ in range(3)]
    assert [command.wait() for command in commands] == [0, 0, 0]
    assert not list((tmp_path / "run").glob("*.part"))


def test_an_evaluation_of_a_run_with_a_damaged_record_writes_nothing(config, tmp_path):
    from src.evaluate.scores import evaluate
    from tests.conftest import compose_config

    train(config(*QUICK), tmp_path / "run")
    run = Run(tmp_path / "run")
    run.metrics_json.write_text("{")
    with pytest.raises(UserError, match=r"metrics\.json is damaged"):
        evaluate(compose_config("evaluate", f"run={run.path}"))
    assert not (run.path / "evaluation.json").exists()


@pytest.mark.slow
def test_a_log_that_is_also_another_file_is_not_appended_to(cli, config, tmp_path):
    train(config(*QUICK), tmp_path / "run")
    (tmp_path / "other.txt").write_text("mine")
    os.link(tmp_path / "other.txt", tmp_path / "run/train.log")
    cli("src.resume", "run=run", "trainer.max_epochs=2", data=False)
    assert (tmp_path / "other.txt").read_text() == "mine"


def test_the_files_of_a_sweep_among_its_runs_are_passed_over(config, tmp_path):
    from src.compare import find

    for number in range(2):
        train(config(*QUICK, f"seed={number}"), tmp_path / str(number))
    for name in ("multirun.yaml", "summary.csv", "summary.md"):
        (tmp_path / name).write_text("")
    assert [run.path.name for run in find(sorted(tmp_path.iterdir()))] == ["0", "1"]


# --- streams and environments -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "status", "lines"),
    [
        pytest.param(">&- 2>&-", 0, None, marks=pytest.mark.thorough),
        ("</dev/null >/dev/full", 0, 1),
        pytest.param("--help >/dev/full", 1, 1, marks=pytest.mark.thorough),
        pytest.param("--cfg job | true", 0, 0, marks=pytest.mark.thorough),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path, shell, status, lines):
    command = shlex.join([sys.executable, "-m", "src.train", *QUICK])
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", f"{command} {shell}"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    if lines is not None:
        assert len(done.stderr.splitlines()) == lines, done.stderr


@pytest.mark.slow
def test_an_environment_that_breaks_libraries_breaks_no_command(tmp_path):
    env = {"COLUMNS": "0", "MPLBACKEND": "nope", "LANG": "C", "LC_ALL": "C"}
    done = as_user("-m", "src.train", *QUICK[:-1], "hydra.run.dir=c", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert "written to c/" in done.stdout
    assert (tmp_path / "c/figures/curves.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["src.compare", "src.oscillation", "src.sweeps", "src.stability"]
)
def test_commands_need_no_docstrings(tmp_path, module):
    done = as_user("-OO", "-m", module, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {module}")


@pytest.mark.parametrize(
    "env",
    [
        {"RANK": "0", "WORLD_SIZE": "abc"},
        {"RANK": "x"},
        {"SLURM_STEP_NUM_TASKS": "abc"},
        {"LOCAL_RANK": "-1"},
        {"SLURM_NTASKS": "²", "SLURM_JOB_ID": "5", "SLURM_JOB_NAME": "x"},
    ],
    ids=str,
)
def test_an_environment_that_makes_no_sense_is_said(monkeypatch, env):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=r"trainer\.devices=1 asks for as many processes, but the environment"
    ):
        launched(1)


@pytest.mark.slow
def test_a_batch_script_without_srun_trains_in_one_process(cli):
    slurm = {
        "SLURM_NTASKS": "4",
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_NAME": "mine",
        "SLURM_PROCID": "0",
    }
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    status, output = cli("src.train", *QUICK, data=False, env=slurm)
    assert status == 0, output


@pytest.mark.slow
def test_a_script_is_told_how_it_is_started(tmp_path):
    done = as_user("src/train.py", "model=scratch", cwd=ROOT)
    assert done.returncode == 1
    line = "error: start it as a module, in the folder of the project: python -m src.train model=scratch"
    assert done.stderr == f"{line}\n"


@pytest.mark.slow
@pytest.mark.thorough
def test_a_signal_while_the_command_is_imported_ends_it_without_a_word_too_many(tmp_path):
    """From the first moment in which Python listens to us, to the import of torch and beyond."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}

    def begin(folder: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "src.train", *ENDLESS, f"hydra.run.dir={folder}"]
        return subprocess.Popen(command, cwd=tmp_path, env=env, **streams)

    began, probe = time.monotonic(), begin("probe")
    while not (tmp_path / "probe/checkpoints/last.ckpt").exists():
        time.sleep(0.01)
    seconds = time.monotonic() - began
    probe.kill()
    probe.communicate()
    for share, signum in ((0.2, signal.SIGINT), (0.4, signal.SIGTERM), (0.6, signal.SIGINT)):
        process = begin(f"at{share}")
        time.sleep(share * seconds)
        process.send_signal(signum)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signum, output
        assert "Traceback" not in output
        assert len(output.splitlines()) <= 1 or "epoch" in output, output


@pytest.mark.slow
def test_a_git_that_hangs_delays_a_run_by_seconds_alone(cli, tmp_path):
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nsleep 1000\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    status, output = cli("src.train", *QUICK, "hydra.run.dir=run", data=False, env={"PATH": path})
    assert status == 0, output
    assert Run(tmp_path / "run").results()["git_commit"] is None


# --- TensorBoard and a clock that was put back ------------------------------------------------------


def test_events_of_a_resumed_run_come_last_even_if_the_clock_was_put_back(
    config, tmp_path, monkeypatch
):
    run = Run(tmp_path / "run")
    ahead = time.time() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: ahead)
        train(config(*QUICK, "trainer.max_epochs=2"), run.path)
    settings = run.settings()
    settings["trainer"]["max_epochs"] = 4
    resume(run.path, settings)
    names = sorted(path.name for path in run.events())
    assert len(names) == 2
    assert second(run.path / names[1]) <= time.time() + 2
    shown = curves(run)
    assert [step for step, _ in shown["loss/val"]] == [1, 2, 3, 4]
    assert shown["tested/test_loss"][-1] == (4, pytest.approx(run.results()["test/loss"]))


def test_event_files_are_renamed_only_if_they_are_ahead(tmp_path):
    run, now = Run(tmp_path), int(time.time())
    for moment in (now - 100, now - 50):
        (tmp_path / f"events.out.tfevents.{moment}.host.1.0").touch()
    before = sorted(run.events())
    order_events(run)
    assert sorted(run.events()) == before
    (tmp_path / f"events.out.tfevents.{now + 500}.host.1.0").touch()
    order_events(run)
    assert [second(path) for path in sorted(run.events())] == [now - 3, now - 2, now - 1] or (
        max(second(path) for path in run.events()) < time.time()
    )


# --- what is said -----------------------------------------------------------------------------------


def test_a_command_to_paste_works_in_a_shell_whatever_is_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "it's a=b, (c) $HOME"
    assert shlex.split(pasteable(folder)) == [folder.name]
    words = shlex.split(command_line("src.compare", folder.name))
    assert words[1:] == ["-m", "src.compare", folder.name]
    done = subprocess.run(
        [words[0], "-c", "import src"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0


@pytest.mark.slow
def test_the_paths_and_commands_that_a_run_prints_work_when_they_are_pasted(cli, tmp_path):
    name = "it's a=b, (c)"
    status, output = cli("src.train", *QUICK, f"hydra.run.dir={name}", data=False)
    assert status == 0, output
    lines = dict(line.partition(": ")[::2] for line in output.splitlines())
    (written,) = (line for line in output.splitlines() if line.startswith("written to "))
    (path,) = shlex.split(written.removeprefix("written to "))
    assert (tmp_path / path / "metrics.json").exists()
    status, output = cli("src.evaluate", f"run={path}", data=False)
    assert status == 0, output
    look = shlex.split(lines["look at it"])
    assert look[1:3] == ["-m", "tensorboard.main"] or Path(look[0]).name == "tensorboard"


def test_a_newline_in_a_name_makes_no_line_of_ours():
    error = UserError("folder a\nerror: forged is no run", ["a detail\n  - another"])
    assert explain(error).splitlines() == [
        r"folder a\nerror: forged is no run",
        r"  - a detail\n  - another",
    ]
    assert printable("\udcff\x1b[2J") == r"\udcff\x1b[2J"


def test_mistakes_of_yaml_are_mistakes_of_the_user():
    with pytest.raises(USER_ERRORS):
        yaml.safe_load("a: [")
    with contextlib.suppress(yaml.YAMLError):
        yaml.safe_load("a: b: c")
