"""The benchmark measures what it says, and says whether the ratios keep their targets."""

import math
import os

import pytest
import torch

from src.benchmark import loops, suites
from src.benchmark.suites import FORMS, Benchmark, loss_grad, loss_rows, peak_bytes
from src.cli.options import checked
from src.errors import UserError
from src.runs import Run
from tests.conftest import compose_config

MODELS = ["scratch", "closed_form", "concise"]
EPOCH = ["median", "lowest", "highest", "target", "met"]


def test_peak_memory_counts_what_is_held_at_the_same_time():
    megabyte = torch.zeros(250_000).nbytes  # 1,000,000
    assert peak_bytes(lambda: torch.zeros(250_000)) == pytest.approx(megabyte, rel=0.01)
    one_after_another = peak_bytes(lambda: [torch.zeros(250_000).sum() for _ in range(3)])
    assert one_after_another == pytest.approx(megabyte, rel=0.01)
    together = peak_bytes(lambda: [torch.zeros(250_000) for _ in range(3)])
    assert together == pytest.approx(3 * megabyte, rel=0.01)


def test_all_forms_compute_the_same_gradient():
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.arange(8)
    expected = loss_grad("torch", logits, y)
    for form in FORMS:
        torch.testing.assert_close(loss_grad(form, logits, y), expected, rtol=1e-3, atol=1e-7)


def test_rows_cover_every_form_and_number_of_classes():
    rows = list(loss_rows([10, 1000], num_examples=16, repeats=3))
    assert [(row["classes"], row["loss and gradient"]) for row in rows] == [
        (q, form) for q in (10, 1000) for form in FORMS
    ]
    for row in rows:
        assert row["milliseconds"] > 0
        # at least the gradient itself is held
        assert row["times the logits"] >= 1
        assert row["peak megabytes"] == pytest.approx(
            row["times the logits"] * 4 * 16 * row["classes"] / 1e6
        )
    assert [row["times torch's"] for row in rows if row["loss and gradient"] == "torch"] == [1, 1]


def test_a_ratio_is_taken_within_each_round():
    # in a slow round both take longer: 2/1, 8/4, 3/2; the ratio of the medians would be 3/2
    seconds = {"a": [2.0, 8.0, 3.0], "b": [1.0, 4.0, 2.0]}
    _, _, missed, met = suites.epoch_rows(seconds, {"a / b": (0, 1.9), "b / a": (0.5, math.inf)})
    assert missed == {
        "figure": "a / b", "median": 2, "lowest": 1.5, "highest": 2, "target": "0 to 1.9", "met": False
    }  # fmt: skip
    assert (met["figure"], met["median"], met["target"], met["met"]) == (
        "b / a",
        0.5,
        "0.5 to inf",
        True,
    )


def test_a_figure_that_is_no_number_meets_no_target():
    *_, row = suites.epoch_rows({"a": [math.nan], "b": [1]}, {"a / b": (0, 1)})
    assert not row["met"]


@pytest.mark.slow
def test_the_bare_loop_learns(data_root):
    """Else its time would mean nothing."""
    losses = []
    loops.bare(str(data_root), 55_000, 3, "cpu", losses.append)
    assert len(losses) == 3
    assert 0.3 < losses[-1] < 0.8  # log 10 = 2.3 at the start


@pytest.mark.slow
def test_the_textbook_loop_learns_and_validates(data_root):
    right = []
    loops.textbook(str(data_root), 5000, 1000, 2, right.append)
    assert len(right) == 2
    assert 500 < right[-1] < 800  # of the validation split after 40 steps of lr 0.1, batch 256


def test_ours_is_what_train_makes_by_default():
    cfg = compose_config("benchmark")
    assert list(cfg.models) == MODELS
    for name in MODELS:
        expected = compose_config("train", f"model={name}", "callbacks.figures.draw=false")
        assert cfg.models[name] == expected.model
        for key in ("seed", "data", "trainer", "callbacks", "logger"):
            assert cfg[key] == expected[key], key


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_ours_is_a_whole_run_epoch_by_epoch(data_root, tmp_path, name):
    short = [
        f"data.root={data_root}",
        "data.train_size=512",
        "data.val_size=59000",
        "trainer.max_epochs=3",
    ]
    cfg = compose_config("benchmark", *short)
    seen = []

    def ended(trainer, model) -> None:
        (run,) = tmp_path.iterdir()
        seen.append((trainer.current_epoch, (run / "checkpoints/last.ckpt").exists()))

    suites.ours(suites.settings_of_ours(cfg, cfg.models[name], cfg.trainer), tmp_path, ended)
    assert [exists for _, exists in seen] == [
        False,
        True,
        True,
        True,
    ]  # before the first epoch, after each
    (run,) = tmp_path.iterdir()
    for path in ("checkpoints/best.ckpt", "checkpoints/last.ckpt"):
        assert (run / path).exists()
    assert Run(run).events()
    held = [os.path.realpath(f"/dev/fd/{number}") for number in os.listdir("/dev/fd")]
    assert [path for path in held if path.startswith(str(tmp_path))] == []  # nothing is left open


@pytest.fixture
def contestants(monkeypatch) -> list[tuple[str, int]]:
    """In the place of the loops and of ours, some that train nothing; those called, with their
    threads."""
    called = []

    def loop(name):
        def run(root, *counts, ended) -> None:
            *sizes, epochs = (each for each in counts if each != "cpu")
            assert sizes == [55_000, 5000][: len(sizes)]  # as many examples as ours
            called.append((name, torch.get_num_threads()))
            for _ in range(epochs):
                ended(0.5)

        return run

    def ours(settings, folder, ended) -> None:
        assert not settings["trainer"]["enable_progress_bar"]
        called.append((settings["model"]["_target_"].split(".")[2], torch.get_num_threads()))
        torch.set_num_threads(1)
        for _ in range(1 + settings["trainer"]["max_epochs"]):
            ended()

    monkeypatch.setattr(loops, "textbook", loop("textbook"))
    monkeypatch.setattr(loops, "bare", loop("bare"))
    monkeypatch.setattr(suites, "ours", ours)
    return called


def test_contestants_take_turns_with_equal_threads(contestants, data_root, tmp_path, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seconds = suites.epoch_seconds(
            compose_config("benchmark", f"data.root={data_root}"), tmp_path, 2, 3
        )
    finally:
        torch.set_num_threads(threads)
    assert contestants == [(name, 2) for name in ("textbook", "bare", *MODELS) * 2]
    assert list(seconds) == ["textbook", "bare", *MODELS]
    assert all(len(values) == 2 for values in seconds.values())
    assert capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())  # what was trained is gone


@pytest.mark.slow
def test_both_suites_print_medians_ratios_and_the_machine(cli, tmp_path):
    small = ["epoch.rounds=1", "epoch.epochs=1", "classes=[10,100]", "repeats=1", "num_examples=8"]
    small += ["data.train_size=512", "data.val_size=256"]
    status, output = cli("src.benchmark", *small, "hydra.run.dir=out")
    assert status == 0, output
    assert "threads 1, " in output.splitlines()[0]
    (written,) = (tmp_path / "out").iterdir()
    assert written.name == "benchmark.log"
    assert "| classes | loss and gradient |" in written.read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.splitlines()]
    of_classes, of_epochs = cells.index([]), len(cells) - cells[::-1].index(["figure", *EPOCH]) - 1
    names, _, *rows = [line for line in cells[of_classes:of_epochs] if line]
    assert {"classes", "milliseconds", "peak megabytes"} < set(names)
    assert [row[1] for row in rows] == FORMS * 2
    _, *rows = [line for line in cells[of_epochs + 1 :] if line]
    targets = compose_config("benchmark").targets
    assert [row[0] for row in rows] == [
        *(f"{name}, s" for name in ("textbook", "bare", *MODELS)), *targets
    ]  # fmt: skip
    assert all(float(row[1]) > 0 for row in rows)
    for (low, high), row in zip(targets.values(), rows[-len(targets) :], strict=True):
        assert row[4] == f"{low:g} to {high:g}"
        assert row[5] == str(low <= float(row[1]) <= high)


@pytest.mark.parametrize(
    ("argument", "complaint"),
    {
        "suite=x": "suite: input should be 'all', 'epoch' or 'classes', got 'x'",
        "repeats=0": "repeats: input should be greater than 0, got 0",
        "epoch.rounds=1.5": "epoch.rounds: input should be a valid integer, got 1.5",
        "classes=[]": r"classes: list should have at least 1 item.*, got \[\]",
    }.items(),
)
def test_what_cannot_be_measured_is_refused(argument, complaint):
    cfg = compose_config("benchmark", argument)
    with pytest.raises(UserError, match=f"^{complaint}$"):
        checked(Benchmark, cfg)


@pytest.mark.parametrize(
    ("targets", "complaint"),
    [
        ({"scratch / bare": [1]}, r"targets\.scratch / bare: list should have at least 2 items"),
        (
            {"scratch / bare": [0, "x"]},
            r"targets\.scratch / bare\.1: input should be a valid number",
        ),
        (
            {"scrach / bare": [0, 1]},
            r"targets\.scrach / bare\S*: input should be 'scratch / bare', ",
        ),
    ],
    ids=str,
)
def test_targets_that_cannot_be_met_are_refused_before_anything_is_measured(targets, complaint):
    cfg = compose_config("benchmark")
    cfg.targets = targets
    with pytest.raises(UserError, match=f"^{complaint}"):
        checked(Benchmark, cfg)


def test_a_model_that_is_left_out_has_no_ratio():
    rows = suites.epoch_rows({"a": [2.0], "b": [1.0]}, {"a / b": [0, 3], "c / b": [0, 1]})
    assert [row["figure"] for row in rows] == ["a, s", "b, s", "a / b"]


@pytest.mark.slow
def test_what_is_refused_is_one_line(cli):
    status, output = cli("src.benchmark", "suite=x", data=False)
    assert status == 1
    assert output == "error: suite: input should be 'all', 'epoch' or 'classes', got 'x'\n"
