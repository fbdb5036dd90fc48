"""Checkpoints, read as if a stranger had made them."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError
from src.files import open_regular

LARGEST = 1 << 32  # bytes
NEEDED = {"state_dict", "epoch", "global_step", "loops", "callbacks", "optimizer_states", "lr_schedulers"}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a checkpoint, whole and harmless: only tensors and plain values are ever unpickled.

    Raises UserError if the file is missing, damaged (it has a checksum of every tensor), or something else.
    """
    try:
        with open_regular(path, LARGEST) as file:
            with zipfile.ZipFile(file) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise zipfile.BadZipFile("it is compressed, and could be of any size")
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; try checkpoint=best") from None
    except pickle.UnpicklingError as error:
        advice = "it was not loaded, as that could run a program"
        raise UserError(f"checkpoint {path} holds more than tensors and plain values; {advice}") from error
    except (zipfile.BadZipFile, EOFError, OSError, LookupError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"checkpoint {path} is damaged or no checkpoint: {reason}") from error
    if not isinstance(content, dict) or not content.keys() >= NEEDED:
        raise UserError(f"{path} is no checkpoint of a run")
    return content
