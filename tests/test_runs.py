"""Run folders that are damaged, hostile or in the wrong place: one clear line, and nothing lost or
executed."""

import fcntl
import os
import pickle
import shutil
import threading
from pathlib import Path

import pytest
import torch

from src.errors import UserError
from src.models.regression import Diverged
from src.runs import Run, claim, write
from src.runs.build import build, build_model, restore
from src.runs.checkpoint import load_checkpoint
from src.training.experiment import plain, train
from src.training.resuming import resume
from tests.conftest import compose_config
from tests.tools.faults import differences

SMALL = ["data.train_size=500", "data.val_size=300", "trainer.max_epochs=2", "~callbacks.figures"]


@pytest.fixture(scope="module")
def trained(data_root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(compose_config("train", *SMALL, f"data.root={data_root}"), folder)
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Run:
    return Run(shutil.copytree(trained, tmp_path / "run"))


def contents(folder: Path) -> dict[Path, bytes]:
    """What is in the folder, but for the log."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log"
    }


class Payload:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_payload_would_work(tmp_path):
    # else the refusals below would show nothing
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))
    torch.save({"state_dict": Payload(tmp_path / "made2")}, tmp_path / "evil.ckpt")
    torch.load(tmp_path / "evil.ckpt", weights_only=False)
    assert (tmp_path / "made").exists()
    assert (tmp_path / "made2").exists()


@pytest.mark.parametrize("form", ["bare pickle", "torch.save", "legacy torch.save"])
def test_a_malicious_checkpoint_is_refused_and_not_executed(tmp_path, form):
    path, victim = tmp_path / "evil.ckpt", tmp_path / "made"
    content = {"state_dict": Payload(victim), "epoch": 1}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch.save")
    with pytest.raises(
        UserError, match=f"^checkpoint {path} (holds more than tensors|is damaged or no checkpoint)"
    ):
        load_checkpoint(path)
    assert not victim.exists()


DAMAGE = {
    "truncated": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "text": lambda content: b"these are no weights\n" * 1000,
    "without its end": lambda content: content[:-1],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named(run, damage):
    run.best.write_bytes(DAMAGE[damage](run.best.read_bytes()))
    with pytest.raises(
        UserError, match=f"^checkpoint {run.best} is damaged or no checkpoint: "
    ) as refused:
        restore(run.settings(), run.best)
    assert "\n" not in str(refused.value)


def test_a_bit_flipped_anywhere_is_found_or_harmless(run):
    sound = run.best.read_bytes()
    expected = load_checkpoint(run.best)["state_dict"]
    refused = 0
    for place in range(0, len(sound), len(sound) // 300):
        flipped = bytearray(sound)
        flipped[place] ^= 1 << place % 8
        run.best.write_bytes(flipped)
        try:
            found = load_checkpoint(run.best)["state_dict"]
        except UserError:
            refused += 1
        else:  # in what fills the file up to a round address, say
            assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert refused > 250


@pytest.mark.parametrize(
    "other",
    [["model=concise"], ["data.resize=32"], ["data=synthetic", "model=linear_scratch"]],
    ids=str,
)
def test_a_checkpoint_of_another_model_is_refused_with_both_shapes(run, other):
    settings = plain(compose_config("train", *other))
    state = build_model(settings, build("data", settings["data"])).state_dict()
    torch.save(load_checkpoint(run.best) | {"state_dict": state}, run.last)
    with pytest.raises(UserError, match=rf"^{run.last} is of another model: .*784"):
        restore(run.settings(), run.last)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], {"W": torch.zeros(784, 10)}])
def test_something_else_that_torch_saved_is_no_checkpoint(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt is no checkpoint of a run"):
        load_checkpoint(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "\x00",
        "- a\n- b\n",
        "model: ${nowhere",
        "just text",
        "",
        "hydra: {run: {dir: /}}",
        "{seed: 0, data: {}, model: {}, callbacks: {}, trainer: 3}",
        "!!python/x 1",
        "[" * 10_000,
    ],
)
def test_a_damaged_config_is_named(run, text):
    run.config.write_text(text)
    with pytest.raises(UserError, match=f"^{run.config} is damaged: "):
        run.settings()


def test_a_damaged_record_is_named(run):
    run.metrics_json.write_text("{")
    with pytest.raises(UserError, match=rf"^{run.metrics_json} is damaged: "):
        run.results()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "damage"),
    [("src.resume", "truncated"), ("src.evaluate", "empty"), ("src.predict", "text")],
)
def test_commands_say_in_one_line_which_checkpoint_is_damaged(cli, run, command, damage):
    checkpoint = run.last if command == "src.resume" else run.best
    checkpoint.write_bytes(DAMAGE[damage](checkpoint.read_bytes()))
    before = contents(run.path)
    more = ["trainer.max_epochs=5"] if command == "src.resume" else []
    status, output = cli(command, f"run={run.path}", *more, data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith(f"error: checkpoint {checkpoint} is damaged or no checkpoint: ")
    assert contents(run.path) == before


def test_data_damaged_between_runs_stop_a_resume_that_changes_nothing(run, data_root, tmp_path):
    raw = tmp_path / "data/FashionMNIST/raw"
    shutil.copytree(data_root / "FashionMNIST/raw", raw)
    labels = raw / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[1000] ^= 1
    labels.write_bytes(content)
    before = contents(run.path)
    settings = run.settings()
    settings["trainer"]["max_epochs"], settings["data"]["root"] = 5, str(tmp_path / "data")
    with pytest.raises(UserError, match=f"^data file {labels} is damaged"):
        resume(run.path, settings, [])
    assert contents(run.path) == before
    assert labels.read_bytes() == content


@pytest.mark.slow
def test_on_a_disk_that_fills_up_the_checkpoint_before_survives(cli, run, tmp_path):
    # Room for two checkpoints of 36 kB and the small files of a run, but not for a third beside
    # them.
    arguments = [*SMALL, "hydra.run.dir=disk/run"]
    status, output = cli("src.train", *arguments, disk="size=124k")
    assert status == 1, output
    assert output.splitlines()[0].startswith("epoch 1/2")
    assert output.splitlines()[-1] == (
        f"error: cannot write {tmp_path}/disk/run/checkpoints/best.ckpt: disk full (No space left on device); "
        "what was there is kept"
    )
    assert "Traceback" not in output
    left = Run(tmp_path / "disk_left/run")
    assert load_checkpoint(left.best)["epoch"] == load_checkpoint(left.last)["epoch"] == 0
    assert not list(left.path.rglob("*.part"))
    assert (left.results()["status"], "disk full" in left.results()["reason"]) == ("failed", True)
    # with space again, it goes on
    resume(left.path, left.settings(), [])
    assert differences(left, run) == []


@pytest.mark.slow
def test_a_read_only_folder_is_named_and_left_alone(cli, run, tmp_path):
    shutil.copytree(run.path, tmp_path / "disk/run")
    before = contents(tmp_path / "disk")
    for command, subject in {
        ("src.train", "hydra.run.dir=disk/new"): "cannot make the folder disk/new",
        ("src.resume", "run=disk/run", "trainer.max_epochs=3"): "cannot write run disk/run",
        ("src.evaluate", "run=disk/run"): "cannot write disk/run/evaluation.json",
    }.items():
        status, output = cli(*command, data=False, disk="frozen")
        assert status == 1
        (line,) = output.splitlines()[-1:]
        assert line.startswith(f"error: {subject}: Read-only file system")
        assert "Traceback" not in output
    assert contents(tmp_path / "disk") == before


def test_content_is_on_the_disk_before_it_takes_the_place_of_the_old(tmp_path, monkeypatch):
    calls = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda *paths: calls.append("replaced") or rename(*paths))
    write(tmp_path / "file", b"whole")
    assert calls == [5, "replaced"]


def test_a_file_that_cannot_be_replaced_keeps_its_content(tmp_path):
    path = tmp_path / "x.json"
    write(path, b"old")
    path.with_name(f"x.json.{os.getpid()}.part").mkdir()  # in the way
    with pytest.raises(
        UserError, match=r"cannot write .*x\.json: Is a directory; what was there is kept"
    ):
        write(path, b"new")
    assert path.read_bytes() == b"old"


def test_divergence_says_when_and_what_to_do(config, tmp_path):
    cfg = config(*SMALL, "model.lr=1e6", "model.numerics=textbook")
    with pytest.raises(Diverged) as ended:
        train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert str(ended.value) == (
        "train loss became nan in epoch 1, step 2; lower model.lr (it is 1e+06) or take model.numerics=stable"
    )
    assert (run.results()["status"], run.results()["reason"]) == ("diverged", str(ended.value))
    assert not run.last.exists()


@pytest.mark.parametrize(("model", "lr"), [("linear_scratch", 3), ("linear_concise", 1.5)])
def test_the_last_good_checkpoint_of_a_run_that_diverges_is_kept(config, model, lr, tmp_path):
    # Inputs have variance 1, so a step multiplies the error by about 1 - lr (concise: 1 - 2 lr) =
    # -2: the loss grows fourfold a step, and the 40 steps of the first epoch do not reach 3e38 yet.
    size = ["data=synthetic", "data.train_size=400", "trainer.max_epochs=50"]
    cfg = config(f"model={model}", *size, f"model.lr={lr}")
    with pytest.raises(
        Diverged,
        match=r"^train loss became inf in epoch \d+, step \d+; lower model\.lr \(it is [\d.]+\)$",
    ):
        train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.results()["status"] == "diverged"
    last = load_checkpoint(run.last)
    assert last["epoch"] + 1 == len(run.epochs()) >= 1
    assert all(tensor.isfinite().all() for tensor in last["state_dict"].values())
    steps = int(str(run.results()["reason"]).split("step ")[1].split(";")[0])
    assert last["global_step"] < steps <= last["global_step"] + 40


@pytest.fixture
def shelf(tmp_path) -> Path:
    """A folder that holds runs, and is none."""
    for name in ("one", "two"):
        run = Run(tmp_path / "runs" / name)
        run.config.parent.mkdir(parents=True)
        for path in (run.config, run.path / "events.out.tfevents.1.x.1.0", run.metrics_json):
            path.write_text("{}")
    return tmp_path / "runs"


def test_a_folder_of_runs_is_no_run_that_never_began(shelf):
    assert not Run(shelf).early()
    with pytest.raises(
        UserError, match=r"/runs is not empty; choose another with hydra\.run\.dir=DIR$"
    ):
        claim(shelf, "hydra.run.dir")


def test_a_run_touches_no_events_but_its_own(shelf):
    own = (
        shelf / "events.out.tfevents.2.x.1.0",
        shelf / "lr=0.3 seed=1" / "events.out.tfevents.3.x.1.0",
    )
    own[1].parent.mkdir()
    for path in own:
        path.touch()
    (shelf / "link").symlink_to(own[1].parent)
    assert sorted(Run(shelf).events()) == sorted(own)


def test_a_run_is_in_use_if_a_process_has_it_not_if_another_asks_too(tmp_path):
    run = Run(tmp_path)
    assert not run.in_use()
    assert not list(tmp_path.iterdir())
    run.config.parent.mkdir()
    with open(run.config.with_name("lock"), "w") as file:
        assert not run.in_use()
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not run.in_use()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run.in_use()


def test_whoever_asks_whether_a_run_is_in_use_keeps_nobody_out(tmp_path):
    run = Run(tmp_path)
    run.config.parent.mkdir()
    with open(run.config.with_name("lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as another process has it for a moment, to find out
        threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with run.lock(), pytest.raises(BlockingIOError):  # the run has it now
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
