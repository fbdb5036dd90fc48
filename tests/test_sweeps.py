"""Sweeps: the folder says everything, a failure stops nothing, a kill loses nothing."""

import csv
import os
import re
import shutil
import signal
import statistics
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf
from PIL import Image

from src import plots
from src.runs import Run
from src.sweeps import Sweep, groups, summarize
from tests.conftest import Command

pytestmark = pytest.mark.slow  # real commands

SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=300", "trainer.max_epochs=3", "~logger"]


def table(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def timeless(folder: Path) -> list[dict[str, str]]:
    """summary.csv without what differs from one machine, folder or day to the next."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "folder")} for row in table(folder)]


@pytest.fixture
def swept(cli, tmp_path):
    """swept(*arguments) is the finished command and its sweep folder."""

    def call(*arguments: str, folder: str = "sweep", **options):
        command = ["src.train", "-m", *SMALL, *arguments, f"hydra.sweep.dir={folder}"]
        return cli(*command, data=False, **options), tmp_path / folder

    return call


def test_a_grid_ends_in_a_summary_of_its_runs(swept):
    finished, folder = swept("model.lr=0.01,0.03", "model.gamma=0.9,1.0", "seed=0,1,2")
    assert finished.status == 0, finished.output
    rows = table(folder)
    assert len(rows) == 12
    for number, row in enumerate(rows):
        run = Run(folder / str(number))
        record = run.record()
        assert row["status"] == record["status"] == "finished"
        assert float(row["val/loss"]) == record["val/loss"]
        assert float(row["seconds"]) == record["seconds"]
        cfg = OmegaConf.create(run.recorded())
        assert (float(row["model.lr"]), float(row["model.gamma"]), int(row["seed"])) == (
            *(cfg.model.lr, cfg.model.gamma, cfg.seed),
        )
        assert {"train.log", "metrics.csv", "checkpoints", ".hydra"} <= set(os.listdir(run.path))
    # means over seeds, by hand from the rows
    lines = [line for line in (folder / "summary.md").read_text().splitlines() if re.match(r"\| 0\.", line)]
    assert len(lines) == 4
    means = []
    for line in lines:
        lr, gamma, n, loss = [cell.strip() for cell in line.strip("|").split("|")][:4]
        members = [
            float(row["val/loss"]) for row in rows if (row["model.lr"], row["model.gamma"]) == (lr, gamma)
        ]
        assert (int(n), len(members)) == (3, 3)
        assert loss == f"{statistics.mean(members):.4f} ± {statistics.stdev(members):.4f}"
        means.append(statistics.mean(members))
    assert means == sorted(means)  # best first


def test_the_terminal_shows_a_line_per_job_and_the_table(swept):
    finished, folder = swept("model.lr=0.01,0.03")
    lines = finished.output.splitlines()
    losses = [float(row["val/loss"]) for row in table(folder)]
    best = min(losses)
    assert re.fullmatch(
        rf"1/2  .*model\.lr=0\.01.*  val/loss {losses[0]:.4f}  best {losses[0]:.4f} \(job 0\)  \d+ s left",
        lines[0],
    )
    assert re.fullmatch(rf"2/2  .*  val/loss {losses[1]:.4f}  best {best:.4f} \(job \d\)  0 s left", lines[1])
    assert "epoch 1/" not in finished.output
    assert lines[2] == "2 jobs: 2 finished."
    assert lines[-1] == "written to sweep/: summary.csv .md .png"


def test_a_failing_job_is_a_row_and_stops_nothing(swept):
    finished, folder = swept("model.lr=0.01,-1,0.03", "data.val_size=100")
    assert finished.status == 1
    assert "Traceback" not in finished.output
    assert finished.output.splitlines()[-1] == "error: 1 of 3 jobs did not finish"
    assert [row["status"] for row in table(folder)] == ["finished", "failed", "finished"]
    reason = "model.lr: input should be greater than 0, got -1; try model.lr=0.03"
    assert table(folder)[1]["reason"] == reason
    assert reason in (folder / "summary.md").read_text()
    log = (folder / "1/train.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert reason in log


def test_a_diverging_job_is_told_apart(swept):
    finished, folder = swept("model.lr=0.03,3", "trainer.max_epochs=20")
    assert finished.status == 1
    assert [row["status"] for row in table(folder)] == ["finished", "diverged"]


LONG = [*SMALL, "data.train_size=3000", "model.lr=0.01,0.03", "seed=0,1", "trainer.max_epochs=5"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tmp_path) -> Path:
    """The folder of a sweep that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    command = Command("src.train", ["-m", *LONG, "hydra.sweep.dir=sweep"], folder, folder / "output.txt")
    assert command.wait() == 0, command.output()
    return folder / "sweep"


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_an_interrupted_sweep_is_finished_by_resume(whole, start, cli, tmp_path, signum, status):
    command = start("src.train", "-m", *LONG, "hydra.sweep.dir=cut", data=False)
    command.until((tmp_path / "cut/1/checkpoints/last.ckpt").exists)
    command.kill(signum)
    assert command.wait() == status
    cut = tmp_path / "cut"
    if signum != signal.SIGKILL:
        assert [row["status"] for row in table(cut)] == ["finished", "interrupted", *["not started"] * 2]
        assert "4 jobs: 1 finished, 1 interrupted, 2 not started." in command.output()
    # rebuilt from the folders alone
    rebuilt = cli("src.sweeps", "cut", data=False)
    assert rebuilt.status == 0, rebuilt.output
    assert [row["status"] for row in table(cut)] == ["finished", "interrupted", *["not started"] * 2]
    first = {path: path.read_bytes() for path in (cut / "0/checkpoints").iterdir()}
    # configs that changed in the meantime have no say
    config = cut / ".conf/model/linear_scratch.yaml"
    assert config.exists()
    resumed = cli("src.sweeps", "resume", "cut", data=False)
    assert resumed.status == 0, resumed.output
    assert timeless(cut) == timeless(whole)
    assert {path: path.read_bytes() for path in first} == first
    assert "resumed" not in Run(cut / "0").record()
    assert Run(cut / "1").record()["resumed"][0]["step"] > 0
    assert resumed.output.count(" s left") == 3  # what was finished is not done again
    # and once more: nothing is left
    again = cli("src.sweeps", "resume", "cut", data=False)
    assert again.status == 0
    assert timeless(cut) == timeless(whole)


def test_resume_uses_the_configs_recorded_when_the_sweep_began(start, cli, tmp_path):
    command = start("src.train", "-m", *LONG, "hydra.sweep.dir=cut", data=False)
    command.until((tmp_path / "cut/1/checkpoints/last.ckpt").exists)
    command.kill(signal.SIGKILL)
    command.wait()
    snapshot = tmp_path / "cut/.conf/model/linear_scratch.yaml"
    text = snapshot.read_text()
    assert "weight_decay: 0.0" in text
    snapshot.write_text(text.replace("weight_decay: 0.0", "weight_decay: 0.125"))
    cli("src.sweeps", "resume", "cut", data=False)
    assert Run(tmp_path / "cut/3").recorded()["model"]["weight_decay"] == 0.125


def test_a_sweep_that_runs_is_summarized_but_not_resumed(start, cli, tmp_path):
    command = start("src.train", "-m", *LONG, "trainer.max_epochs=1000", "hydra.sweep.dir=sweep", data=False)
    command.until((tmp_path / "sweep/0/checkpoints/last.ckpt").exists)
    assert cli("src.sweeps", "sweep", data=False).status == 0
    assert [row["status"] for row in table(tmp_path / "sweep")] == ["running", *["not started"] * 3]
    status, output = cli("src.sweeps", "resume", "sweep", data=False)
    assert status == 1
    assert output == "error: sweep sweep is in use by another process; wait until that one ends\n"
    command.kill(signal.SIGTERM)
    assert command.wait() == 143


def test_a_folder_that_holds_a_sweep_is_refused(swept):
    assert swept("seed=0,1")[0].status == 0
    finished, folder = swept("seed=0,1,2")
    assert finished.status == 1
    assert finished.output == "error: folder sweep is not empty; choose another with hydra.sweep.dir=DIR\n"
    assert len(table(folder)) == 2


@pytest.fixture
def launched(cli, tmp_path):
    """As `swept`, but for launchers that start processes of their own: from a new interpreter."""

    def call(*arguments: str, folder: str = "sweep"):
        place = f"hydra.sweep.dir={folder}"
        finished = cli("src.train", "-m", *SMALL, *arguments, place, data=False, fresh=True)
        return finished, tmp_path / folder

    return call


def test_jobs_side_by_side_do_not_share_cores(swept, launched):
    one, folder = swept("seed=0,1,2,3", folder="one")
    many, beside = launched("seed=0,1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", folder="many")
    assert (one.status, many.status) == (0, 0), many.output
    assert [row["val/loss"][:6] for row in table(folder)] == [row["val/loss"][:6] for row in table(beside)]
    threads = {Run(beside / str(n)).record()["threads"] for n in range(4)}
    assert threads == {1}
    assert many.output.count(" s left") == 4
    assert "4 jobs: 4 finished." in many.output


def test_a_failing_job_beside_others_is_a_row(launched):
    finished, folder = launched("model.lr=0.01,-1", "hydra/launcher=joblib")
    assert finished.status == 1
    assert [row["status"] for row in table(folder)] == ["finished", "failed"]


def test_a_cluster_of_one_machine(launched):
    finished, folder = launched("seed=0,1", "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5")
    assert finished.status == 0, finished.output
    assert [row["status"] for row in table(folder)] == ["finished"] * 2


def test_a_cluster_with_slurm_composes(cli):
    arguments = [
        "hydra/launcher=submitit_slurm",
        "hydra.launcher.partition=cpu",
        "hydra.launcher.cpus_per_task=4",
    ]
    status, output = cli("src.train", *SMALL, *arguments, "--cfg", "hydra", data=False)
    assert status == 0, output
    launcher = yaml.safe_load(output)["hydra"]["launcher"]
    assert launcher["_target_"].endswith("SlurmLauncher")
    assert (launcher["partition"], launcher["cpus_per_task"]) == ("cpu", 4)


def test_other_commands_fail_over_several_values_if_one_fails(cli, tmp_path):
    arguments = ["num_examples=10", "scales=[1],[a]", "hydra.sweep.dir=several"]
    status, output = cli("src.stability", "-m", *arguments, data=False)
    assert status == 1
    assert output.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "several/summary.csv").exists()


def test_a_folder_that_is_no_sweep_is_said(cli):
    for arguments in (["nowhere"], ["resume", "nowhere"]):
        status, output = cli("src.sweeps", *arguments, data=False)
        assert status == 1
        assert output.startswith("error: nowhere is no sweep folder")


def test_a_picture_for_every_number_of_axes(swept):
    finished, folder = swept(
        "model.lr=0.003,0.01,0.03", "model.gamma=0.9,1.0", "model.loss=l2,huber", "seed=0,1", folder="three"
    )
    assert finished.status == 0, finished.output
    sweep = Sweep(folder)
    assert sweep.axes == ["model.lr", "model.gamma", "model.loss", "seed"]
    rows = sweep.rows()
    for axes in (
        ["model.lr"],
        ["model.loss"],
        ["model.lr", "model.gamma"],
        ["model.lr", "model.gamma", "model.loss"],
    ):
        path = folder / f"{len(axes)}.png"
        plots.save(plots.sweep(groups(rows, axes), axes, "val/loss"), path)
        with Image.open(path) as picture:
            assert len(picture.convert("L").getcolors()) > 20
    with Image.open(folder / "summary.png") as drawn, Image.open(folder / "3.png") as again:
        assert drawn.tobytes() == again.tobytes()


def test_without_a_validation_split_nothing_is_selected(swept):
    finished, folder = swept("model.lr=0.03,0.01", "data.val_size=0")
    assert finished.status == 0
    text = (folder / "summary.md").read_text()
    assert "no validation split: nothing is selected" in text
    assert [row["model.lr"] for row in table(folder)] == ["0.03", "0.01"]
    assert "best" not in finished.output


def test_sd_is_that_of_a_sample_and_absent_for_one_run():
    rows = [
        {"a": "1", "seed": str(seed), "status": "finished", "val/loss": loss}
        for seed, loss in enumerate([1.0, 3.0])
    ]
    rows.append({"a": "2", "seed": "0", "status": "finished", "val/loss": 0.5})
    rows.append({"a": "2", "seed": "1", "status": "failed"})
    assert groups(rows, ["a", "seed"]) == [
        {"a": "2", "n": 1, "val/loss": (0.5, None)},
        {"a": "1", "n": 2, "val/loss": (2.0, pytest.approx(2**0.5))},
    ]


def test_the_folder_can_be_moved(swept, tmp_path):
    _, folder = swept("model.lr=0.03,0.01")
    before = timeless(folder)
    moved = Path(shutil.move(folder, tmp_path / "moved"))
    summarize(moved)
    assert timeless(moved) == before
