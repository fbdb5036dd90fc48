"""The cost of a JPEG, read from its segments before it is decoded."""

import re
from typing import BinaryIO

from src.errors import UserError

# An ordinary progressive JPEG has 10 scans. Each costs up to 0.9 s at 100 megapixels.
SCANS = 64
SEGMENTS = 1000  # a segment has up to 64 KiB; Pillow copies all EXIF before each one
START, SCAN, END = b"\xff\xd8\xff", b"\xda", b"\xd9"
ARITHMETIC = {bytes([code]) for code in range(0xC9, 0xD0)}  # SOF9 to SOF15, and DAC
# Marker of a segment, or of the end. Other bytes after FF belong to the code of a scan.
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")


def scans(file: BinaryIO) -> list[int]:
    """Number of components in each scan of a JPEG file; none of any other file.

    Segments are skipped by their length, so a thumbnail in one of them does not count; nor does
    anything after the end. Raises UserError if there are more than SCANS or SEGMENTS, or if the
    code is arithmetic, which is slow and rare.
    """
    file.seek(0)
    if file.read(len(START)) != START:
        return []
    file.seek(0)
    content, place, found = file.read(), 2, []
    for _ in range(SEGMENTS):
        marker = MARKER.search(content, place)
        if marker is None or marker[1] == END:
            break
        if marker[1] in ARITHMETIC:
            raise UserError("it is a JPEG in arithmetic code; save it anew")
        start = marker.end()
        if marker[1] == SCAN:
            found += content[start + 2 : start + 3]
        place = start + int.from_bytes(content[start : start + 2], "big")
    else:
        raise UserError(f"it is a JPEG of more than {SEGMENTS:,} segments; save it anew")
    if len(found) > SCANS:
        raise UserError(
            f"it is a JPEG of {len(found)} scans, but may have at most {SCANS}; save it anew"
        )
    return found
