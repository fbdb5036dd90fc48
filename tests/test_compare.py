"""Runs side by side: the folders alone say what differs in settings, results and weights."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from src.charts import save
from src.charts.images import weights
from src.compare import compare, find
from src.data.fashion_mnist import CLASSES
from src.errors import UserError
from src.runs import Run
from src.training.experiment import train
from tests.conftest import compose_config

SMALL = ["trainer.max_epochs=2", "data.train_size=600", "data.val_size=300"]
RUNS = {
    "one": SMALL,
    "two": [*SMALL, "model=concise", "model.lr=0.3"],
    "linear": [
        "data=synthetic",
        "model=linear_scratch",
        "data.train_size=200",
        "trainer.max_epochs=1",
    ],
}


@pytest.fixture(scope="module")
def trained(data_root, tmp_path_factory) -> dict[str, Run]:
    """Finished runs: two classifiers and a linear regression."""
    folder = tmp_path_factory.mktemp("trained")
    for name, overrides in RUNS.items():
        places = [] if name == "linear" else [f"data.root={data_root}"]
        train(
            compose_config("train", *overrides, *places, "~logger", "~callbacks.figures"),
            folder / name,
        )
    return {name: Run(folder / name) for name in RUNS}


def comparison(folder: Path) -> list[dict[str, str]]:
    with open(folder / "comparison.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_two_classifiers_are_compared_in_what_differs_in_results_and_in_weights(
    cli, trained, tmp_path
):
    runs = [trained["one"], trained["two"]]
    finished = cli("src.compare", *(str(run.path) for run in runs), data=False)
    assert finished.status == 0, finished.output
    (made,) = (tmp_path / "outputs/comparisons").iterdir()
    assert sorted(path.name for path in made.iterdir()) == [
        "comparison.csv",
        "curves.png",
        "weights.png",
    ]
    written = f"written to {made.relative_to(tmp_path)}/: comparison.csv curves.png weights.png"
    assert finished.output.splitlines()[-1] == written
    rows = comparison(made)
    assert [(row["run"], row["model"], row["model.lr"]) for row in rows] == [
        ("A", "scratch.SoftmaxRegression", "0.1"),
        ("B", "concise.SoftmaxRegression", "0.3"),
    ]
    assert (
        not {"seed", "data.batch_size", "data.root", "model.gamma", "trainer.max_epochs"}
        & rows[0].keys()
    )
    for row, run in zip(rows, runs, strict=True):
        record = run.results()
        assert row["folder"] == str(run.path)
        for metric in ("val/loss", "val/acc", "test/loss", "test/acc"):
            assert float(row[metric]) == record[metric]
            assert f" {record[metric]:.4g} " in finished.output
    states = [torch.load(run.best, weights_only=True)["state_dict"] for run in runs]
    W = {"A: scratch, lr 0.1": states[0]["W"], "B: concise, lr 0.3": states[1]["linear.weight"].T}
    save(weights(W, CLASSES), tmp_path / "expected.png")
    assert (made / "weights.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


@pytest.mark.slow
def test_linear_regressions_are_compared_in_their_errors_without_pictures_of_weights(
    trained, tmp_path
):
    run = Run(shutil.copytree(trained["linear"].path, tmp_path / "other"))
    settings = run.settings()
    settings["data"]["batch_size"] = 7
    run.config.write_text(yaml.safe_dump(settings))
    compare(find([trained["linear"].path, run.path]), tmp_path / "out")
    rows = comparison(tmp_path / "out")
    assert [row["data.batch_size"] for row in rows] == ["10", "7"]
    assert [float(row["error/w"]) for row in rows] == [trained["linear"].results()["error/w"]] * 2
    assert not (tmp_path / "out/weights.png").exists()  # two weights are no image
    assert (tmp_path / "out/curves.png").exists()


def test_runs_on_other_data_are_compared_in_what_each_of_them_has(trained, tmp_path):
    compare(find([trained["linear"].path, trained["one"].path]), tmp_path / "out")
    linear, classifier = comparison(tmp_path / "out")
    assert (linear["test/acc"], classifier["error/w"]) == ("", "")
    for row, name in (linear, "linear"), (classifier, "one"):
        assert float(row["test/loss"]) == trained[name].results()["test/loss"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.csv",
        "curves.png",
    ]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["linear"], "name 2 to 8 runs; found 1"),
        (["linear", "linear"], "found 1"),
        (["linear", "nowhere"], "nowhere is no run folder"),
        (["linear", "empty"], "empty is no run folder"),
        (["linear", "begun"], "begun has no epoch to compare yet"),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_said_in_one_line(trained, tmp_path, names, reason):
    (tmp_path / "linear").symlink_to(trained["linear"].path)
    shutil.copytree(trained["linear"].config.parent, tmp_path / "begun/.hydra")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as error:
        find([tmp_path / name for name in names])
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_whose_config_names_no_class_is_said_in_one_line(trained, tmp_path):
    run = Run(shutil.copytree(trained["linear"].path, tmp_path / "other"))
    settings = run.settings()
    del settings["data"]["_target_"]
    run.config.write_text(yaml.safe_dump(settings))
    with pytest.raises(
        UserError, match=r"^data must be a group of settings with a _target_, got \{"
    ):
        compare(find([trained["linear"].path, run.path]), tmp_path / "out")


@pytest.mark.slow
def test_nothing_is_written_if_there_is_nothing_to_compare(cli, trained, tmp_path):
    status, output = cli("src.compare", str(trained["linear"].path), data=False)
    assert (status, output.count("\n")) == (1, 1), output
    assert output.startswith("error: ")
    assert not (tmp_path / "outputs").exists()
