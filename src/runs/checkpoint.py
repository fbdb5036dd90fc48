"""Checkpoints, read as if a stranger had made them: tensors and plain values, no larger than the
file.

A checkpoint is a zip archive that torch.save writes: a pickle, and the bytes of each tensor beside
it. A pickle is a list of instructions. Python's unpickler can call whatever they name, and
torch.load(weights_only=True), which runs no program, can be made to take all memory by 400 bytes.
Here the few instructions that build tensors and plain values are carried out, and nothing else.
"""

import io
import math
import pickletools
import struct
import sys
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from src.errors import UserError
from src.files import open_regular

LARGEST = 1 << 28  # bytes of the file
DIRECTORY, PARTS = 1 << 20, 10_000  # bytes of the archive's list of parts, and how many
PICKLE, INSTRUCTIONS = 1 << 24, 1_000_000  # bytes and instructions; 20,000 epochs have 660,000
TENSORS, DIMENSIONS = 10_000, 64
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
NAMES = {*DTYPES, REBUILD, ORDERED_DICT}  # all that a pickle may name; here they are texts
# Instructions: those that have a value with them, those that make a new one, and how many values
# others take from the stack (None: all from the last mark on).
VALUES = {"BINUNICODE", "BINFLOAT", "BININT", "BININT1", "BININT2", "LONG1"}
NEW = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
TAKES = {
    **{"TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "APPENDS": None},
    **{"SETITEM": 2, "SETITEMS": None, "BINPERSID": 1, "REDUCE": 2, "BUILD": 1},
}


class Refused(ValueError):
    """A pickle that would make other things than tensors and plain values."""


def load_checkpoint(path: Path, within: Path | None = None) -> dict[str, Any]:
    """Content of a checkpoint, whole and harmless. `within` is the run folder, below which no link
    is followed.

    Raises UserError if the file is missing, damaged (it has a checksum of every part), or something
    else.
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


class Part(NamedTuple):
    """A part of an archive: where its header stands in the file, how long it is, its checksum."""

    header: int
    length: int
    checksum: int


class Archive:
    """The parts of a zip archive as torch.save writes it: not compressed, each of them once.

    Python's zipfile reads many more kinds, among them lists of a million parts, and parts that lie
    one upon the other.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 22))
        end = file.read()
        if len(end) < 22 or end[:4] != b"PK\5\6":
            raise ValueError("it does not end as an archive of torch.save does")
        count, length, start = struct.unpack("<10xHLL2x", end)
        if count > PARTS or length > DIRECTORY:
            raise ValueError(f"it has more than {PARTS:,} parts, or very long names")
        file.seek(start)
        self.parts = dict(_parts(file.read(length), count))
        if sum(part.length for part in self.parts.values()) > size:
            raise ValueError("its parts overlap")

    def read(self, name: str, most: int = LARGEST) -> bytearray:
        """The part of that name. Raises ValueError if it is missing, has a wrong checksum, or more
        than `most` bytes."""
        part = self.parts.get(name)
        if part is None or part.length > most:
            raise ValueError(f"it has no {name} of at most {most:,} bytes")
        self.file.seek(part.header)
        lengths = struct.unpack("<26xHH", self.file.read(30))
        self.file.seek(sum(lengths), io.SEEK_CUR)  # behind the name, and what fills up the header
        content = bytearray(part.length)
        if self.file.readinto(content) != len(content) or zlib.crc32(content) != part.checksum:
            raise ValueError(f"wrong checksum of {name}")
        return content


def _parts(directory: bytes, count: int) -> Iterator[tuple[str, Part]]:
    """The parts by their names, without the folder that all of them are in."""
    place = 0
    for _ in range(count):
        fields = struct.unpack_from("<4s6xHxxxxLLLHHHxxxxxxxxL", directory, place)
        signature, method, checksum, packed, length, *lengths, header = fields
        if signature != b"PK\1\2":
            raise ValueError("its list of parts is damaged")
        if method != 0 or packed != length:
            raise ValueError("it is compressed, and could be of any size")
        name = directory[place + 46 :][: lengths[0]].decode()
        yield name.partition("/")[2], Part(header, length, checksum)
        place += 46 + sum(lengths)


class Builder:
    """A machine that carries out the instructions of a pickle, which work on a stack, if they make
    None, numbers, texts, lists, tuples, dicts, or tensors of the archive."""

    def __init__(self, archive: Archive):
        order = archive.read("byteorder", 10).decode()
        if order != sys.byteorder:
            raise ValueError(f"its numbers are {order} endian")
        self.archive = archive
        self.storages: dict[str, Tensor] = {}  # the tensors may share their bytes
        self.tensors = 0

    def build(self, pickled: bytes) -> Any:
        """The object. Raises Refused for an instruction that no checkpoint needs."""
        stack: list[Any] = []
        marks: list[int] = []  # heights of the stack
        memo: dict[int, Any] = {}
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
                    raise Refused(f"it names {argument.replace(' ', '.')}")
                stack.append(argument)
            elif name in TAKES:
                height = marks.pop() if TAKES[name] is None else len(stack) - TAKES[name]
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
        """The tensor of this size and stride in the storage (n,). Raises ValueError unless it lies
        in there, with a place for each of its numbers."""
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
    """Set keys and values in turn. Keys are texts, or numbers of parameters: others can take very
    long to look up."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not (isinstance(key, str) or (isinstance(key, int) and 0 <= key < 1 << 31)):
            raise Refused(f"it has a {type(key).__name__} as a key")
        mapping[key] = value


def _set_metadata(mapping: OrderedDict, attributes: dict[str, Any]) -> None:
    """Set the versions of the modules that a state_dict is of."""
    metadata = attributes["_metadata"]
    if not all(isinstance(each, dict) for each in metadata.values()):
        raise ValueError("its metadata are none")
    mapping._metadata = metadata
