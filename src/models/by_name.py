"""Optimizers and schedules of torch, chosen by name and plain values.

A name is looked up in torch.optim, or in torch.optim.lr_scheduler, and nowhere else: the settings
may come from a stranger's run folder.
"""

import inspect
from typing import Annotated, Any

from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from pydantic import AfterValidator
from torch import optim
from torch.optim import lr_scheduler

from src.errors import UserError
from src.models.regression import Regression
from src.signatures import arguments, parameters

REFUSED = {
    "LBFGS": "it computes the loss of a minibatch several times, and each would count",
    "SparseAdam": "the gradients here are dense; try Adam",
}
INTERVALS = ("epoch", "step")  # after which a schedule changes the learning rate


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(settings.get("name"), str):
        raise ValueError("it needs a name, as in {name: AdamW}")
    return settings


Named = Annotated[dict[str, Any], AfterValidator(_named)]
SGD, EXPONENTIAL = {"name": "SGD"}, {"name": "ExponentialLR"}


class OptimizerByName(Regression):
    """A model that Lightning optimizes, with any optimizer and schedule of torch's.

    `optimizer` and `scheduler` are a name with arguments: {name: AdamW, betas: [0.9, 0.99]}. The
    learning rate is `lr`; `weight_decay` goes to the optimizer. A schedule changes the learning
    rate after each epoch, or with `interval: step` after each update. `gamma` is read by the
    default, ExponentialLR, alone.
    """

    def __init__(self, optimizer: Named = SGD, scheduler: Named = EXPONENTIAL, **shared: Any):
        super().__init__(**shared)
        self.optimizer_settings, self.scheduler_settings = optimizer, scheduler
        default = parameters(type(self))["gamma"].default
        if scheduler["name"] != "ExponentialLR" and self.gamma != default:
            reader = "is read by the schedule ExponentialLR alone"
            raise UserError(f"model.gamma={self.gamma} {reader}; leave it out")
        try:
            self.configure_optimizers()  # so that what does not fit is refused before any training
        except UserError:
            raise
        except Exception as error:  # torch refuses a value
            reason = " ".join(str(error).split())
            raise UserError(f"model.optimizer or model.scheduler: {reason}") from error

    def optimizer_arguments(self, chosen: type[optim.Optimizer]) -> dict[str, Any]:
        """The arguments of the optimizer besides the parameters."""
        given = dict(self.optimizer_settings)
        given.pop("name")
        if "lr" in given:
            raise UserError(f"model.optimizer.lr={given['lr']}: the learning rate is model.lr")
        if self.weight_decay:
            other = given.setdefault("weight_decay", self.weight_decay)
            if other != self.weight_decay:
                both = f"model.optimizer.weight_decay={other} and model.weight_decay"
                raise UserError(f"{both}={self.weight_decay} are two values for one; leave one out")
        return arguments("model.optimizer", chosen, {"lr": self.lr, **given}, ("params",))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        if self.optimizer_settings == SGD and self.scheduler_settings == EXPONENTIAL:
            return super().configure_optimizers()  # type: ignore[safe-super]
        chosen = _class("model.optimizer", self.optimizer_settings["name"], optim, optim.Optimizer)
        optimizer = chosen(self.parameters(), **self.optimizer_arguments(chosen))
        settings = dict(self.scheduler_settings)
        if settings["name"] == "ExponentialLR":
            settings.setdefault("gamma", self.gamma)
        interval = settings.pop("interval", "epoch")
        if interval not in INTERVALS:
            known = " or ".join(INTERVALS)
            raise UserError(f"model.scheduler.interval must be {known}, got {interval}")
        metric = "val/loss"
        # the one schedule that waits for a metric; others refuse `monitor`, as any unknown setting
        if settings["name"] == "ReduceLROnPlateau":
            metric = settings.pop("monitor", metric)
        schedule = _build_schedule("model.scheduler", settings, optimizer)
        config: LRSchedulerConfigType = {"scheduler": schedule, "interval": interval}
        if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
            config["monitor"] = metric
        return {"optimizer": optimizer, "lr_scheduler": config}


def _class(key: str, name: str, module: Any, base: type) -> Any:
    """The class of that name in the module.

    Raises UserError if there is none.
    """
    if name in REFUSED:
        raise UserError(f"{key}.name={name} cannot be taken: {REFUSED[name]}")
    subclasses = set()
    for known_name, known_class in vars(module).items():
        if inspect.isclass(known_class) and issubclass(known_class, base):
            subclasses.add(known_name)
    known = sorted(subclasses - {base.__name__, *REFUSED})
    if name not in known:
        raise UserError(f"{key}.name={name}: there is none; there are {', '.join(known)}")
    return getattr(module, name)


def _build_schedule(key: str, settings: dict[str, Any], optimizer: optim.Optimizer) -> Any:
    """The schedule of the optimizer, built after the schedules that it is made of."""
    settings = dict(settings)
    chosen = _class(key, settings.pop("name"), lr_scheduler, lr_scheduler.LRScheduler)
    parts = settings.pop("schedulers", None)
    values = arguments(key, chosen, settings, ("optimizer", "schedulers"))
    if parts is None:
        return chosen(optimizer, **values)
    if not isinstance(parts, list):
        parts = [parts]
    schedules = []
    for number, part in enumerate(parts):
        part_key = f"{key}.schedulers.{number}"
        if not isinstance(part, dict) or not isinstance(part.get("name"), str):
            raise UserError(f"{part_key} needs a name, as in {{name: LinearLR}}, got {part}")
        schedules.append(_build_schedule(part_key, part, optimizer))
    if chosen is lr_scheduler.ChainedScheduler:
        return chosen(schedules)
    return chosen(optimizer, schedules, **values)
