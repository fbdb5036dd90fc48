"""The zip archive of a checkpoint, read within bounds."""

import io
import struct
import zlib
from collections.abc import Iterator
from io import BufferedReader
from typing import NamedTuple

LARGEST = 1 << 28  # bytes of the file
DIRECTORY, PARTS = 1 << 20, 10_000  # bytes of the archive's list of parts, and how many
END = 22  # bytes of the record at the end of the file, which says where that list is
ENTRY = 46  # bytes of a part's entry in the list, before its name
HEADER = 30  # bytes of a part's header in the file, before its name


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

    def __init__(self, file: BufferedReader):
        self.file = file
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - END))
        end = file.read()
        if len(end) < END or end[:4] != b"PK\5\6":
            raise ValueError("it does not end as an archive of torch.save does")
        count, length, start = struct.unpack("<10xHLL2x", end)
        if count > PARTS or length > DIRECTORY:
            raise ValueError(f"it has more than {PARTS:,} parts, or very long names")
        file.seek(start)
        self.parts = dict(_parts(file.read(length), count))
        if sum(part.length for part in self.parts.values()) > size:
            raise ValueError("its parts overlap")

    def read(self, name: str, most: int = LARGEST) -> bytearray:
        """The part of that name.

        Raises ValueError if it is missing, has a wrong checksum, or more than `most` bytes.
        """
        part = self.parts.get(name)
        if part is None or part.length > most:
            raise ValueError(f"it has no {name} of at most {most:,} bytes")
        self.file.seek(part.header)
        lengths = struct.unpack("<26xHH", self.file.read(HEADER))
        self.file.seek(sum(lengths), io.SEEK_CUR)  # behind the name, and what fills up the header
        content = bytearray(part.length)
        if self.file.readinto(content) != len(content) or zlib.crc32(content) != part.checksum:
            raise ValueError(f"wrong checksum of {name}")
        return content


def _parts(directory: bytes, count: int) -> Iterator[tuple[str, Part]]:
    """The parts by their names, without the folder that all of them are in."""
    start = 0
    for _ in range(count):
        fields = struct.unpack_from("<4s6xHxxxxLLLHHHxxxxxxxxL", directory, start)
        signature, method, checksum, packed, length, *lengths, header = fields
        if signature != b"PK\1\2":
            raise ValueError("its list of parts is damaged")
        if method != 0 or packed != length:
            raise ValueError("it is compressed, and could be of any size")
        name = directory[start + ENTRY :][: lengths[0]].decode()
        yield name.partition("/")[2], Part(header, length, checksum)
        start += ENTRY + sum(lengths)
