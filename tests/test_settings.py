"""Every setting is read by something, or refused in one line before anything is made, by every command alike."""

import inspect
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import OmegaConf

from src.benchmark.suites import settings_of_ours
from src.cli.explain import USER_ERRORS, explain
from src.errors import UserError
from src.runs import Run
from src.runs.config import plain
from src.signatures import arguments, parameters
from src.training.experiment import check_settings, train
from src.training.resuming import resume
from src.tune.search import tune
from tests.conftest import compose_config

SMALL = ["data=synthetic", "model=linear_scratch", "data.train_size=50", "data.val_size=20"]
SMALL += ["trainer.max_epochs=1", "~callbacks.figures"]
STOPPER = "callbacks.early_stopping"
EARLY = [f"+{STOPPER}._target_=lightning.pytorch.callbacks.EarlyStopping"]
EARLY += [f"+{STOPPER}.monitor=val/loss"]


# --- what nothing reads -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+lr=0.5"], r"^lr=0\.5 is read by nothing\. Did you mean model\.lr\?$"),
        (["+batch_size=5"], r"^batch_size=5 is read by nothing\. Did you mean data\.batch_size\?$"),
        (
            ["+experiment.model.lr=0.7"],
            r"^experiment: \{model\} is read by nothing; .* @package _global_$",
        ),
        (["+tags=[a,b]"], r"^tags=\['a', 'b'\] is read by nothing\. The config has seed, data, "),
        (["+model.numerics=stable"], r"^model\.numerics=stable: there is no such setting; "),
        (["+callbacks.last.mode=min"], r"^callbacks\.last\.mode=min: there is no such setting; "),
    ],
    ids=str,
)
def test_a_setting_that_nothing_reads_is_refused(config, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(config(*SMALL, *overrides), tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_key_that_other_settings_refer_to_is_read(config):
    settings = plain(
        config(*SMALL, "+my_lr=0.25", "model.lr=${my_lr}", "+two.x=3", "seed=${two.x}")
    )
    assert (settings["model"]["lr"], settings["seed"]) == (0.25, 3)
    assert set(settings) == {"seed", "data", "model", "trainer", "callbacks", "logger"}


@pytest.mark.slow
def test_an_experiment_file_without_its_header_is_refused(cli, tmp_path):
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text("model: {lr: 0.7}\n")
    status, output = cli("src.train", "--config-dir=own", *SMALL, "experiment=mine", data=False)
    assert status == 1
    (line,) = output.splitlines()
    assert line == (
        "error: experiment: {model} is read by nothing; a file of conf/experiment must begin with "
        "the line # @package _global_"
    )


def test_every_setting_in_conf_is_a_setting_of_what_it_builds(config):
    for model in ("scratch", "closed_form", "concise", "grid", "linear_scratch", "linear_concise"):
        check_settings(plain(config(f"model={model}")))


# --- values -----------------------------------------------------------------------------------------

NO_NUMBERS = ["abc", "'3'", "true", "[1]", "null"]
BAD = {
    **{f"model.lr={value}": "model.lr: " for value in [*NO_NUMBERS, "nan", "inf", ".inf"]},
    **{f"data.batch_size={value}": "data.batch_size: " for value in [*NO_NUMBERS, "1.5", "0"]},
    **{f"seed={value}": "seed: " for value in [*NO_NUMBERS, "-1", "4294967296"]},
    **{
        f"trainer.max_epochs={value}": "trainer.max_epochs: "
        for value in [*NO_NUMBERS, "0", "100001"]
    },
    "data.w=[nan,1]": "data.w.0: ",
    "data.w=[1,inf]": "data.w.1: ",
    "data.w=[1,true]": "data.w.1: ",
    "data.b=nan": "data.b: ",
    "~seed": "data.seed: Interpolation key 'seed' not found",
    "~model.lr": "",  # its default
}
STOPPERS = {
    "patience": ["abc", "-1", "1.5", "null", "nan", "'3'", "true"],
    "mode": ["foo", "3", "null"],
    "min_delta": ["abc", "-1", "nan"],
    "monitor": ["null", "3", "[a]"],
    "verbose": ["often", "3"],
    "no_such": ["1"],
}


@pytest.mark.parametrize("override", [key for key, said in BAD.items() if said])
def test_a_value_of_another_type_or_out_of_range_is_one_line(config, tmp_path, override):
    with pytest.raises(USER_ERRORS) as refused:
        train(config(*SMALL, override), tmp_path / "run")
    line = explain(refused.value)
    assert line.startswith(BAD[override])
    assert "\n" not in line
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_setting_that_is_left_out_has_its_default(config):
    for override in ("~model.lr", "~trainer.max_epochs", "~callbacks", "callbacks.last=null"):
        check_settings(plain(config(*SMALL[:-1], override)))


@pytest.mark.parametrize(("name", "values"), STOPPERS.items())
def test_values_of_lightnings_classes_are_checked_before_anything_is_trained(
    config, tmp_path, name, values
):
    for number, value in enumerate(values):
        with pytest.raises(UserError, match=rf"^{STOPPER}") as refused:
            train(config(*SMALL, *EARLY, f"++{STOPPER}.{name}={value}"), tmp_path / str(number))
        assert "\n" not in str(refused.value)
        assert not (tmp_path / str(number) / "checkpoints").exists()


def test_an_argument_that_is_missing_is_named(config, tmp_path):
    with pytest.raises(UserError, match=rf"^{STOPPER}\.monitor is missing$"):
        train(config(*SMALL, EARLY[0]), tmp_path / "run")
    with pytest.raises(UserError, match=r"^callbacks\.p\.trial is missing$"):
        train(config(*SMALL, "+callbacks.p._target_=src.tune.pruning.Prune"), tmp_path / "other")


def test_two_callbacks_with_the_same_state_are_refused(config, tmp_path):
    more = "+callbacks.more._target_=src.training.history.History"
    with pytest.raises(
        UserError, match=r"^callbacks\.more is the same as the History of every run: "
    ):
        train(config(*SMALL, more), tmp_path / "run")
    again = [text.replace("early_stopping", "again") for text in EARLY]
    with pytest.raises(
        UserError, match=r"^callbacks\.again is the same as callbacks\.early_stopping: "
    ):
        train(config(*SMALL, *EARLY, *again), tmp_path / "other")


# --- every command refuses alike ----------------------------------------------------------------------

ALIKE = ["trainer.max_epochs=abc", "trainer.max_epochs=0", "trainer.max_epochs='3'", "seed=-1"]
ALIKE += ["callbacks.last.every_n_train_steps=abc", "+callbacks.last.no_such=1", "data.noise=-1"]


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    train(config(*SMALL), run.path)
    return run


def refusal_of_train(override: str, **_: Any) -> str:
    with pytest.raises(UserError) as refused:
        check_settings(plain(compose_config("train", *SMALL, override)))
    return str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("override", ALIKE)
def test_what_train_refuses_tune_and_benchmark_and_resume_refuse_with_the_same_words(
    override, trained, tmp_path
):
    said = refusal_of_train(override)
    with pytest.raises(UserError) as by_tune:
        tune(compose_config("tune", *SMALL, override, f"folder={tmp_path}/study"))
    assert str(by_tune.value).removeprefix("seed: ") == said.removeprefix("seed: ")
    assert not (tmp_path / "study").exists()
    key, _, value = override.lstrip("+").partition("=")
    cfg = OmegaConf.create(trained.settings())
    before = {path: path.read_bytes() for path in trained.path.rglob("*") if path.is_file()}
    OmegaConf.update(cfg, key, compose_config("train", f"++x={value}").x, force_add=True)
    with pytest.raises(UserError) as by_resume:
        resume(trained.path, cfg)
    assert str(by_resume.value) == said
    assert {path: path.read_bytes() for path in before} == before
    if not key.startswith("data."):
        cfg = compose_config("benchmark", override)
        with pytest.raises(UserError) as by_benchmark:
            settings_of_ours(cfg, cfg.models.scratch, cfg.trainer)
        assert str(by_benchmark.value) == said


@pytest.mark.parametrize("key", ["trainer.max_epochs", "seed", "callbacks", "logger"])
def test_resume_of_a_run_without_a_setting_is_one_line_or_right(trained, key):
    settings = trained.settings()
    group, _, name = key.rpartition(".")
    del (settings[group] if group else settings)[name]
    if key == "seed":
        with pytest.raises(UserError, match=r"^seed: "):
            resume(trained.path, settings)
    else:
        assert resume(trained.path, settings).results()["status"] == "finished"


SPACES = {
    "space.model.lr='interval(-1, 1)'": r"^model\.lr: input should be greater than 0, got -1",
    "space.model.lr='interval(-1e308, 1e308)'": r"^space\.model\.lr=.* is no search space",
    "+space.data.w='choice(1, 2)'": r"^data\.w: input should be a valid array, got 1",
    "+space.trainer.devices='choice(1, 2)'": r"^a search trains on one device",
    "+space.trainer.max_epochs='choice(1, 0)'": r"^trainer\.max_epochs: .*greater than 0, got 0",
    "+space.data.val_size='choice(0, 10)'": r"^data\.val_size=0: tuning needs a validation split",
}


@pytest.mark.parametrize("override", SPACES)
def test_the_ends_of_what_is_searched_are_checked_before_anything_is_made(override, tmp_path):
    with pytest.raises(UserError, match=SPACES[override]):
        tune(compose_config("tune", *SMALL, override.replace("'", '"'), f"folder={tmp_path}/s"))
    assert not (tmp_path / "s").exists()


# --- what a class takes --------------------------------------------------------------------------------


class Base:
    def __init__(self, a: int, b: float = 2.0):
        self.a, self.b = a, b


class Derived(Base):
    def __init__(self, c: str = "x", **shared: Any):
        super().__init__(**shared)
        self.c = c


class Anything(Base):
    def __init__(self, a: int, **anything: Any):
        super().__init__(a)


def test_a_class_that_hands_settings_on_takes_those_of_its_base():
    assert list(parameters(Derived)) == ["a", "b", "c"]
    assert arguments("x", Derived, {"a": 1, "b": 3}) == {"a": 1, "b": 3.0}
    with pytest.raises(UserError, match=r"^x\.a: input should be a valid integer, got '1'$"):
        arguments("x", Derived, {"a": "1"})


def test_a_library_function_is_described_by_its_signature():
    assert set(parameters(EarlyStopping)) == set(inspect.signature(EarlyStopping).parameters)
