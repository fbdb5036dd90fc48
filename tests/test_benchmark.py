"""The benchmark measures what it says."""

import json

import pytest
import torch

from src.benchmark import CONTESTANTS, classes, peak_bytes
from src.benchmark import table as shown
from src.speed import TARGETS, Series, Target

KEYS = {"epoch": ["rounds", "epochs"], "command": ["rounds", "epochs"], "sweep": ["rounds", "jobs", "epochs"]}


def test_peak_memory_counts_what_is_held_at_the_same_time():
    megabyte = torch.zeros(250_000).nbytes  # 1,000,000
    assert peak_bytes(lambda: torch.zeros(250_000)) == pytest.approx(megabyte, rel=0.01)
    one_after_another = peak_bytes(lambda: [torch.zeros(250_000).sum() for _ in range(3)])
    assert one_after_another == pytest.approx(megabyte, rel=0.01)
    together = peak_bytes(lambda: [torch.zeros(250_000) for _ in range(3)])
    assert together == pytest.approx(3 * megabyte, rel=0.01)


def test_all_contestants_compute_the_same_gradient():
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.arange(8)
    expected = CONTESTANTS["torch"](logits, y)
    for gradient in CONTESTANTS.values():
        torch.testing.assert_close(gradient(logits, y), expected, rtol=1e-3, atol=1e-7)


def test_rows_cover_every_contestant_and_number_of_classes():
    rows = classes([10, 1000], num_examples=16, repeats=3)
    assert [(row["classes"], row["form"]) for row in rows] == [
        (q, form) for q in (10, 1000) for form in CONTESTANTS
    ]
    for row in rows:
        assert row["milliseconds"] > 0
        # at least the gradient itself is held
        assert row["megabytes"] >= row["logits_megabytes"]
    assert [row["time_ratio"] for row in rows if row["form"] == "torch"] == [1, 1]


def test_the_table_names_figures_units_targets_and_verdicts():
    measured = {"ours": Series("s", [1.0, 3.0, 2.0]), "bare": Series("s", [1.0, 1.0, 1.0])}
    verdicts = [Target("ours", "/", "bare", high=1.6).judge(measured)]
    header, ours, bare, _, ratio = shown(measured, verdicts).splitlines()
    assert header.split() == ["median", "lowest", "highest"]
    assert ours.split() == ["ours,", "s", "2", "1", "3"]
    assert bare.split() == ["bare,", "s", "1", "1", "1"]
    assert ratio.split() == ["ours", "/", "bare", "2", "1", "3", "at", "most", "1.6:", "NOT", "MET"]


@pytest.mark.slow
def test_classes_prints_the_table_and_writes_the_files(cli, tmp_path):
    arguments = ["suite=classes", "classes=[10,100]", "repeats=1", "num_examples=8", "hydra.run.dir=out"]
    status, output = cli("src.benchmark", *arguments, data=False)
    assert status == 0, output
    assert len([line for line in output.splitlines() if " ms" in line]) == 2 * len(CONTESTANTS)
    assert len(json.loads((tmp_path / "out/classes.json").read_text())["rows"]) == 2 * len(CONTESTANTS)
    assert (tmp_path / "out/classes.png").exists()


@pytest.mark.slow
def test_all_suites_print_and_write_medians_ratios_and_the_machine(cli, tmp_path):
    arguments = [f"{suite}.{key}=1" for suite, keys in KEYS.items() for key in keys]
    small = ["classes=[10]", "repeats=1", "num_examples=8", "threads=1", "hydra.run.dir=out"]
    status, output = cli("src.benchmark", *arguments, *small)
    assert status == 0, output
    assert "threads 1" in output.splitlines()[0]
    if not torch.cuda.is_available():
        assert "there is no GPU here" in output.splitlines()[1]
    for suite, targets in TARGETS.items():
        content = json.loads((tmp_path / f"out/{suite}.json").read_text())
        assert content["threads"] == 1
        assert len(content["targets"]) == len(targets)
        for name, series in content["measured"].items():
            assert len(series["values"]) == 1
            assert series["values"][0] > 0
            assert f"\n{name}, {series['unit']} " in output
        assert (tmp_path / f"out/{suite}.png").exists()
    assert not list((tmp_path / "out").glob("runs*"))  # what was trained is gone


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "complaint"),
    {
        "suite=x": "there is no suite x; try suite=all or one of epoch, command, sweep, classes",
        "repeats=0": "repeats must be a whole number >= 1, got 0",
        "threads=0": "threads must be a whole number >= 1, got 0",
        "sweep.jobs=1.5": "sweep.jobs must be a whole number >= 1, got 1.5",
    }.items(),
)
def test_what_cannot_be_measured_is_refused_in_one_line(cli, argument, complaint):
    status, output = cli("src.benchmark", argument, data=False)
    assert status == 1
    assert output.startswith(f"error: {complaint}")
    assert len(output.splitlines()) == 1
