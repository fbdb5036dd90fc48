"""An interrupted run, resumed, is the run that was never interrupted: to the bit, from wherever it
stopped."""

import functools
import os
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.errors import UserError
from src.maths.optim import SGD
from src.runs import Run, claim
from src.runs.checkpoint import load_checkpoint
from src.signals import Stopped
from src.training.experiment import train
from src.training.history import History
from src.training.resuming import resume
from src.training.saving import Last
from tests.tools.faults import campaign, curves, differences

IMAGES = ["data.train_size=700", "data.val_size=300", "trainer.max_epochs=3", "~callbacks.figures"]
SYNTHETIC = ["data=synthetic", "data.train_size=35", "data.val_size=20", *IMAGES[2:]]
SCRATCH, LINEAR = ["model=scratch", *IMAGES], ["model=linear_scratch", *SYNTHETIC]
FEW = [
    "trainer.max_epochs=2",
    "data.train_size=500",
]  # two steps an epoch, the second of fewer examples
MODELS = {
    "scratch": [*SCRATCH, *FEW],
    "closed_form": ["model=closed_form", "model.weight_decay=0.01", *IMAGES, *FEW],
    "grid": ["model=grid", "model.lr=[0.1,0.5]", "model.gamma=[0.9,1.0]", *IMAGES, *FEW],
    "concise": ["model=concise", *IMAGES, *FEW],
    "linear_scratch": [*LINEAR, "trainer.max_epochs=2", "data.train_size=15"],
}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_run_resumed_from_any_step_equals_one_never_interrupted(
    config, tmp_path, monkeypatch, model
):
    reference, stops = Run(tmp_path / "reference"), tmp_path / "stops"
    train(config(*MODELS[model]), reference.path)

    def save_and_keep(last: Last, trainer, wanted: int) -> None:
        save(last, trainer, wanted)
        shutil.copytree(tmp_path / "run", stops / f"{trainer.current_epoch}_{trainer.global_step}")

    save = Last.save
    monkeypatch.setattr(Last, "save", save_and_keep)
    train(config(*MODELS[model], "callbacks.last.every_n_train_steps=1"), tmp_path / "run")
    monkeypatch.undo()
    steps = reference.results()["steps"]
    assert len(list(stops.iterdir())) == steps  # one stop for each, the ends of the epochs included
    for stop in stops.iterdir():
        resume(Run(stop).path, Run(stop).settings(), [])
        assert differences(Run(stop), reference) == [], stop.name


@pytest.mark.slow
def test_differences_are_found(config, tmp_path):
    for name, *overrides in (
        ["a"],
        ["b"],
        ["c", "model.weight_decay=0.001"],
        ["d", "data.batch_size=5"],
    ):
        train(config(*LINEAR, *overrides), tmp_path / name)
    a, b, c, d = (Run(tmp_path / name) for name in "abcd")
    assert differences(b, a) == []
    everything = {
        "best/state_dict/W",
        "last/state_dict/b",
        "metrics.csv",
        "metrics.json",
        "tensorboard",
    }
    assert everything <= set(differences(c, a))
    assert "last/global_step" in differences(d, a)


KILLED = [
    "data.train_size=2000",
    "data.val_size=500",
    "trainer.max_epochs=10",
    "~callbacks.figures",
]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Run:
    """The run that the killed ones are to equal."""
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    train(config(*KILLED), run.path)
    return run


def slow_disk() -> None:
    """Let this process take 50 ms to write a file: time enough to see a file that is half
    written."""
    fsync = os.fsync
    os.fsync = lambda file: (time.sleep(0.05), fsync(file))


@pytest.mark.slow
def test_a_run_killed_while_a_checkpoint_is_written_is_finished_by_resume(
    start, cli, tmp_path, whole
):
    run = Run(tmp_path / "run")
    command = start("src.train", *KILLED, f"hydra.run.dir={run.path}", before=slow_disk)
    command.until("epoch 3/")
    command.until(lambda: any(run.last.parent.glob("last.ckpt.*.part")))
    command.kill(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    assert run.results()["status"] == "running"
    assert len(run.epochs()) < 10
    load_checkpoint(run.last)  # the one before
    status, output = cli("src.resume", f"run={run.path}", data=False)
    assert status == 0, output
    assert output.startswith("resumed after ")
    assert differences(run, whole) == []
    assert [sorted(resumed) for resumed in run.results()["resumed"]] == [["overrides", "step"]]
    lines = (run.path / "train.log").read_text()
    assert "epoch 1/10" in lines
    assert "resumed after" in lines
    assert lines.count("epoch 10/10") == 1


def test_checkpoints_within_an_epoch_come_after_so_many_updates(config, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        Last, "save", lambda last, trainer, signum: steps.append(trainer.global_step)
    )
    few = ["data.train_size=50", "trainer.max_epochs=2", "callbacks.last.every_n_train_steps=3"]
    train(config(*LINEAR, *few), tmp_path / "run")
    assert steps == [3, 5, 6, 9, 10]  # the fifth and the tenth end an epoch


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_runs_killed_at_random_moments_are_finished_to_the_bit(data_root, tmp_path):
    # 6305: one killed in the test and resumed twice at once; one with workers, struck with them by
    # Ctrl-C twice in the test, moved, and by SIGTERM while it saves; one struck by Ctrl-C at any
    # moment
    outcome = campaign(3, 6305, tmp_path, data_root)
    assert (outcome.stuck, outcome.mismatches) == ({}, {})
    assert any(what == "kills" for what, *_ in outcome.counts)


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    train(config(*SCRATCH), run.path)
    return run


@pytest.fixture
def finished(trained, tmp_path) -> Run:
    """A finished run of one's own."""
    return Run(shutil.copytree(trained.path, tmp_path / "run"))


def contents(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_resuming_a_finished_run_says_so_and_changes_nothing(finished, caplog):
    before = contents(finished)
    caplog.set_level("INFO")
    assert resume(finished.path).metrics == finished.metrics
    assert "is finished, 3 epochs; nothing is left to do" in caplog.text
    assert contents(finished) == before


@pytest.mark.slow
def test_more_epochs_continue_a_finished_run_as_if_it_had_been_asked_for_them_at_first(
    config, finished, tmp_path
):
    cfg = OmegaConf.create(finished.settings())
    cfg.trainer.max_epochs = 5
    resume(finished.path, cfg, ["trainer.max_epochs=5"])
    longer = Run(tmp_path / "longer")
    train(config(*SCRATCH, "trainer.max_epochs=5"), longer.path)
    assert differences(finished, longer) == []
    assert finished.settings()["trainer"]["max_epochs"] == 5
    assert "trainer.max_epochs=5" in yaml.safe_load(
        (finished.path / ".hydra/overrides.yaml").read_text()
    )
    steps = finished.results()["resumed"]
    assert steps == [{"step": 9, "overrides": ["trainer.max_epochs=5"]}]


def test_curves_have_no_gap_and_no_fold_after_a_kill(config, tmp_path, monkeypatch):
    # killed after the row of epoch 2 was told, before its checkpoint: that row will be told again
    def die(last: Last, trainer, wanted: int) -> None:
        if trainer.current_epoch == 1:
            raise SystemExit(9)
        save(last, trainer, wanted)

    save = Last.save
    monkeypatch.setattr(Last, "save", die)
    cfg = config(*LINEAR, "data.train_size=25")
    with pytest.raises(SystemExit):
        train(cfg, tmp_path / "run")
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert len(run.epochs()) == 2
    assert len(load_checkpoint(run.last)["callbacks"]["History"]["rows"]) == 1
    resume(run.path, run.settings(), [])
    scalars = EventAccumulator(str(run.path)).Reload()
    assert [event.step for event in scalars.Scalars("loss/val")] == [1, 2, 3]
    assert [event.value for event in scalars.Scalars("loss/val")] == pytest.approx(
        [row["val/loss"] for row in run.epochs()]
    )


@pytest.mark.slow
def test_the_best_epoch_is_remembered_by_a_run_that_goes_on_even_if_its_folder_has_moved(
    config, tmp_path
):
    # a weight decay so strong that each step makes W 1.5 times as large (|1 - 0.1 * 25|): the best
    # epoch is early
    wild = [*SCRATCH, "model.weight_decay=25", "model.gamma=1", "data.batch_size=32"]
    run, longer = Run(tmp_path / "run"), Run(tmp_path / "longer")
    train(config(*wild, "trainer.max_epochs=6"), run.path)
    assert run.results()["best_epoch"] < 6  # else the test shows nothing
    assert curves(run)["tested/test_loss"][0][0] == 6  # at the end, until the run goes on
    run = Run(shutil.move(run.path, tmp_path / "moved"))
    losses = [row["val/loss"] for row in run.epochs()]
    best = losses.index(min(losses))
    cfg = OmegaConf.create(run.settings())
    cfg.trainer.max_epochs = 8
    resume(run.path, cfg, [])
    losses = [row["val/loss"] for row in run.epochs()]
    assert losses.index(min(losses)) == best  # else the test shows nothing
    assert run.results()["best_epoch"] == best + 1
    assert load_checkpoint(run.best)["epoch"] == best
    assert not (tmp_path / "run").exists()
    train(config(*wild, "trainer.max_epochs=8"), longer.path)
    assert differences(run, longer) == []


def test_a_run_that_never_began_is_not_resumed_but_started_by_the_same_command(
    config, finished, tmp_path
):
    lost = Run(shutil.copytree(finished.path, tmp_path / "lost"))
    for path in (lost.last, lost.best, lost.metrics_csv):
        path.unlink()
    lost.save_results({"status": "running"})  # as after a kill
    with pytest.raises(
        UserError, match=r"^run .*lost never began; start it with the command that was to "
    ):
        resume(lost.path, lost.settings(), [])
    train(config(*SCRATCH), lost.path)
    assert differences(lost, finished) == []


@pytest.mark.parametrize(
    "override", ["model.lr=0.5", "seed=1", "data.batch_size=10", "model.numerics=textbook"]
)
def test_what_makes_another_experiment_is_refused(config, finished, override):
    before = contents(finished)
    cfg = OmegaConf.create(finished.settings())
    cfg.merge_with_dotlist([override, "trainer.max_epochs=9"])
    with pytest.raises(UserError, match=rf"^{override} would make this another experiment"):
        resume(finished.path, cfg, [override])
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        (
            "callbacks.last.every_n_train_steps=-1",
            r"callbacks\.last\.every_n_train_steps: .* than 0, got -1",
        ),
        ("trainer.max_epochs=1", r"^trainer\.max_epochs=1, but run .* has 3 epochs already"),
        (
            "trainer.threads=0",
            r"^trainer\.threads: input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_a_bad_override_leaves_the_run_as_it_was(finished, override, complaint):
    finished.save_results({"status": "running"})  # as after a kill
    before = contents(finished)
    cfg = OmegaConf.create(finished.settings())
    cfg.merge_with_dotlist([override])
    with pytest.raises(UserError, match=complaint):
        resume(finished.path, cfg, [override])
    assert contents(finished) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "which run?"),
        (["run=a,b"], "run must be one folder, got run=a,b"),
        (["run={run}", "model.lrr=1"], "Did you mean model.lr?"),
        (["run={run}", "model.lr=1"], "model.lr=1 would make this another experiment (it was 0.1)"),
    ],
)
def test_what_cannot_be_resumed_is_said_in_one_line(cli, finished, arguments, complaint):
    before = contents(finished)
    before.pop(finished.path / "train.log", None)
    arguments = [text.format(run=finished.path) for text in arguments]
    status, output = cli("src.resume", *arguments, data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    assert complaint in line
    after = contents(finished)
    after.pop(finished.path / "train.log", None)
    assert after == before


@pytest.mark.slow
def test_two_processes_cannot_have_the_same_run(start, cli):
    command = start(
        "src.train", *LINEAR, "trainer.max_epochs=20000", "hydra.run.dir=run", data=False
    )
    for _ in range(2):  # the first time it is src.train that has it, then src.resume
        command.until("epoch 1")
        status, output = cli("src.resume", "run=run", data=False)
        assert status == 1
        assert output == "error: run run is in use by another process; wait until that one ends\n"
        assert command.alive()
        command.kill(signal.SIGTERM)
        assert command.wait() == 143
        command = start("src.resume", "run=run", data=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status", "step"),
    [
        (signal.SIGINT, 130, 5),
        (signal.SIGTERM, 143, 2),
    ],  # in the second epoch; before there is a checkpoint
)
def test_the_update_under_way_is_finished_before_a_signal_takes_effect(
    config, tmp_path, monkeypatch, trained, signum, status, step
):
    run, updates = Run(tmp_path / "run"), []

    def interrupted(optimizer: SGD, closure=None) -> None:
        updates.append(None)
        if len(updates) == step:
            os.kill(os.getpid(), signum)
        update(optimizer, closure)

    update = SGD.step
    monkeypatch.setattr(SGD, "step", interrupted)
    with pytest.raises((Stopped, KeyboardInterrupt)) as ended:
        train(config(*SCRATCH), run.path)
    monkeypatch.undo()
    assert status == getattr(ended.value, "code", 130)  # a command makes 130 of a KeyboardInterrupt
    checkpoint = load_checkpoint(run.last)
    assert checkpoint["global_step"] == step
    assert (
        checkpoint["epoch_so_far"]["totals"]["train"]["n"] == {2: 512, 5: 512}[step]
    )  # of this epoch
    resume(run.path, run.settings(), [])
    assert differences(run, trained) == []


def test_other_errors_save_nothing_half_done(config, monkeypatch, tmp_path):
    def fail(optimizer: SGD, closure=None) -> None:
        raise RuntimeError("the cable is out")

    cfg = config(*LINEAR)
    monkeypatch.setattr(SGD, "step", fail)
    with pytest.raises(RuntimeError):
        train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert not run.last.exists()
    assert (run.results()["status"], run.results()["reason"]) == ("failed", "the cable is out")


EARLY_STOPPING = "+callbacks.early_stopping={_target_: lightning.pytorch.callbacks.EarlyStopping, "
EARLY_STOPPING += (
    "monitor: val/loss, min_delta: 10, patience: 1}"  # nothing is better than the first epoch by 10
)


def test_a_run_that_early_stopping_ended_trains_no_epoch_more(config, tmp_path):
    # as after a kill behind the save of the last epoch, before or within the test
    cfg = config(*LINEAR, "trainer.max_epochs=5", EARLY_STOPPING)
    train(cfg, tmp_path / "whole")
    whole = Run(tmp_path / "whole")
    assert len(whole.epochs()) == 2  # else the test shows nothing
    run = Run(shutil.copytree(whole.path, tmp_path / "killed"))
    run.save_results({"status": "running"})
    resume(run.path, run.settings(), [])
    assert differences(run, whole) == []


def test_the_number_of_devices_is_part_of_the_experiment(finished):
    before = contents(finished)
    settings = finished.settings()
    settings["trainer"] |= {"devices": 2, "max_epochs": 9}
    with pytest.raises(
        UserError, match=r"^trainer\.devices=2 would make this another experiment \(it was 1\)"
    ):
        resume(finished.path, settings, ["trainer.devices=2"])
    assert contents(finished) == before


BEGAN = {  # what a run may leave that did not begin
    "an empty config": {".hydra/config.yaml": ""},
    "half a config": {".hydra/config.yaml": "seed: 0\nmodel:\n  _targ"},
    "a record": {"metrics.json": '{"status": "failed", "reason": "model.lr"}'},
    "a log": {"train.log": "killed\n"},
    "a best checkpoint alone": {
        "checkpoints/best.ckpt": "PK"
    },  # saved before the state to resume from
}
BEGAN["everything early"] = {
    **{
        path: text
        for name in ("an empty config", "a record", "a log")
        for path, text in BEGAN[name].items()
    },
    **{"metrics.csv": "epoch\n1\n", "checkpoints/last.ckpt.part": "PK"},
    "events.out.tfevents.1.x.1.0": "",
}
SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=1"]


@pytest.fixture
def begun(tmp_path, request) -> Run:
    """A folder that holds what the test names."""
    run = Run(tmp_path / "run")
    run.config.parent.mkdir(parents=True)
    for path, text in BEGAN[request.param].items():
        (run.path / path).parent.mkdir(exist_ok=True)
        (run.path / path).write_text(text)
    return run


@pytest.mark.parametrize("begun", BEGAN, indirect=True)
def test_a_folder_whose_run_never_began_is_started_afresh(config, begun):
    with pytest.raises(UserError):
        resume(begun.path, begun.settings(), [])
    assert claim(begun.path, "hydra.run.dir") == begun.path
    train(config(*SMALL, "~callbacks.figures"), begun.path)
    assert begun.results()["status"] == "finished"
    assert len(begun.events()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("begun", ["everything early"], indirect=True)
def test_a_folder_whose_run_never_began_is_started_afresh_by_the_same_command_and_then_left_alone(
    cli, begun
):
    status, output = cli("src.resume", "run=run", data=False)
    assert (status, len(output.splitlines())) == (1, 1)
    status, output = cli("src.train", *SMALL, "hydra.run.dir=run", data=False)
    assert status == 0, output
    assert begun.results()["status"] == "finished"
    assert len(begun.events()) == 1
    assert not list(begun.parts())
    before = contents(begun)
    status, output = cli("src.train", *SMALL, "hydra.run.dir=run", data=False)
    assert status == 1
    assert (
        output == "error: folder run holds a run already; choose another with hydra.run.dir=DIR\n"
    )
    assert contents(begun) == before


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_of_a_run_with_workers_has_its_status(
    start, tmp_path, signum, whole
):
    run = Run(tmp_path / "run")
    command = start("src.train", *KILLED, "data.num_workers=2", f"hydra.run.dir={run.path}")
    command.until("epoch 3/")
    command.kill(signum, group=True)
    assert command.wait() == 128 + signum, command.output()
    assert "Traceback" not in command.output()
    assert (run.results()["status"], run.results()["reason"]) == (
        "interrupted",
        signal.Signals(signum).name,
    )
    settings = run.settings()
    settings["data"]["num_workers"] = 0  # the result is the same
    resume(run.path, settings, [])
    assert differences(run, whole) == []


def send_at(hook: str, signum: signal.Signals) -> None:
    """Let a callback of every run send the signal to this process."""
    setattr(History, hook, lambda *arguments, **named: os.kill(os.getpid(), signum))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "signum"),  # in the set-up of the data, and in the test
    [
        ("setup", signal.SIGHUP),
        ("on_test_start", signal.SIGINT),
        ("on_test_batch_start", signal.SIGTERM),
        ("on_test_end", signal.SIGINT),
    ],
)
def test_a_signal_outside_of_the_training_has_its_status_too(tmp_path, signum, hook, cli):
    sending = functools.partial(send_at, hook, signum)
    ended, output = cli("src.train", *SMALL, "hydra.run.dir=run", data=False, before=sending)
    assert ended == 128 + signum, output
    assert "Traceback" not in output
    record = Run(tmp_path / "run").results()
    assert (record["status"], record["reason"]) == ("interrupted", signum.name)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_run_at_once_with_130(config, tmp_path, monkeypatch):
    def twice(optimizer: SGD, closure=None) -> None:
        step(optimizer, closure)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    step = SGD.step
    monkeypatch.setattr(SGD, "step", twice)
    with pytest.raises(KeyboardInterrupt, match="nothing saved yet"):
        train(config(*LINEAR), tmp_path / "run")
    run = Run(tmp_path / "run")
    assert not run.last.exists()
    assert (run.results()["status"], run.results()["reason"]) == ("interrupted", "SIGINT")


def test_what_several_processes_agree_on_is_a_tensor_of_their_device(monkeypatch):
    # NCCL reduces tensors of the GPU only; "meta" stands for a device that is not the CPU
    asked = []

    class Strategy:
        root_device = torch.device("meta")

        def reduce(self, tensor, reduce_op):
            asked.append((tensor.device.type, reduce_op))
            return torch.tensor(2.0)

    trainer = SimpleNamespace(world_size=2, strategy=Strategy())
    assert Last().agreed(trainer) == 2
    assert asked == [("meta", "max")]


def test_several_processes_ask_each_other_every_tenth_minibatch_only():
    trainer = SimpleNamespace(world_size=2, num_training_batches=100, global_step=0)
    trainer.accumulate_grad_batches = 1
    last = Last()
    last.agreed = lambda trainer: asked.append(trainer.global_step) or 0
    asked = []
    for step in range(1, 31):
        trainer.global_step = step
        last.on_train_batch_end(trainer, None, None, None, step - 1)
    assert asked == [10, 20, 30]


@pytest.fixture
def foreign(tmp_path, request) -> Path:
    """A file of another project, which has a .hydra too if that is said."""
    name, hydra = request.param
    path = tmp_path / "other" / name
    path.parent.mkdir(parents=True)
    path.write_text("dear")
    if hydra:
        (tmp_path / "other/.hydra").mkdir()
    return path


FOREIGN = [
    ("checkpoints/epoch_3.ckpt", True),
    ("checkpoints/epoch_3.ckpt", False),
    ("figures/mine.png", False),
]
REFUSED = "folder other is not empty; choose another with hydra.run.dir=DIR"


@pytest.mark.parametrize("foreign", FOREIGN, indirect=True)
def test_a_folder_of_another_project_is_nobodys_to_claim(foreign, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{REFUSED}$"):
        claim(Path("other"), "hydra.run.dir")
    assert foreign.read_text() == "dear"


@pytest.mark.slow
@pytest.mark.parametrize("foreign", FOREIGN[:1], indirect=True)
def test_a_folder_of_another_project_is_refused_and_left_alone(foreign, cli):
    status, output = cli("src.train", *SMALL, "hydra.run.dir=other", data=False)
    assert (status, output) == (1, f"error: {REFUSED}\n")
    assert foreign.read_text() == "dear"
