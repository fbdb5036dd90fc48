"""What arguments of Lightning's Trainer may be, and which a run cannot have."""

import re
from typing import Annotated, Any, Literal

import lightning as L
from pydantic import AfterValidator, Field, PositiveInt
from pydantic_core import PydanticCustomError

from src.errors import UserError
from src.formats import ROWS
from src.signatures import arguments, parameters
from src.training.devices import CORES, Accelerator, available_accelerator

MOST_EPOCHS = ROWS  # so that the metrics of all can be read again


def check_duration(text: str) -> str:
    """The text, if it is a time. Raises pydantic's error."""
    if not re.fullmatch(r"\d{1,4}:\d\d:\d\d:\d\d", text) or not text.strip("0:"):
        raise PydanticCustomError("duration", "input should be DD:HH:MM:SS, at least a second")
    return text


Duration = Annotated[str, AfterValidator(check_duration)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def check_limit(value: Any) -> int | float:
    """The value, if it limits the minibatches of an epoch. Raises pydantic's error."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (0 <= value <= 1 or (isinstance(value, int) and value >= 0)):
        return value
    raise PydanticCustomError("limit", "input should be a part of all, 0.0 to 1.0, or a number")


def check_some(value: Any) -> int | float:
    """As check_limit, but not 0."""
    if check_limit(value) == 0:
        raise PydanticCustomError("limit", "input should be greater than 0")
    return value


# Of the minibatches of an epoch: how many, or what part of them.
Limit = Annotated[Any, AfterValidator(check_some)]
LimitOrNone = Annotated[Any, AfterValidator(check_limit)]
LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches")
Precision = Literal[
    "32-true", "64-true", "bf16-mixed", "16-mixed", 32, 64, 16, "32", "64", "16", "bf16"
]
# Lightning's short names of a precision -> its names.
PRECISIONS = {"16": "16-mixed", "32": "32-true", "64": "64-true", "bf16": "bf16-mixed"}
# Arguments that Lightning has and a run cannot: why, and what to take instead.
REFUSED = {
    "barebones": "a run needs its record; take ~callbacks.figures logger=null",
    "callbacks": "they are a group; take +callbacks.NAME._target_=CLASS, or ~callbacks for none",
    "default_root_dir": "a run has one folder; take hydra.run.dir=DIR",
    "enable_checkpointing": "a run is resumed and tested from its checkpoints; leave it out",
    "limit_predict_batches": "src.train does not predict; take python -m src.predict run=DIR",
    "logger": "loggers are a group; take logger=csv, or logger=null for none",
    "max_steps": "a run ends with an epoch; take trainer.max_epochs or trainer.limit_train_batches",
    "min_steps": "a run ends with an epoch; take trainer.min_epochs",
    "num_nodes": "the processes of a run are on one machine; take trainer.devices",
    "num_sanity_val_steps": "a model checks its data itself before it trains; leave it out",
    "overfit_batches": "it replaces the loaders that make resume exact; take debug=overfit",
    "plugins": "a run has its own, which check each checkpoint; leave it out",
    "reload_dataloaders_every_n_epochs": "the loader knows how far the epoch is; leave it out",
    "use_distributed_sampler": "src.data.batches divides the examples exactly; leave it out",
    "val_check_interval": "a row of metrics.csv is an epoch; for shorter epochs take "
    "trainer.limit_train_batches=0.25, for fewer validations trainer.check_val_every_n_epoch=2",
}


def declared(
    max_epochs: Annotated[int, Field(gt=0, le=MOST_EPOCHS)] = 20,
    max_time: Duration | None = None,
    accelerator: Accelerator = "cpu",
    devices: PositiveInt = 1,
    strategy: Literal["auto", "ddp"] = "auto",
    precision: Precision = "32-true",
    limit_train_batches: Limit = 1.0,
    limit_val_batches: LimitOrNone = 1.0,
    limit_test_batches: Limit = 1.0,
    check_val_every_n_epoch: PositiveInt = 1,
    accumulate_grad_batches: PositiveInt = 1,
    gradient_clip_val: Positive | None = None,
    gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    deterministic: bool | Literal["warn"] = False,
    detect_anomaly: bool = False,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
    fast_dev_run: bool | PositiveInt = False,
    enable_progress_bar: bool = True,
    threads: Annotated[int, Field(ge=1, le=CORES)] = 1,
    **further: Any,
) -> None:
    """The arguments that keep all that a run promises, and their defaults.

    conf/trainer/default.yaml says what they mean. `further` ones are Lightning's.
    """


def trainer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the trainer that `build_trainer` takes, with the defaults of the others.

    fast_dev_run is an epoch of one minibatch, or so many, of each split. Raises UserError for an
    argument that there is not, that is refused, or whose value does not fit.
    """
    known = defaults()
    for name, value in settings["trainer"].items():
        if name in REFUSED:
            raise UserError(f"trainer.{name}={value} is refused: {REFUSED[name]}")
    given = arguments("trainer", declared, settings["trainer"], ("further",))
    check_further({name: value for name, value in given.items() if name not in known})
    values = known | given
    precision = str(values["precision"])
    values["precision"] = PRECISIONS.get(precision, precision)
    if values["fast_dev_run"]:
        values["max_epochs"] = 1
        values |= dict.fromkeys(LIMITS, int(values["fast_dev_run"]))
    return values


def defaults() -> dict[str, Any]:
    """The arguments that keep all that a run promises, with their defaults."""
    values = {}
    for name, parameter in parameters(declared).items():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            values[name] = parameter.default
    return values


def check_further(further: dict[str, Any]) -> None:
    """Raises UserError for arguments that Lightning does not have, or whose values do not fit."""
    of_lightning = parameters(L.Trainer)
    for name, value in further.items():
        if name not in of_lightning:
            raise UserError(
                f"trainer.{name}={value}: there is no such setting; there are "
                f"{', '.join(defaults())}, and what docs/lightning.md has of lightning.Trainer"
            )
    arguments("trainer", L.Trainer, further)


def untested_arguments(settings: dict[str, Any]) -> list[str]:
    """The accepted settings of the trainer that no test has tried with all that a run promises."""
    names = []
    for name in settings["trainer"]:
        if name not in defaults():
            names.append(f"trainer.{name}")
    values = trainer_arguments(settings)
    if available_accelerator(values["accelerator"], values["devices"]) != "cpu":
        names.append("trainer.accelerator")
    if values["precision"] == "16-mixed":
        names.append("trainer.precision")
    return names
