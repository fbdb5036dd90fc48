"""The benchmark measures what it says."""

import json

import pytest
import torch

from src.benchmark import CONTESTANTS, classes, peak_bytes


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


@pytest.mark.slow
def test_command_prints_the_table_and_writes_the_files(cli, tmp_path):
    arguments = ["classes=[10,100]", "repeats=1", "num_examples=8", "hydra.run.dir=out"]
    status, output = cli("src.benchmark", *arguments, data=False)
    assert status == 0, output
    assert len([line for line in output.splitlines() if " ms" in line]) == 2 * len(CONTESTANTS)
    assert len(json.loads((tmp_path / "out/classes.json").read_text())["rows"]) == 2 * len(CONTESTANTS)
    assert (tmp_path / "out/classes.png").exists()
    for argument, complaint in {"suite=x": "there is no suite x", "repeats=0": "repeats must be >= 1"}.items():
        status, output = cli("src.benchmark", argument, data=False)
        assert status == 1
        assert output.startswith(f"error: {complaint}")
