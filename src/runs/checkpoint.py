"""Checkpoints, read as if a stranger had made them: tensors and plain values, no larger than the
file.

A checkpoint is a zip archive that torch.save writes: a pickle, and the bytes of each tensor beside
it. Python's unpickler can call anything that a pickle names. Here it finds three harmless things,
and before it starts, every instruction of the pickle is looked at. torch.load(weights_only=True)
runs no program either, but a file of 400 bytes can make it take all memory.
"""

import io
import math
import pickle
import pickletools
import struct
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from src.errors import UserError
from src.files import open_regular

LARGEST = 1 << 32  # bytes of the file
LARGEST_PICKLE = 1 << 24  # bytes of the pickle in it, which has the metrics of every epoch
INSTRUCTIONS = 5_000_000  # of the pickle; 100,000 epochs have 3,300,000
PARTS = 10_000  # of the archive: one for each tensor, and a few
NEEDED = {  # what every checkpoint has, and its type
    "state_dict": dict,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Instructions that build None, numbers, texts, lists, tuples, dicts and what the Unpickler below
# can find.
ALLOWED = frozenset(
    {
        *("PROTO", "STOP", "MARK", "POP", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
        *(
            "NONE",
            "NEWTRUE",
            "NEWFALSE",
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "BINFLOAT",
            "BINUNICODE",
        ),
        *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
        *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
    }
)


def load_checkpoint(path: Path, within: Path | None = None) -> dict[str, Any]:
    """Content of a checkpoint, whole and harmless. `within` is the run folder, below which no link
    is followed.

    Raises UserError if the file is missing, damaged (it has a checksum of every part), or something
    else.
    """
    try:
        with open_regular(path, LARGEST, within) as file:
            content = _load(file)
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; try checkpoint=best") from None
    except pickle.UnpicklingError as error:
        advice = "it was not loaded, as that could run a program"
        raise UserError(
            f"checkpoint {path} holds more than tensors and plain values ({error}); {advice}"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail anywhere, with any kind of error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"checkpoint {path} is damaged or no checkpoint: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint of a run")
    for name, kind in NEEDED.items():
        if not isinstance(content.get(name), kind):
            raise UserError(f"{path} is no checkpoint of a run: it has no {name}")
    if not all(isinstance(tensor, Tensor) for tensor in content["state_dict"].values()):
        raise UserError(f"{path} is no checkpoint of a run: its state_dict has more than tensors")
    return content


def _load(file: BinaryIO) -> Any:
    """The object that torch.save has written."""
    size = file.seek(0, io.SEEK_END)
    _check_number_of_parts(file, size)
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise zipfile.BadZipFile("it is compressed, and could be of any size")
        if sum(part.file_size for part in parts) > size:
            raise zipfile.BadZipFile("its parts overlap")
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        (pickled,) = [part for part in parts if part.filename.endswith("/data.pkl")]
        folder = pickled.filename.removesuffix("/data.pkl")
        if archive.read(f"{folder}/byteorder").decode() != sys.byteorder:
            raise ValueError(
                f"its numbers are {archive.read(f'{folder}/byteorder').decode()} endian"
            )
        if pickled.file_size > LARGEST_PICKLE:
            raise ValueError(
                f"its pickle has {pickled.file_size:,} bytes, more than {LARGEST_PICKLE:,}"
            )
        return Unpickler(archive, folder).load()


def _check_number_of_parts(file: BinaryIO, size: int) -> None:
    """Raises BadZipFile if there are very many: to list a million takes zipfile a gigabyte."""
    file.seek(max(0, size - (1 << 16)))
    record = file.read().rpartition(b"PK\5\6")[2]  # the end of an archive, behind its signature
    (parts,) = struct.unpack_from("<H", record, 6)
    if parts > PARTS:
        raise zipfile.BadZipFile(f"it has more than {PARTS:,} parts")
    file.seek(0)


class Unpickler(pickle.Unpickler):
    """Unpickles tensors and plain values from a folder of the archive, and refuses everything
    else."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        content = archive.read(f"{folder}/data.pkl")
        _check_instructions(content)
        super().__init__(io.BytesIO(content))
        self.archive, self.folder = archive, folder
        self.storages: dict[str, Tensor] = {}  # the tensors may share their bytes

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        known = {
            "torch._utils._rebuild_tensor_v2": rebuild_tensor,
            "collections.OrderedDict": Mapping,
            "torch.Size": tuple,
        }
        if (found := known.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return found

    def persistent_load(self, description: tuple) -> Tensor:
        """The numbers of a storage (n,); its description is ("storage", dtype, name, device, n)."""
        _, dtype, name, _, count = description
        if name not in self.storages:
            content = bytearray(self.archive.read(f"{self.folder}/data/{name}"))
            if len(content) != count * dtype.itemsize:
                raise ValueError(
                    f"storage {name} has {len(content):,} bytes, not {count} of {dtype}"
                )
            self.storages[name] = (
                torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            )
        return self.storages[name]


class Mapping(dict):
    """An OrderedDict, which may have attributes as a state_dict has its `_metadata`."""


def rebuild_tensor(
    storage: Tensor,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool,
    hooks: Any,
    *_: Any,
) -> Tensor:
    """The tensor of this size and stride in the storage (n,). Raises ValueError if it does not lie
    in there."""
    if min([offset, *size, *stride]) < 0 or math.prod(size) > len(storage):
        raise ValueError(f"a tensor of size {tuple(size)} in a storage of {len(storage)}")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) > 0 and last >= len(storage):
        raise ValueError(
            f"a tensor {tuple(size)} with strides {tuple(stride)} in a storage of {len(storage)}"
        )
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _check_instructions(pickled: bytes) -> None:
    """Raises UnpicklingError for an instruction that no checkpoint needs, and ValueError for too
    many."""
    for number, (instruction, _, _) in enumerate(pickletools.genops(pickled)):
        if instruction.name not in ALLOWED:
            raise pickle.UnpicklingError(f"it has the instruction {instruction.name}")
        if number > INSTRUCTIONS:
            raise ValueError(f"its pickle has more than {INSTRUCTIONS:,} instructions")
