"""The files that W&B writes without a server, read back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK, HEAD = 7, 32_768, 7  # bytes: of the file, of its blocks, and before each part
WHOLE, LAST = 1, 4  # kinds of a part that ends a record


def history_of(folder: Path, identity: str) -> list[dict[str, Any]]:
    """The rows of a run in the folder wandb/, the earliest first, by the names of their values."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for path in sorted(folder.glob(f"offline-run-*-{identity}/run-*.wandb")):
        for content in records(path.read_bytes()):
            record = Record()
            record.ParseFromString(content)
            if record.WhichOneof("record_type") != "history":
                continue
            row = {}
            for item in record.history.item:
                row[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            rows.append(row)
    return rows


def records(content: bytes) -> Iterator[bytes]:
    """The records of a file, in the format of LevelDB's log.

    A part of a record has a head: a checksum (4 bytes), its length (2) and its kind (1). A record
    that a kill has cut off is left out.
    """
    position, record = HEADER, b""
    while position + HEAD <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEAD:  # the rest of a block is empty
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        part = content[position + HEAD : position + HEAD + length]
        position += HEAD + length
        if kind == 0 or len(part) < length:
            return
        record += part
        if kind in (WHOLE, LAST):
            yield record
            record = b""
