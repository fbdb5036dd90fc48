"""Checkpoints, read as if a stranger had made them: tensors and plain values.

A checkpoint is a zip archive that torch.save writes: a pickle, and the bytes of each tensor beside
it. A pickle is a list of instructions. Python's unpickler can call whatever they name, and
torch.load(weights_only=True), which runs no program, can be made to take all memory by 400 bytes.
Here the few instructions that build tensors and plain values are carried out, and nothing else.
What they make is no larger than the file.
"""

import math
import pickletools
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from src.errors import UserError
from src.files import open_regular
from src.runs.archive import LARGEST, Archive

PICKLE, INSTRUCTIONS = 1 << 24, 1_000_000  # bytes and instructions; 20,000 epochs have 660,000
TENSORS, DIMENSIONS = 10_000, 64
# Every checkpoint has these, of this type.
NEEDED = {
    "state_dict": dict,
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
REBUILD, ORDERED_DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
# A pickle may name these alone; here they are texts.
NAMES = {*DTYPES, REBUILD, ORDERED_DICT}
# Instructions: those that have a value with them, those that make a new one, and how many values
# others take from the stack (None: all from the last mark on).
VALUES = {"BINUNICODE", "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1"}
NEW: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
TAKES: dict[str, int | None] = {
    **{"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "APPENDS": None},
    **{"SETITEM": 2, "SETITEMS": None, "BINPERSID": 1, "REDUCE": 2, "BUILD": 1},
}


class Refused(ValueError):
    """A pickle that would make other things than tensors and plain values."""


def load_checkpoint(path: Path, within: Path | None = None) -> dict[str, Any]:
    """The content of a checkpoint, whole and harmless.

    `within` is the run folder, below which no link is followed. Raises UserError if the file is
    missing, damaged (it has a checksum of every part), or something else.
    """
    try:
        with open_regular(path, LARGEST, within) as file:
            archive = Archive(file)
            content = Builder(archive).build(archive.read("data.pkl", PICKLE))
    except FileNotFoundError:
        raise UserError(f"checkpoint {path} does not exist; try checkpoint=best") from None
    except Refused as error:
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
    for name, tensor in content["state_dict"].items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{path} is no checkpoint of a run: {name} of it is no tensor")
    return content


class Builder:
    """A machine that carries out the instructions of a pickle, which work on a stack.

    They make None, numbers, texts, lists, tuples, dicts, or tensors of the archive.
    """

    def __init__(self, archive: Archive):
        order = archive.read("byteorder", 10).decode()
        if order != sys.byteorder:
            raise ValueError(f"its numbers are {order} endian")
        self.archive = archive
        self.storages: dict[str, Tensor] = {}  # the tensors may share their bytes
        self.tensors = 0

    def build(self, pickled: bytes | bytearray) -> Any:
        """The object.

        Raises Refused for an instruction that no checkpoint needs.
        """
        stack: list[Any] = []
        marks: list[int] = []  # heights of the stack
        memo: dict[object, Any] = {}
        for number, (instruction, argument, _) in enumerate(pickletools.genops(pickled)):
            name = instruction.name
            if number > INSTRUCTIONS:
                raise ValueError(f"its pickle has more than {INSTRUCTIONS:,} instructions")
            if name in VALUES:
                stack.append(argument)
            elif name in NEW:
                stack.append(NEW[name]())
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "MARK":
                marks.append(len(stack))
            elif name == "GLOBAL":
                if argument not in NAMES:
                    raise Refused(f"it names {str(argument).replace(' ', '.')}")
                stack.append(argument)
            elif name in TAKES:
                taken = TAKES[name]
                height = marks.pop() if taken is None else len(stack) - taken
                items = stack[height:]
                del stack[height:]
                self.combine(name, stack, items)
            elif name == "STOP":
                return stack.pop()
            elif name != "PROTO":
                raise Refused(f"it has the instruction {name}")

    def combine(self, name: str, stack: list[Any], items: list[Any]) -> None:
        """Carry out an instruction that has taken the items from the top of the stack."""
        match name:
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(items))
            case "APPEND" | "APPENDS":
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                _set_items(stack[-1], items)
            case "BINPERSID":
                stack.append(self.storage(*items[0]))
            case "REDUCE":
                stack.append(self.call(*items))
            case "BUILD":
                _set_metadata(stack[-1], items[0])

    def call(self, name: str, arguments: tuple) -> Tensor | OrderedDict:
        if name == REBUILD:
            return self.tensor(*arguments)
        if name == ORDERED_DICT and arguments == ():
            return OrderedDict()
        raise Refused(f"it calls {name}")

    def storage(self, kind: str, dtype: str, name: str, device: str, length: int) -> Tensor:
        """The numbers (length,) of a part of the archive."""
        if name not in self.storages:
            content = self.archive.read(f"data/{name}")
            if len(content) != length * DTYPES[dtype].itemsize:
                raise ValueError(f"storage {name} has {len(content):,} bytes, not {length} numbers")
            numbers = torch.frombuffer(content, dtype=DTYPES[dtype]) if content else None
            self.storages[name] = (
                torch.empty(0, dtype=DTYPES[dtype]) if numbers is None else numbers
            )
        return self.storages[name]

    def tensor(
        self, storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
    ) -> Tensor:
        """The tensor of this size and stride in the storage (n,).

        Raises ValueError unless it lies in there, and the storage has at least as many numbers.
        """
        self.tensors += 1
        if self.tensors > TENSORS or len(size) > DIMENSIONS:
            raise ValueError(f"it has more than {TENSORS:,} tensors, or {DIMENSIONS} dimensions")
        if min([offset, *size, *stride]) < 0 or math.prod(size) > len(storage):
            raise ValueError(f"a tensor of size {size} in a storage of {len(storage)}")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if math.prod(size) > 0 and last >= len(storage):
            raise ValueError(
                f"a tensor {size} with strides {stride} in a storage of {len(storage)}"
            )
        return storage.as_strided(size, stride, offset)


def _set_items(mapping: dict, items: list[Any]) -> None:
    """Set keys and values in turn.

    Keys are texts, or numbers of parameters: others can take very long to look up.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not (isinstance(key, str) or (isinstance(key, int) and 0 <= key < 1 << 31)):
            raise Refused(f"it has a {type(key).__name__} as a key")
        mapping[key] = value


class StateDict(Protocol):
    """A state_dict, with a version of every module that it holds tensors of."""

    _metadata: dict[str, dict[str, Any]]


def _set_metadata(mapping: StateDict, attributes: dict[str, Any]) -> None:
    """Set the versions of the modules that a state_dict has tensors of."""
    metadata = attributes["_metadata"]
    if not all(isinstance(versions, dict) for versions in metadata.values()):
        raise ValueError("its metadata are none")
    mapping._metadata = metadata
