"""Sweeps on a real Slurm: every job ends as a row, however it ends, and the command with its
summary."""

import csv
import json
import re
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from src.runs import Run
from tests.conftest import ROOT, Command, Finished

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SMALL = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=100",
    "data.val_size=50",
    "~callbacks.figures",
]
SMALL += ["trainer.max_epochs=2", "~logger"]
ON = [
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.partition=cpu",
    "hydra.launcher.timeout_min=10",
]
# the first of JOBS trains until something ends it; the second ends by itself, after some seconds
ENDLESS, LONG, BRIEF = 10**6, 400, 60
JOBS = [*SMALL, f"trainer.max_epochs={ENDLESS},{BRIEF}"]


@pytest.fixture
def sweep(start, slurm) -> Callable[..., Command]:
    """sweep(*overrides) begins a sweep in the folder sweep/ of the test."""

    def begin(*overrides: str, env: dict[str, str] | None = None) -> Command:
        arguments = [*ON, *overrides, "hydra.sweep.dir=sweep"]
        return start(
            "src.train", "-m", *arguments, data=False, fresh=True, env=slurm.env | (env or {})
        )

    return begin


def ended(command: Command) -> Finished:
    return Finished(command.wait(280), command.output())


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def job_id(command: Command) -> str:
    command.until(lambda: re.search(r"Slurm job (\d+)", command.output()))
    return re.search(r"Slurm job (\d+)", command.output())[1]


def trains(run: Run) -> bool:
    """Whether the job has a state to go on from."""
    return run.last.exists()


def lines_of_jobs(output: str) -> list[str]:
    return re.findall(r"^\d+/\d+  .*$", output, re.M)


def test_the_sweep_of_the_readme_ends_with_its_summary(start, slurm, tmp_path):
    pages = "\n".join(page.read_text() for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")])
    (text,) = re.findall(
        r"python -m (src\.train -m (?:.*\\\n)*.*=submitit_slurm(?:.*\\\n)*.*)", pages
    )
    command = [*shlex.split(text.replace("\\\n", "")), *SMALL, "hydra.sweep.dir=sweep"]
    status, output = ended(start(*command, data=False, fresh=True, env=slurm.env))
    assert status == 0, output
    first, *_ = output.splitlines()
    assert re.search(r"9 jobs.* Slurm job \d+", first), output
    assert len(lines_of_jobs(output)) == 9
    assert "9 jobs: 9 finished." in output
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["finished"] * 9
    assert "sacct" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("how", [[], ["--signal=KILL", "--full"]])
def test_a_cancelled_job_is_a_row_and_a_bad_value_too_while_others_run_on(
    sweep, slurm, tmp_path, how
):
    command = sweep(*JOBS, "model.lr=0.01,-1")
    name, victim = job_id(command), Run(tmp_path / "sweep/0")
    command.until(lambda: trains(victim))
    slurm.call("scancel", *how, f"{name}_0")
    status, output = ended(command)
    assert status == 1, output
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows] == ["interrupted", "failed", "finished", "failed"]
    assert "src.sweeps resume sweep" in rows[0]["reason"]
    assert "model.lr" in rows[1]["reason"]
    assert len(lines_of_jobs(output)) == 4
    assert output.splitlines()[-1] == "error: 3 of 4 jobs did not finish"
    assert "Traceback" not in output
    assert "Slurm" in victim.results()["reason"]


def test_a_job_that_is_cancelled_before_it_starts_is_a_row(sweep, slurm, tmp_path):
    command = sweep(*SMALL, "seed=0,1", "hydra.launcher.array_parallelism=1")
    name = job_id(command)
    slurm.call("scancel", f"{name}_1")
    status, output = ended(command)
    assert status == 1, output
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows] == ["finished", "interrupted"]
    assert "src.sweeps resume sweep" in rows[1]["reason"]


def test_a_job_out_of_time_says_so_and_the_sweep_goes_on_with_more(sweep, start, slurm, tmp_path):
    command = sweep(*JOBS, "hydra.launcher.timeout_min=1")
    status, output = ended(command)
    assert status == 1, output
    rows = table(tmp_path / "sweep")
    assert [row["status"] for row in rows] == ["interrupted", "finished"]
    assert "hydra.launcher.timeout_min" in rows[0]["reason"]
    assert "python -m src.sweeps resume sweep hydra.launcher.timeout_min=" in rows[0]["reason"]

    trained, before = (
        len(Run(tmp_path / "sweep/0").epochs()),
        (tmp_path / "sweep/1/metrics.json").stat().st_mtime,
    )
    more = ["resume", "sweep", "hydra.launcher.timeout_min=7"]
    again = start("src.sweeps", *more, data=False, fresh=True, env=slurm.env)
    name = job_id(again)
    again.until(lambda: len(Run(tmp_path / "sweep/0").epochs()) > trained)
    assert (
        slurm.call("squeue", "-h", "-r", "-o", "%A %l") == f"{name} 7:00"
    )  # one job, with the new limit
    again.kill(signal.SIGINT)
    assert again.wait() == 130, again.output()
    assert (tmp_path / "sweep/1/metrics.json").stat().st_mtime == before
    slurm.until(lambda: not slurm.jobs(), "an empty queue", 30)


def test_a_requeued_job_goes_on_where_it_was(sweep, slurm, tmp_path):
    command = sweep(*SMALL, f"trainer.max_epochs=2,{LONG}")
    name, run = job_id(command), Run(tmp_path / "sweep/1")
    command.until(lambda: trains(run))
    slurm.call("scontrol", "requeue", f"{name}_1")
    slurm.hasten(f"{name}_1")
    status, output = ended(command)
    assert status == 0, output
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["finished"] * 2
    assert len(run.results()["resumed"]) == 1
    assert len(run.epochs()) == LONG


@pytest.mark.parametrize("requeued", [True, False])
def test_the_loss_of_a_node_costs_at_most_the_jobs_on_it(sweep, slurm, tmp_path, requeued):
    options = ["hydra.launcher.cpus_per_task=2"]
    if not requeued:
        options.append("+hydra.launcher.additional_parameters.no_requeue=true")
    command = sweep(*SMALL, f"trainer.max_epochs={LONG}", "seed=0,1", *options)
    name = job_id(command)
    runs = [Run(tmp_path / f"sweep/{number}") for number in range(2)]
    for run in runs:
        command.until(lambda run=run: trains(run))
    node = slurm.call("squeue", "-h", "-j", f"{name}_0", "-o", "%N")
    slurm.call("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")
    if requeued:
        slurm.until(lambda: not runs[0].in_use(), "its processes gone")
        slurm.hasten(f"{name}_0")
    status, output = ended(command)
    states = [row["status"] for row in table(tmp_path / "sweep")]
    if requeued:  # on the other node, when that is free
        assert (status, states) == (0, ["finished"] * 2), output
        assert "resumed" in runs[0].results()
    else:
        assert (status, states) == (1, ["interrupted", "finished"]), output
        assert "src.sweeps resume sweep" in runs[0].results()["reason"]
        assert "NODE_FAIL" in runs[0].results()["reason"]
    assert len(lines_of_jobs(output)) == 2


def test_interrupting_the_command_cancels_its_jobs(sweep, slurm, tmp_path):
    command = sweep(*JOBS, "seed=0,1")
    name = job_id(command)
    command.until(lambda: trains(Run(tmp_path / "sweep/0")))
    command.kill(signal.SIGINT, group=True)
    assert command.wait(60) == 130, command.output()
    slurm.until(lambda: not slurm.jobs(), "an empty queue", 30)
    assert re.search(rf"cancel.* {name}", command.output())
    assert len(table(tmp_path / "sweep")) == 4
    assert "Traceback" not in command.output()


def test_jobs_of_a_killed_command_run_on_and_are_not_submitted_again(sweep, start, slurm, tmp_path):
    command = sweep(*SMALL, f"trainer.max_epochs=2,{LONG}", "seed=0")
    name = job_id(command)
    command.until(lambda: trains(Run(tmp_path / "sweep/1")))
    command.kill(signal.SIGKILL)
    command.wait()
    again = start("src.sweeps", "resume", "sweep", data=False, fresh=True, env=slurm.env)
    again.until(f"{name}_1")  # it is named
    assert {each.split("_")[0] for each in slurm.jobs()} <= {name}
    status, output = ended(again)
    assert status == 0, output
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["finished"] * 2
    assert "resumed" not in Run(tmp_path / "sweep/1").results()


def test_what_slurm_refuses_is_one_line(sweep):
    status, output = ended(sweep(*SMALL, "seed=0,1", "hydra.launcher.partition=nowhere"))
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    assert "invalid partition" in line
    assert "hydra.launcher.partition" in line


def test_a_machine_without_slurm_is_one_line(sweep, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "git").symlink_to(shutil.which("git"))
    status, output = ended(sweep(*SMALL, "seed=0,1", env={"PATH": str(programs)}))
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    assert "sbatch" in line


def test_a_job_that_cannot_start_says_why(sweep, slurm):
    command = sweep(
        *SMALL, "seed=0,1", "hydra.launcher.partition=short", "hydra.launcher.timeout_min=5"
    )
    command.until("PartitionTimeLimit", 60)
    command.kill(signal.SIGINT)
    assert command.wait(60) == 130, command.output()
    assert not slurm.jobs()


def test_without_an_answer_from_slurm_the_command_waits_and_says_so(sweep, slurm, tmp_path):
    command = sweep(*SMALL, f"trainer.max_epochs=2,{BRIEF}")
    command.until(lambda: trains(Run(tmp_path / "sweep/1")))
    slurm.end("slurmctld", signal.SIGKILL)
    try:
        command.until("squeue", 120)
    finally:
        slurm.start_controller()
    status, output = ended(command)
    assert status == 0, output
    assert json.loads((tmp_path / "sweep/1/metrics.json").read_text())["status"] == "finished"
