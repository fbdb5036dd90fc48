"""The page of results: its verdicts, and that every preset has its place on it."""

import json
import math
import os
import signal

import pytest

from src import reproduce
from src.reproduce import CHECKS, Check, judge
from src.runs import Run
from src.training.experiment import train
from tests.test_config import options

CHECK = Check("name", "recipe", {"test/acc": (0.8, 0.9), "test/loss": (0, 1)}, "yardstick", seeds=(0, 1))


def record(acc: float, loss: float) -> dict[str, float]:
    return {"test/acc": acc, "test/loss": loss, "seconds": 1.4}


def test_means_within_the_bounds_pass_and_show_their_spread():
    row = judge(CHECK, [record(0.79, 0.5), record(0.83, 0.7)])  # mean 0.81
    assert row["verdict"] == "pass"
    assert (
        row["ours"]
        == "test/acc 0.8100 (0.7900 to 0.8300, 2 seeds); test/loss 0.6000 (0.5000 to 0.7000, 2 seeds)"
    )
    assert row["seconds"] == 3


@pytest.mark.parametrize("records", [[record(0.79, 0.5)], [record(0.91, 0.5)], [record(0.85, 1.1)]])
def test_one_mean_outside_its_bounds_fails(records):
    assert judge(CHECK, records)["verdict"] == "FAIL"


def test_nan_fails():
    assert judge(CHECK, [record(0.85, float("nan"))])["verdict"] == "FAIL"


def test_a_run_that_raised_fails_with_its_reason_beside_the_others():
    row = judge(CHECK, [record(0.85, 0.5), {"seed": 1, "reason": "disk full"}])
    assert row["verdict"] == "FAIL"
    assert row["ours"] == "seed 1 failed: disk full; test/acc 0.8500; test/loss 0.5000"
    row = judge(CHECK, [{"seed": 0, "reason": "x"}, {"seed": 1, "reason": "disk full"}])
    assert row["ours"] == "seed 0 failed: x; seed 1 failed: disk full"
    assert (row["verdict"], row["seconds"]) == ("FAIL", 0)


def test_a_killed_process_costs_no_page(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "run_preset", suicide)
    said = []
    rows = reproduce.reproduce([CHECK], [], 1, tmp_path, lambda *line: said.append(line[0] % line[1:]))
    assert "seed 0 failed: A process in the process pool was terminated abruptly" in rows[0]["ours"]
    assert "terminated abruptly" in (tmp_path / "results.md").read_text()
    assert len(said) == 2


def suicide(*arguments) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_run_that_raises_costs_no_page(cli, tmp_path):
    arguments = ["presets=[linear_concise,linear_l1]", "overrides=['nope=1']", "hydra.run.dir=out"]
    status, output = cli("src.reproduce", *arguments, data=False)
    assert status == 1
    assert "Traceback" not in output
    assert output.splitlines()[-1] == "error: failed, or outside the bounds: linear_concise, linear_l1"
    page = (tmp_path / "out/results.md").read_text().splitlines()
    assert page[2].startswith("| linear_concise | nn.Linear")
    for line in page[2:]:
        assert "| seed 0 failed: Could not override 'nope'." in line
        assert line.endswith("| FAIL |")


@pytest.mark.slow
@pytest.mark.parametrize("override", ["workers=abc", "workers=0", "presets=best"])
def test_options_of_a_wrong_kind_are_one_line(cli, override):
    status, output = cli("src.reproduce", override, data=False)
    assert (status, output.count("\n")) == (1, 1)
    assert output.startswith(f"error: {override.partition('=')[0]} must be ")


def test_a_shortened_recipe_says_so():
    check = CHECK._replace(shortened=("trainer.max_epochs=2",))
    assert judge(check, [record(0.85, 0.5)])["recipe"] == "recipe; here trainer.max_epochs=2"


def test_every_preset_is_checked():
    assert sorted(check.preset for check in CHECKS) == options("experiment")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_preset_runs(config, experiment, tmp_path):
    cfg = config(f"experiment={experiment}", "debug=fast", "~callbacks.figures")
    train(cfg, tmp_path / "run")
    record = Run(tmp_path / "run").record()
    assert record["status"] == "finished"
    assert record["steps"] == math.ceil(1000 / cfg.data.batch_size)
    bounds = next(check for check in CHECKS if check.preset == experiment).bounds
    assert set(bounds) - {"gap", "last val/loss"} <= set(record)


@pytest.mark.slow
def test_the_command_writes_the_page_and_succeeds_if_all_bounds_are_kept(cli, tmp_path):
    status, output = cli("src.reproduce", "presets=[linear_concise]", "hydra.run.dir=out", data=False)
    assert status == 0, output
    assert output.startswith("1/1  linear_concise seed 0  error/w 0.0")
    page = (tmp_path / "out/results.md").read_text()
    assert page in output
    assert page.splitlines()[2].startswith("| linear_concise | nn.Linear, MSELoss")
    assert page.splitlines()[2].endswith("| pass |")


@pytest.mark.slow
def test_the_command_fails_if_a_bound_is_missed(cli, data_root, tmp_path):
    quick = f"'trainer.max_epochs=1','data.root={data_root}'"
    arguments = ["presets=[overfit,overfit_fixed]", f"overrides=[{quick}]", "hydra.run.dir=out", "workers=2"]
    status, output = cli("src.reproduce", *arguments, data=False)
    assert status == 1  # after one epoch there is no gap yet, and the loss is still high
    assert output.splitlines()[-1] == "error: failed, or outside the bounds: overfit, overfit_fixed"
    page = (tmp_path / "out/results.md").read_text().splitlines()
    assert page[2].startswith("| overfit | 300 training images")
    assert page[2].endswith("| FAIL |")
    assert (tmp_path / "out/overfit.png").exists()
    assert json.loads((tmp_path / "out/overfit/seed0/metrics.json").read_text())["status"] == "finished"
    status, output = cli("src.reproduce", "presets=[nope]", data=False)
    assert status == 1
    assert output.startswith("error: presets: no check for nope; choose from scratch_decay, ")
