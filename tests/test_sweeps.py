"""Sweeps: the folder says everything, a failure stops nothing, a kill loses nothing."""

import contextlib
import csv
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from matplotlib.backends.backend_agg import FigureCanvasAgg
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from src import __version__, formats
from src.charts import save
from src.cli.console import quoted
from src.errors import UserError
from src.runs import Run
from src.sweeps import plan
from src.sweeps.__main__ import main, resume
from src.sweeps.answer import groups
from src.sweeps.report import Report
from src.sweeps.summary import chart, summarize
from src.sweeps.sweep import Sweep
from tests.conftest import PYTHON, ROOT, Command, Finished

pytestmark = pytest.mark.slow  # real commands

SMALL = [
    "data=synthetic",
    "model=linear_scratch",
    "data.train_size=300",
    "trainer.max_epochs=3",
    "~logger",
]
# long enough to be interrupted
LONG = [*SMALL, "data.train_size=1500", "model.lr=0.01,0.03", "seed=0,1", "trainer.max_epochs=5"]


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def states(folder: Path) -> list[str]:
    return [row["status"] for row in table(folder)]


def timeless(folder: Path) -> list[dict[str, str]]:
    """summary.csv without what differs from one machine, folder or day to the next."""
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "folder")} for row in table(folder)
    ]


@pytest.fixture
def swept(cli, tmp_path):
    """swept(*arguments) is the finished command and its sweep folder."""

    def call(*arguments: str, folder: str = "sweep", **options):
        command = ["src.train", "-m", *SMALL, *arguments, f"hydra.sweep.dir={folder}"]
        return cli(*command, data=False, **options), tmp_path / folder

    return call


def run_once(tmp_path_factory, *arguments: str) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("once")
    command = Command(
        "src.train", ["-m", *arguments, "hydra.sweep.dir=sweep"], folder, folder / "output.txt"
    )
    return Finished(command.wait(), command.output()), folder / "sweep"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Finished, Path]:
    """A sweep that nobody interrupted, and its folder. Only to be read."""
    return run_once(tmp_path_factory, *LONG)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory) -> tuple[Finished, Path]:
    """A sweep of which two jobs do not finish. Only to be read."""
    settings = ["model.lr=0.01,-1,3", "data.val_size=100", "trainer.max_epochs=20"]
    return run_once(tmp_path_factory, *SMALL, *settings)


@pytest.fixture
def copied(whole, tmp_path) -> Path:
    """The folder of the whole sweep, elsewhere."""
    return shutil.copytree(whole[1], tmp_path / "copied")


def command_of_resume(folder: Path, *overrides: str) -> tuple[str, list[str]]:
    """What `resume` becomes: program, arguments."""
    with mock.patch("os.execv") as execv:
        resume(folder, list(overrides))
    return execv.call_args.args


@pytest.fixture
def resumed(cli, tmp_path, monkeypatch) -> Callable[[str], Finished]:
    """resumed(DIR) is what `python -m src.sweeps resume DIR` becomes, to its end."""

    def call(folder: str) -> Finished:
        monkeypatch.chdir(tmp_path)
        _, (_, _, module, *arguments) = command_of_resume(Path(folder))
        return cli(module, *arguments, data=False)

    return call


def test_a_sweep_ends_in_a_summary_of_its_runs(whole):
    finished, folder = whole
    assert finished.status == 0, finished.output
    rows = table(folder)
    assert len(rows) == 4
    for number, (row, job) in enumerate(zip(rows, Sweep(folder).jobs, strict=True)):
        run = Run(folder / str(number))
        record = run.results()
        assert row["status"] == record["status"] == "finished"
        assert float(row["val/loss"]) == record["val/loss"]
        assert float(row["seconds"]) == record["seconds"]
        cfg = OmegaConf.create(run.settings())
        assert (float(row["model.lr"]), int(row["seed"])) == (cfg.model.lr, cfg.seed)
        assert {"train.log", "metrics.csv", "checkpoints", ".hydra"} <= set(os.listdir(run.path))
        # the plan is what Hydra ran
        hydra = yaml.safe_load((run.path / ".hydra/hydra.yaml").read_text())
        assert hydra["overrides"]["task"] == [f"{key}={value}" for key, value in job.items()]
    # means over seeds, by hand from the rows
    lines = [
        line
        for line in (folder / "summary.md").read_text().splitlines()
        if re.match(r"\| 0\.", line)
    ]
    assert len(lines) == 2
    means = []
    for line in lines:
        lr, n, loss = [cell.strip() for cell in line.strip("|").split("|")][:3]
        members = [float(row["val/loss"]) for row in rows if row["model.lr"] == lr]
        assert (int(n), len(members)) == (2, 2)
        assert loss == f"{statistics.mean(members):.4f} ± {statistics.stdev(members):.4f}"
        means.append(statistics.mean(members))
    assert means == sorted(means)  # best first


def test_the_terminal_shows_a_line_per_job_and_the_table(whole):
    finished, folder = whole
    lines = finished.output.splitlines()
    losses = [float(row["val/loss"]) for row in table(folder)]
    for k, loss in enumerate(losses):
        best = f"best {min(losses[: k + 1]):.4f} \\(job {losses.index(min(losses[: k + 1]))}\\)"
        place = rf"lr={('0.01', '0.03')[k // 2]} seed={k % 2}"
        assert re.fullmatch(
            rf"{k + 1}/4  {place}  val/loss {loss:.4f}  {best}  \d+ s left", lines[k]
        )
    assert lines[3].endswith("  0 s left")
    assert "epoch 1/" not in finished.output
    assert lines[4] == "4 jobs: 4 finished."
    assert lines[-1] == "written to sweep/: summary.csv .md .png"


def test_a_failing_job_is_a_row_and_stops_nothing(troubled):
    finished, folder = troubled
    assert finished.status == 1
    assert "Traceback" not in finished.output
    assert finished.output.splitlines()[-1] == "error: 2 of 3 jobs did not finish"
    assert states(folder) == ["finished", "failed", "diverged"]
    reason = "model.lr: input should be greater than 0, got -1; try model.lr=0.03"
    assert table(folder)[1]["reason"] == reason
    assert reason in (folder / "summary.md").read_text()
    log = (folder / "1/train.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert reason in log


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_an_interrupted_sweep_is_finished_by_resume(
    whole, start, resumed, tmp_path, signum, status
):
    command = start("src.train", "-m", *LONG, "hydra.sweep.dir=cut", data=False)
    command.until((tmp_path / "cut/1/checkpoints/last.ckpt").exists)
    command.kill(signum)
    assert command.wait() == status
    cut = tmp_path / "cut"
    if signum != signal.SIGKILL:
        assert states(cut) == ["finished", "interrupted", *["not started"] * 2]
        assert "4 jobs: 1 finished, 1 interrupted, 2 not started." in command.output()
    # rebuilt from the folders alone
    summarize(cut)
    assert states(cut) == ["finished", "interrupted", *["not started"] * 2]
    first = {path: path.read_bytes() for path in (cut / "0/checkpoints").iterdir()}
    finished = resumed("cut")
    assert finished.status == 0, finished.output
    assert timeless(cut) == timeless(whole[1])
    assert {path: path.read_bytes() for path in first} == first
    assert "resumed" not in Run(cut / "0").results()
    assert Run(cut / "1").results()["resumed"][0]["step"] > 0
    assert finished.output.count(" s left") == 3  # what was finished is not done again


def test_a_finished_sweep_is_resumed_without_doing_anything(whole, copied, resumed):
    finished = resumed("copied")
    assert finished.status == 0, finished.output
    assert " s left" not in finished.output
    assert timeless(copied) == timeless(whole[1])


def test_a_sweep_folder_may_have_any_name_and_resume_uses_its_configs(swept, cli, tmp_path):
    """Those that were recorded when the sweep began, whatever those of the checkout are by now."""
    name = "it's a=b, c d\\e\\"
    finished, folder = swept("seed=0,1", folder=quoted(name))
    assert finished.status == 0, finished.output
    folder = tmp_path / name
    assert states(folder) == ["finished"] * 2
    shutil.rmtree(folder / "1")
    snapshot = folder / ".conf/model/linear_scratch.yaml"
    text = snapshot.read_text()
    assert "weight_decay: 0.0" in text
    snapshot.write_text(text.replace("weight_decay: 0.0", "weight_decay: 0.125"))
    finished = cli("src.sweeps", "resume", name, data=False, env={"PYTHONPATH": str(ROOT)})
    assert finished.status == 0, finished.output
    assert states(folder) == ["finished"] * 2
    assert Run(folder / "1").settings()["model"]["weight_decay"] == 0.125
    assert {path.name for path in tmp_path.iterdir()} == {name, "output0.txt", "output1.txt"}


def test_a_sweep_that_runs_is_summarized_but_not_resumed(start, resumed, tmp_path):
    command = start(
        "src.train", "-m", *LONG, "trainer.max_epochs=1000", "hydra.sweep.dir=sweep", data=False
    )
    command.until((tmp_path / "sweep/0/checkpoints/last.ckpt").exists)
    summarize(tmp_path / "sweep")
    assert states(tmp_path / "sweep") == ["running", *["not started"] * 3]
    message = "error: sweep sweep is in use by another process; wait until that one ends\n"
    assert resumed("sweep") == (1, message)
    command.kill(signal.SIGTERM)
    assert command.wait() == 143


def test_a_folder_that_holds_a_sweep_is_refused(whole, copied, swept):
    before = table(copied)
    finished, folder = swept("seed=0,1,2", folder="copied")
    assert finished.status == 1
    assert (
        finished.output
        == "error: folder copied is not empty; choose another with hydra.sweep.dir=DIR\n"
    )
    assert table(folder) == before


BESIDE = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def test_jobs_side_by_side_do_not_share_cores_and_fail_alone(whole, cli, tmp_path):
    """On a terminal that speaks ASCII alone."""
    jobs = [*LONG, "model.lr=0.01,-1", *BESIDE]
    command, env = (
        ["src.train", "-m", *jobs, "hydra.sweep.dir=sweep"],
        {"PYTHONIOENCODING": "ascii"},
    )
    many, folder = cli(*command, data=False, fresh=True, env=env), tmp_path / "sweep"
    assert many.status == 1, many.output
    assert states(folder) == ["finished", "finished", "failed", "failed"]
    alone, beside = (
        [row["val/loss"][:6] for row in table(each)[:2]] for each in (whole[1], folder)
    )
    assert alone == beside
    assert {Run(folder / str(n)).results()["threads"] for n in range(2)} == {1}
    assert many.output.count(" s left") == 4
    assert "4 jobs: 2 finished, 2 failed." in many.output
    assert "Traceback" not in many.output
    assert re.search(r"\d\.\d{4} \? \d\.\d{4}", many.output)  # mean and sd


def test_a_killed_worker_is_a_row_and_resume_finishes_its_job(whole, start, resumed, tmp_path):
    command = start("src.train", "-m", *LONG, *BESIDE, "hydra.sweep.dir=sweep", data=False)
    folder = tmp_path / "sweep"
    command.until(Run(folder / "0").last.exists, limit=60)
    victim = children(command.process.pid)[0]  # the oldest, which has job 0
    os.kill(victim, signal.SIGKILL)
    assert command.wait(60) == 1, command.output()
    assert "Traceback" not in command.output()
    assert states(folder) == ["interrupted", *["finished"] * 3]
    reason = f"process {victim} SIGKILL; to go on: {PYTHON} -m src.sweeps resume sweep"
    assert table(folder)[0]["reason"] == reason
    assert reason in (folder / "summary.md").read_text()
    assert command.output().count(" s left") == 4
    finished = resumed("sweep")
    assert finished.status == 0, finished.output
    assert timeless(folder) == timeless(whole[1])
    assert Run(folder / "0").results()["resumed"][0]["step"] > 0
    assert finished.output.count(" s left") == 1


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_workers_end_with_their_sweep(start, tmp_path, signum, status):
    jobs = [*SMALL, "seed=0,1,2", "trainer.max_epochs=20000", *BESIDE]
    command = start("src.train", "-m", *jobs, "hydra.sweep.dir=sweep", data=False)
    runs = [Run(tmp_path / f"sweep/{number}") for number in range(2)]
    for run in runs:
        command.until(run.last.exists, limit=60)
    command.kill(signum, group=signum == signal.SIGINT)  # as a terminal does
    assert command.wait(60) == status, command.output()
    end = time.monotonic() + 10 * (signum == signal.SIGKILL)
    while any(run.in_use() for run in runs):
        assert time.monotonic() < end
        time.sleep(0.05)
    if signum != signal.SIGKILL:
        assert states(tmp_path / "sweep") == ["interrupted", "interrupted", "not started"]
        assert [run.results()["reason"] for run in runs] == ["SIGTERM"] * 2
        assert "Traceback" not in command.output()


def children(process: int | str) -> list[int]:
    """The processes that this one has started, in their order."""
    return [
        int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            "TIMEOUT",
            "to go on: {python} -m src.sweeps resume made hydra.launcher.timeout_min=MINUTES",
        ),
        ("OUT_OF_MEMORY", "to go on: {python} -m src.sweeps resume made hydra.launcher.mem_gb=GB"),
        ("NODE_FAIL", "to go on: {python} -m src.sweeps resume made"),
        ("GONE", "to go on: {python} -m src.sweeps resume made"),
    ],
)
def test_what_slurm_says_of_a_lost_job_is_its_reason(
    made, monkeypatch, tmp_path, capsys, state, reason
):
    from src.sweeps import slurm  # submitit alone takes half a second

    folder = made(
        [{"seed": str(seed)} for seed in range(4)],
        [{}, {"status": "running"}, {"status": "failed"}],
    )
    answers = [
        "5_1|RUNNING|None",
        "5_0|COMPLETED|None",
        "5_2|COMPLETED|None",
        "5_3|PENDING|PartitionDown",
    ]
    answers = [
        "no",
        answers,
        [f"5_{number}|{state}|None" for number in range(4) if state != "GONE"],
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "POLL", 0)

    def squeue(command: list[str], **options) -> subprocess.CompletedProcess:
        assert command[0] == "squeue"
        assert command[-1] == "--jobs=5"
        lines = answers.pop(0)
        lost = "slurm_load_jobs error: Unable to contact slurm controller" if lines == "no" else ""
        text = "" if lost else "\n".join(lines)
        return subprocess.CompletedProcess(command, 1 if lost else 0, text, lost)

    monkeypatch.setattr(slurm.subprocess, "run", squeue)
    report = Report(Sweep(folder.relative_to(tmp_path)))
    slurm.wait({number: f"5_{number}" for number in range(4)}, report)
    assert not answers
    statuses, reasons = zip(
        *((row["status"], row["reason"]) for row in report.sweep.rows()), strict=True
    )
    assert statuses == ("finished", "interrupted", "failed", "interrupted")
    reason = reason.format(python=PYTHON)
    assert reasons == (
        "",
        f"Slurm job 5_1 {state}; {reason}",
        "",
        f"Slurm job 5_3 {state}, see made/.submitit; {reason}",
    )
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(" waits: squeue does not answer")
    assert said[3] == "Slurm job 5_3 waits: PartitionDown"
    ended = [line.split("  ")[1] for line in said if " left" in line]
    assert ended == ["seed=0", "seed=2", "seed=1", "seed=3"]


def composed(*overrides: str) -> DictConfig:
    """The config of src.train with that of Hydra."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", overrides=[*SMALL, *overrides], return_hydra_config=True)


def test_a_cluster_with_slurm_composes():
    launcher = composed(
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=cpu",
        "hydra.launcher.cpus_per_task=4",
    ).hydra.launcher
    assert launcher["_target_"].endswith("SlurmLauncher")
    assert (launcher["partition"], launcher["cpus_per_task"]) == ("cpu", 4)


def test_a_sweep_without_its_summary_is_refused(cli):
    arguments = [*SMALL, "seed=0,1", "hydra/sweeper=basic", "hydra.sweep.dir=several"]
    status, output = cli("src.train", "-m", *arguments, data=False)
    assert status == 1
    complaint = "error: only src.train, with hydra/sweeper=product, runs a sweep; leave out -m"
    assert output.splitlines()[-1] == complaint


@pytest.mark.parametrize("command", [["nowhere"], ["resume", "nowhere"]])
def test_a_folder_that_is_no_sweep_is_said(monkeypatch, command):
    monkeypatch.setattr(sys, "argv", ["src.sweeps", *command])
    with pytest.raises(UserError, match=r"^nowhere is no sweep folder"):
        main()


def test_without_a_validation_split_nothing_is_selected(swept):
    finished, folder = swept("model.lr=0.03,0.01", "data.val_size=0")
    assert finished.status == 0
    text = (folder / "summary.md").read_text()
    assert "without a validation split nothing is selected" in text
    assert [row["model.lr"] for row in table(folder)] == ["0.03", "0.01"]
    assert "best" not in finished.output


def test_sd_is_that_of_a_sample_and_absent_for_one_run():
    rows = [
        {"a": "1", "seed": str(seed), "status": "finished", "val/loss": loss}
        for seed, loss in enumerate([1.0, 3.0])
    ]
    rows.append({"a": "2", "seed": "0", "status": "finished", "val/loss": 0.5})
    rows.append({"a": "2", "seed": "1", "status": "failed"})
    assert groups(rows, ["a"]) == [
        {"a": "1", "n": 2, "val/loss": (2.0, pytest.approx(2**0.5))},
        {"a": "2", "n": 1, "val/loss": (0.5,)},
    ]


def test_the_order_of_the_jobs_is_kept_where_one_failed():
    rows = [
        {
            "a": a,
            "seed": seed,
            "status": "failed" if (a, seed) == ("1", "0") else "finished",
            "val/loss": 0.5,
        }
        for seed in "01"
        for a in "123"
    ]
    assert [(group["a"], group["n"]) for group in groups(rows, ["a"])] == [
        ("1", 1),
        ("2", 2),
        ("3", 2),
    ]


def test_the_folder_can_be_moved(whole, copied):
    (copied / "summary.csv").unlink()
    summarize(copied)
    assert timeless(copied) == timeless(whole[1])


@pytest.fixture
def made(tmp_path):
    """made(jobs, records) is a sweep folder with these jobs, and metrics.json of those that have
    begun."""

    def call(jobs: list[dict[str, str]], records: list[dict], **plan) -> Path:
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        content = {
            "version": __version__,
            "command": [],
            "jobs": [[f"{key}={value}" for key, value in job.items()] for job in jobs],
        }
        (folder / "sweep.yaml").write_text(yaml.safe_dump(content | plan))
        for number, record in enumerate(records):
            run = Run(folder / str(number))
            run.config.parent.mkdir(parents=True, exist_ok=True)
            run.metrics_json.write_text(json.dumps({"status": "finished", "seconds": 1.0} | record))
        return folder

    return call


def page(folder: Path) -> list[list[str]]:
    """The rows of the table in summary.md, as cells."""
    lines = [
        line for line in (folder / "summary.md").read_text().splitlines() if line.startswith("|")
    ]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]
    ]


def test_jobs_of_other_kinds_are_ranked_only_if_they_have_a_validation_split(made):
    jobs = [{"experiment": "decay", "seed": "0"}, {"experiment": "best", "seed": "0"}]
    jobs += [{"experiment": "best", "seed": "1"}, {"data": "synthetic", "seed": "0"}]
    records = [
        {"test/loss": 0.4, "test/acc": 0.84},
        {"val/loss": 0.6, "test/loss": 0.6, "test/acc": 0.8, "error/w": 0.1},
        {"val/loss": 0.8, "test/loss": 0.7, "test/acc": 0.9},
        {"val/loss": 0.5, "test/loss": 0.1},
    ]
    folder = made(jobs, records)
    text = summarize(folder)[1]
    assert page(folder) == [
        ["experiment", "data", "n", "val/loss", "test/loss", "test/acc"],
        ["", "synthetic", "1", "0.5000", "0.1000", ""],
        ["best", "", "2", "0.7000 ± 0.1414", "0.6500 ± 0.0707", "0.8500 ± 0.0707"],
        ["decay", "", "1", "", "0.4000", "0.8400"],
    ]
    assert "Best first by val/loss; without a validation split nothing is selected." in text
    assert [row["val/loss"] for row in table(folder)] == ["", "0.6", "0.8", "0.5"]
    assert (folder / "summary.png").exists()


def test_a_sweep_over_other_kinds_of_jobs_ends_in_a_summary(cli, tmp_path):
    axes = ["data.val_size=50,0", "experiment=linear_concise,linear_scratch"]
    small = [text for text in SMALL if not text.startswith(("model", "data="))]
    finished = cli("src.train", "-m", *small, *axes, "hydra.sweep.dir=sweep", data=False)
    assert finished.status == 0, finished.output
    assert states(tmp_path / "sweep") == ["finished"] * 4
    assert finished.output.splitlines()[-1] == "written to sweep/: summary.csv .md .png"


def test_the_picture_is_of_what_the_table_ranks_by(made):
    """Without a validation split nothing is ranked: the test set is not to choose a setting."""
    jobs = [{"model.lr": "0.1"}, {"model.lr": "0.2"}]
    folder = made(jobs, [{"test/loss": 0.5, "test/acc": 0.9}] * 2)
    assert summarize(folder)[1].splitlines()[-1].endswith("/made/: summary.csv .md")
    assert not (folder / "summary.png").exists()
    made(jobs, [{"val/loss": 0.5, "test/loss": 0.5}, {"test/loss": 0.5}])
    summarize(folder)
    assert (folder / "summary.png").exists()


def test_a_sweep_over_seeds_alone_has_no_picture_and_names_none(made):
    folder = made([{"seed": "0"}, {"seed": "1"}], [{"val/loss": 0.5}, {"val/loss": 0.7}])
    _, text = summarize(folder)
    assert text.splitlines()[-1].endswith("/made/: summary.csv .md")
    assert "summary.png" not in (folder / "summary.md").read_text()
    assert not (folder / "summary.png").exists()


def test_a_picture_of_an_earlier_summary_is_not_named(made):
    folder = made([{"seed": "0"}, {"seed": "1"}], [{"val/loss": 0.5}, {"val/loss": 0.7}])
    (folder / "summary.png").write_bytes(b"")
    _, text = summarize(folder)
    assert "summary.png" not in (folder / "summary.md").read_text()
    assert text.splitlines()[-1].endswith("/made/: summary.csv .md")


def means(key: str, values: list[str], **others: str) -> list[dict]:
    return [{key: each, **others, "n": 1, "val/loss": (0.5 + k,)} for k, each in enumerate(values)]


def test_a_picture_says_what_it_shows():
    found = means("model.lr", ["0.1", "1"])
    (ax,) = chart(found, ["model.lr"]).axes
    assert (ax.get_title(), ax.get_xlabel()) == ("validation loss, one run each", "model.lr")
    found[0] |= {"n": 2, "val/loss": (0.5, 0.1)}
    title = chart(found, ["model.lr"]).axes[0].get_title()
    assert title == "validation loss, mean ± sd over the runs"


@pytest.mark.parametrize(
    ("values", "order", "scale"),
    [
        (["1", "0.3", "0.1", "3e-2"], ["3e-2", "0.1", "0.3", "1"], "log"),
        (["20", "5", "10"], ["5", "10", "20"], "linear"),
        (["1e-3", "0", "1e-4"], ["0", "1e-4", "1e-3"], "linear"),
        (["scratch", "concise", "1"], ["scratch", "concise", "1"], "linear"),
        (["1", "nan", "0.1"], ["1", "nan", "0.1"], "linear"),
    ],
)
def test_the_values_of_a_picture_stand_in_numerical_order(values, order, scale):
    (ax,) = chart(means("key", values), ["key"]).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == order
    assert ax.get_xscale() == scale
    assert list(ax.get_xticks()) == sorted(ax.get_xticks())
    (line,) = (container[0] for container in ax.containers)
    assert list(line.get_ydata()) == [0.5 + values.index(each) for each in order]
    numbers = (
        [float(each) for each in order]
        if values[0] in ("1", "20") and "nan" not in values
        else [*range(len(order))]
    )
    assert list(line.get_xdata()) == numbers


def test_the_lines_of_a_picture_stand_in_numerical_order_beside_it():
    found = [
        row for gamma in ("1.0", "0.9", "0.80") for row in means("lr", ["1", "0.5"], gamma=gamma)
    ]
    picture = chart(found, ["lr", "gamma"])
    FigureCanvasAgg(picture).draw()
    (legend,) = picture.legends
    assert legend.get_title().get_text() == "gamma"
    assert [text.get_text() for text in legend.get_texts()] == ["0.80", "0.9", "1.0"]
    assert legend.get_window_extent().x0 > picture.axes[0].get_window_extent().x1


def test_values_that_look_like_a_formula_or_are_long_can_be_drawn():
    values = [r"$\\foo$", "${a}${b}", "x" * 200]
    picture = chart(
        [row | {"other": r"$\\x$"} for row in means("$key$", values)], ["$key$", "other"]
    )
    FigureCanvasAgg(picture).draw()
    box = picture.get_tightbbox()
    assert box.y0 > -0.01
    assert picture.axes[0].get_window_extent().height > 150  # pixels


def test_a_picture_for_one_and_two_axes(made, caplog):
    caplog.set_level("INFO")
    axes = {
        "model.lr": ["0.1", "0.003", "nan"],
        "model.gamma": ["0.9", "1.0"],
        "model.loss": ["l2", "huber"],
    }
    places = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    folder = made(places, [{"val/loss": 0.5 + 0.1 * k} for k in range(len(places))])
    sweep = Sweep(folder)
    assert sweep.axes == list(axes)
    for axes in (["model.lr"], ["model.loss"], ["model.lr", "model.gamma"]):
        path = folder / f"{len(axes)}.png"
        picture = chart(groups(sweep.rows(), axes), axes)
        assert len(picture.axes[0].containers) == (1 if len(axes) == 1 else 2)
        save(picture, path)
        with Image.open(path) as image:
            assert len(image.convert("L").getcolors()) > 20
    assert not caplog.records  # they would be in the last job's log
    # three axes are a sorted table
    _, text = summarize(folder)
    assert not (folder / "summary.png").exists()
    assert "summary.png" not in (folder / "summary.md").read_text()
    assert text.splitlines()[-1].endswith("/made/: summary.csv .md")


def test_a_strangers_folder_is_read_and_nothing_in_it_runs(made, cli, tmp_path):
    """Neither its configs, nor what sweep.yaml says of Hydra, nor escapes in its texts."""
    escape = "\x1b]0;owned\x07\u202e"
    wants = [
        f"hydra.launcher._target_=os.system{escape}",
        "--config-dir=/nowhere",
        "hydra/callbacks=evil",
    ]
    record = {
        "status": "failed",
        "reason": f"{escape}\nline",
        f"{escape}/x": 1.0,
        "val/loss": "none",
        "val/acc": [1],
        "seconds": escape,
        "test/loss": 10**400,
    }
    folder = made([{"model.lr": f"0.1{escape}"}, {"model.lr": "0.2"}], [record], command=wants)
    (folder / ".conf").mkdir()
    started = f"_target_: subprocess.run\nargs: [touch, {tmp_path}/started]"
    (folder / ".conf/train.yaml").write_text(
        f"hydra: {{callbacks: {{x: {{{started.replace(chr(10), ', ')}}}}}}}"
    )
    status, output = cli("src.sweeps", "made", data=False)
    assert status == 0, output
    assert not (tmp_path / "started").exists()
    written = output + (folder / "summary.md").read_text() + (folder / "summary.csv").read_text()
    assert not set("\x1b\x07\u202e") & set(written)
    assert "\\x1b]0;owned" in output
    assert {path.name for path in tmp_path.iterdir()} == {"made", "output0.txt"}


@pytest.mark.parametrize(
    "place", ["sweep.yaml", "0", "0/.hydra", "0/.hydra/lock", "0/metrics.json", "0/a/b"]
)
def test_links_in_a_strangers_folder_are_not_followed(made, tmp_path, place):
    folder = made([{"seed": "0"}], [{"status": "running"}])
    precious = tmp_path / "precious"
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or path.exists():
        path.rename(precious)
    else:
        precious.write_text("precious")
    path.symlink_to(precious)
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    with pytest.raises(UserError, match=r"is a link|is damaged: it is no regular file"):
        summarize(folder)
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before


@pytest.mark.parametrize("name", ["summary.csv", "summary.md", "summary.png"])
@pytest.mark.parametrize("suffix", ["", ".part"])
def test_nothing_is_written_through_a_link(made, tmp_path, name, suffix):
    folder = made([{"model.lr": "1"}, {"model.lr": "2"}], [{"val/loss": 0.5}, {"val/loss": 0.4}])
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (folder / f"{name}{suffix}").symlink_to(precious)
    with contextlib.suppress(OSError, UserError):
        summarize(folder)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    "plan",
    [
        "command: []\njobs: &a [[x=1], *b]",
        "a: &a [x, x]\nb: &b [*a, *a]\ncommand: *b\njobs: []",
        "!!python/object/apply:os.system [touch started]",
        "command: []\njobs: [[x]]",
        "command: []\njobs: [x=1]",
        "command: [1]\njobs: []",
        "jobs: []",
        "[]",
        "\x00",
        "[" * 5_000,
        "#",
    ],
)
def test_a_damaged_plan_is_refused(tmp_path, plan, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(plan)
    with pytest.raises(UserError, match=r"^\S+/sweep\.yaml is damaged: "):
        summarize(tmp_path)
    assert not (tmp_path / "started").exists()


def test_a_pipe_as_plan_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "sweep.yaml")
    with pytest.raises(UserError, match=r"sweep\.yaml is a link or a device"):
        summarize(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "hydra.launcher._target_=os.system",
        "+hydra.callbacks.x._target_=subprocess.Popen",
        "hydra/callbacks=evil",
        "hydra.launcher.setup=[touch started]",
        "hydra.launcher.partition=${oc.env:HOME}",
        "hydra.sweep.subdir=/elsewhere",
        "+sweep@hydra.callbacks=evil",
        "~hydra",
        "--config-dir=/elsewhere",
        "-cn=other",
    ],
)
def test_resume_takes_from_the_folder_nothing_that_steers_hydra(made, tmp_path, text):
    folder = made(
        [{"seed": "0"}],
        [],
        command=["seed=0", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", text],
    )
    with pytest.raises(
        UserError, match=r"sets .*, which is not taken from a folder; if it is yours, add it: "
    ):
        resume(folder, [])
    with pytest.raises(UserError, match=r"only hydra\.launcher\.KEY=VALUE may be added"):
        resume(folder, ["model.lr=1"])


def test_resume_takes_settings_of_the_launcher(made, monkeypatch):
    command = [
        "seed=0,1",
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.timeout_min=1",
        "hydra.sweep.dir=x",
    ]
    folder = made([{"seed": "0"}], [], command=[*command, "hydra.launcher.setup=[module load x]"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as terminal.run has it
    added = ["hydra.launcher.timeout_min=60", "hydra.launcher.setup=[module load x]"]
    program, arguments = command_of_resume(folder, *added)
    assert program == sys.executable
    assert arguments[1:5] == ["-m", "src.train", "--multirun", f"--config-path={folder}/.conf"]
    assert arguments[5:8] == ["--config-name=train", "seed=0,1", "hydra/launcher=submitit_slurm"]
    assert arguments[8:10] == added
    assert os.environ["HYDRA_FULL_ERROR"] == "0"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "hydra.sweep.subdir=x",
            "hydra.sweep.subdir cannot be set: jobs are numbered; leave it out",
        ),
        (
            "+hydra.launcher.signal_delay_s=60",
            "hydra.launcher.signal_delay_s cannot be set: a job out of time is saved",
        ),
        (
            "hydra/launcher=submitit_local",
            "submitit_local cannot be set: take hydra/launcher=joblib",
        ),
        (
            "hydra.launcher.n_jobs=0",
            "hydra.launcher.n_jobs=0 cannot be set: only n_jobs can",
        ),
        (
            "hydra.launcher.timeout=9",
            "hydra.launcher.timeout=9 cannot be set: only n_jobs can",
        ),
        ("model.lr=shuffle(0.1,0.2)", "jobs are numbered in their order; leave out shuffle"),
        ("model=glob(linear_*)", "jobs are numbered in their order; leave out shuffle and glob"),
        (
            "model.lr=interval(0.1,0.2)",
            "model.lr=interval(0.1,0.2) is no list of values; take 0.1,0.3 or range(1,5)",
        ),
        ("seed=range(1,1)", "seed=range(1,1) has no values: the sweep would have no jobs"),
        ("seed=range(10001)", "the sweep would have more than 10,000 jobs; take fewer values"),
    ],
)
def test_what_numbered_jobs_cannot_have_is_refused_in_one_line(tmp_path, override, said):
    group = ["hydra/launcher=joblib"] * (override.startswith("hydra.launcher"))
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    cfg = composed(f"hydra.sweep.dir={tmp_path}/sweep", *group, *[override] * ("hydra" in override))
    if "hydra" not in override:  # only a command takes several values, or a range
        cfg.hydra.overrides.task.append(override)
    with pytest.raises((UserError, HydraException), match=re.escape(said)) as error:
        begin(cfg, loader)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_whose_plan_could_not_be_read_again_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "NODES", 50)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
    cfg = composed(f"hydra.sweep.dir={tmp_path}/sweep")
    cfg.hydra.overrides.task.append("seed=range(20)")
    said = "^the plan of 20 jobs could not be read again: it has more than 50 values"
    with pytest.raises(UserError, match=said):
        begin(cfg, loader)
    assert not (tmp_path / "sweep").exists()


def begin(cfg: DictConfig, loader: ConfigLoader) -> None:
    plan.check(cfg)
    plan.make(cfg, loader)


def test_a_place_for_the_jobs_in_a_config_of_ones_own_is_refused(cli, tmp_path):
    own = tmp_path / "own/experiment/mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nhydra: {sweep: {subdir: x}}\n")
    finished = cli(
        "src.train", "--config-dir=own", "-m", *SMALL, "experiment=mine", "seed=0,1", data=False
    )
    assert finished == (
        1,
        "error: hydra.sweep.subdir cannot be set: jobs are numbered; leave it out\n",
    )
    assert not (tmp_path / "outputs").exists()


# --- a sweep is what it was when it began -----------------------------------------------------------


@pytest.fixture
def own_conf(tmp_path) -> Path:
    """A copy of conf/ that a test may edit."""
    return shutil.copytree(ROOT / "conf", tmp_path / "conf")


@pytest.mark.parametrize("launcher", [[], BESIDE])
def test_a_config_that_is_edited_while_a_sweep_runs_changes_none_of_its_jobs(
    start, tmp_path, own_conf, launcher
):
    jobs = ["seed=0,1,2,3", "trainer.max_epochs=5", "data.train_size=1500", *launcher]
    place = [f"--config-path={own_conf}", "hydra.sweep.dir=sweep"]
    command = start("src.train", *place, "-m", *SMALL, *jobs, data=False)
    command.until((tmp_path / "sweep/0/checkpoints/last.ckpt").exists)
    for name in ("model/linear_scratch", "data/synthetic"):
        path = own_conf / f"{name}.yaml"
        path.write_text(path.read_text().replace("weight_decay: 0.0", "weight_decay: 9.9"))
    (own_conf / "trainer/default.yaml").write_text("nonsense: [")
    assert command.wait() == 0, command.output()
    for number in range(4):
        assert Run(tmp_path / f"sweep/{number}").settings()["model"]["weight_decay"] == 0.0


def own_experiment(folder: Path, lr: float, more: str = "") -> None:
    """A config folder of the user's with an experiment."""
    (folder / "experiment").mkdir(parents=True)
    text = f"# @package _global_\nmodel: {{lr: {lr}}}\n{more}"
    (folder / "experiment/mine.yaml").write_text(text)


@pytest.mark.parametrize("how", ["--config-dir=own", "hydra.searchpath=[file://own]"])
def test_config_folders_of_ones_own_are_copied_along(swept, resumed, tmp_path, how):
    own_experiment(tmp_path / "own", 0.011)
    finished, folder = swept(how, "experiment=mine", "seed=0,1")
    assert finished.status == 0, finished.output
    shutil.rmtree(tmp_path / "own")
    shutil.rmtree(folder / "1")
    finished = resumed("sweep")
    assert finished.status == 0, finished.output
    assert [Run(folder / name).settings()["model"]["lr"] for name in "01"] == [0.011, 0.011]


def test_of_two_configs_with_one_name_the_copy_has_the_one_that_hydra_takes(swept, tmp_path):
    own_experiment(tmp_path / "own", 0.011)
    (tmp_path / "own/model").mkdir()
    (tmp_path / "own/model/linear_scratch.yaml").write_text("_target_: nowhere")
    finished, folder = swept("--config-dir=own", "experiment=mine", "seed=0,1")
    assert finished.status == 0, finished.output
    ours = (ROOT / "conf/model/linear_scratch.yaml").read_text()
    assert (folder / ".conf/model/linear_scratch.yaml").read_text() == ours


def test_a_config_folder_that_is_not_there_is_one_line(swept, tmp_path):
    finished, folder = swept('hydra.searchpath=["file://~/nowhere"]', "seed=0,1")
    assert finished.status == 1
    *_, line = finished.output.splitlines()
    assert line.startswith(
        "error: hydra.searchpath in command-line: file://~/nowhere is no folder; "
    )
    assert not folder.exists()


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (["sweep=lr,batch_size"], "sweep=lr sets hydra.sweeper of a job"),
        (
            ["experiment=mine,best", "--config-dir=own"],
            "experiment=mine sets hydra.sweeper of a job",
        ),
        (
            ["experiment=side,best", "--config-dir=own"],
            "experiment=side sets hydra.launcher of a job",
        ),
    ],
    ids=str,
)
def test_a_sweep_of_sweeps_is_refused(cli, tmp_path, sweep, said):
    own_experiment(tmp_path / "own", 0.1, "hydra: {sweeper: {params: {seed: '1,2'}}}")
    side = "# @package _global_\ndefaults: [{override /hydra/launcher: joblib}]\n"
    (tmp_path / "own/experiment/side.yaml").write_text(side)
    status, output = cli("src.train", "-m", *sweep, "hydra.sweep.dir=sweep", data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith(f"error: {said}, but a sweep has one for all its jobs")
    assert not (tmp_path / "sweep").exists()


def test_what_stops_a_job_before_it_has_a_record_is_its_reason(swept):
    finished, folder = swept("+nonsense=1,2")
    assert finished.status == 1
    assert states(folder) == ["failed", "failed"]
    reason = "nonsense=1 is read by nothing."
    assert table(folder)[0]["reason"].startswith(reason)
    assert reason in (folder / "summary.md").read_text()
    assert "Traceback" not in finished.output


def test_a_job_whose_logger_has_no_name_runs(cli, tmp_path):
    small = [text for text in SMALL if text != "~logger"]
    finished = cli(
        "src.train",
        "-m",
        *small,
        "~logger.tensorboard.name",
        "seed=0,1",
        "hydra.sweep.dir=sweep",
        data=False,
    )
    assert finished.status == 0, finished.output
    assert all(Run(tmp_path / f"sweep/{number}").events() for number in range(2))


def test_the_values_of_a_range_are_the_numbers_that_were_meant(swept):
    finished, folder = swept("model.lr=range(0.01,0.04,0.01)")
    assert finished.status == 0, finished.output
    assert [row["model.lr"] for row in table(folder)] == ["0.01", "0.02", "0.03"]
    assert Run(folder / "2").settings()["model"]["lr"] == 0.03


def test_hydras_own_settings_may_be_what_they_like_where_nothing_depends_on_them(swept):
    finished, _ = swept("hydra.job.name=mine", "seed=0,1")
    assert finished.status == 0, finished.output
    finished, folder = swept('+hydra.sweeper.params.seed="5,6"', folder="more")
    assert finished.status == 0, finished.output
    assert [row["seed"] for row in table(folder)] == ["5", "6"]


@pytest.mark.parametrize("axis", ["n", "val/loss", "status"])
def test_an_axis_that_is_called_like_a_result_is_damage(made, axis):
    folder = made([{axis: "1"}, {axis: "2"}], [{"val/loss": 0.5}, {"val/loss": 0.4}])
    with pytest.raises(UserError, match=r"sweep\.yaml is damaged: .* is a result, not a setting"):
        summarize(folder)


def test_nothing_of_a_strangers_sweep_is_markdown_or_a_formula(made):
    reason = '<img src="http://127.0.0.1/x"> ![x](http://127.0.0.1/y) `code`'
    records = [{"status": "failed", "reason": reason}, {"val/loss": 1.0}]
    folder = made([{"model.lr": "=1+1"}, {"model.lr": "<b>"}], records, command=["`x`", "<script>"])
    summarize(folder)
    page, sheet = ((folder / f"summary.{kind}").read_text() for kind in ("md", "csv"))
    assert r"\<img" in page
    assert r"![x]\(http" in page
    assert r"\`code\`" in page
    assert r"\<b>" in page
    assert "\n    python -m src.train -m '`x`' '<script>'\n" in page  # a line of code
    prose = "\n".join(line for line in page.splitlines() if not line.startswith("    "))
    assert not re.search(r"(?<!\\)[<`]|\](?<!\\)\(http", prose.replace(r"]\(", ""))
    assert re.search(r"(?m)^0,'=1\+1,", sheet)
