"""An interrupted run, resumed, is the run that was never interrupted: to the bit, from wherever it stopped."""

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
from src.runs import Run
from src.training.experiment import resume, train
from src.training.saving import Last
from tests.conftest import ROOT
from tests.faults import campaign, curves, differences

IMAGES = ["data.train_size=700", "data.val_size=300", "trainer.max_epochs=3", "~callbacks.figures"]
SYNTHETIC = ["data=synthetic", "data.train_size=35", "data.val_size=20", *IMAGES[2:]]
MODELS = {
    "scratch": ["model=scratch", *IMAGES],
    "closed_form": ["model=closed_form", "model.weight_decay=0.01", *IMAGES],
    "concise": ["model=concise", *IMAGES],
    "linear_scratch": ["model=linear_scratch", "data.resample=true", *SYNTHETIC],
    "linear_concise": ["model=linear_concise", *SYNTHETIC],
}


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[] if "linear" in name else pytest.mark.slow) for name in MODELS]
)
def test_a_run_resumed_from_any_step_equals_one_never_interrupted(config, tmp_path, monkeypatch, model):
    reference, stops = Run(tmp_path / "reference"), tmp_path / "stops"
    arguments = [*MODELS[model], "trainer.max_epochs=2"]
    train(config(*arguments), reference.path)

    def save_and_keep(last: Last, trainer, wanted: int) -> None:
        save(last, trainer, wanted)
        shutil.copytree(tmp_path / "run", stops / f"{trainer.current_epoch}_{trainer.global_step}")

    save = Last.save
    monkeypatch.setattr(Last, "save", save_and_keep)
    train(config(*arguments, "callbacks.last.every_n_train_steps=1"), tmp_path / "run")
    monkeypatch.undo()
    steps = reference.record()["steps"]
    assert len(list(stops.iterdir())) == steps  # one stop for each, the ends of the epochs included
    for stop in stops.iterdir():
        resume(Run(stop).recorded(), Run(stop).path, [])
        assert differences(Run(stop), reference) == [], stop.name


def test_differences_are_found(config, tmp_path):
    for name, *overrides in (["a"], ["b"], ["c", "model.weight_decay=0.001"], ["d", "data.batch_size=100"]):
        train(config(*MODELS["scratch"], *overrides), tmp_path / name)
    a, b, c, d = (Run(tmp_path / name) for name in "abcd")
    assert differences(b, a) == []
    everything = {"best/state_dict/W", "last/state_dict/b", "metrics.csv", "metrics.json", "tensorboard"}
    assert everything <= set(differences(c, a))
    assert "last/global_step" in differences(d, a)


def interrupted(start, *arguments: str, when: str, signum: signal.Signals) -> int:
    """Send the signal when the output says `when`; the exit status."""
    command = start("src.train", *arguments)
    command.until(when)
    command.kill(signum)
    return command.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "statuses"),
    [(signal.SIGKILL, {-signal.SIGKILL}), (signal.SIGTERM, {143}), (signal.SIGINT, {130})],
)
def test_a_killed_run_is_finished_by_resume(start, cli, tmp_path, signum, statuses):
    arguments = ["data.train_size=5000", "trainer.max_epochs=12", "~callbacks.figures"]
    reference, run = Run(tmp_path / "reference"), Run(tmp_path / "run")
    assert cli("src.train", *arguments, f"hydra.run.dir={reference.path}").status == 0
    status = interrupted(start, *arguments, f"hydra.run.dir={run.path}", when="epoch 2/", signum=signum)
    assert status in statuses
    assert run.record()["status"] == ("running" if signum == signal.SIGKILL else "interrupted")
    assert len(run.rows()) < 12
    status, output = cli("src.resume", f"run={run.path}", data=False)
    assert status == 0, output
    assert output.startswith("resumed after ")
    assert differences(run, reference) == []
    assert [sorted(resumed) for resumed in run.record()["resumed"]] == [["overrides", "step"]]
    lines = (run.path / "train.log").read_text()
    assert "epoch 1/12" in lines
    assert "resumed after" in lines
    assert lines.count("epoch 12/12") == 1


@pytest.mark.slow
def test_a_signal_within_an_epoch_loses_no_step(start, cli, tmp_path):
    # one epoch of 50,000 steps: the signal comes within it, and there is no earlier checkpoint
    endless = ["data=synthetic", "model=linear_scratch", "data.train_size=500000", "trainer.max_epochs=1"]
    run = Run(tmp_path / "run")
    command = start("src.train", *endless, f"hydra.run.dir={run.path}", data=False)
    command.until(run.tensorboard.exists)
    time.sleep(0.5)
    command.kill(signal.SIGTERM)
    assert command.wait() == 143
    checkpoint = run.load(run.last)
    assert 0 < checkpoint["global_step"] < 50_000
    assert checkpoint["epoch_so_far"]["totals"]["train"]["n"] == 10 * checkpoint["global_step"]


@pytest.mark.slow
def test_checkpoints_by_the_clock_come_within_an_epoch(start, tmp_path):
    long = ["data=synthetic", "model=linear_scratch", "data.train_size=500000", "trainer.max_epochs=1"]
    run = Run(tmp_path / "run")
    command = start(
        "src.train", *long, "callbacks.last.every_n_seconds=0.2", f"hydra.run.dir={run.path}", data=False
    )
    command.until(run.last.exists)
    command.kill(signal.SIGKILL)
    command.wait()
    assert 0 < run.load(run.last)["global_step"] < 50_000


@pytest.mark.slow
def test_a_run_killed_while_a_checkpoint_is_written_keeps_the_one_before(start, cli, tmp_path):
    arguments = ["data.train_size=2000", "trainer.max_epochs=12", "~callbacks.figures"]
    reference, run = Run(tmp_path / "reference"), Run(tmp_path / "run")
    assert cli("src.train", *arguments, f"hydra.run.dir={reference.path}").status == 0
    command = start("src.train", *arguments, f"hydra.run.dir={run.path}")
    command.until("epoch 3/")
    command.until(run.last.with_name("last.ckpt.part").exists)
    command.kill(signal.SIGKILL)
    assert command.wait() == -signal.SIGKILL
    run.load(run.last)
    assert cli("src.resume", f"run={run.path}", data=False).status == 0
    assert differences(run, reference) == []


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_runs_killed_at_random_moments_are_finished_to_the_bit(data_root, tmp_path):
    outcome = campaign(6, 0, tmp_path, data_root)
    assert (outcome.stuck, outcome.mismatches) == ({}, {})
    assert any(what == "kills" for what, *_ in outcome.counts)


@pytest.fixture
def finished(config, tmp_path) -> Run:
    cfg = config(*MODELS["scratch"])
    train(cfg, tmp_path / "run")
    return Run(tmp_path / "run")


def contents(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_resuming_a_finished_run_says_so_and_changes_nothing(finished, caplog):
    before = contents(finished)
    caplog.set_level("INFO")
    value = resume(finished.recorded(), finished.path, [])
    assert value == finished.record()["val/loss"]
    assert "is finished, 3 epochs; nothing is left to do" in caplog.text
    assert contents(finished) == before


def test_more_epochs_continue_a_finished_run_as_if_it_had_been_asked_for_them_at_first(
    config, finished, tmp_path
):
    cfg = OmegaConf.create(finished.recorded())
    cfg.trainer.max_epochs = 5
    resume(cfg, finished.path, ["trainer.max_epochs=5"])
    longer = Run(tmp_path / "longer")
    train(config(*MODELS["scratch"], "trainer.max_epochs=5"), longer.path)
    assert differences(finished, longer) == []
    assert finished.recorded()["trainer"]["max_epochs"] == 5
    assert "trainer.max_epochs=5" in yaml.safe_load((finished.path / ".hydra/overrides.yaml").read_text())
    steps = finished.record()["resumed"]
    assert steps == [{"step": 9, "overrides": ["trainer.max_epochs=5"]}]


def test_curves_have_no_gap_and_no_fold_after_a_kill(config, tmp_path, monkeypatch):
    # killed after the row of epoch 2 was told, before its checkpoint: that row will be told again
    def die(last: Last, trainer, wanted: int) -> None:
        if trainer.current_epoch == 1:
            raise SystemExit(9)
        save(last, trainer, wanted)

    save = Last.save
    monkeypatch.setattr(Last, "save", die)
    cfg = config(*MODELS["scratch"])
    with pytest.raises(SystemExit):
        train(cfg, tmp_path / "run")
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert len(run.rows()) == 2
    assert len(run.load(run.last)["callbacks"]["History"]["rows"]) == 1
    resume(run.recorded(), run.path, [])
    scalars = EventAccumulator(str(run.tensorboard)).Reload()
    assert [event.step for event in scalars.Scalars("val/loss")] == [3, 6, 9]
    assert [event.value for event in scalars.Scalars("val/loss")] == pytest.approx(
        [row["val/loss"] for row in run.rows()]
    )


def test_results_of_an_early_best_epoch_stand_at_the_end_of_the_run_and_are_replaced_when_it_goes_on(
    config, tmp_path
):
    wild = ["model.lr=30", "model.gamma=1", "data.batch_size=32"]  # jumps about
    run, longer = Run(tmp_path / "run"), Run(tmp_path / "longer")
    train(config(*MODELS["scratch"], *wild, "trainer.max_epochs=6"), tmp_path / "run")
    assert run.record()["best_epoch"] < 6  # else the test shows nothing
    assert curves(run)["test/loss"][0][0] == run.rows()[-1]["step"]
    cfg = OmegaConf.create(run.recorded())
    cfg.trainer.max_epochs = 7
    resume(cfg, run.path, [])
    train(config(*MODELS["scratch"], *wild, "trainer.max_epochs=7"), longer.path)
    assert differences(run, longer) == []


def test_the_best_epoch_is_remembered_even_if_the_folder_has_moved(config, tmp_path):
    # a decay so slow that later epochs jump about; the best one is early
    wild = ["model.lr=30", "model.gamma=1", "data.batch_size=32", "trainer.max_epochs=6"]
    train(config(*MODELS["scratch"], *wild), tmp_path / "run")
    run = Run(shutil.move(tmp_path / "run", tmp_path / "moved"))
    losses = [row["val/loss"] for row in run.rows()]
    best = losses.index(min(losses))
    cfg = OmegaConf.create(run.recorded())
    cfg.trainer.max_epochs = 8
    resume(cfg, run.path, [])
    losses = [row["val/loss"] for row in run.rows()]
    assert losses.index(min(losses)) == best  # else the test shows nothing
    assert run.record()["best_epoch"] == best + 1
    assert run.load(run.best)["epoch"] == best
    assert not (tmp_path / "run").exists()


def test_a_run_that_never_began_is_not_resumed_but_started_by_the_same_command(config, finished, tmp_path):
    lost = Run(shutil.copytree(finished.path, tmp_path / "lost"))
    for path in (lost.last, lost.best, lost.metrics_csv):
        path.unlink()
    lost.save_record({"status": "running"})  # as after a kill
    with pytest.raises(UserError, match=r"^run .*lost never began; start it with the command that was to "):
        resume(lost.recorded(), lost.path, [])
    train(config(*MODELS["scratch"]), lost.path)
    assert differences(lost, finished) == []


@pytest.mark.parametrize(
    "override", ["model.lr=0.5", "seed=1", "data.batch_size=10", "model.numerics=textbook"]
)
def test_what_makes_another_experiment_is_refused(config, finished, override):
    before = contents(finished)
    cfg = OmegaConf.create(finished.recorded())
    cfg.merge_with_dotlist([override, "trainer.max_epochs=9"])
    with pytest.raises(UserError, match=rf"^{override} would make this another experiment"):
        resume(cfg, finished.path, [override])
    assert contents(finished) == before


def test_a_bad_override_leaves_the_run_as_it_was(finished):
    before = contents(finished)
    cfg = OmegaConf.create(finished.recorded())
    cfg.trainer.max_epochs = 9
    cfg.callbacks.last.every_n_train_steps = -1
    with pytest.raises(UserError, match=r"callbacks\.last\.every_n_train_steps: .* greater than 0, got -1"):
        resume(cfg, finished.path, [])
    assert contents(finished) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run=nowhere"], "nowhere is no run folder"),
        ([], "which run?"),
        (["run=a,b"], "run must be one folder, got run=a,b"),
        (["run={run}", "model.lrr=1"], "Key 'lrr' is not in struct"),
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
def test_two_processes_cannot_have_the_same_run(start, cli, tmp_path):
    run = Run(tmp_path / "run")
    endless = ["data.train_size=2000", "trainer.max_epochs=100000", "~callbacks.figures"]
    command = start("src.train", *endless, f"hydra.run.dir={run.path}")
    for _ in range(2):  # the first time it is src.train that has it, then src.resume
        command.until("epoch 1")
        status, output = cli("src.resume", f"run={run.path}", data=False)
        assert status == 1
        assert output == f"error: run {run.path} is in use by another process; wait until that one ends\n"
        assert command.alive()
        command.kill(signal.SIGTERM)
        assert command.wait() == 143
        command = start("src.resume", f"run={run.path}", data=False)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_update_under_way_is_finished_before_a_signal_takes_effect(
    config, tmp_path, monkeypatch, signum, status
):
    reference, run = Run(tmp_path / "reference"), Run(tmp_path / "run")
    train(config(*MODELS["scratch"]), reference.path)
    updates = []

    def interrupted(optimizer: SGD, closure=None) -> None:
        updates.append(None)
        if len(updates) == 5:  # the second of the second epoch
            os.kill(os.getpid(), signum)
        step(optimizer, closure)

    step = SGD.step
    monkeypatch.setattr(SGD, "step", interrupted)
    with pytest.raises(SystemExit) as ended:
        train(config(*MODELS["scratch"]), run.path)
    monkeypatch.undo()
    assert ended.value.code == status
    assert run.load(run.last)["global_step"] == 5
    resume(run.recorded(), run.path, [])
    assert differences(run, reference) == []


def test_other_errors_save_nothing_half_done(config, monkeypatch, tmp_path):
    def fail(optimizer: SGD, closure=None) -> None:
        raise RuntimeError("the cable is out")

    cfg = config(*MODELS["scratch"])
    monkeypatch.setattr(SGD, "step", fail)
    with pytest.raises(RuntimeError):
        train(cfg, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert not run.last.exists()
    assert (run.record()["status"], run.record()["reason"]) == ("failed", "the cable is out")


EARLY_STOPPING = "+callbacks.early_stopping={_target_: lightning.pytorch.callbacks.EarlyStopping, "
EARLY_STOPPING += (
    "monitor: val/loss, min_delta: 10, patience: 1}"  # nothing is better than the first epoch by 10
)


def test_a_run_that_early_stopping_ended_trains_no_epoch_more(config, finished, tmp_path):
    # as after a kill behind the save of the last epoch, before or within the test
    cfg = config(*MODELS["scratch"], "trainer.max_epochs=5", EARLY_STOPPING)
    train(cfg, tmp_path / "whole")
    whole = Run(tmp_path / "whole")
    assert len(whole.rows()) == 2  # else the test shows nothing
    run = Run(shutil.copytree(whole.path, tmp_path / "killed"))
    run.save_record({"status": "running"})
    resume(run.recorded(), run.path, [])
    assert differences(run, whole) == []


def test_the_number_of_devices_is_part_of_the_experiment(finished):
    before = contents(finished)
    settings = finished.recorded()
    settings["trainer"] |= {"devices": 2, "max_epochs": 9}
    with pytest.raises(UserError, match=r"^trainer\.devices=2 would make this another experiment \(it was 1\)"):
        resume(settings, finished.path, ["trainer.devices=2"])
    assert contents(finished) == before


@pytest.mark.slow
def test_an_override_that_fails_is_not_recorded_and_plain_resume_still_works(start, cli, tmp_path):
    reference, run = Run(tmp_path / "reference"), Run(tmp_path / "run")
    arguments = ["data.train_size=2000", "trainer.max_epochs=9", "~callbacks.figures"]
    assert cli("src.train", *arguments, f"hydra.run.dir={reference.path}").status == 0
    command = start("src.train", *arguments, f"hydra.run.dir={run.path}")
    command.until("epoch 3/")
    command.kill(signal.SIGKILL)
    command.wait()
    before = run.config.read_text()
    for override, complaint in {
        "trainer.max_epochs=1": "error: trainer.max_epochs=1, but ",
        "trainer.threads=0": "error: trainer.threads: input should be greater than or equal to 1",
    }.items():
        status, output = cli("src.resume", f"run={run.path}", override, data=False)
        assert status == 1
        assert output.splitlines()[-1].startswith(complaint), output
        assert run.config.read_text() == before
    assert cli("src.resume", f"run={run.path}", data=False).status == 0
    assert differences(run, reference) == []


@pytest.mark.parametrize(
    "left",
    ["an empty config", "half a config", "a record", "a log", "a best checkpoint alone", "everything early"],
)
def test_a_folder_whose_run_never_began_is_started_afresh_by_the_same_command(cli, tmp_path, left):
    run = Run(tmp_path / "run")
    run.config.parent.mkdir(parents=True)
    if left in ("an empty config", "everything early"):
        run.config.write_text("")
    if left == "half a config":
        run.config.write_text("seed: 0\nmodel:\n  _targ")
    if left in ("a record", "everything early"):
        run.save_record({"status": "failed", "reason": "model.lr"})
    if left in ("a log", "everything early"):
        (run.path / "train.log").write_text("killed\n")
    if left == "a best checkpoint alone":  # it is saved before the state to resume from
        run.best.parent.mkdir()
        run.best.write_bytes(b"PK")
    if left == "everything early":
        run.metrics_csv.write_text("epoch\n1\n")
        run.best.parent.mkdir()
        run.best.with_name("last.ckpt.part").write_bytes(b"PK")
        run.tensorboard.mkdir()
        (run.tensorboard / "events.out.tfevents.1.x.1.0").write_bytes(b"")
    status, output = cli("src.resume", "run=run", data=False)
    assert (status, len(output.splitlines())) == (1, 1)
    small = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=1"]
    status, output = cli("src.train", *small, "hydra.run.dir=run", data=False)
    assert status == 0, output
    assert run.record()["status"] == "finished"
    assert len(list(run.tensorboard.glob("events*"))) == 1
    status, output = cli("src.train", *small, "hydra.run.dir=run", data=False)
    assert status == 1
    assert output == "error: folder run is not empty; choose another with hydra.run.dir=DIR\n"


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_is_for_the_main_process_not_for_the_workers(start, cli, tmp_path, signum):
    arguments = ["data.train_size=2000", "trainer.max_epochs=8", "~callbacks.figures", "data.num_workers=2"]
    reference, run = Run(tmp_path / "reference"), Run(tmp_path / "run")
    assert cli("src.train", *arguments, f"hydra.run.dir={reference.path}").status == 0
    command = start("src.train", *arguments, f"hydra.run.dir={run.path}")
    command.until("epoch 3/")
    command.kill(signum, group=True)
    assert command.wait() == 128 + signum, command.output()
    assert "Traceback" not in command.output()
    assert (run.record()["status"], run.record()["reason"]) == ("interrupted", signal.Signals(signum).name)
    assert cli("src.resume", f"run={run.path}", data=False).status == 0
    assert differences(run, reference) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("hook", ["setup", "on_test_start", "on_test_batch_start", "on_test_end"])
def test_a_signal_outside_of_the_training_has_its_status_too(config, tmp_path, signum, status, hook, cli):
    # a callback of one's own sends it: in the set-up of the data, and in the test
    for name in ("src", "conf"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "src/sending.py").write_text(
        f"import os\nimport lightning as L\n\n\nclass Send(L.Callback):\n"
        f"    def {hook}(self, *arguments, **named):\n        os.kill(os.getpid(), {int(signum)})\n"
    )
    small = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=1"]
    send = "+callbacks.send._target_=src.sending.Send"
    ended, output = cli(
        "src.train", *small, send, "hydra.run.dir=run", data=False, fresh=True, env={"PYTHONPATH": "."}
    )
    assert ended == status, output
    assert "Traceback" not in output
    record = Run(tmp_path / "run").record()
    assert (record["status"], record["reason"]) == ("interrupted", signum.name)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_run_at_once_with_130(config, tmp_path, monkeypatch):
    def twice(optimizer: SGD, closure=None) -> None:
        step(optimizer, closure)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    step = SGD.step
    monkeypatch.setattr(SGD, "step", twice)
    with pytest.raises(SystemExit) as ended:
        train(config(*MODELS["scratch"]), tmp_path / "run")
    assert ended.value.code == 130
    run = Run(tmp_path / "run")
    assert not run.last.exists()
    assert (run.record()["status"], run.record()["reason"]) == ("interrupted", "SIGINT")


def test_what_several_processes_agree_on_is_a_tensor_of_their_device(monkeypatch):
    # NCCL reduces tensors of the GPU only; "meta" stands for a device that is not the CPU
    asked = []

    class Strategy:
        root_device = torch.device("meta")

        def reduce(self, tensor, reduce_op):
            asked.append((tensor.device.type, reduce_op))
            return torch.tensor(2.0)

    trainer = SimpleNamespace(world_size=2, strategy=Strategy())
    assert Last().agreed(trainer, 0) == 2
    assert asked == [("meta", "max")]


def test_several_processes_ask_each_other_every_tenth_minibatch_only():
    trainer = SimpleNamespace(world_size=2, num_training_batches=100, global_step=0)
    last = Last()
    last.agreed = lambda trainer, wanted: asked.append(trainer.global_step) or 0
    asked = []
    for step in range(1, 31):
        trainer.global_step = step
        last.on_train_batch_end(trainer, None, None, None, step - 1)
    assert asked == [10, 20, 30]


@pytest.mark.parametrize(
    ("name", "hydra"),  # .hydra as another project of Hydra's has it
    [("checkpoints/epoch_3.ckpt", True), ("checkpoints/epoch_3.ckpt", False), ("figures/mine.png", False)],
)
def test_a_folder_of_another_project_is_refused_and_left_alone(cli, tmp_path, name, hydra):
    path = tmp_path / "other" / name
    path.parent.mkdir(parents=True)
    path.write_text("dear")
    if hydra:
        (tmp_path / "other/.hydra").mkdir()
    small = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "trainer.max_epochs=1"]
    status, output = cli("src.train", *small, "hydra.run.dir=other", data=False)
    assert (status, output) == (1, "error: folder other is not empty; choose another with hydra.run.dir=DIR\n")
    assert path.read_text() == "dear"
