"""Bodies of every columnar form, sound ones, and the same with some bytes changed.

As a program it reads changed ones for a while: `python -m tests.service.protocols.columnar.bodies SEED SECONDS`. It is
a process of its own, so that a crash of a library is seen, and so that what it may take is limited.
"""

from __future__ import annotations

import io
import random
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from service.core.errors import RequestError
from service.core.signature import Column, Container
from service.protocols.columnar.formats import BY_TYPE
from tests.service.protocols.fake_server import signature_of

STREAM: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
CSV: Final = "text/csv"
LINES: Final = "application/x-ndjson"
NPY: Final = "application/x-npy"

# The limit on what a body may unpack to, and on the memory of the process that reads changed ones.
MAX_BYTES: Final = 1024 * 1024
MEMORY_BYTES: Final = 3 * 1024**3

NUMBERS: Final = signature_of(
    *(Column(name=f"x{i}", dtype="float64", nullable=True) for i in range(3)), container=Container.ARRAY
)
MIXED: Final = signature_of(
    Column(name="count", dtype="int64", nullable=True),
    Column(name="word", dtype="string", nullable=True),
    Column(name="truth", dtype="bool", nullable=True),
    Column(name="at", dtype="datetime", nullable=True, timezone="UTC", pandas="datetime64[us, UTC]"),
    Column(name="size", dtype="float32", nullable=True),
)


def stream(table: Any, compression: str | None = None, rows: int | None = None) -> bytes:
    """An IPC stream, in batches of `rows`."""
    content = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(content, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=rows)
    return content.getvalue()


def parquet_file(table: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    parquet.write_table(table, content, **options)
    return content.getvalue()


def npy(array: Any) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def mixed_table(rows: int = 40) -> Any:
    """A row in five is missing in each column."""
    words = ["", "a", "a text longer than twelve bytes", None, "日本"]
    return pa.table(
        {
            "count": pa.array([None if i % 5 == 0 else i for i in range(rows)]),
            "word": pa.array([words[i % 5] for i in range(rows)]).dictionary_encode(),
            "truth": pa.array([None if i % 5 == 1 else i % 2 == 0 for i in range(rows)]),
            "at": pa.array([None if i % 5 == 2 else i * 10**9 for i in range(rows)], pa.timestamp("us", "UTC")),
            "size": pa.array([None if i % 5 == 3 else i / 4 for i in range(rows)], pa.float32()),
        }
    )


def sound_bodies() -> Iterator[tuple[str, Any, bytes]]:
    """(media type, signature, body); every one of them can be read."""
    mixed = mixed_table()
    plain = mixed.set_column(1, "word", mixed["word"].cast(pa.string()))
    views = mixed.set_column(1, "word", mixed["word"].cast(pa.string()).cast(pa.string_view()))
    numbers = pa.table({f"x{i}": np.arange(20.0) + i for i in range(3)})
    for table, signature in ((mixed, MIXED), (plain, MIXED), (views, MIXED), (numbers, NUMBERS)):
        for compression in (None, "zstd", "lz4"):
            yield STREAM, signature, stream(table, compression)
        yield STREAM, signature, stream(table, rows=7)
    for table, signature in ((mixed, MIXED), (plain, MIXED), (numbers, NUMBERS)):
        for options in (
            {}, {"compression": "zstd"}, {"compression": "none", "use_dictionary": False}, {"compression": "gzip"},
            {"data_page_version": "2.0"}, {"row_group_size": 7, "data_page_size": 64}, {"store_schema": False},
        ):  # fmt: skip
            if options.get("store_schema") is not False or signature is NUMBERS:
                yield PARQUET, signature, parquet_file(table, **options)
    yield CSV, MIXED, b"word,count,truth,at,size\na,1,true,2025-01-02T03:04:05Z,0.5\n,,,,\n"
    yield LINES, MIXED, b'{"word":"a","count":1}\n{"truth":true,"at":"2025-01-02T03:04:05Z","size":1e3}\n'
    yield LINES, NUMBERS, b"[1,2.5,null]\n[1e300,-0.0,9007199254740992]\n"
    yield NPY, NUMBERS, npy(np.arange(6.0).reshape(2, 3))
    yield NPY, NUMBERS, npy(np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)))
    fields = [("count", "<i8"), ("word", "<U5"), ("truth", "?"), ("at", "<M8[us]"), ("size", "<f4")]
    yield NPY, MIXED, npy(np.array([(1, "a", True, 5, 0.5), (2, "", False, 6, 1.5)], dtype=fields))


def changed(body: bytes, dice: random.Random) -> bytes:
    """`body` with a few of its bytes changed, left out, repeated or cut off."""
    content = bytearray(body)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 16))):
        if not content:
            break
        at = dice.randrange(len(content))
        match dice.randrange(7):
            case 0:
                content[at] ^= 1 << dice.randrange(8)
            case 1:
                content[at] = dice.choice((0, 1, 127, 128, 255))
            case 2:
                size = dice.choice((2, 4, 8))
                number = dice.choice((-1, 0, 1, 2**15, 2**31 - 1, 2**31, 2**62, -(2**31), len(body)))
                content[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
            case 3:
                del content[at : at + dice.randrange(1, 20)]
            case 4:
                content[at:at] = content[at : at + dice.randrange(1, 20)]
            case 5:
                other = dice.randrange(len(content))
                content[at : at + 8] = content[other : other + 8]
            case 6:
                if dice.randrange(4) == 0:
                    del content[at:]
    return bytes(content)


def main(seed: int, seconds: float) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    dice = random.Random(seed)
    bodies = list(sound_bodies())
    tried = refused = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        kind, signature, sound = dice.choice(bodies)
        body = changed(sound, dice)
        tried += 1
        try:
            BY_TYPE[kind].read(body, signature, {}, MAX_BYTES)
        except RequestError:
            refused += 1
        except BaseException:
            print(f"{kind} {body!r}", file=sys.stderr)
            raise
    print(tried, refused)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
