"""What arguments of Lightning's Trainer may be, and which a run cannot have."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

Duration = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")]  # DD:HH:MM:SS
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
