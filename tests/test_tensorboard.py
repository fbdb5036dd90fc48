"""What TensorBoard has to show of a run, read from the event files and from the real server."""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from src.models.regression import Diverged
from src.runs import Run
from src.runs.checkpoint import load_checkpoint
from src.training.experiment import train
from src.training.resuming import resume
from src.training.saving import Last
from tests.conftest import Command
from tests.tools.faults import curves

SMALL = ["data.train_size=200", "data.batch_size=200", "data.val_size=300", "trainer.max_epochs=2"]
LINEAR = ["data=synthetic", "data.train_size=50", "data.val_size=20", "trainer.max_epochs=2"]


def events(run: Run) -> EventAccumulator:
    return EventAccumulator(str(run.path), size_guidance={"images": 0, "tensors": 0}).Reload()


def images(run: Run) -> dict[str, list[tuple[int, list]]]:
    """Name -> (step, pixels) of each picture."""
    found = events(run)
    return {
        tag: [(e.step, pixels(io.BytesIO(e.encoded_image_string))) for e in found.Images(tag)]
        for tag in found.Tags()["images"]
    }


def pixels(file: Path | io.BytesIO) -> list:
    return np.asarray(Image.open(file)).tolist()


def hyperparameters(run: Run) -> dict[str, object]:
    content = events(run).PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in values.items()}


@pytest.fixture
def trained(config, tmp_path) -> Callable[..., Run]:
    """trained(*overrides) trains and returns the run."""

    def call(*overrides: str, name: str = "run") -> Run:
        run = Run(tmp_path / name)
        train(config(*overrides), run.path)
        return run

    return call


@pytest.fixture(scope="module")
def tested(config, tmp_path_factory) -> Run:
    """A run with all that there is to see."""
    run = Run(tmp_path_factory.mktemp("tested") / "run")
    train(config(*SMALL, "trainer.max_epochs=4"), run.path)
    return run


@pytest.mark.parametrize("form", ["scratch", "concise"])
def test_norms_are_those_of_the_weights(trained, form):
    run = trained(f"model={form}", *SMALL, "~callbacks.figures")
    logged = curves(run)
    for name, each in zip("Wb", load_checkpoint(run.last)["state_dict"].values(), strict=True):
        assert logged[f"norm/{name}"][-1] == (2, pytest.approx(each.norm().item()))


@pytest.mark.slow
def test_pictures_of_the_tested_model_are_those_in_the_folder(tested):
    files = {f"tested/{path.stem}": pixels(path) for path in (tested.path / "figures").iterdir()}
    files.pop("tested/curves")
    shown = images(tested)
    assert {name: content for name, ((_, content),) in shown.items()} == files
    assert {step for ((step, _),) in shown.values()} == {4}


def test_final_metrics_are_those_of_metrics_json(trained):
    wild = ["model.weight_decay=25", "model.gamma=1", "data.batch_size=32", "trainer.max_epochs=6"]
    run = trained(*SMALL, "data.train_size=700", *wild, "~callbacks.figures")
    record = run.results()
    assert record["best_epoch"] < 6  # else the last epoch's would do
    logged = {
        name.removeprefix("tested/"): value
        for name, value in curves(run).items()
        if name.startswith("tested/")
    }
    expected = {
        name.replace("/", "_"): [(6, pytest.approx(value))] for name, value in run.metrics.items()
    }
    assert logged == expected


def test_hyperparameters_are_plain_values_of_the_experiment(trained):
    run = trained("model=concise", *SMALL, "model.lr=0.2", "seed=3", "~callbacks.figures")
    model = {
        "_target_": "src.models.concise.SoftmaxRegression",
        "lr": 0.2,
        "gamma": 0.9,
        "sigma": 0.01,
        "optimizer.name": "SGD",
        "scheduler.name": "ExponentialLR",
    }
    data = {"_target_": "src.data.fashion_mnist.FashionMNIST", "batch_size": 200, "train_size": 200}
    expected = {f"model.{key}": value for key, value in (model | {"weight_decay": 0.0}).items()}
    expected |= {
        f"data.{key}": value for key, value in (data | {"val_size": 300, "resize": 28}).items()
    }
    assert hyperparameters(run) == expected | {
        "seed": 3,
        "trainer.devices": 1,
        "trainer.max_epochs": 2,
    }
    linear = trained("model=linear_scratch", *LINEAR, "model.loss=huber", name="linear")
    found = hyperparameters(linear)
    assert (found["model.loss"], found["data.noise"], found["data.w"]) == (
        "huber",
        0.1,
        "[2.0, -3.4]",
    )


@pytest.mark.slow
def test_what_is_logged_has_no_gap_and_no_fold_after_a_kill(config, trained, tmp_path, monkeypatch):
    # killed in epoch 3 after everything of it was logged; the state to go on from is of the middle
    # of epoch 2
    arguments = [*SMALL, "data.batch_size=100", "trainer.max_epochs=4"]
    arguments.append("~callbacks.figures")  # those are drawn after the test, once
    reference = trained(*arguments, name="reference")

    def die(last: Last, trainer, *given) -> None:
        if trainer.current_epoch == 2:
            raise SystemExit(9)
        if trainer.global_step <= 3:
            save(last, trainer, *given)

    save = Last.save
    monkeypatch.setattr(Last, "save", die)
    cfg = config(*arguments, "callbacks.last.every_n_train_steps=1")
    with pytest.raises(SystemExit):
        train(cfg, tmp_path / "run")
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert load_checkpoint(run.last)["global_step"] == 3
    resume(run.path, run.settings(), [])
    assert curves(run) == curves(reference)
    assert images(run) == images(reference)
    assert [step for step, _ in curves(run)["norm/W"]] == [1, 2, 3, 4]


class Server:
    """The real TensorBoard over what is in `folder`."""

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        command = [
            sys.executable,
            "-m",
            "tensorboard.main",
            "--logdir",
            folder,
            "--host",
            "127.0.0.1",
        ]
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=output, stderr=subprocess.STDOUT
            )

    def get(self, path: str, post: object = None) -> object:
        """What is served under data/, as soon as anything is."""
        end = time.monotonic() + 120
        while True:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                content = None if post is None else json.dumps(post).encode()
                headers = {"Content-Type": "application/json"}
                request = urllib.request.Request(f"{self.url}/data/{path}", content, headers)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    if found := json.load(answer):
                        return found
            assert time.monotonic() < end, f"nothing under {path}: {self.log.read_text()}"
            time.sleep(0.2)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="module")
def server(data_root: Path, tmp_path_factory) -> Iterator[Server]:
    """Serves a run and a sweep of two jobs, made by the command line."""
    folder = tmp_path_factory.mktemp("outputs")
    small = [*SMALL, f"data.root={data_root}"]
    for arguments in (
        [*small, f"hydra.run.dir={folder}/runs/one"],
        ["-m", "model.lr=0.5,0.001", "seed=1", *small, f"hydra.sweep.dir={folder}/sweeps/two"],
    ):
        command = Command("src.train", arguments, folder, folder / "output.txt")
        assert command.wait() == 0, command.output()
    serving = Server(folder)
    try:
        # it serves what it has read so far: wait until it has read everything
        while len(serving.get("plugin/scalars/tags")) < 3 or "tested/test_acc" not in str(
            serving.get("plugin/scalars/tags").get(JOBS[1])
        ):
            time.sleep(0.2)
        yield serving
    finally:
        serving.stop()


RUN, JOBS = "runs/one", ["sweeps/two/0/lr=0.5", "sweeps/two/1/lr=0.001"]


@pytest.mark.slow
def test_tensorboard_serves_a_run(server):
    scalars = server.get("plugin/scalars/tags")
    assert set(scalars) == {RUN, *JOBS}
    assert {"loss/train", "acc/val", "tested/test_acc", "lr", "norm/W", "norm/b", "step"} <= set(
        scalars[RUN]
    )
    groups = [tag.partition("/")[0] for tag in sorted(scalars[RUN])]
    assert list(dict.fromkeys(groups)) == [
        "acc",
        "loss",
        "lr",
        "norm",
        "step",
        "tested",
    ]  # the first are open
    charts = server.get("plugin/custom_scalars/layout")["category"][0]["chart"]
    drawn = {chart["title"]: chart["multiline"]["tag"] for chart in charts}
    assert drawn == {"loss": ["^loss/"], "acc": ["^acc/"]}
    shown = server.get("plugin/images/tags")
    assert set(shown) == {RUN}  # a job of a sweep draws none
    pictures = ("weights", "confusion", "predictions_first", "predictions_misclassified")
    assert set(shown[RUN]) == {f"tested/{name}" for name in pictures}


@pytest.mark.slow
def test_tensorboard_sorts_a_sweep_by_its_real_results(server):
    experiment = server.get("plugin/hparams/experiment", {"experimentName": ""})
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"model._target_", "model.lr", "data.batch_size", "seed", "trainer.max_epochs"} <= names
    metrics = {info["name"]["tag"] for info in experiment["metricInfos"]}
    assert {"loss/val", "tested/val_loss", "tested/test_acc"} <= metrics
    metric = {"tag": "tested/val_loss", "group": ""}
    query = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_SUCCESS"],
        "colParams": [{"metric": metric, "order": "ORDER_DESC"}],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = server.get("plugin/hparams/session_groups", query)["sessionGroups"]
    found = [
        (group["sessions"][0]["name"], value["value"])
        for group in groups
        for value in group["metricValues"]
        if value["name"]["tag"] == "tested/val_loss"
    ]
    folder = server.log.parent
    records = {name: Run(folder / name.partition("/lr=")[0]).results() for name in (RUN, *JOBS)}
    expected = sorted(
        ((name, record["val/loss"]) for name, record in records.items()), key=lambda pair: -pair[1]
    )
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected])


def chromium() -> str | None:
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    return next((path for path in found if path), None)


def browse(page: str, folder: Path, *wanted: str) -> str:
    """Open the page in a browser without a window; what it prints."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1500,2600"]
    flags += [f"--user-data-dir={folder}", "--virtual-time-budget=30000"]
    command = [chromium(), *flags, *wanted, page]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium here to open the pages with")
def test_a_browser_shows_curves_and_pictures(server, tmp_path):
    for _ in range(5):  # the page may be taken before all of it is there
        page = browse(f"{server.url}/?tagFilter=loss#timeseries", tmp_path, "--dump-dom")
        if all(text in page for text in ("<line-chart", "loss/train", "tested/val_loss", RUN)):
            break
    else:
        pytest.fail("no curves")
    for _ in range(5):
        browse(f"{server.url}/#images", tmp_path, f"--screenshot={tmp_path / 'images.png'}")
        with Image.open(tmp_path / "images.png") as screen:
            pixels = np.asarray(screen.convert("RGB")).astype(int)
        red_of_weights, blue_of_counts = ([103, 0, 31], [8, 48, 107])  # ends of the two scales
        if all(
            (abs(pixels - end).max(axis=2) < 60).sum() > 50
            for end in (red_of_weights, blue_of_counts)
        ):
            break
    else:
        pytest.fail("no pictures")


@pytest.mark.parametrize("outcome", ["finished", "diverged"])
def test_a_run_has_one_event_file_and_leaves_no_writer_behind(config, outcome, tmp_path):
    few = ["data.train_size=500", "data.val_size=100", "trainer.max_epochs=1", "~callbacks.figures"]
    few += ["model.numerics=textbook", "model.lr=1e6"] if outcome == "diverged" else []
    cfg = config(*few)
    before = threading.active_count()
    with pytest.raises(Diverged) if outcome == "diverged" else contextlib.nullcontext():
        train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.results()["status"] == outcome
    assert len(run.events()) == 1  # of fit and test
    assert threading.active_count() == before


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_fit_end", "on_test_end"])
def test_no_writer_is_left_behind_wherever_a_run_fails(config, hook, tmp_path, monkeypatch):
    def fail(*arguments, **named) -> None:
        raise RuntimeError(hook)

    monkeypatch.setattr(Last, hook, fail)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match=hook):
        train(config(*LINEAR, "model=linear_scratch"), tmp_path / "run")
    assert threading.active_count() == before
    assert Run(tmp_path / "run").results()["reason"] == hook
