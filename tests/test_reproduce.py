"""The page of results: its verdicts, and that every experiment has its place on it."""

import json
import math
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from src.cli.options import checked
from src.errors import UserError
from src.reproduce import experiments as reproduce
from src.reproduce.experiments import Check, Reproduction, row
from src.runs import Run
from src.runs.config import CONF
from src.training.experiment import train
from tests.conftest import ROOT, compose_config
from tests.test_config import options

BOUNDS = {"test/acc": [0.8, 0.9], "test/loss": [0, 1]}
CHECK = Check(settings="settings", yardstick="yardstick", bounds=BOUNDS, seeds=2)


def record(acc: float, loss: float) -> dict[str, float]:
    return {"test/acc": acc, "test/loss": loss, "seconds": 1.4}


def test_means_within_the_bounds_pass_and_show_their_spread():
    page = row("name", CHECK, [record(0.79, 0.5), record(0.83, 0.7)])  # mean 0.81
    assert page["verdict"] == "pass"
    assert (
        page["ours"]
        == "test/acc 0.8100 (0.7900 to 0.8300, 2 seeds); test/loss 0.6000 (0.5000 to 0.7000, 2 seeds)"
    )
    assert page["seconds"] == 3


@pytest.mark.parametrize("records", [[record(0.79, 0.5)], [record(0.91, 0.5)], [record(0.85, 1.1)]])
def test_one_mean_outside_its_bounds_fails(records):
    assert row("name", CHECK, records)["verdict"] == "FAIL"


def test_nan_fails():
    assert row("name", CHECK, [record(0.85, float("nan"))])["verdict"] == "FAIL"


def test_a_run_that_raised_fails_with_its_reason_beside_the_others():
    page = row("name", CHECK, [record(0.85, 0.5), {"seed": 1, "reason": "disk full"}])
    assert page["verdict"] == "FAIL"
    assert page["ours"] == "seed 1 failed: disk full; test/acc 0.8500; test/loss 0.5000"
    page = row("name", CHECK, [{"seed": 0, "reason": "x"}, {"seed": 1, "reason": "disk full"}])
    assert page["ours"] == "seed 0 failed: x; seed 1 failed: disk full"
    assert (page["verdict"], page["seconds"]) == ("FAIL", 0)


@pytest.fixture
def conf() -> Iterator[None]:
    """The configs, as the command has them."""
    yardsticks()  # composed before: what composes within would end what begins here
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def test_a_run_that_raises_says_why_in_text(tmp_path, monkeypatch, conf):
    failed = reproduce.run_experiment("linear_l1", 3, ["nope=1"], tmp_path / "run")
    assert failed["reason"].startswith("Could not override 'nope'.")
    monkeypatch.setattr(reproduce, "compose", lambda *arguments, **settings: {}["weights"])
    failed = reproduce.run_experiment("linear_l1", 3, [], tmp_path / "run")
    assert failed == {"seed": 3, "reason": "KeyError: 'weights'"}


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("experiments=best", "experiments: input should be a valid list, got 'best'"),
        ("experiments=[]", "experiments: list should have at least 1 item"),
        ("overrides=[1]", "overrides.0: input should be a valid string, got 1"),
        ("checks.best.seeds=0", "checks.best.seeds: input should be greater than 0, got 0"),
    ],
)
def test_options_of_a_wrong_kind_are_one_line(override, complaint):
    with pytest.raises(UserError) as error:
        checked(Reproduction, compose_config("reproduce", override))
    assert str(error.value).startswith(complaint)


def test_a_shortened_experiment_says_so():
    check = CHECK.model_copy(update={"overrides": ["trainer.max_epochs=2"]})
    assert (
        row("name", check, [record(0.85, 0.5)])["settings"] == "settings; here trainer.max_epochs=2"
    )


def test_a_bounded_metric_that_was_not_measured_fails():
    page = row("name", CHECK, [{"test/acc": 0.85, "seconds": 1}])
    assert (page["ours"], page["verdict"]) == ("test/acc 0.8500; test/loss nan", "FAIL")


def yardsticks() -> dict[str, Check]:
    return checked(Reproduction, compose_config("reproduce")).checks


def test_every_experiment_is_checked():
    assert sorted(yardsticks()) == options("experiment")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_runs(config, experiment, tmp_path):
    cfg = config(f"experiment={experiment}", "debug=fast", "~callbacks.figures", "~logger")
    train(cfg, tmp_path / "run")
    record = Run(tmp_path / "run").results()
    assert record["status"] == "finished"
    assert record["steps"] == math.ceil(1000 / cfg.data.batch_size)
    assert yardsticks()[experiment].bounds.keys() - {"gap", "last val/loss"} <= record.keys()


@pytest.mark.slow
def test_the_page_is_written_and_nothing_raised_if_all_bounds_are_kept(tmp_path, caplog, conf):
    caplog.set_level("INFO")
    checks = {"linear_concise": yardsticks()["linear_concise"]}
    reproduce.reproduce(checks, ["~logger", "~callbacks.figures"], tmp_path)
    assert any(
        text.startswith("1/1  linear_concise seed 0  error/w 0.0") for text in caplog.messages
    )
    page = (tmp_path / "results.md").read_text()
    assert page.strip() in caplog.text
    (line,) = page.splitlines()[2:]
    assert line.startswith("| linear_concise | nn.Linear, MSELoss")
    assert line.endswith("| pass    |")


@pytest.mark.slow
def test_the_command_fails_if_a_run_raises_or_a_bound_is_missed(cli, data_root, tmp_path):
    quick = f"'trainer.max_epochs=1','data.root={data_root}'"
    arguments = ["experiments=[linear_l1,overfit,overfit_fixed]", "hydra.run.dir=out"]
    arguments += [f"+checks.{name}.overrides=[{quick}]" for name in ("overfit", "overfit_fixed")]
    arguments += ["+checks.linear_l1.overrides=['nope=1']"]
    status, output = cli("src.reproduce", *arguments, data=False)
    assert status == 1  # after one epoch there is no gap yet, and the loss is still high
    assert "Traceback" not in output
    last = "error: failed, or outside the bounds: linear_l1, overfit, overfit_fixed"
    assert output.splitlines()[-1] == last
    raised, missed, _ = (tmp_path / "out/results.md").read_text().splitlines()[2:]
    assert "| seed 0 failed: Could not override 'nope'." in raised
    assert missed.startswith("| overfit       | 300 training images")
    assert raised.endswith("| FAIL    |")
    assert missed.endswith("| FAIL    |")
    assert (
        json.loads((tmp_path / "out/overfit/seed0/metrics.json").read_text())["status"]
        == "finished"
    )


@pytest.fixture
def project(tmp_path) -> Path:
    """A folder in which `make reproduce` runs, in the place of Python, what the test writes into
    `python`."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for path in ("pyproject.toml", "constraints.txt", ".venv/bin/python", ".venv/.installed"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / "docs").mkdir()
    page = "| of another table |\n<!-- results -->\n| old |\n| row |\n<!-- /results -->\n\n| The end. |\n"
    (tmp_path / "docs/results.md").write_text(page)
    return tmp_path


def made(project: Path, status: int) -> int:
    program = (
        'folder=${3#*=}; mkdir -p $folder; printf "| new |\\n| table |\\n" > $folder/results.md'
    )
    (project / ".venv/bin/python").write_text(f"#!/bin/sh\n{program}; exit {status}\n")
    return subprocess.run(["make", "reproduce"], cwd=project, capture_output=True).returncode


def test_make_reproduce_puts_the_table_in_the_place_of_the_old_one(project):
    page = "| of another table |\n<!-- results -->\n| new |\n| table |\n<!-- /results -->\n\n| The end. |\n"
    assert made(project, 0) == 0
    assert (project / "docs/results.md").read_text() == page


def test_make_reproduce_leaves_the_page_as_it_was_if_something_fails(project):
    before = (project / "docs/results.md").read_text()
    assert made(project, 1) != 0
    assert (project / "docs/results.md").read_text() == before


def test_the_page_of_this_project_has_its_marks_and_all_experiments():
    page = (ROOT / "docs/results.md").read_text()
    (results,) = re.findall(r"(?ms)^<!-- results -->\n(.*?)^<!-- /results -->$", page)
    rows = [line.strip("| ").split(" | ") for line in results.splitlines()[2:]]
    shown = {cells[0].strip(): [cell.strip() for cell in cells] for cells in rows}
    assert list(shown) == list(yardsticks())
    for experiment, check in yardsticks().items():
        _, settings, ours, yardstick, _, verdict = shown[experiment]
        assert settings.partition("; here ")[0] == check.settings
        assert (yardstick, verdict) == (check.yardstick, "pass")
        for metric, (low, high) in check.bounds.items():
            assert low <= float(re.search(rf"\b{metric} ([\d.]+)", ours)[1]) <= high


@pytest.mark.slow
def test_an_experiment_without_a_check_is_refused(cli):
    status, output = cli("src.reproduce", "experiments=[nope]", data=False)
    assert (status, output.count("\n")) == (1, 1)
    assert output.startswith("error: experiments: no check for nope; choose from scratch_decay, ")


@pytest.mark.slow
def test_a_signal_ends_the_runs_too(start, tmp_path):
    long = ["experiments=[linear_l1,linear_huber]", "overrides=['trainer.max_epochs=20000']"]
    command = start("src.reproduce", *long, "hydra.run.dir=out", data=False)
    run = Run(tmp_path / "out/linear_l1/seed0")
    command.until(run.last.exists)
    command.kill(signal.SIGTERM)
    assert command.wait(60) == 128 + signal.SIGTERM
    assert run.results()["status"] == "interrupted"
    assert not (tmp_path / "out/linear_huber/seed0/metrics.csv").exists()
