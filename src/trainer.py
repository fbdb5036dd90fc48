"""The Trainer of every run: Lightning's, with this project's fixed choices and checked arguments."""

import warnings
from typing import Any, Literal

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from pydantic import PositiveInt, validate_call


@validate_call
def build_trainer(
    max_epochs: PositiveInt = 20,
    accelerator: Literal["cpu", "gpu", "mps", "auto"] = "cpu",
    devices: PositiveInt = 1,
    enable_progress_bar: bool = True,
    **options: Any,
) -> L.Trainer:
    """Lightning's Trainer; `options` are further arguments of its constructor.

    Raises ValueError for a value out of range or hardware that is not there.
    """
    # Lightning's own use of a torch name that is on its way out; nothing of ours is behind it.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    # Workers would only slow down a data set that is in memory.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    try:
        return L.Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=False,
            log_every_n_steps=0,  # everything is logged once per epoch
            num_sanity_val_steps=0,  # the model checks its inputs itself
            use_distributed_sampler=False,  # src.data.batches divides the examples exactly
            **options,
        )
    except MisconfigurationException as error:
        asked = f"trainer.accelerator={accelerator} trainer.devices={devices}"
        raise ValueError(f"{asked} cannot be had here ({error}); try trainer.accelerator=cpu") from error
