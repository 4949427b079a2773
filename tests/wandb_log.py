"""Reads what an offline W&B run left, without a server: protocol buffers in 32 KiB blocks (LevelDB's log format)."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32 * 1024
HEADER = struct.Struct("<IHB")  # checksum, length, 1 whole | 2 first | 3 middle | 4 last
FILE_HEADER = 7


def read_records(path: Path) -> Iterator[Any]:
    """wandb's Record messages, in the order they were written."""
    from wandb.proto import wandb_internal_pb2

    data, position, message = path.read_bytes(), FILE_HEADER, b""
    while position + HEADER.size <= len(data):
        left = BLOCK - position % BLOCK
        if left < HEADER.size:
            position += left
            continue
        _, length, kind = HEADER.unpack_from(data, position)
        position += HEADER.size
        if kind == 0:
            return
        message += data[position : position + length]
        position += length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            message = b""
            yield record
